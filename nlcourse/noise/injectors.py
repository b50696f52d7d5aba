"""Wrong labels made on purpose: transition matrices, injectors, and images without content.

A transition matrix says how labels go wrong: entry (i, j) is the probability that an example whose
true class is i is given the label j. Row = true class, everywhere in this package. Explained in
lessons 00 and 01.

Sources, and which is followed where they disagree:

* symmetric: "rate" means two things. Co-teaching, Forward correction and CDR never redraw the true
  class (exclusive, our default); Zhang et al., Tanaka et al., ELR and DivideMix redraw from all
  classes (inclusive, ``include_true=True``).
* asymmetric: the maps of Patrini et al. 2017 (Fashion-MNIST: Xia et al. 2021). Labels are always
  drawn from the *true* labels. The published code of ELR, CDR and APL edits one array class after
  class, so that a cat that has just become a dog can be turned back; their "40 %" holds fewer wrong
  labels than the one here.
* counts: each label is drawn on its own, so a realised rate scatters around `rate`. Tanaka et al.,
  SCE and others flip an exact number.
* instance-dependent: Xia et al. 2020 (arXiv 2006.07836), Algorithm 2, as their code runs it (pixels
  from 0 to 255).
* images without content: Zhang et al. 2017 (arXiv 1611.03530), section 2.
"""

from __future__ import annotations

import math
import warnings
from numbers import Real

import torch
from torch import Tensor

AS_IT_IS = "none"  # no noise of ours: the labels that a data set has
KINDS = ("symmetric", "symmetric-including-true", "pairflip", "asymmetric", "instance")

# The maps of the papers: true class -> wrong class. Classes that are not listed keep their labels.
_MNIST_MAP = {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}
_FASHION_MAP = {0: 6, 2: 4, 5: 7, 7: 5}  # T-shirt -> shirt, pullover -> coat, sandal <-> sneaker
# truck -> automobile, bird -> airplane, cat <-> dog, deer -> horse
_CIFAR10_MAP = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
# each class -> the next in its block of five
_CIFAR100_MAP = {i: i + 1 if i % 5 < 4 else i - 4 for i in range(100)}
_ASYMMETRIC = {
    "mnist": (10, _MNIST_MAP),
    "digits": (10, _MNIST_MAP),
    "fashion-mnist": (10, _FASHION_MAP),
    "cifar10": (10, _CIFAR10_MAP),
    "cifar10n": (10, _CIFAR10_MAP),
    "cifar100": (100, _CIFAR100_MAP),
    "cifar100n": (100, _CIFAR100_MAP),
}

ROW_SUM_TOLERANCE = 1e-5  # a float32 matrix of 100 classes still passes, a forgotten class does not
INSTANCE_STD = 0.1  # spread of the flip rates in Xia et al. 2020
_CHUNK = 4096  # images permuted at a time: the sort keys of 50,000 would take half a gigabyte


# ---------------------------------------------------------------- matrices


def symmetric_matrix(num_classes: int, rate: float, include_true: bool = False) -> Tensor:
    """Every wrong class is equally likely.

    ``T[i, j] = rate / (C - 1)`` and ``T[i, i] = 1 - rate``; with `include_true` a share `rate` of
    the labels is redrawn from all C classes: ``T[i, j] = rate / C`` and ``T[i, i] = 1 - rate + rate
    / C``, so that only ``rate * (C - 1) / C`` of the labels end up wrong.

    Args:
        num_classes: C, at least 2.
        rate: in [0, 1]; the share of wrong labels, or of redrawn labels with `include_true`.
        include_true: may a redrawn label be the true one?

    Returns:
        float64 ``(C, C)``, row = true class, rows sum to 1.

    Raises:
        ValueError: for a rate outside [0, 1] or fewer than two classes.

    Example:
        >>> symmetric_matrix(5, 0.4)[0]
        tensor([0.6000, 0.1000, 0.1000, 0.1000, 0.1000], dtype=torch.float64)
    """
    _check_rate(rate)
    _check_num_classes(num_classes)
    share = rate / (num_classes if include_true else num_classes - 1)
    stays = 1 - rate + share if include_true else 1 - rate
    matrix = torch.full((num_classes, num_classes), share, dtype=torch.float64)
    return matrix.fill_diagonal_(stays)


def pairflip_matrix(num_classes: int, rate: float) -> Tensor:
    """Class i is mistaken for class i + 1 (the last for the first) with probability `rate`.

    From 0.5 on, most labels of a class name its neighbour and nothing in the data says which of the
    two is meant; the papers stop at 0.45 (Han et al. 2018).

    Args:
        num_classes: C, at least 2.
        rate: in [0, 1].

    Returns:
        float64 ``(C, C)``, row = true class.

    Raises:
        ValueError: for a rate outside [0, 1] or fewer than two classes.
    """
    _check_num_classes(num_classes)
    return _mapped_matrix(num_classes, {i: (i + 1) % num_classes for i in range(num_classes)}, rate)


def asymmetric_matrix(dataset: str, rate: float) -> Tensor:
    """Classes are mistaken for one that looks like them: the papers' maps.

    * ``"mnist"`` (and ``"digits"``): 7 -> 1, 2 -> 7, 5 <-> 6, 3 -> 8 (Patrini et al. 2017).
    * ``"fashion-mnist"``: T-shirt -> shirt, pullover -> coat, sandal <-> sneaker (Xia et al. 2021).
    * ``"cifar10"``: truck -> automobile, bird -> airplane, cat <-> dog, deer -> horse (Patrini et
      al. 2017).
    * ``"cifar100"``: i -> the next class in its block of five consecutive class ids, round each
      block. These are *not* the real superclasses of CIFAR-100: the ids are alphabetical (apple,
      aquarium fish, baby, bear, beaver), but the published code groups them so, and so do the
      numbers in the papers.

    ``"cifar10n"`` and ``"cifar100n"`` have the classes of CIFAR and use its maps.

    Args:
        dataset: one of the names above.
        rate: in [0, 1], of each mapped class. Over all classes it is less: half of it on balanced
            CIFAR-10.

    Returns:
        float64 ``(C, C)``, row = true class.

    Raises:
        ValueError: for a rate outside [0, 1] or a data set without a map.
    """
    if dataset not in _ASYMMETRIC:
        raise ValueError(
            f"Expected `dataset` with an asymmetric map, one of {', '.join(_ASYMMETRIC)}, got "
            f"{dataset!r}: which classes look alike depends on the data; for others build a matrix "
            "and call `corrupt`"
        )
    num_classes, targets = _ASYMMETRIC[dataset]
    return _mapped_matrix(num_classes, targets, rate)


def observed_matrix(labels: Tensor, true_labels: Tensor, num_classes: int) -> Tensor:
    """Count how the labels went wrong: the share of each true class that was given each label.

    Args:
        labels: int64 ``(n,)``, the given labels.
        true_labels: int64 ``(n,)``.
        num_classes: C.

    Returns:
        float64 ``(C, C)``, row = true class; the row of a class without examples is nan.

    Raises:
        TypeError: for labels that are no whole numbers.
        ValueError: for labels out of range or of different lengths.
    """
    _check_num_classes(num_classes)
    labels = _checked_labels(labels, num_classes)
    true_labels = _checked_labels(true_labels, num_classes, "true_labels")
    if len(labels) != len(true_labels):
        raise ValueError(
            f"Expected as many `labels` as `true_labels`, got {len(labels)} and {len(true_labels)}"
        )
    cells = true_labels.cpu() * num_classes + labels.cpu()
    counts = cells.bincount(minlength=num_classes**2).view(num_classes, num_classes)
    return counts / counts.sum(dim=1, keepdim=True).double()


# ---------------------------------------------------------------- injectors


def corrupt(labels: Tensor, matrix: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a given label for each true label from its row of the matrix.

    The numbers are drawn on the generator's device (the CPU without one), so that a CPU generator
    gives the same labels wherever the true labels live.

    Args:
        labels: true labels, int64 ``(n,)``.
        matrix: transition matrix, float ``(C, C)``, row = true class.
        generator: source of the draws; torch's global one when left out.

    Returns:
        Given labels, int64 ``(n,)``, on the device of `labels`; the input is left as it is.

    Raises:
        TypeError: for labels that are no whole numbers.
        ValueError: for labels out of range and matrices that are no transition matrices.
    """
    device = _drawing_device(generator)
    matrix = check_transition(matrix).to(device)
    true_labels = _checked_labels(labels, len(matrix)).to(device)
    return _draw(matrix[true_labels], generator).to(labels.device)


def instance_dependent(
    images: Tensor,
    labels: Tensor,
    rate: float,
    num_classes: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Noise that depends on the image (Xia et al. 2020, Algorithm 2).

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
    mean of the rates: 0.2 becomes 0.2055. A rate of 0 is taken at its word here (no noise), where
    the algorithm would still flip some labels.

    Args:
        images: ``(n, ...)`` as loaded: uint8 from 0 to 255, or float from 0 to 1 (multiplied by 255
            here).
        labels: true labels, int64 ``(n,)``.
        rate: mean flip rate, in [0, 1].
        num_classes: C.
        generator: source of the draws; torch's global one when left out.

    Returns:
        Given labels, int64 ``(n,)``, on the device of `labels`.

    Raises:
        TypeError: for labels that are no whole numbers, images that are no tensor.
        ValueError: for a bad rate, labels out of range, one label too many or too few, images with
            nan or inf.
    """
    _check_rate(rate)
    _check_num_classes(num_classes)
    true_labels = _checked_labels(labels, num_classes)
    pixels = _pixels(images, len(true_labels))
    if rate == 0:
        return true_labels.clone()
    device = _drawing_device(generator)
    rows = _instance_rows(pixels.to(device), true_labels.to(device), rate, num_classes, generator)
    return _draw(rows, generator).to(labels.device)


def inject(dataset, kind: str, rate: float, *, seed: int = 0):
    """Give a data set wrong labels, drawn from its true labels.

    Args:
        dataset: a :class:`nlcourse.datasets.Dataset`; labels that it was given before do not
            matter.
        kind: one of :data:`KINDS`.
        rate: in [0, 1]; what it is the rate of, the function of that kind says.
        seed: the same seed draws the same labels.

    Returns:
        The data set with new `labels`; `true_labels` and images stay.

    Raises:
        ValueError: for an unknown kind, a bad rate, or an asymmetric map that the data set does not
        have.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected `kind` to be one of {', '.join(KINDS)}, got {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    true_labels, num_classes = dataset.true_labels, dataset.num_classes
    if kind == "instance":
        labels = instance_dependent(dataset.images, true_labels, rate, num_classes, generator)
        return dataset.with_labels(labels)
    matrix = transition_matrix(dataset, kind, rate)
    return dataset.with_labels(corrupt(true_labels, matrix, generator))


def transition_matrix(dataset, kind: str, rate: float) -> Tensor:
    """Return the matrix that :func:`inject` draws labels with.

    Args:
        dataset: its name says which classes are mistaken for each other.
        kind: one of :data:`KINDS` but "instance", behind which there is no one matrix.
        rate: in [0, 1]; what it is the rate of, the function of that kind says.

    Returns:
        float64 ``(C, C)``, row = true class.

    Raises:
        ValueError: for another kind, a bad rate, or an asymmetric map that the data set does not
        have.
    """
    if kind == "pairflip":
        return pairflip_matrix(dataset.num_classes, rate)
    if kind == "asymmetric":
        return asymmetric_matrix(dataset.name, rate)
    if kind in ("symmetric", "symmetric-including-true"):
        including = kind.endswith("including-true")
        return symmetric_matrix(dataset.num_classes, rate, include_true=including)
    raise ValueError(
        "Expected a `kind` that one matrix makes (symmetric, symmetric-including-true, pairflip, "
        f"asymmetric), got {kind!r}"
    )


# ---------------------------------------------------------------- images without content


def shuffle_pixels(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Move the pixels of every image by one and the same random permutation.

    The channels of a pixel stay together. Give training and test images in one call, or two
    generators of the same seed, to move both alike.

    Args:
        images: ``(n, channels, height, width)``.
        generator: source of the permutation; torch's global one when left out.

    Returns:
        Images of the same shape, dtype and device.
    """
    flat = _flat_pixels(images)
    order = torch.randperm(flat.shape[-1], generator=generator, device=_drawing_device(generator))
    return flat[..., order.to(images.device)].view_as(images)


def random_pixels(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Move the pixels of every image by a random permutation of its own.

    Args:
        images: ``(n, channels, height, width)``; the channels of a pixel stay together.
        generator: source of the permutations; torch's global one when left out.

    Returns:
        Images of the same shape, dtype and device.
    """
    device = _drawing_device(generator)
    moved = []
    for part in _flat_pixels(images).split(_CHUNK):
        keys = torch.rand(len(part), part.shape[-1], generator=generator, device=device)
        order = keys.argsort(dim=1).to(images.device)
        moved.append(part.gather(2, order[:, None].expand_as(part)))
    return torch.cat(moved).view_as(images)


def gaussian_images(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Replace the images by normal noise of the data's mean and deviation, channel by channel.

    The noise is not cut at black and white, so that its deviation stays that of the data; some
    values lie outside 0..1.

    Args:
        images: ``(n, channels, height, width)``, uint8 from 0 to 255 or float from 0 to 1.
        generator: source of the noise; torch's global one when left out.

    Returns:
        float32 images of the same shape on the 0..1 scale, on the same device.
    """
    _flat_pixels(images)
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    noise = torch.randn(images.shape, generator=generator, device=_drawing_device(generator))
    noise = noise.to(images.device)
    for channel in range(images.shape[1]):
        values = images[:, channel].double() / scale
        mean, std = values.mean(), values.std(correction=0)
        noise[:, channel].mul_(std).add_(mean)
    return noise


# ---------------------------------------------------------------- checks at the border


def check_transition(matrix: Tensor, num_classes: int | None = None) -> Tensor:
    """Return a transition matrix as float64, or say why it is none.

    Args:
        matrix: ``(C, C)`` tensor, row = true class.
        num_classes: C, when it is known.

    Raises:
        TypeError: when it is no tensor of floats.
        ValueError: when it is not square, of the wrong size, has entries that are no
            probabilities, or rows that do not sum to 1.
    """
    if not isinstance(matrix, Tensor) or not matrix.is_floating_point():
        got = matrix.dtype if isinstance(matrix, Tensor) else type(matrix).__name__
        raise TypeError(f"Expected `matrix` as a tensor of floats, got {got}")
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            "Expected `matrix` to be square, a row and a column for each class, got "
            f"{tuple(matrix.shape)}"
        )
    if num_classes is not None and len(matrix) != num_classes:
        raise ValueError(
            f"Expected `matrix` with {num_classes} rows, one for each class, got {len(matrix)}"
        )
    # To the CPU: the check needs the numbers anyway, and MPS has no float64.
    matrix = matrix.detach().cpu().double()
    if not (matrix >= 0).all():  # nan fails here too
        raise ValueError(
            "Expected `matrix` of probabilities, got a negative entry or nan "
            f"(smallest {matrix.min().item():.6g})"
        )
    _check_row_sums(matrix)
    return matrix


def _check_row_sums(matrix: Tensor) -> None:
    sums = matrix.sum(dim=1)
    bad = ~((sums - 1).abs() <= ROW_SUM_TOLERANCE)
    if bad.any():
        row = int(bad.nonzero()[0])
        columns_fit = ((matrix.sum(dim=0) - 1).abs() <= ROW_SUM_TOLERANCE).all()
        hint = "; its columns do: transpose it, row = true class" if columns_fit else ""
        raise ValueError(
            f"Expected the rows of `matrix` to sum to 1, got {sums[row].item():.6g} in row "
            f"{row}{hint}"
        )


def _check_rate(rate: float) -> None:
    if not isinstance(rate, Real):
        raise TypeError(f"Expected `rate` as a number in [0, 1], got {type(rate).__name__}")
    if not 0 <= rate <= 1:
        percent = 1 < rate <= 100
        hint = f"; for {rate:g} % give {rate / 100:g}" if percent else ""
        raise ValueError(
            f"Expected `rate` in [0, 1], got {rate:g}: it is the share of labels to change{hint}"
        )


def _check_num_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(
            f"Expected `num_classes` of at least 2, got {num_classes}: a label needs another class "
            "to be mistaken for"
        )


def _checked_labels(labels: Tensor, num_classes: int, name: str = "labels") -> Tensor:
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"Expected `{name}` as a torch tensor, got {type(labels).__name__}: convert them with "
            "torch.as_tensor"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(
            f"Expected `{name}` as whole numbers (int64), got {labels.dtype}: labels are class "
            "ids; convert them with .long()"
        )
    if labels.dim() != 1:
        raise ValueError(
            f"Expected `{name}` of shape (n,), got {tuple(labels.shape)}: one class id an example, "
            "not one-hot rows"
        )
    labels = labels.long()
    if len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"Expected `{name}` from 0 to {num_classes - 1} ({num_classes} classes), got "
                f"{low} to {high}: class ids count from 0"
            )
    return labels


def _flat_pixels(images: Tensor) -> Tensor:
    """Return images ``(n, channels, height, width)`` as ``(n, channels, height * width)``."""
    if not isinstance(images, Tensor) or images.dim() != 4 or not len(images):
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"Expected `images` as a tensor of shape (n, channels, height, width), got {got}"
        )
    return images.flatten(2)


def _pixels(images: Tensor, size: int) -> Tensor:
    """Return images as float32 rows on the scale from 0 to 255."""
    if not isinstance(images, Tensor):
        raise TypeError(f"Expected `images` as a torch tensor, got {type(images).__name__}")
    if images.dim() < 2 or len(images) != size:
        raise ValueError(
            "Expected `images` of shape (n, ...) with one label an image, got "
            f"{tuple(images.shape)} and {size} labels"
        )
    flat = images.flatten(1)
    if not images.is_floating_point():
        return flat.float()
    if not flat.isfinite().all():
        raise ValueError("Expected finite `images`, got nan or inf")
    if flat.numel() and (flat.min() < 0 or flat.max() > 1):
        warnings.warn(
            f"Float `images` count from 0 to 1, but these go from {flat.min():.3g} to "
            f"{flat.max():.3g}: give them as loaded, before normalisation, for the paper's noise",
            stacklevel=3,
        )
    return flat.float() * 255


# ---------------------------------------------------------------- draws


def _drawing_device(generator: torch.Generator | None) -> torch.device:
    # Without one, the CPU's global generator: torch.manual_seed gives the same labels everywhere.
    return torch.device("cpu") if generator is None else generator.device


def _draw(rows: Tensor, generator: torch.Generator | None) -> Tensor:
    if not len(rows):
        return torch.empty(0, dtype=torch.int64, device=rows.device)
    return torch.multinomial(rows, 1, generator=generator).squeeze(1)


def _mapped_matrix(num_classes: int, targets: dict[int, int], rate: float) -> Tensor:
    _check_rate(rate)
    matrix = torch.eye(num_classes, dtype=torch.float64)
    for true_class, wrong_class in targets.items():
        matrix[true_class, true_class] = 1 - rate
        matrix[true_class, wrong_class] = rate
    return matrix


def _instance_rows(
    pixels: Tensor,
    true_labels: Tensor,
    rate: float,
    num_classes: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Return the rows P_i of Algorithm 2, float64 ``(n, C)``."""
    flip = torch.empty(len(pixels), 1, dtype=torch.float64, device=pixels.device)
    torch.nn.init.trunc_normal_(flip, rate, INSTANCE_STD, 0.0, 1.0, generator=generator)
    scores = torch.empty(len(pixels), num_classes, device=pixels.device)
    shape = (pixels.shape[1], num_classes)
    for c in range(num_classes):
        # Drawn even for a class without images: no class's W depends on which others are there.
        w = torch.randn(shape, generator=generator, device=pixels.device)
        members = true_labels == c
        scores[members] = pixels[members] @ w
    true_column = true_labels[:, None]
    scores.scatter_(1, true_column, -math.inf)
    rows = flip * scores.double().softmax(dim=1)
    return rows.scatter_(1, true_column, 1 - flip)
