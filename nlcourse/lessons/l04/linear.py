"""Early learning and memorization in a linear model: Theorem 1 of Liu et al. 2020. Lesson 04.

Two Gaussians, one around +v and one around -v, some labels wrong, softmax regression by full-batch
gradient descent in float64. The gradient has a closed form, so every claim of the theorem can be
measured exactly.

Paper: *Early-Learning Regularization Prevents Memorization of Noisy Labels*, arXiv 2007.00151.
Two slips of its appendix are put right here: with a softmax over two rows the probability gap is
tanh(theta.x / 2) (the paper prints tanh(theta.x)), and the first theta lies on the sphere of radius
2 (one lemma takes ||theta||^2 = 2). `flip` is the probability of a wrong label: the paper's
Delta / 2, since its redrawn label is right by luck half of the time. In ELR we follow the
published code where it goes beyond the formula: probabilities are clamped, and the target is
updated before the loss.
"""

from __future__ import annotations

import math
import threading
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...base import expect, expect_labels
from ...training import DivergedError

__all__ = [
    "COLUMNS",
    "Descent",
    "DivergedError",
    "Sample",
    "accuracy_on_wrong",
    "alignment",
    "gradient",
    "gradient_descent",
    "initial_theta",
    "log_spaced",
    "region",
    "sample",
    "true_class_coefficients",
]

CLAMP = 1e-4  # of the published ELR code: probabilities stay in [CLAMP, 1 - CLAMP]
MAX_GAP = 1 - 2 * CLAMP  # the same for p_0 - p_1
STOP_EVERY = 256  # steps between two looks at the stop event: about 5 ms

COLUMNS = (
    "step",
    "loss",
    "alignment",
    "overlap",
    "clean_as_true",
    "wrong_as_true",
    "wrong_as_given",
    "fitted",
    "clean_coefficient",
    "clean_coefficient_std",
    "wrong_coefficient",
    "wrong_coefficient_std",
)
"""What a descent records: the step (0 is before the first); the mean cross entropy with the given
labels; the alignment of minus the gradient with v; theta.v, which the proof watches; the share of
the rightly labelled examples predicted as their class; of the wrongly labelled ones as their true
class and as their given class (memorized); the share of all given labels that are fitted; mean and
standard deviation of the coefficient of the true class, p - y (for ELR p - y + lambda g), over the
rightly and over the wrongly labelled examples. Shares lie in 0..1."""


class Sample(NamedTuple):
    """A mixture of two Gaussians with noisy labels.

    Attributes:
        features: float64 ``(n, p)``.
        true_labels: int64 ``(n,)``; class 0 lies around +v, class 1 around -v.
        given_labels: int64 ``(n,)``; some are wrong.
        separator: float64 ``(p,)``, the unit vector v.
    """

    features: Tensor
    true_labels: Tensor
    given_labels: Tensor
    separator: Tensor

    @property
    def is_wrong(self) -> Tensor:
        """Which given labels are wrong, bool ``(n,)``."""
        return self.given_labels != self.true_labels


def sample(
    n: int, p: int, sigma: float, flip: float, generator: torch.Generator | None = None
) -> Sample:
    """Draw the data of the theorem.

    v is uniform on the unit sphere, both classes are equally likely, x = +v or -v plus
    N(0, sigma^2 I), and each label is the wrong one with probability `flip`, independently.

    Args:
        n: number of examples.
        p: number of features.
        sigma: standard deviation of every feature.
        flip: probability of a wrong label in [0, 1); the theorem's Delta / 2.
        generator: source of all randomness; torch's global one when left out.

    Returns:
        Features, true labels, given labels and the separator v, see :class:`Sample`.

    Raises:
        ValueError: `n` or `p` below 1, a negative `sigma`, `flip` outside [0, 1).

    Source: arXiv 2007.00151, section 3. Explained in lesson 04.
    """
    expect(n >= 1, "`n` of at least 1", n, "it is the number of examples")
    expect(p >= 1, "`p` of at least 1", p, "it is the number of features")
    why = "it is a standard deviation"
    expect(0 <= sigma < math.inf, "`sigma` of at least 0 and finite", sigma, why)
    _check_flip(flip)
    direction = torch.randn(p, generator=generator, dtype=torch.float64)
    separator = torch.nn.functional.normalize(direction, dim=0)
    true_labels = torch.randint(2, (n,), generator=generator)
    signs = (1 - 2 * true_labels).double()
    noise = torch.randn(n, p, generator=generator, dtype=torch.float64)
    features = signs[:, None] * separator + sigma * noise
    is_wrong = torch.rand(n, generator=generator) < flip
    given_labels = torch.where(is_wrong, 1 - true_labels, true_labels)
    return Sample(features, true_labels, given_labels, separator)


def region(flip: float) -> tuple[float, float]:
    """Return the open interval of p/n in which Theorem 1 speaks: (1 - flip, 1).

    Below it the labels need not be separable, so not all of them can be memorized.

    >>> region(0.4)
    (0.6, 1.0)
    """
    _check_flip(flip)
    return 1 - flip, 1.0


def initial_theta(
    p: int, *, radius: float = 2.0, generator: torch.Generator | None = None
) -> Tensor:
    """Return first weights, float64 ``(2, p)``: Theta_0 - Theta_1 is uniform on a sphere.

    The two rows are opposite to each other, and gradient descent keeps them so.

    Args:
        p: number of features.
        radius: of that sphere; the paper's is 2.
        generator: source of the randomness; torch's global one when left out.

    Raises:
        ValueError: `p` below 1 or a negative `radius`.
    """
    expect(p >= 1, "`p` of at least 1", p, "it is the number of features")
    expect(0 <= radius < math.inf, "`radius` of at least 0 and finite", radius)
    direction = torch.randn(p, generator=generator, dtype=torch.float64)
    half = radius / 2 * torch.nn.functional.normalize(direction, dim=0)
    return torch.stack((half, -half))


def gradient(theta: Tensor, features: Tensor, given_labels: Tensor) -> Tensor:
    """Gradient of the mean cross entropy of softmax regression, in closed form.

    Row c is ``(1/n) sum_i x_i (softmax(Theta x_i)_c - y_ic)``: every example pulls along itself,
    with its coefficient p - y as the weight.

    Args:
        theta: weights Theta ``(2, p)``, one row a class.
        features: x ``(n, p)``.
        given_labels: int64 ``(n,)``, 0 or 1.

    Returns:
        A tensor of the shape of `theta`.

    Raises:
        ValueError: shapes or dtypes that do not fit, no example, or a label that is not 0 or 1.

    Source: arXiv 2007.00151, equation (3). Explained in lesson 04.
    """
    _check_model(theta, features, given_labels=given_labels)
    probabilities = (features @ theta.T).softmax(dim=1)
    coefficients = probabilities - _one_hot(given_labels, probabilities)
    return coefficients.T @ features / len(features)


def true_class_coefficients(
    probabilities: Tensor, given_labels: Tensor, true_labels: Tensor
) -> Tensor:
    """Return the entry of p - y that belongs to the true class, ``(n,)``; any number of classes.

    It is negative where the given label is right (p - 1) and positive where it is wrong (p - 0).

    Args:
        probabilities: ``(n, C)``, rows sum to 1.
        given_labels: int64 ``(n,)``.
        true_labels: int64 ``(n,)``.

    Raises:
        ValueError: labels that are not as many as the rows.
    """
    n = len(probabilities)
    fits = given_labels.shape == true_labels.shape == (n,)
    what = f"{n} given and true labels, one for each row of `probabilities`"
    expect(fits, what, f"shapes {tuple(given_labels.shape)} and {tuple(true_labels.shape)}")
    of_true_class = probabilities.gather(1, true_labels[:, None]).squeeze(1)
    return of_true_class - (given_labels == true_labels).to(probabilities.dtype)


def alignment(gradient: Tensor, separator: Tensor) -> float:
    """Cosine of the angle between minus the gradient and v.

    A class-0 example should get a larger z_0 - z_1, and that difference is (Theta_0 - Theta_1).x.
    So the direction that a step moves in is ``-(G_0 - G_1)``.

    Args:
        gradient: G ``(2, p)``.
        separator: v ``(p,)``, of any length but 0.

    Returns:
        A number in [-1, 1]: 1 along v, 0 across it; nan where the gradient is zero.

    Raises:
        ValueError: shapes that do not fit, or a `separator` of zeros.

    Source: arXiv 2007.00151, Theorem 1 and Proposition 3. Explained in lesson 04.
    """
    fits = gradient.shape == (2, *separator.shape) and separator.ndim == 1
    what = "a `gradient` of shape (2, p) and a `separator` of shape (p,)"
    expect(fits, what, f"{tuple(gradient.shape)} and {tuple(separator.shape)}")
    expect(bool(separator.any()), "a `separator` that points somewhere", "zeros")
    direction = gradient[1] - gradient[0]
    return (direction @ separator / (direction.norm() * separator.norm())).item()


def accuracy_on_wrong(
    theta: Tensor, features: Tensor, given_labels: Tensor, true_labels: Tensor
) -> float:
    """Share of the wrongly labelled examples that are predicted as their true class.

    Args:
        theta: weights ``(2, p)``.
        features: ``(n, p)``.
        given_labels: int64 ``(n,)``.
        true_labels: int64 ``(n,)``.

    Raises:
        ValueError: shapes or dtypes that do not fit, a label that is not 0 or 1, or no label is
            wrong.

    Source: arXiv 2007.00151, Theorem 1 and figure A.1. Explained in lesson 04.
    """
    _check_model(theta, features, given_labels=given_labels, true_labels=true_labels)
    is_wrong = given_labels != true_labels
    _check_wrong(is_wrong)
    predicted = (features @ theta.T).argmax(dim=1)
    return (predicted == true_labels)[is_wrong].double().mean().item()


# ---- gradient descent ----------------------------------------------------------------------------


class Descent:
    """What a run of gradient descent leaves behind.

    Attributes:
        theta: the last weights, float64 ``(2, p)``.
        stopped: "" for a run that finished, else why it ended early.
    """

    def __init__(self, rows: list[tuple[float, ...]], theta: Tensor, stopped: str = "") -> None:
        """Keep rows in the order of :data:`COLUMNS`."""
        self._table = np.array(rows, dtype=float).reshape(-1, len(COLUMNS))
        self.theta = theta
        self.stopped = stopped

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._table)

    def __getitem__(self, column: str) -> np.ndarray:
        """Return one column, float64, a value a record."""
        if column not in COLUMNS:
            raise KeyError(f"{column!r} is not recorded; there are {', '.join(COLUMNS)}")
        return self._table[:, COLUMNS.index(column)]

    def at(self, column: str, step: int) -> float:
        """Return the value recorded at a step, or at the last one before it."""
        place = int(np.searchsorted(self["step"], step, side="right")) - 1
        if place < 0:
            raise ValueError(f"Expected a `step` of at least 0, got {step}")
        return float(self[column][place])

    def peak(self, column: str) -> tuple[float, int]:
        """Return the highest value of a column and the first step where it stands."""
        place = int(self[column].argmax())
        return float(self[column][place]), int(self["step"][place])

    def __repr__(self) -> str:
        """Say in one line what became of the wrongly labelled examples."""
        if not len(self):
            return "Descent without a record"
        best, where = self.peak("wrong_as_true")
        return (
            f"Descent of {self['step'][-1]:.0f} steps: of the wrongly labelled {best:.0%} "
            f"predicted as their true class at step {where}, {self['wrong_as_true'][-1]:.0%} at "
            f"the end; {self['fitted'][-1]:.0%} of the given labels fitted"
        )


def log_spaced(steps: int, per_decade: int = 10) -> list[int]:
    """Return step numbers from 0 to `steps`, evenly spread on a logarithmic axis.

    >>> log_spaced(100, per_decade=2)
    [0, 1, 3, 10, 32, 100]
    """
    powers = range(per_decade * len(str(steps)) + 1)
    spread = {round(10 ** (power / per_decade)) for power in powers}
    return sorted({0, steps} | {step for step in spread if step <= steps})


def gradient_descent(
    data: Sample,
    *,
    lr: float = 0.5,
    steps: int = 10_000,
    lambda_: float = 0.0,
    beta: float = 0.7,
    theta: Tensor | None = None,
    stop: threading.Event | None = None,
    generator: torch.Generator | None = None,
) -> Descent:
    """Train softmax regression on the given labels and record the quantities of Theorem 1.

    The records stand at the steps of :func:`log_spaced`.

    ``Theta <- Theta - lr * gradient`` with the gradient of cross entropy, or for `lambda_` above 0
    that of ELR (Lemma 2: coefficient p - y + lambda g). Since the rows of the gradient are opposite
    to each other, only theta = Theta_0 - Theta_1 has to be followed; p_0 - p_1 = tanh(theta.x / 2).

    Args:
        data: what :func:`sample` returned, or any four tensors like it.
        lr: step size eta; the theorem takes it below 1.
        steps: number of steps.
        lambda_: weight of the ELR regularizer; 0 is cross entropy.
        beta: momentum of ELR's targets in [0, 1).
        theta: first weights ``(2, p)``; :func:`initial_theta` when left out.
        stop: ends the run early when set; what was recorded is kept.
        generator: for the first weights; torch's global one when left out.

    Returns:
        The records and the last weights.

    Raises:
        DivergedError: the weights are no finite numbers any more; records in ``.history``.
        ValueError: a setting out of its range, shapes that do not fit, a label that is not 0 or 1,
            no rightly or no wrongly labelled example (then there is nothing to compare).

    Source: arXiv 2007.00151, section 3 and appendix B. Explained in lesson 04.
    """
    data = Sample(*data)
    _check_descent(data, lr, steps, lambda_, beta)
    if theta is None:
        theta = initial_theta(data.features.shape[1], generator=generator)
    _check_model(theta.double(), data.features.double())
    mean_row = theta.double().mean(dim=0)  # does not move: the rows of the gradient sum to 0
    loop = _Loop(data, theta, lr, lambda_, beta)
    with np.errstate(over="ignore", invalid="ignore"):
        rows, stopped = loop.run(steps, stop)
    half = torch.from_numpy(loop.theta) / 2
    descent = Descent(rows, torch.stack((mean_row + half, mean_row - half)), stopped)
    if not np.isfinite(loop.theta).all():
        message = f"The weights became infinite at step size {lr:g}: take a smaller `lr`"
        raise DivergedError(message, descent)
    return descent


class _Loop:
    """Gradient descent on theta = Theta_0 - Theta_1 in preallocated arrays.

    A step is two products of a matrix and a vector and a tanh. Signs stand for labels: +1 is class
    0, -1 class 1. Coefficients are those of class 0; those of class 1 are the same with a minus.
    """

    def __init__(self, data: Sample, theta: Tensor, lr: float, lambda_: float, beta: float) -> None:
        features = data.features.detach().cpu().double().numpy()
        self.n = len(features)
        self.true, self.given = (
            (1 - 2 * labels.cpu()).double().numpy()
            for labels in (data.true_labels, data.given_labels)
        )
        self.is_wrong = data.is_wrong.cpu().numpy()
        self.separator = data.separator.cpu().double().numpy()
        self.theta = (theta[0] - theta[1]).detach().cpu().double().numpy()
        self.half_features = np.ascontiguousarray(features / 2)
        self.features_t = np.ascontiguousarray(features.T)
        # Both rows move by lr * gradient, in opposite directions: theta moves by twice that.
        self.update = self.features_t * (2 * lr / self.n)
        self.move = np.empty_like(self.theta)
        self.gap, self.coefficient = np.empty(self.n), np.empty(self.n)
        self.elr = _Regularizer(self.n, lambda_, beta) if lambda_ else None

    def run(self, steps: int, stop: threading.Event | None) -> tuple[list[tuple[float, ...]], str]:
        rows: list[tuple[float, ...]] = []
        wanted = set(log_spaced(steps))
        for step in range(steps + 1):
            self._look()
            if step in wanted:
                if not np.isfinite(self.theta).all():
                    return rows, "diverged"
                rows.append(self._measure(step))
            if step < steps:
                np.dot(self.update, self.coefficient, out=self.move)
                self.theta -= self.move
            if stop is not None and step % STOP_EVERY == 0 and stop.is_set():
                return rows, f"stopped at step {step}"
        return rows, ""

    def _look(self) -> None:
        """Compute p_0 - p_1 and the coefficients at theta."""
        np.dot(self.half_features, self.theta, out=self.gap)
        np.tanh(self.gap, out=self.gap)
        np.subtract(self.gap, self.given, out=self.coefficient)
        self.coefficient *= 0.5  # p_0 - y_0 = (gap - sign) / 2
        if self.elr is not None:
            self.coefficient += self.elr(self.gap)

    def _measure(self, step: int) -> tuple[float, ...]:
        margin = 2 * self.half_features @ self.theta
        downhill = -(self.features_t @ self.coefficient)
        length = np.linalg.norm(downhill)
        aligned = downhill @ self.separator / length if length else math.nan
        predicted = np.where(margin >= 0, 1.0, -1.0)  # argmax takes the first of equals
        as_true, as_given = predicted == self.true, predicted == self.given
        of_true_class = self.coefficient * self.true
        clean, wrong = of_true_class[~self.is_wrong], of_true_class[self.is_wrong]
        return (
            step,
            np.logaddexp(0, -self.given * margin).mean(),
            aligned,
            self.theta @ self.separator,
            as_true[~self.is_wrong].mean(),
            as_true[self.is_wrong].mean(),
            as_given[self.is_wrong].mean(),
            as_given.mean(),
            clean.mean(),
            clean.std(),
            wrong.mean(),
            wrong.std(),
        )


class _Regularizer:
    """lambda g of ELR for two classes, with its running targets.

    With gap q = p_0 - p_1, the targets' gap d = t_0 - t_1 and their sum s (1 - beta^k after k
    updates), Lemma 2 says g_0 = -(1 - q^2) d / 4 / (1 - (s + q d) / 2), and g_1 = -g_0.
    """

    def __init__(self, n: int, lambda_: float, beta: float) -> None:
        self.lambda_, self.beta = lambda_, beta
        self.target_gap, self.target_sum = np.zeros(n), 0.0

    def __call__(self, gap: np.ndarray) -> np.ndarray:
        q = np.clip(gap, -MAX_GAP, MAX_GAP)
        self.target_gap = self.beta * self.target_gap + (1 - self.beta) * q
        self.target_sum = self.beta * self.target_sum + (1 - self.beta)
        inner = (self.target_sum + q * self.target_gap) / 2  # <p, t>
        term = -self.lambda_ * (1 - q * q) * self.target_gap / 4 / (1 - inner)
        # Where the clamp holds p, the regularizer has no slope.
        return np.where(np.abs(gap) < MAX_GAP, term, 0.0)


# ---- checks at the border ------------------------------------------------------------------------


def _one_hot(labels: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, labels[:, None], 1.0)


def _check_flip(flip: float) -> None:
    expect(0 <= flip < 1, "`flip` in [0, 1)", flip, "it is the probability of a wrong label")


def _check_model(theta: Tensor, features: Tensor, **labels: Tensor) -> None:
    what = "`features` of shape (n, p) with n of at least 1"
    expect(features.ndim == 2 and len(features) > 0, what, tuple(features.shape))
    p = features.shape[1]
    expect(theta.shape == (2, p), f"`theta` of shape (2, {p})", tuple(theta.shape))
    got, why = f"{theta.dtype} and {features.dtype}", "`.double()` makes float64"
    expect(theta.dtype == features.dtype, "`theta` and `features` of one dtype", got, why)
    for name, given in labels.items():
        _check_labels(name, given, len(features))


def _check_labels(name: str, labels: Tensor, n: int) -> None:
    if len(labels) and labels.min() < 0:
        why = "of signs make them with ((1 - sign) // 2).long()"
        expect(False, f"int64 `{name}` that are 0 or 1", f"{labels.min():g}", why)
    expect_labels(name, labels, 2, n)


def _check_wrong(is_wrong: Tensor) -> None:
    why = "take a larger `flip` or more examples"
    expect(bool(is_wrong.any()), "at least one wrongly labelled example", "none", why)


def _check_descent(data: Sample, lr: float, steps: int, lambda_: float, beta: float) -> None:
    expect(0 < lr < math.inf, "a step size `lr` above 0 and finite", lr)
    expect(steps >= 1, "`steps` of at least 1", steps)
    expect(0 <= lambda_ < math.inf, "`lambda_` of at least 0 and finite", lambda_)
    expect(0 <= beta < 1, "`beta` in [0, 1)", beta)
    fits = data.features.ndim == 2 and data.separator.shape == data.features.shape[1:]
    what = "`features` of shape (n, p) and a `separator` of shape (p,)"
    expect(fits, what, f"{tuple(data.features.shape)} and {tuple(data.separator.shape)}")
    for name in ("true_labels", "given_labels"):
        _check_labels(name, getattr(data, name), len(data.features))
    _check_wrong(data.is_wrong)
    why = "take a smaller `flip` or more examples"
    expect(not data.is_wrong.all(), "at least one rightly labelled example", "none", why)
