"""Transition matrices: how labels go wrong. Explained in lessons 00 and 03.

Entry (i, j) is the probability that an example whose true class is i is given the label j. Row =
true class, everywhere in this package; float64 ``(C, C)``. Where papers and codes mean different
things by the same words: docs/deviations.md.
"""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from ..base import EXACT, expect, expect_floats, expect_labels, expect_rows

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


def symmetric_matrix(num_classes: int, rate: float, include_true: bool = False) -> Tensor:
    """Every wrong class is equally likely.

    ``T[i, j] = rate / (C - 1)`` and ``T[i, i] = 1 - rate``; with `include_true` a share `rate` of
    the labels is redrawn from all C classes: ``T[i, j] = rate / C`` and ``T[i, i] = 1 - rate + rate
    / C``, so that only ``rate * (C - 1) / C`` of the labels end up wrong.

    Args:
        num_classes: C, at least 2.
        rate: in [0, 1]; the share of wrong labels, or of redrawn labels with `include_true`.
        include_true: may a redrawn label be the true one?

    >>> symmetric_matrix(5, 0.4)[0]
    tensor([0.6000, 0.1000, 0.1000, 0.1000, 0.1000], dtype=torch.float64)
    """
    expect_rate(rate)
    expect_classes(num_classes)
    share = rate / (num_classes if include_true else num_classes - 1)
    stays = 1 - rate + share if include_true else 1 - rate
    matrix = torch.full((num_classes, num_classes), share, dtype=torch.float64)
    return matrix.fill_diagonal_(stays)


def pairflip_matrix(num_classes: int, rate: float) -> Tensor:
    """Class i is mistaken for class i + 1 (the last for the first) with probability `rate`.

    From 0.5 on, most labels of a class name its neighbour and nothing in the data says which of the
    two is meant; the papers stop at 0.45 (Han et al. 2018).
    """
    expect_classes(num_classes)
    return _mapped_matrix(num_classes, {i: (i + 1) % num_classes for i in range(num_classes)}, rate)


def asymmetric_matrix(dataset: str, rate: float) -> Tensor:
    """Classes are mistaken for one that looks like them: the papers' maps.

    * ``"mnist"`` (and ``"digits"``): 7 -> 1, 2 -> 7, 5 <-> 6, 3 -> 8 (Patrini et al. 2017).
    * ``"fashion-mnist"``: T-shirt -> shirt, pullover -> coat, sandal <-> sneaker (Xia et al. 2021).
    * ``"cifar10"``, ``"cifar10n"``: truck -> automobile, bird -> airplane, cat <-> dog, deer ->
      horse (Patrini et al. 2017).
    * ``"cifar100"``, ``"cifar100n"``: i -> the next class in its block of five consecutive class
      ids, round each block. These are *not* the real superclasses of CIFAR-100: the ids are
      alphabetical (apple, aquarium fish, baby, bear, beaver), but the published code groups them
      so, and so do the numbers in the papers.

    Args:
        dataset: one of the names above.
        rate: in [0, 1], of each mapped class. Over all classes it is less: half of it on balanced
            CIFAR-10.
    """
    known = f"`dataset` out of {', '.join(_ASYMMETRIC)}"
    expect(dataset in _ASYMMETRIC, known, repr(dataset), "build a matrix and call `corrupt`")
    num_classes, targets = _ASYMMETRIC[dataset]
    return _mapped_matrix(num_classes, targets, rate)


def _mapped_matrix(num_classes: int, targets: dict[int, int], rate: float) -> Tensor:
    expect_rate(rate)
    matrix = torch.eye(num_classes, dtype=torch.float64)
    for true_class, wrong_class in targets.items():
        matrix[true_class, true_class] = 1 - rate
        matrix[true_class, wrong_class] = rate
    return matrix


def observed_matrix(labels: Tensor, true_labels: Tensor, num_classes: int) -> Tensor:
    """Count how the labels went wrong: the share of each true class that was given each label.

    Both are int64 ``(n,)``. The row of a class without examples is nan.
    """
    expect_classes(num_classes)
    expect_labels("true_labels", true_labels, num_classes)
    expect_labels("labels", labels, num_classes, len(true_labels))
    cells = true_labels.cpu() * num_classes + labels.cpu()
    counts = cells.bincount(minlength=num_classes**2).view(num_classes, num_classes)
    return counts / counts.sum(dim=1, keepdim=True).double()


# Checks -----------------------------------------------------------------------------------------


def check_transition(matrix: Tensor, num_classes: int | None = None) -> Tensor:
    """Return a transition matrix ``(C, C)`` as float64 on the CPU, or say why it is none."""
    expect_floats("matrix", matrix)
    size, shape = num_classes or len(matrix), tuple(matrix.shape)
    expect(shape == (size, size), f"a square `matrix` with {size} rows, one for each class", shape)
    # To the CPU: the check needs the numbers anyway, and MPS has no float64.
    matrix = matrix.detach().cpu().double()
    expect_rows("matrix", matrix, EXACT, "row = true class; is it transposed?")
    return matrix


def expect_rate(rate: float) -> None:
    """Refuse what is no share of labels, and say what a rate in percent should have been."""
    if not isinstance(rate, Real):
        raise TypeError(f"Expected `rate` as a number in [0, 1], got {type(rate).__name__}")
    hint = f"; for {rate:g} % give {rate / 100:g}" if 1 < rate <= 100 else ""
    expect(0 <= rate <= 1, "`rate` in [0, 1]", rate, f"it is the share of labels to change{hint}")


def expect_classes(num_classes: int) -> None:
    """Refuse fewer than two classes: a label needs another class to be mistaken for."""
    expect(num_classes >= 2, "`num_classes` of at least 2", num_classes, "a label needs another")
