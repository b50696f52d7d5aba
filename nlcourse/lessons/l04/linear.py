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
from torch.nn import functional as F

from ...base import expect, expect_labels
from ...training import DivergedError

CLAMP = 1e-4  # of the published ELR code: probabilities stay in [CLAMP, 1 - CLAMP]
MAX_GAP = 1 - 2 * CLAMP  # the same for p_0 - p_1
STOP_EVERY = 256  # steps between two looks at the stop event: about 5 ms
IS_FLIP = "it is the probability of a wrong label"
MORE_WRONG = "take a larger `flip` or more examples"

COLUMNS = {
    "step": "0 is before the first",
    "loss": "mean cross entropy with the given labels",
    "alignment": "of minus the gradient with v",
    "overlap": "theta.v, which the proof watches",
    "clean_as_true": "share of the rightly labelled examples predicted as their class",
    "wrong_as_true": "share of the wrongly labelled ones predicted as their true class",
    "wrong_as_given": "share of the wrongly labelled ones predicted as labelled: memorized",
    "fitted": "share of all given labels that are fitted",
    "clean_coefficient": "of the true class, p - y (ELR: p - y + lambda g): mean, rightly labelled",
    "clean_coefficient_std": "its standard deviation over the rightly labelled",
    "wrong_coefficient": "its mean over the wrongly labelled",
    "wrong_coefficient_std": "its standard deviation over the wrongly labelled",
}
"""What a descent records, and what it means; shares lie in 0..1."""


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
    """Draw the data of the theorem (section 3).

    n examples with p features: v is uniform on the unit sphere, both classes are equally likely,
    x = +v or -v plus N(0, sigma^2 I), and each label is the wrong one with probability `flip` (the
    theorem's Delta / 2), independently.
    """
    expect(n >= 1, "`n` of at least 1", n, "it is the number of examples")
    expect(p >= 1, "`p` of at least 1", p, "it is the number of features")
    expect(0 <= sigma < math.inf, "`sigma` of at least 0 and finite", sigma)
    expect(0 <= flip < 1, "`flip` in [0, 1)", flip, IS_FLIP)
    direction = torch.randn(p, generator=generator, dtype=torch.float64)
    separator = F.normalize(direction, dim=0)
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
    expect(0 <= flip < 1, "`flip` in [0, 1)", flip, IS_FLIP)
    return 1 - flip, 1.0


def initial_theta(p: int, generator: torch.Generator | None = None) -> Tensor:
    """Return first weights, float64 ``(2, p)``: Theta_0 - Theta_1 is uniform on a sphere.

    Its radius is the paper's 2. The two rows are opposite, and gradient descent keeps them so.
    """
    expect(p >= 1, "`p` of at least 1", p, "it is the number of features")
    half = F.normalize(torch.randn(p, generator=generator, dtype=torch.float64), dim=0)
    return torch.stack((half, -half))


def gradient(theta: Tensor, features: Tensor, given_labels: Tensor) -> Tensor:
    """Gradient of the mean cross entropy of softmax regression, in closed form: equation (3).

    Row c is ``(1/n) sum_i x_i (softmax(Theta x_i)_c - y_ic)``: every example pulls along itself,
    with its coefficient p - y as the weight. Theta is ``(2, p)``, like the result, x ``(n, p)``;
    the labels are int64 ``(n,)``, 0 or 1.
    """
    _check_model(theta, features, given_labels=given_labels)
    coefficients = (features @ theta.T).softmax(dim=1) - F.one_hot(given_labels, 2)
    return coefficients.T @ features / len(features)


def true_class_coefficients(
    probabilities: Tensor, given_labels: Tensor, true_labels: Tensor
) -> Tensor:
    """Return the entry of p - y that belongs to the true class, ``(n,)``; any number of classes.

    It is negative where the given label is right (p - 1) and positive where it is wrong (p - 0).
    The probabilities are ``(n, C)``, the labels int64 ``(n,)``.
    """
    n, num_classes = probabilities.shape
    expect_labels("given_labels", given_labels, num_classes, n)
    expect_labels("true_labels", true_labels, num_classes, n)
    of_true_class = probabilities.gather(1, true_labels[:, None]).squeeze(1)
    return of_true_class - (given_labels == true_labels).to(probabilities.dtype)


def alignment(gradient: Tensor, separator: Tensor) -> float:
    """Cosine of the angle between minus the gradient and v: Theorem 1 and Proposition 3.

    A class-0 example should get a larger z_0 - z_1, and that difference is (Theta_0 - Theta_1).x.
    So the direction that a step moves in is ``-(G_0 - G_1)``. The gradient G is ``(2, p)``, v is
    ``(p,)`` of any length but 0. nan where the gradient is zero.
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

    Watched by Theorem 1 and figure A.1. The weights are ``(2, p)``, the features ``(n, p)``, the
    labels int64 ``(n,)``.
    """
    _check_model(theta, features, given_labels=given_labels, true_labels=true_labels)
    is_wrong = given_labels != true_labels
    expect(bool(is_wrong.any()), "at least one wrongly labelled example", "none", MORE_WRONG)
    predicted = (features @ theta.T).argmax(dim=1)
    return (predicted == true_labels)[is_wrong].double().mean().item()


class Descent:
    """What a run of gradient descent leaves behind; ``run["loss"]`` is a column of it.

    Attributes:
        theta: the last weights, float64 ``(2, p)``.
        stopped: "" for a run that finished, else why it ended early.
    """

    def __init__(self, rows: list[tuple[float, ...]], theta: Tensor, stopped: str = "") -> None:
        """Keep rows in the order of :data:`COLUMNS`."""
        table = np.array(rows, dtype=float).reshape(-1, len(COLUMNS))
        self._columns = dict(zip(COLUMNS, table.T, strict=True))
        self.theta, self.stopped = theta, stopped

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self["step"])

    def __getitem__(self, column: str) -> np.ndarray:
        """Return one column of :data:`COLUMNS`, float64, a value a record."""
        if column not in COLUMNS:
            raise KeyError(f"{column!r} is not recorded; there are {', '.join(COLUMNS)}")
        return self._columns[column]

    def at(self, column: str, step: int) -> float:
        """Return the value recorded at a step, or at the last one before it."""
        expect(step >= 0, "a `step` of at least 0", step)
        return float(self[column][self["step"] <= step][-1])

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


def log_spaced(steps: int) -> list[int]:
    """Return step numbers from 0 to `steps`, ten a decade, evenly spread on a logarithmic axis.

    >>> log_spaced(20)
    [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20]
    """
    spread = {round(10 ** (tenth / 10)) for tenth in range(10 * len(str(steps)) + 1)}
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

    ``Theta <- Theta - lr * gradient`` with the gradient of cross entropy, or for `lambda_` above 0
    that of ELR (Lemma 2: coefficient p - y + lambda g). Since the rows of the gradient are opposite
    to each other, only theta = Theta_0 - Theta_1 has to be followed; p_0 - p_1 = tanh(theta.x / 2).

    Args:
        data: what :func:`sample` returned, or any four tensors like it.
        lr: step size eta; the theorem takes it below 1.
        steps: number of steps; those of :func:`log_spaced` are recorded.
        lambda_: weight of the ELR regularizer; 0 is cross entropy.
        beta: momentum of ELR's targets in [0, 1).
        theta: first weights ``(2, p)``; :func:`initial_theta` when left out.
        stop: ends the run early when set; what was recorded is kept.
        generator: for the first weights; torch's global one when left out.

    Raises:
        DivergedError: the weights are no finite numbers any more; records in ``.history``.
        ValueError: also where no example is rightly, or none wrongly labelled.

    Source: arXiv 2007.00151, section 3 and appendix B. Explained in lesson 04.
    """
    data = Sample(*data)
    expect(0 < lr < math.inf, "a step size `lr` above 0 and finite", lr)
    expect(steps >= 1, "`steps` of at least 1", steps)
    expect(0 <= lambda_ < math.inf, "`lambda_` of at least 0 and finite", lambda_)
    expect(0 <= beta < 1, "`beta` in [0, 1)", beta)
    if theta is None:
        theta = initial_theta(data.features.shape[-1], generator)
    labels = {"true_labels": data.true_labels, "given_labels": data.given_labels}
    _check_model(theta.double(), data.features.double(), **labels)
    _check_sample(data)
    run, elr = _Run(data), _Regularizer(len(data.features), lambda_, beta) if lambda_ else None
    difference = _array(theta[0] - theta[1])
    # Both rows move by lr * gradient, in opposite directions: the difference moves by twice that.
    update = run.features_t * (2 * lr / len(data.features))
    rows, stopped, recorded = [], "", set(log_spaced(steps))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps + 1):
            gap = np.tanh(run.half_features @ difference)  # p_0 - p_1
            coefficient = 0.5 * (gap - run.given)  # p_0 - y_0, with signs for labels
            if elr is not None:
                coefficient += elr(gap)
            if step in recorded:
                if not np.isfinite(difference).all():
                    break
                rows.append((step, *run.measure(difference, coefficient)))
            if step < steps:
                difference -= update @ coefficient
            if stop is not None and step % STOP_EVERY == 0 and stop.is_set():
                stopped = f"stopped at step {step}"
                break
    # The mean of the rows does not move: those of the gradient sum to 0.
    mean_row, half = theta.double().mean(dim=0), torch.from_numpy(difference) / 2
    descent = Descent(rows, torch.stack((mean_row + half, mean_row - half)), stopped)
    if not np.isfinite(difference).all():
        message = f"The weights became infinite at step size {lr:g}: take a smaller `lr`"
        raise DivergedError(message, descent)
    return descent


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


class _Run:
    """The data as arrays, with signs for labels: +1 is class 0, -1 class 1."""

    def __init__(self, data: Sample) -> None:
        features = _array(data.features)
        self.half_features = np.ascontiguousarray(features / 2)
        self.features_t = np.ascontiguousarray(features.T)
        self.true, self.given = _array(1 - 2 * data.true_labels), _array(1 - 2 * data.given_labels)
        self.wrong, self.separator = data.is_wrong.cpu().numpy(), _array(data.separator)

    def measure(self, theta: np.ndarray, coefficient: np.ndarray) -> tuple[float, ...]:
        """Return a row of :data:`COLUMNS` but the step, from theta_0 - theta_1 and (p - y)_0."""
        margin = 2 * self.half_features @ theta
        downhill = -(self.features_t @ coefficient)
        length = np.linalg.norm(downhill)
        predicted = np.where(margin >= 0, 1.0, -1.0)  # argmax takes the first of equals
        as_true, as_given = predicted == self.true, predicted == self.given
        clean, wrong = ~self.wrong, self.wrong
        own = coefficient * self.true  # of the true class: those of the two classes are opposite
        return (
            np.logaddexp(0, -self.given * margin).mean(),
            downhill @ self.separator / length if length else math.nan,
            theta @ self.separator,
            as_true[clean].mean(),
            as_true[wrong].mean(),
            as_given[wrong].mean(),
            as_given.mean(),
            *(value for group in (clean, wrong) for value in (own[group].mean(), own[group].std())),
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


def _check_model(theta: Tensor, features: Tensor, **labels: Tensor) -> None:
    what = "`features` of shape (n, p) with n of at least 1"
    expect(features.ndim == 2 and len(features) > 0, what, tuple(features.shape))
    p = features.shape[1]
    expect(theta.shape == (2, p), f"`theta` of shape (2, {p})", tuple(theta.shape))
    got, why = f"{theta.dtype} and {features.dtype}", "`.double()` makes float64"
    expect(theta.dtype == features.dtype, "`theta` and `features` of one dtype", got, why)
    why = "of signs make them with ((1 - sign) // 2).long()"
    for name, given in labels.items():
        lowest = given.min().item() if len(given) else 0
        expect(lowest >= 0, f"int64 `{name}` that are 0 or 1", f"{lowest:g}", why)
        expect_labels(name, given, 2, len(features))


def _check_sample(data: Sample) -> None:
    p, got = data.features.shape[1], tuple(data.separator.shape)
    expect(got == (p,), f"a `separator` of shape ({p},)", got)
    expect(bool(data.is_wrong.any()), "at least one wrongly labelled example", "none", MORE_WRONG)
    why = "take a smaller `flip` or more examples"
    expect(not data.is_wrong.all(), "at least one rightly labelled example", "none", why)
