"""Estimating the transition matrix from a network that was trained on the noisy labels.

A network that has learned the *noisy* posterior, and no label by heart, gives the row of class i
away where it is surest: an image that is i beyond doubt (an anchor point) gets given label j with
probability T[i, j]. Row = true class. Explained in lesson 03.

Source: Patrini et al. 2017 (arXiv 1609.03683), the estimator of Forward correction; their code:
giorgiop/loss-correction. Where paper and code differ: docs/deviations.md.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..base import expect, expect_floats, expect_rows
from .matrices import check_transition

PATRINI_QUANTILE = 0.97  # of the paper's outlier-robust variant (used but for CIFAR-100)


def anchor_points(probabilities: Tensor, *, quantile: float = 1.0) -> Tensor:
    """Find for each class the example that the network is surest about.

    Args:
        probabilities: float ``(n, C)``, rows sum to 1.
        quantile: in (0, 1]. 1 takes the largest score of a class. 0.97 takes the example at that
            rank among the n scores: an image that was learned by heart has a large score, too,
            and sits on top.

    Returns:
        int64 ``(C,)``, positions; two classes may share an example.
    """
    expect_floats("probabilities", probabilities)
    shape = tuple(probabilities.shape)
    some = len(shape) == 2 and shape[0] > 0 and shape[1] > 1
    expect(some, "`probabilities` (n, C) of at least one example and two classes", shape)
    expect_rows("probabilities", probabilities)
    expect(0 < quantile <= 1, "`quantile` in (0, 1]", quantile, "1 is the largest score")
    rank = math.ceil(quantile * len(probabilities))
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
    1 is the worst. Float64 ``(C,)``; its mean is the error of the matrix.
    """
    true = check_transition(true)
    estimate = check_transition(estimate, num_classes=len(true))
    return (estimate - true).abs().sum(dim=1) / 2


def noise_rate(matrix: Tensor) -> float:
    """Share of wrong labels, the mean of ``1 - T[i, i]``, when all classes are equally common."""
    return (1 - check_transition(matrix).diagonal()).mean().item()


def noise_rate_from_agreement(agreement: float, num_classes: int) -> float:
    """Return the symmetric noise rate e at which labels of unseen images are foreseen so often.

    A network that has fitted its noisy labels predicts a fresh image with e wrong, too. It agrees
    with the image's label when both are right or both wrong in the same way: ``agreement = (1 -
    e)^2 + e^2 / (C - 1)`` (Chen et al. 2019, arXiv 1905.05040, equation 3). The smaller solution,
    in [0, (C - 1) / C]; the largest possible where labels are foreseen no better than by chance.

    >>> round(noise_rate_from_agreement(0.6**2 + 0.4**2 / 9, 10), 6)
    0.4
    """
    expect(0 <= agreement <= 1, "`agreement` in [0, 1]", agreement, "it is a share")
    expect(num_classes >= 2, "`num_classes` of at least 2", num_classes)
    a = num_classes / (num_classes - 1)
    return (1 - math.sqrt(max(0.0, 1 - a * (1 - agreement)))) / a


def noise_rate_of_selected(noise_rate: float, num_classes: int) -> float:
    """Return the share of wrong labels left among the selected: foreseen, but only by chance.

    >>> round(noise_rate_of_selected(0.4, 10), 4)
    0.0471
    """
    wrong = noise_rate**2 / (num_classes - 1)
    return wrong / (wrong + (1 - noise_rate) ** 2)
