"""Estimating the transition matrix from a network that was trained on the noisy labels.

A network that has learned the *noisy* posterior, and no label by heart, gives the row of class i
away where it is surest: an image that is i beyond doubt (an anchor point) gets given label j with
probability T[i, j]. Row = true class. Explained in lesson 03.

Source: Patrini et al. 2017 (arXiv 1609.03683), the estimator of Forward correction. We follow the
paper. Their Keras code has a trap: before it takes the surest of the rest, it writes 0 over the
scores above the 97th percentile, through a view, so in the array of predictions itself; the rows
of later classes are then read from changed numbers and need not sum to 1. It also prints the true
matrix where the estimate is meant. Nothing is changed in place here.
"""

from __future__ import annotations

import math

from torch import Tensor

from . import injectors as noise

PATRINI_QUANTILE = 0.97  # of the paper's outlier-robust variant (used but for CIFAR-100)
SUM_TOLERANCE = 1e-3  # float32 leaves 1e-6, bfloat16 more; logits miss it by far


def anchor_points(probabilities: Tensor, *, quantile: float = 1.0) -> Tensor:
    """Find for each class the example that the network is surest about.

    Args:
        probabilities: float ``(n, C)``, rows sum to 1.
        quantile: in (0, 1]. 1 takes the largest score of a class. 0.97 takes the example at that
            rank among the n scores: an image that was learned by heart has a large score, too,
            and sits on top.

    Returns:
        int64 ``(C,)``, positions; two classes may share an example.

    Raises:
        TypeError: when they are no tensor of floats.
        ValueError: for rows that are no probabilities, no examples, or a bad quantile.
    """
    probabilities = _checked(probabilities)
    if not 0 < quantile <= 1:
        raise ValueError(f"Expected `quantile` in (0, 1], got {quantile:g}: 1 is the largest score")
    rank = max(math.ceil(quantile * len(probabilities)), 1)
    return probabilities.kthvalue(rank, dim=0).indices


def estimate_transition(probabilities: Tensor, *, quantile: float = 1.0) -> Tensor:
    """Read the transition matrix off the predictions at the anchor points.

    ``T[i, j] = p(given label j | x_i)`` with ``x_i`` the anchor point of class i.

    Args:
        probabilities: float ``(n, C)``, the softmax of a network trained on the given labels; its
            images need no labels.
        quantile: as in :func:`anchor_points`; 0.97 is the paper's.

    Returns:
        float64 ``(C, C)``, row = true class, rows sum to 1, on the device of the input (float32
        where the device has no float64).

    Raises:
        TypeError: when they are no tensor of floats.
        ValueError: for rows that are no probabilities, no examples, or a bad quantile.

    Example:
        >>> p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
        >>> estimate_transition(p)
        tensor([[0.9000, 0.1000],
                [0.3000, 0.7000]], dtype=torch.float64)
    """
    rows = probabilities[anchor_points(probabilities, quantile=quantile)].detach()
    if rows.device.type != "mps":
        rows = rows.double()
    return rows / rows.sum(dim=1, keepdim=True)


def matrix_error(estimate: Tensor, true: Tensor) -> Tensor:
    """Total variation distance of each row from the true one: ``sum_j |A_ij - T_ij| / 2``.

    It is the share of a class's labels that the estimate puts into a wrong column: 0 is perfect,
    1 is the worst.

    Args:
        estimate: ``(C, C)``, row = true class.
        true: ``(C, C)``.

    Returns:
        float64 ``(C,)`` on the CPU; its mean is the error of the matrix.

    Raises:
        TypeError: when one is no tensor of floats.
        ValueError: when one is no transition matrix, or they differ in size.
    """
    true = noise.check_transition(true)
    estimate = noise.check_transition(estimate, num_classes=len(true))
    return (estimate - true).abs().sum(dim=1) / 2


def noise_rate(matrix: Tensor) -> float:
    """Share of wrong labels that a matrix stands for when all classes are equally common.

    Args:
        matrix: ``(C, C)``, row = true class.

    Returns:
        The mean of ``1 - T[i, i]``, in [0, 1].

    Raises:
        TypeError: for a matrix that is no tensor of floats.
        ValueError: when it is no transition matrix.
    """
    return (1 - noise.check_transition(matrix).diagonal()).mean().item()


def _checked(probabilities: Tensor) -> Tensor:
    if not isinstance(probabilities, Tensor) or not probabilities.is_floating_point():
        got = getattr(probabilities, "dtype", type(probabilities).__name__)
        raise TypeError(f"Expected `probabilities` as a tensor of floats, got {got}")
    if probabilities.dim() != 2 or not len(probabilities) or probabilities.shape[1] < 2:
        raise ValueError(
            "Expected `probabilities` of shape (n, C) with at least one example and two classes, "
            f"got {tuple(probabilities.shape)}"
        )
    sums = probabilities.detach().sum(dim=1)
    # Written with "not", so that nan fails here too.
    if not (probabilities >= 0).all() or not ((sums - 1).abs() < SUM_TOLERANCE).all():
        raise ValueError(
            "Expected rows of `probabilities` that sum to 1 and hold nothing negative: give the "
            "softmax of the logits, not the logits"
        )
    return probabilities
