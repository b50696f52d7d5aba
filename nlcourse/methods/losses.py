"""Losses that are more robust to wrong labels than cross entropy. Explained in lesson 06.

One function each: from logits, float ``(n, C)``, and given labels, int64 ``(n,)``, to one loss an
example, ``(n,)``; but for the determinant, which is a property of a whole batch. Logits go through
``log_softmax`` once, so that nothing overflows and no probability is rounded to 0 before its
logarithm is taken. Label smoothing is torch's own: ``F.cross_entropy(..., label_smoothing=0.1)``.

Sources: mean absolute error, Ghosh et al. 2017 (arXiv 1712.09482); generalized cross entropy,
Zhang and Sabuncu 2018 (1805.07836); symmetric, Wang et al. 2019 (1908.06112); active-passive, Ma et
al. 2020 (2006.13554); determinant, Xu et al. 2019 (1909.03388); bootstrap, Reed et al. 2015
(1412.6596); forward and backward correction, Patrini et al. 2017 (1609.03683).
Where paper and code differ: docs/deviations.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import expect, expect_floats, expect_labels, expect_one_of
from ..noise import check_transition

LOG_CLIP = -4.0  # log 0 in the paper of symmetric cross entropy
CODE_LOG_CLIP = math.log(1e-4)  # and in its code; a paper's weights and a code's clip do not mix
LARGEST_CONDITION = 1e8  # an inverse loses this factor of its digits: float64 keeps half of them


def _log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p, ``(n, C)``, of logits and labels that fit together."""
    _check_logits(logits)
    expect_labels("labels", labels, logits.shape[1], len(logits))
    return logits.log_softmax(dim=1)


def _check_logits(logits: Tensor) -> None:
    expect_floats("logits", logits)
    fits = logits.dim() == 2 and logits.shape[1] > 1
    expect(fits, "`logits` of shape (n, C) with at least two classes", tuple(logits.shape))


def _at(rows: Tensor, labels: Tensor) -> Tensor:
    return rows.gather(1, labels[:, None])[:, 0]


def _one_minus_p(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - p_y, exact where p_y is near 1."""
    return -torch.expm1(_at(_log_probabilities(logits, labels), labels))


# Bounded losses ---------------------------------------------------------------------------------


def mean_absolute_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Distance of the probabilities from the one-hot label: ``sum_k |y_k - p_k| = 2 (1 - p_y)``.

    In [0, 2]. Symmetric: over all labels it sums to ``2 (C - 1)``, whatever the network says. That
    is why symmetric noise does not move its minimum (Ghosh et al. 2017, theorem 1).

    >>> mean_absolute_error(torch.zeros(1, 4), torch.tensor([2]))
    tensor([1.5000])
    """
    return 2 * _one_minus_p(logits, labels)


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float = 0.7) -> Tensor:
    """Between cross entropy and mean absolute error: ``L_q = (1 - p_y^q) / q``, in [0, 1 / q].

    Its gradient is that of cross entropy times ``p_y^q``: an example with an unlikely label pulls
    less. q towards 0 is cross entropy (and q = 0 is allowed, as the limit); q = 1 is half of the
    mean absolute error. Zhang and Sabuncu 2018, who take 0.7.

    >>> generalized_cross_entropy(torch.zeros(1, 4), torch.tensor([2]), q=0.5)
    tensor([1.])
    """
    expect(0 <= q <= 1, "`q` in [0, 1]", q)
    log_p = _at(_log_probabilities(logits, labels), labels)
    # expm1: for a small q, 1 - p^q would be a difference of two numbers near 1.
    return -torch.expm1(q * log_p) / q if q else -log_p


def reverse_cross_entropy(logits: Tensor, labels: Tensor, log_clip: float = LOG_CLIP) -> Tensor:
    """Cross entropy with the roles swapped: ``-sum_k p_k log y_k``, log 0 put as `log_clip`.

    For a one-hot label it is ``-log_clip (1 - p_y)``: a scaled mean absolute error.
    """
    expect(log_clip < 0, "`log_clip` below 0", log_clip, "it stands for log 0")
    return -log_clip * _one_minus_p(logits, labels)


def symmetric_cross_entropy(
    logits: Tensor, labels: Tensor, alpha: float, beta: float, log_clip: float = LOG_CLIP
) -> Tensor:
    """``alpha * cross entropy + beta * reverse cross entropy`` (Wang et al. 2019).

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``.
        alpha: weight of cross entropy, which learns fast; 0.1 in the paper for CIFAR-10.
        beta: weight of the reverse, which is robust; 1 in the paper for CIFAR-10.
        log_clip: below 0, what stands for log 0 in the reverse; the code's is `CODE_LOG_CLIP`.

    >>> symmetric_cross_entropy(torch.zeros(1, 4), torch.tensor([2]), alpha=0.0, beta=1.0)
    tensor([3.])
    """
    _check_weights(alpha, beta)
    active = -_at(_log_probabilities(logits, labels), labels)
    return alpha * active + beta * reverse_cross_entropy(logits, labels, log_clip)


def normalized_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy divided by its sum over all labels: ``log p_y / sum_k log p_k``.

    In [0, 1]. It sums to 1 over the labels, so it is symmetric. Ma et al. 2020.
    """
    log_p = _log_probabilities(logits, labels)
    return _at(log_p, labels) / log_p.sum(dim=1)


def active_passive_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 1.0,
    *,
    passive: str = "mae",
    log_clip: float = LOG_CLIP,
) -> Tensor:
    """``alpha * normalized cross entropy + beta * passive loss`` (Ma et al. 2020).

    The active part raises the label's probability, the passive one lowers all others; both are
    symmetric, and together they learn faster than either.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``.
        alpha: weight of the active part; 1 in the paper for CIFAR-10.
        beta: weight of the passive part; 1 in the paper for CIFAR-10.
        passive: "mae" (mean absolute error) or "rce" (reverse cross entropy).
        log_clip: of the reverse cross entropy.
    """
    _check_weights(alpha, beta)
    expect_one_of("passive", passive, ("mae", "rce"))
    if passive == "mae":
        second = mean_absolute_error(logits, labels)
    else:
        second = reverse_cross_entropy(logits, labels, log_clip)
    return alpha * normalized_cross_entropy(logits, labels) + beta * second


def _check_weights(alpha: float, beta: float) -> None:
    fit = 0 <= alpha < math.inf and 0 <= beta < math.inf
    expect(fit, "finite weights `alpha` and `beta` of at least 0", f"{alpha} and {beta}")


# Information ------------------------------------------------------------------------------------


def determinant_mutual_information(logits: Tensor, labels: Tensor) -> Tensor:
    """``-log |det U|`` with ``U = Y^T P / n``: of a whole **batch**, a scalar.

    U is the joint table of given label and predicted class. Noise that depends on the class alone
    multiplies it by a matrix, so the loss only gains a constant: ``det(U T) = det U det T`` (Xu et
    al. 2019). It is no loss to begin with: at random weights the columns of U are nearly equal, and
    its gradient is huge. The paper starts from a network trained with cross entropy and uses large
    batches. A batch that lacks a class has the determinant 0 whatever the network says: it teaches
    nothing, and 0 without a gradient comes in place of infinity.
    """
    probabilities = _log_probabilities(logits, labels).exp()
    one_hot = F.one_hot(labels, logits.shape[1]).to(probabilities.dtype)
    joint = one_hot.T @ probabilities / max(len(labels), 1)
    whole = (one_hot.sum(dim=0) > 0).all()
    # The identity in its place: the gradient of the determinant of a singular matrix is nan, and
    # nan times 0 is nan.
    eye = torch.eye(len(joint), dtype=joint.dtype, device=joint.device)
    log_det: Tensor = torch.linalg.slogdet(torch.where(whole, joint, eye)).logabsdet
    return -log_det


def entropy(logits: Tensor) -> Tensor:
    """How undecided the prediction is: ``-sum_k p_k log p_k``, in [0, log C]."""
    _check_logits(logits)
    log_p = logits.log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


# Corrected targets ------------------------------------------------------------------------------


def bootstrap_cross_entropy(
    logits: Tensor, labels: Tensor, beta: float, hard: bool = False
) -> Tensor:
    """Cross entropy with a target that mixes label and prediction (Reed et al. 2015).

    Soft: ``-sum_k (beta y_k + (1 - beta) p_k) log p_k``. Hard: the predicted class in place of p.
    `beta` in [0, 1] is the label's weight; 0.95 (soft) and 0.8 (hard) in the paper, and 1 is
    cross entropy.
    """
    expect(0 <= beta <= 1, "`beta` in [0, 1]", beta)
    log_p = _log_probabilities(logits, labels)
    own = -log_p.max(dim=1).values if hard else entropy(logits)
    return -beta * _at(log_p, labels) + (1 - beta) * own


def forward_corrected_cross_entropy(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Predict the *given* label: ``-log (T^T p)_y`` (Patrini et al. 2017, theorem 2).

    The network says how likely each true class is, the matrix how likely each true class gets this
    label. Its minimum is the posterior of the true class. Infinite for a label that the matrix says
    cannot occur.

    Args:
        logits: float ``(n, C)``, of the true class.
        labels: int64 ``(n,)``, the given labels.
        matrix: float ``(C, C)``, row = true class. Keep it on the CPU: it is checked there.
    """
    log_p = _log_probabilities(logits, labels)
    matrix = check_transition(matrix, logits.shape[1])
    ways = matrix.log().to(log_p)[:, labels].T  # (n, C): log T[i, y] for each true class i
    return -torch.logsumexp(log_p + ways, dim=1)


def backward_corrected_cross_entropy(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Undo the noise in the loss: ``(T^-1 l)_y`` with ``l_k = -log p_k`` (theorem 1).

    Over the noise its mean is the loss on the true label. Single values may be negative, and large
    where the matrix is nearly singular. Arguments are those of the forward correction.
    """
    log_p = _log_probabilities(logits, labels)
    matrix = check_transition(matrix, logits.shape[1])
    condition = torch.linalg.cond(matrix).item()
    expect(
        condition < LARGEST_CONDITION,
        "`matrix` to have an inverse",
        f"condition number {condition:.3g}",
        "some class's row is a mixture of others; the forward correction inverts nothing",
    )
    inverse: Tensor = torch.linalg.inv(matrix).to(log_p)
    return -(inverse[labels] * log_p).sum(dim=1)


# What a loss does to an example -----------------------------------------------------------------


def label_pull(
    loss: Callable[..., Tensor], probabilities: Tensor, num_classes: int = 10, **settings: Any
) -> Tensor:
    """How hard a loss pulls at the label's logit, against the label's probability: ``-dL / dz_y``.

    The rest of the probability is spread evenly. Cross entropy pulls with ``1 - p``; what is bent
    down towards small p forgives a label that the network finds unlikely.

    Args:
        loss: any loss of this file with one value an example, called with logits, labels and
            `settings`.
        probabilities: float ``(m,)``, inside (0, 1).
        num_classes: C, at least 2.
        settings: further arguments of the loss.

    Returns:
        ``(m,)``, without gradient.

    >>> label_pull(mean_absolute_error, torch.tensor([0.5]))
    tensor([0.5000])
    """
    p = probabilities.detach()
    inside = bool(((p > 0) & (p < 1)).all())
    expect(inside, "`probabilities` inside (0, 1)", p, "at the ends logits are infinite")
    rest = ((1 - p) / (num_classes - 1)).log()
    logits = rest[:, None].repeat(1, num_classes)
    logits[:, 0] = p.log()
    with torch.enable_grad():
        logits.requires_grad_()
        labels = torch.zeros(len(p), dtype=torch.int64, device=p.device)
        total = loss(logits, labels, **settings).sum()
        return -torch.autograd.grad(total, logits)[0][:, 0]
