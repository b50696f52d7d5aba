"""Losses that trust a label less than cross entropy does. Explained in lesson 06.

One function each. All take logits and given labels and return one loss an example, but for the
determinant, which is a property of a whole batch. Logits go through ``log_softmax`` once, so that
nothing overflows and no probability is rounded to 0 before its logarithm is taken. Label smoothing
is torch's own: ``F.cross_entropy(logits, labels, label_smoothing=0.1)``.

Sources, and which is followed where paper and published code disagree:

* mean absolute error: Ghosh et al. 2017 (arXiv 1712.09482), ``2 (1 - p_y)``. The code of the
  active-passive losses takes half of it; we take the definition.
* generalized cross entropy: Zhang and Sabuncu 2018 (arXiv 1805.07836), with its truncation.
* symmetric cross entropy: Wang et al. 2019 (arXiv 1908.06112). The paper puts -4 for the logarithm
  of 0, its code ln(1e-4) = -9.21; -4 is the default here, and ``log_clip=CODE_LOG_CLIP`` gives the
  code's. Weights from a paper and the clip from a code do not belong together.
* active-passive: Ma et al. 2020 (arXiv 2006.13554). Their weights were found with half of the mean
  absolute error and with -9.21.
* determinant mutual information: Xu et al. 2019 (arXiv 1909.03388). The code adds 0.001 to the
  determinant and does not divide by the batch; we follow the paper.
* bootstrap: Reed et al. 2015 (arXiv 1412.6596). Gradients flow through the prediction in the soft
  target, as in the paper; some published versions cut them there.
* forward and backward correction: Patrini et al. 2017 (arXiv 1609.03683), theorems 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import noise

LOG_CLIP = -4.0  # log 0 in the paper of symmetric cross entropy
CODE_LOG_CLIP = math.log(1e-4)  # and in its code
LARGEST_CONDITION = 1e8  # an inverse loses this factor of its digits: float64 keeps half of them


# ---------------------------------------------------------------- bounded losses


def mean_absolute_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Distance of the probabilities from the one-hot label: ``sum_k |y_k - p_k| = 2 (1 - p_y)``.

    Symmetric: over all labels it sums to ``2 (C - 1)``, whatever the network says. That is why
    symmetric noise does not move its minimum (Ghosh et al. 2017, theorem 1).

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``.

    Returns:
        ``(n,)``, each in [0, 2].

    Raises:
        TypeError, ValueError: logits or labels of another form.

    >>> mean_absolute_error(torch.zeros(1, 4), torch.tensor([2]))
    tensor([1.5000])
    """
    return 2 * _doubt(logits, labels)


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float = 0.7) -> Tensor:
    """Between cross entropy and mean absolute error: ``L_q = (1 - p_y^q) / q``.

    Its gradient is that of cross entropy times ``p_y^q``: an example with an unlikely label pulls
    less. q towards 0 is cross entropy (and q = 0 is allowed, as the limit); q = 1 is half of the
    mean absolute error. Zhang and Sabuncu 2018.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``.
        q: in [0, 1]; 0.7 in the paper.

    Returns:
        ``(n,)``, each in [0, 1 / q].

    Raises:
        TypeError, ValueError: logits or labels of another form, or q out of range.

    >>> generalized_cross_entropy(torch.zeros(1, 4), torch.tensor([2]), q=0.5)
    tensor([1.])
    """
    _check_share("q", q)
    log_p = _log_probability(logits, labels)
    # expm1: for a small q, 1 - p^q would be a difference of two numbers near 1.
    return -torch.expm1(q * log_p) / q if q else -log_p


def reverse_cross_entropy(logits: Tensor, labels: Tensor, log_clip: float = LOG_CLIP) -> Tensor:
    """Cross entropy with the roles swapped: ``-sum_k p_k log y_k``, log 0 put as `log_clip`.

    For a one-hot label it is ``-log_clip (1 - p_y)``: a scaled mean absolute error.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``.
        log_clip: below 0, what stands for log 0.

    Returns:
        ``(n,)``.

    Raises:
        TypeError, ValueError: logits or labels of another form, or a clip that is not below 0.
    """
    if not log_clip < 0:
        raise ValueError(f"Expected `log_clip` below 0, got {log_clip}: it stands for log 0")
    return -log_clip * _doubt(logits, labels)


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

    Returns:
        ``(n,)``.

    Raises:
        TypeError, ValueError: logits or labels of another form, a negative weight, or a clip that
        is not below 0.

    >>> symmetric_cross_entropy(torch.zeros(1, 4), torch.tensor([2]), alpha=0.0, beta=1.0)
    tensor([3.])
    """
    _check_weights(alpha=alpha, beta=beta)
    active = -_log_probability(logits, labels)
    return alpha * active + beta * reverse_cross_entropy(logits, labels, log_clip)


def normalized_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy divided by its sum over all labels: ``log p_y / sum_k log p_k``.

    It sums to 1 over the labels, so it is symmetric. Ma et al. 2020.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``.

    Returns:
        ``(n,)``, each in [0, 1].

    Raises:
        TypeError, ValueError: logits or labels of another form.
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

    Returns:
        ``(n,)``.

    Raises:
        TypeError, ValueError: logits or labels of another form, a negative weight, or another
        passive loss.
    """
    _check_weights(alpha=alpha, beta=beta)
    if passive not in ("mae", "rce"):
        raise ValueError(f'Expected `passive` to be "mae" or "rce", got {passive!r}')
    if passive == "mae":
        second = mean_absolute_error(logits, labels)
    else:
        second = reverse_cross_entropy(logits, labels, log_clip)
    return alpha * normalized_cross_entropy(logits, labels) + beta * second


# ---------------------------------------------------------------- information of a batch


def determinant_mutual_information(logits: Tensor, labels: Tensor) -> Tensor:
    """``-log |det U|`` with ``U = Y^T P / n``: of a whole **batch**, not of an example.

    U is the joint table of given label and predicted class. Noise that depends on the class alone
    multiplies it by a matrix, so the loss only gains a constant: ``det(U T) = det U det T`` (Xu et
    al. 2019). It is no loss to begin with: at random weights the columns of U are
    nearly equal, and its gradient is huge. The paper starts from a network trained with cross
    entropy and uses large batches.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``.

    Returns:
        A **scalar**. A batch that lacks a class has the determinant 0 whatever the network says: it
        teaches nothing, and 0 without a gradient comes in place of infinity.

    Raises:
        TypeError, ValueError: logits or labels of another form.
    """
    probabilities = _log_probabilities(logits, labels).exp()
    one_hot = F.one_hot(labels, logits.shape[1]).to(probabilities.dtype)
    joint = one_hot.T @ probabilities / max(len(labels), 1)
    whole = (one_hot.sum(dim=0) > 0).all()
    # The identity in its place: the gradient of the determinant of a singular matrix is nan, and
    # nan times 0 is nan.
    eye = torch.eye(len(joint), dtype=joint.dtype, device=joint.device)
    return -torch.linalg.slogdet(torch.where(whole, joint, eye)).logabsdet


def entropy(logits: Tensor) -> Tensor:
    """How undecided the prediction is: ``-sum_k p_k log p_k``.

    Args:
        logits: float ``(n, C)``.

    Returns:
        ``(n,)``, each in [0, log C].

    Raises:
        TypeError, ValueError: logits of another form.
    """
    _check_logits(logits)
    log_p = logits.log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


# ---------------------------------------------------------------- corrected targets


def bootstrap_cross_entropy(
    logits: Tensor, labels: Tensor, beta: float, hard: bool = False
) -> Tensor:
    """Cross entropy with a target that believes the network a little (Reed et al. 2015).

    Soft: ``-sum_k (beta y_k + (1 - beta) p_k) log p_k``. Hard: the predicted class in place of p.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``.
        beta: trust in the label, in [0, 1]; 0.95 (soft) and 0.8 (hard) in the paper. 1 is cross
            entropy.
        hard: take the predicted class in place of the probabilities.

    Returns:
        ``(n,)``.

    Raises:
        TypeError, ValueError: logits or labels of another form, or beta outside [0, 1].
    """
    _check_share("beta", beta)
    log_p = _log_probabilities(logits, labels)
    own = -log_p.max(dim=1).values if hard else entropy(logits)
    return -beta * _at(log_p, labels) + (1 - beta) * own


def forward_corrected_cross_entropy(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Predict the *given* label: ``-log (T^T p)_y`` (Patrini et al. 2017, theorem 2).

    The network says how likely each true class is, the matrix how likely each true class gets this
    label. Its minimum is the posterior of the true class.

    Args:
        logits: float ``(n, C)``, of the true class.
        labels: int64 ``(n,)``, the given labels.
        matrix: float ``(C, C)``, row = true class. Keep it on the CPU: it is checked there.

    Returns:
        ``(n,)``; infinite for a label that the matrix says cannot occur.

    Raises:
        TypeError, ValueError: logits, labels or matrix of another form.
    """
    log_p = _log_probabilities(logits, labels)
    matrix = noise.check_transition(matrix, logits.shape[1])
    ways = matrix.log().to(log_p)[:, labels].T  # (n, C): log T[i, y] for each true class i
    return -torch.logsumexp(log_p + ways, dim=1)


def backward_corrected_cross_entropy(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Undo the noise in the loss: ``(T^-1 l)_y`` with ``l_k = -log p_k`` (theorem 1).

    Over the noise its mean is the loss on the true label. Single values may be negative, and large
    where the matrix is nearly singular.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``, the given labels.
        matrix: float ``(C, C)``, row = true class. Keep it on the CPU: it is inverted there.

    Returns:
        ``(n,)``.

    Raises:
        TypeError, ValueError: logits, labels or matrix of another form, or a matrix that has no
        inverse.
    """
    log_p = _log_probabilities(logits, labels)
    inverse = _inverse(noise.check_transition(matrix, logits.shape[1])).to(log_p)
    return -(inverse[labels] * log_p).sum(dim=1)


# ---------------------------------------------------------------- what a loss does to an example


def label_pull(
    loss: Callable[..., Tensor], probabilities: Tensor, num_classes: int = 10, **settings
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

    Raises:
        ValueError: probabilities that are not inside (0, 1).

    >>> label_pull(mean_absolute_error, torch.tensor([0.5]))
    tensor([0.5000])
    """
    p = probabilities.detach()
    if not ((p > 0) & (p < 1)).all():
        raise ValueError("Expected `probabilities` inside (0, 1): at the ends logits are infinite")
    rest = ((1 - p) / (num_classes - 1)).log()
    logits = rest[:, None].repeat(1, num_classes)
    logits[:, 0] = p.log()
    with torch.enable_grad():
        logits.requires_grad_()
        labels = torch.zeros(len(p), dtype=torch.int64, device=p.device)
        total = loss(logits, labels, **settings).sum()
        return -torch.autograd.grad(total, logits)[0][:, 0]


# ---------------------------------------------------------------- pieces


def _log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    return _at(_log_probabilities(logits, labels), labels)


def _log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    _check_logits(logits)
    _check_labels(labels, logits)
    return logits.log_softmax(dim=1)


def _doubt(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - p_y, exact where p_y is near 1."""
    return -torch.expm1(_log_probability(logits, labels))


def _at(rows: Tensor, labels: Tensor) -> Tensor:
    return rows.gather(1, labels[:, None])[:, 0]


def _inverse(matrix: Tensor) -> Tensor:
    condition = torch.linalg.cond(matrix).item()
    if not condition < LARGEST_CONDITION:  # nan fails here too
        raise ValueError(
            f"Expected `matrix` to have an inverse, its condition number is {condition:.3g}: some "
            "class's row is a mixture of others. Use the forward correction, which inverts nothing"
        )
    return torch.linalg.inv(matrix)


def _check_logits(logits: Tensor) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = getattr(logits, "dtype", type(logits).__name__)
        raise TypeError(f"Expected `logits` as a tensor of floats, got {got}")
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            "Expected `logits` of shape (n, C) with at least two classes, got "
            f"{tuple(logits.shape)}"
        )


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(
            f"Expected `labels` as a tensor of class ids (int64), got {got}: convert with .long()"
        )
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"Expected `labels` of shape ({len(logits)},), one class id an example, got "
            f"{tuple(labels.shape)}"
        )
    # On a GPU looking at a number makes the processor wait; indexing fails there by itself.
    if labels.device.type == "cpu" and len(labels):
        low, high = torch.aminmax(labels)
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(
                f"Expected `labels` from 0 to {logits.shape[1] - 1}, got {low} to {high}"
            )


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"Expected `{name}` in [0, 1], got {value}")


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"Expected a finite `{name}` of at least 0, got {weight}")
