"""Wrong labels made on purpose: by a matrix, or by what is on the image.

Explained in lessons 00, 01 and 03. Labels are always drawn from the *true* labels, each on its own,
so that a realised rate scatters around `rate`. Random numbers are drawn on the generator's device
(on the CPU, by torch's global generator, without one), so that a CPU generator gives the same
labels wherever the true ones live. Where papers and codes differ: docs/deviations.md.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from ..base import expect, expect_labels, expect_one_of
from ..datasets import Dataset
from .matrices import (
    asymmetric_matrix,
    check_transition,
    expect_classes,
    expect_rate,
    pairflip_matrix,
    symmetric_matrix,
)

AS_IT_IS = "none"  # no noise of ours: the labels that a data set has
KINDS = ("symmetric", "symmetric-including-true", "pairflip", "asymmetric", "instance")

INSTANCE_STD = 0.1  # spread of the flip rates in Xia et al. 2020


def drawing_device(generator: torch.Generator | None) -> torch.device:
    """Return where random numbers are drawn: on the CPU without a generator."""
    return torch.device("cpu") if generator is None else generator.device


def _draw(rows: Tensor, generator: torch.Generator | None) -> Tensor:
    if not len(rows):
        return torch.empty(0, dtype=torch.int64, device=rows.device)
    return torch.multinomial(rows, 1, generator=generator).squeeze(1)


def corrupt(labels: Tensor, matrix: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a given label for each true label from its row of the matrix.

    Args:
        labels: true labels, int64 ``(n,)``.
        matrix: transition matrix, float ``(C, C)``, row = true class.
        generator: source of the draws; torch's global one when left out.

    Returns:
        Given labels, int64 ``(n,)``, on the device of `labels`; the input is left as it is.
    """
    device = drawing_device(generator)
    matrix = check_transition(matrix).to(device)
    expect_labels("labels", labels, len(matrix))
    return _draw(matrix[labels.to(device)], generator).to(labels.device)


# Instance-dependent noise -----------------------------------------------------------------------


def instance_dependent(
    images: Tensor,
    labels: Tensor,
    rate: float,
    num_classes: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise that depends on the image (Xia et al. 2020, arXiv 2006.07836, Algorithm 2).

    1. Each image i gets its own flip rate ``q_i``, normal with mean `rate` and deviation 0.1, cut
       to [0, 1].
    2. Each class c gets one matrix ``W_c`` of standard normal numbers, ``(S, C)`` for images of S
       values.
    3. ``P_i = q_i * softmax(x_i W_c)`` with the true class left out, and ``P_i[true class] = 1 -
       q_i``.
    4. The given label is drawn from ``P_i``.

    Pixels count from 0 to 255, as in the authors' code. The softmax of such large numbers is all
    but one-hot: each image has one wrong label that it can get. Images of one class share most of
    their light, so that this label is often the same for many of them. Cutting to [0, 1] shifts the
    mean of the rates: 0.2 becomes 0.2055.

    Args:
        images: ``(n, ...)`` as loaded: uint8 from 0 to 255, or float from 0 to 1 (multiplied by 255
            here).
        labels: true labels, int64 ``(n,)``.
        rate: mean flip rate, in [0, 1]; 0 is taken at its word: no noise.
        num_classes: C.
        generator: source of the draws; torch's global one when left out.

    Returns:
        Given labels, int64 ``(n,)``, on the device of `labels`.
    """
    expect_rate(rate)
    expect_classes(num_classes)
    expect_labels("labels", labels, num_classes)
    pixels = _pixels(images, len(labels))
    if rate == 0:
        return labels.clone()
    device = drawing_device(generator)
    rows = _instance_rows(pixels.to(device), labels.to(device), rate, num_classes, generator)
    return _draw(rows, generator).to(labels.device)


def _instance_rows(
    pixels: Tensor, labels: Tensor, rate: float, num_classes: int, generator: torch.Generator | None
) -> Tensor:
    """Return the rows P_i of Algorithm 2, float64 ``(n, C)``."""
    flip = torch.empty(len(pixels), 1, dtype=torch.float64, device=pixels.device)
    torch.nn.init.trunc_normal_(flip, rate, INSTANCE_STD, 0.0, 1.0, generator=generator)
    scores = torch.empty(len(pixels), num_classes, device=pixels.device)
    shape = (pixels.shape[1], num_classes)
    for c in range(num_classes):
        # Drawn even for a class without images: no class's W depends on which others are there.
        w = torch.randn(shape, generator=generator, device=pixels.device)
        members = labels == c
        scores[members] = pixels[members] @ w
    scores.scatter_(1, labels[:, None], -math.inf)
    rows = flip * scores.double().softmax(dim=1)
    return rows.scatter_(1, labels[:, None], 1 - flip)


def _pixels(images: Tensor, size: int) -> Tensor:
    """Return images as float32 rows on the scale from 0 to 255."""
    if not isinstance(images, Tensor):
        raise TypeError(f"Expected `images` as a torch tensor, got {type(images).__name__}")
    fits = images.dim() >= 2 and len(images) == size
    got = f"{tuple(images.shape)} and {size} labels"
    expect(fits, "`images` of shape (n, ...) with one label an image", got)
    flat = images.flatten(1).float()
    if not images.is_floating_point():
        return flat
    expect(bool(flat.isfinite().all()), "finite `images`", "nan or inf")
    if flat.numel() and (flat.min() < 0 or flat.max() > 1):
        warnings.warn(
            f"Float `images` count from 0 to 1, but these go from {flat.min():.3g} to "
            f"{flat.max():.3g}: give them as loaded, before normalisation, for the paper's noise",
            stacklevel=3,
        )
    return flat * 255


# A whole data set -------------------------------------------------------------------------------


def inject(dataset: Dataset, kind: str, rate: float, *, seed: int = 0) -> Dataset:
    """Give a data set wrong labels, drawn from its true labels.

    Args:
        dataset: labels that it was given before do not matter.
        kind: one of :data:`KINDS`.
        rate: in [0, 1]; what it is the rate of, the function of that kind says.
        seed: the same seed draws the same labels.

    Returns:
        The data set with new `labels`; `true_labels` and images stay.
    """
    expect_one_of("kind", kind, KINDS)
    generator = torch.Generator().manual_seed(seed)
    true_labels, num_classes = dataset.true_labels, dataset.num_classes
    if kind == "instance":
        labels = instance_dependent(dataset.images, true_labels, rate, num_classes, generator)
    else:
        labels = corrupt(true_labels, transition_matrix(dataset, kind, rate), generator)
    return dataset.with_labels(labels)


def transition_matrix(dataset: Dataset, kind: str, rate: float) -> Tensor:
    """Return the matrix that :func:`inject` draws labels with, float64 ``(C, C)``.

    There is none behind "instance"; behind "asymmetric" is the one that the data set's name stands
    for.
    """
    num_classes = dataset.num_classes
    matrices = {
        "symmetric": lambda: symmetric_matrix(num_classes, rate),
        "symmetric-including-true": lambda: symmetric_matrix(num_classes, rate, include_true=True),
        "pairflip": lambda: pairflip_matrix(num_classes, rate),
        "asymmetric": lambda: asymmetric_matrix(dataset.name, rate),
    }
    known = f"a `kind` that one matrix makes ({', '.join(matrices)})"
    expect(kind in matrices, known, repr(kind))
    return matrices[kind]()
