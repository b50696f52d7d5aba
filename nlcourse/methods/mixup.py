"""mixup: train between the images, with labels between the labels. Explained in lesson 06.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412). One share for a
batch, partners from the same batch, as in their code.

The paper takes the share ``l ~ Beta(alpha, alpha)`` as it comes. Here it is folded, ``l' = max(l,
1 - l)``, as ELR+, MixMatch and DivideMix do: the i-th mixed image then is mostly image i, which
matters to methods that keep something for each example. For mixup alone the two are the same: with
a random partner "0.3 of i and 0.7 of j" is as likely as "0.7 of j and 0.3 of i".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method

SUM_TOLERANCE = 1e-3  # float32 leaves 1e-6, bfloat16 more


def mix_pairs(images: Tensor, rows: Tensor, partner: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mix every example with its partner: ``l' x_i + (1 - l') x_j`` with ``l' = max(l, 1 - l)``.

    Args:
        images: float ``(n, ...)``.
        rows: float ``(n, C)``, labels as rows that sum to 1.
        partner: int64 ``(n,)``, for each example the position of the other one.
        share: l, in [0, 1].

    Returns:
        The mixed images and the mixed rows, in the shapes of the inputs.
    """
    share = max(share, 1 - share)
    mixed_images = share * images + (1 - share) * images[partner]
    mixed_rows = share * rows + (1 - share) * rows[partner]
    return mixed_images, mixed_rows


def mixup(
    images: Tensor,
    labels: Tensor,
    alpha: float,
    generator: torch.Generator | None = None,
    *,
    num_classes: int | None = None,
    mix: Callable[..., tuple[Tensor, Tensor]] = mix_pairs,
) -> tuple[Tensor, Tensor]:
    """Mix a batch with a shuffled copy of itself.

    Args:
        images: float ``(n, ...)``.
        labels: class ids, int64 ``(n,)``, or rows that sum to 1, float ``(n, C)``.
        alpha: of ``Beta(alpha, alpha)``, from 0 (no mixing); the larger, the nearer to half and
            half.
        generator: where partners and share are drawn; best on the CPU, since on a GPU the share
            makes the processor wait. torch's global one of the CPU when left out.
        num_classes: C, for class ids. When left out it is the largest id of the batch and 1: give
            it wherever a batch may lack the last class.
        mix: the function that mixes; a student's own fits here.

    Returns:
        Mixed images, as `images`, and mixed label rows, float ``(n, C)``.

    Raises:
        TypeError: images that are no floats, labels that are neither ids nor rows.
        ValueError: sizes that do not fit, rows that do not sum to 1, or a bad alpha.

    >>> images, rows = mixup(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 1]), alpha=4.0)
    >>> images.shape, rows.shape
    (torch.Size([4, 1, 8, 8]), torch.Size([4, 3]))
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"Expected `images` as a tensor of floats, got {got}: pixels are averaged")
    rows = label_rows(labels, num_classes).to(images.device)
    if len(rows) != len(images):
        raise ValueError(f"Expected one label an image, got {len(images)} and {len(rows)}")
    share = draw_share(alpha, generator)
    device = generator.device if generator is not None else torch.device("cpu")
    partner = torch.randperm(len(images), generator=generator, device=device)
    return mix(images, rows.to(images.dtype), partner.to(images.device), share)


def draw_pairing(
    count: int, alpha: float, generator: torch.Generator | None, device: torch.device
) -> tuple[float, Tensor]:
    """Draw what a training step needs to mix its batch, without waiting for a GPU.

    The share is a number, so it is drawn on the processor: from `generator` where that lives there,
    else from torch's global one, which the training loop seeds. The partners are drawn on `device`.

    Args:
        count: n, examples in the batch.
        alpha: of ``Beta(alpha, alpha)``.
        generator: of the run, on `device`.
        device: of the images.

    Returns:
        The share of the first image, and the partners, int64 ``(n,)`` on `device`.
    """
    on_processor = generator is None or generator.device.type == "cpu"
    share = draw_share(alpha, generator if on_processor else None)
    return share, torch.randperm(count, generator=generator, device=device)


def draw_share(alpha: float, generator: torch.Generator | None = None) -> float:
    """Draw the share of the first of two images from ``Beta(alpha, alpha)``; 1 for alpha 0.

    Args:
        alpha: from 0.
        generator: torch's global one of the CPU when left out.

    Raises:
        ValueError: a negative or infinite alpha.
    """
    if not (alpha >= 0 and math.isfinite(alpha)):
        raise ValueError(f"Expected a finite `alpha` of at least 0, got {alpha}")
    if alpha == 0:
        return 1.0
    # torch's Beta takes no generator, so a seed from the generator goes to numpy's.
    device = generator.device if generator is not None else torch.device("cpu")
    seed = torch.randint(2**62, (), generator=generator, device=device).item()
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def label_rows(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Return labels as rows that sum to 1: class ids become one-hot rows, rows stay.

    Args:
        labels: int64 ``(n,)`` or float ``(n, C)``.
        num_classes: C, for class ids; the largest id and 1 when left out.

    Raises:
        TypeError: neither of the two.
        ValueError: rows that do not sum to 1 or are negative, ids outside 0..C-1, or rows of
        another number of classes.
    """
    if isinstance(labels, Tensor) and labels.dim() == 1 and labels.dtype == torch.int64:
        return _one_hot(labels, num_classes)
    if not (isinstance(labels, Tensor) and labels.dim() == 2 and labels.is_floating_point()):
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else labels
        raise TypeError(f"Expected `labels` as int64 (n,) or as rows, float (n, C), got {got}")
    if num_classes is not None and labels.shape[1] != num_classes:
        raise ValueError(f"Expected rows of {num_classes} classes, got {labels.shape[1]}")
    # On a GPU a look at the numbers would make the processor wait.
    if labels.device.type == "cpu" and not _are_probabilities(labels):
        raise ValueError("Expected rows of `labels` that sum to 1 and hold nothing negative")
    return labels


def _one_hot(labels: Tensor, num_classes: int | None) -> Tensor:
    if labels.device.type == "cpu" and len(labels):
        low, high = torch.aminmax(labels)
        if low < 0 or (num_classes is not None and high >= num_classes):
            known = "" if num_classes is None else f" to {num_classes - 1}"
            raise ValueError(f"Expected class ids from 0{known}, got {low} to {high}")
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if len(labels) else 1
    return F.one_hot(labels, num_classes).float()


def _are_probabilities(rows: Tensor) -> bool:
    fits = (rows.detach().sum(dim=1) - 1).abs() < SUM_TOLERANCE
    return bool((rows >= 0).all() and fits.all())


class Mixup(Method):
    """Cross entropy on mixed examples.

    Args:
        alpha: of ``Beta(alpha, alpha)``; 1 in the paper for clean labels, up to 32 for noisy ones.
        mix: the function that mixes; a student's own fits here.

    Raises:
        ValueError: a negative or infinite alpha.
    """

    def __init__(
        self, alpha: float = 1.0, *, mix: Callable[..., tuple[Tensor, Tensor]] = mix_pairs
    ) -> None:
        """Check alpha by drawing with it."""
        super().__init__()
        draw_share(alpha, torch.Generator())
        self.alpha, self.mix = alpha, mix

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the mixed batch with its mixed rows."""
        share, partner = draw_pairing(
            len(batch.labels), self.alpha, self.generator, batch.images.device
        )
        rows = F.one_hot(batch.labels, self.num_classes).float()
        images, rows = self.mix(batch.images, rows, partner, share)
        return F.cross_entropy(self.network(images), rows)
