"""S2E: search for the schedule by which Co-teaching drops examples.

Yao, Yang, Han, Niu and Kwok 2020, "Searching to Exploit Memorization Effect in Learning with Noisy
Labels" (arXiv 1911.02377); their code: LARS-research/S2E. Lesson 13 says where it stands.

Co-teaching drops more and more of each batch until the noise rate is reached. Must it be that
curve? S2E draws curves from a family, trains Co-teaching with each, and moves towards those that do
well on **clean** validation labels. It is a search around a method, not a method: it has no entry
in ``METHODS``. The curve it finds goes into ``CoTeaching(forget_rate=...)``.

What is drawn: 12 numbers in (0, 1), each from a Beta distribution of its own, uniform at first.
After each round of draws the Beta parameters make a step along the natural gradient of the expected
score, as in the paper. Where we differ from the code:

* the Fisher information of a Beta distribution is known in closed form; the code estimates it;
* scores count as their distance from the round's mean, in standard deviations, so that the size of
  a step does not depend on the units; the code takes the best draw of a round alone;
* their "validation" set is half of the **test** set. Hold out training images instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NUMBERS = 12  # that make a curve
MOST_DROPPED = 0.99
# The numbers that the code squeezes or stretches after drawing them from (0, 1).
SCALES = torch.tensor([1, 1, 0.5, 1, 0.5, 2, 0.5, 1, 1, 0.5, 0.5, 2])

Schedule = Callable[..., float]


def drop_share(numbers: Tensor, epoch: int, epochs: int) -> float:
    """Return the share to drop in an epoch: a mix of three rising curves, less two late ones.

    With t = epoch and T = epochs the rising curves are ``1 - exp(-a t^b)``, ``1 - (1 + a t)^-b``
    and ``1 - log(1 + a) / log(1 + a + b t)``; what is taken away again towards the end are parts of
    ``(t / T)^a`` and ``log(1 + t^a) / log(1 + T^a)``.

    Args:
        numbers: float ``(12,)``, each in (0, 1).
        epoch: 0, 1, 2, ...; from `epochs` on the curve stays.
        epochs: T, of the whole training.

    Returns:
        A share in [0, 0.99]; 0 in the first epoch.

    Raises:
        ValueError: other than 12 numbers in (0, 1), or an epoch that is none.
    """
    if numbers.shape != (NUMBERS,) or not bool(((numbers > 0) & (numbers < 1)).all()):
        raise ValueError(f"Expected {NUMBERS} `numbers` in (0, 1), got {numbers}")
    if epoch < 0 or epochs < 1:
        raise ValueError(f"Expected `epoch` from 0 and `epochs` from 1, got {epoch} and {epochs}")
    # The order of the code's parameters.
    (
        mix,
        e_power,
        e_rate,
        p_power,
        p_rate,
        late,
        late_size,
        mix_2,
        l_size,
        l_rate,
        log_size,
        log_p,
    ) = (numbers.cpu() * SCALES).tolist()
    t, part = min(epoch, epochs), min(epoch, epochs) / epochs
    rising = (
        mix * (1 - math.exp(-e_rate * t**e_power))
        + (1 - mix) * mix_2 * (1 - (1 + p_rate * t) ** -p_power)
        + (1 - mix) * (1 - mix_2) * (1 - math.log1p(l_size) / math.log1p(l_size + l_rate * t))
    )
    falling = late_size * part**late
    falling += log_size * math.log1p(t**log_p) / math.log1p(epochs**log_p)
    return min(max(rising - falling, 0.0), MOST_DROPPED)


def schedule(numbers: Tensor, epochs: int) -> Schedule:
    """Return the curve as ``CoTeaching(forget_rate=...)`` takes it; other arguments have no say."""

    def forget_rate(epoch: int, *settings: float, **more: float) -> float:
        return drop_share(numbers, epoch, epochs)

    return forget_rate


def log_density_gradient(draws: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the gradient of ``log Beta(x; a, b)`` in a and b.

    Args:
        draws: float ``(..., d)`` in (0, 1).
        first: a, float ``(d,)``.
        second: b, float ``(d,)``.

    Returns:
        ``(..., d, 2)``.
    """
    both = torch.digamma(first + second)
    in_first = draws.log() + both - torch.digamma(first)
    in_second = (-draws).log1p() + both - torch.digamma(second)
    return torch.stack((in_first, in_second), dim=-1)


def fisher_information(first: Tensor, second: Tensor) -> Tensor:
    """Return the Fisher information of each Beta distribution, ``(d, 2, 2)``."""
    both = torch.polygamma(1, first + second)
    corner = torch.polygamma(1, first) - both, torch.polygamma(1, second) - both
    rows = torch.stack((corner[0], -both, -both, corner[1]), dim=-1)
    return rows.unflatten(-1, (2, 2))


@dataclass
class Search:
    """What a search has found.

    Attributes:
        best: the numbers of the best curve drawn, ``(12,)``.
        best_score: its score.
        tried: every draw with its score, in order.
        first: a of the Beta distributions now.
        second: b of the Beta distributions now.
    """

    best: Tensor
    best_score: float
    tried: list[tuple[Tensor, float]]
    first: Tensor
    second: Tensor


def search(
    score: Callable[[Tensor], float],
    *,
    rounds: int,
    draws: int,
    step: float = 0.5,
    generator: torch.Generator | None = None,
) -> Search:
    """Look for the numbers with the highest score.

    Args:
        score: from numbers ``(12,)`` to, say, the accuracy of Co-teaching with their curve on clean
            validation labels: a whole training each time.
        rounds: steps of the distribution, at least 1.
        draws: curves tried a round, at least 2: one alone has nothing to be compared with.
        step: length of a step.
        generator: of the draws; torch's global one when left out.

    Raises:
        ValueError: too few rounds or draws.
    """
    if rounds < 1 or draws < 2:
        raise ValueError(
            f"Expected `rounds` of at least 1 and `draws` of at least 2, got {rounds} and {draws}"
        )
    first, second = torch.ones(2, NUMBERS, dtype=torch.float64)
    tried: list[tuple[Tensor, float]] = []
    for _ in range(rounds):
        drawn = _draw(first, second, draws, generator)
        scores = torch.tensor([float(score(numbers)) for numbers in drawn], dtype=torch.float64)
        tried += zip(drawn, scores.tolist(), strict=True)
        first, second = natural_step(first, second, drawn, scores, step)
    best, best_score = max(tried, key=lambda pair: pair[1])
    return Search(best, best_score, tried, first, second)


def natural_step(
    first: Tensor, second: Tensor, drawn: Tensor, scores: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """Move Beta distributions towards the draws with high scores; a and b stay at least 1.

    Args:
        first: a, float ``(d,)``.
        second: b, float ``(d,)``.
        drawn: float ``(n, d)``.
        scores: float ``(n,)``.
        step: length of a step.
    """
    spread = scores.std().clamp(min=torch.finfo(scores.dtype).tiny)
    advantage = (scores - scores.mean()) / spread
    gradient = (advantage[:, None, None] * log_density_gradient(drawn, first, second)).mean(dim=0)
    moved = torch.linalg.solve(fisher_information(first, second), gradient)
    # As in the code: below 1 a Beta distribution would pile up at 0 and 1.
    return (first + step * moved[:, 0]).clamp(min=1), (second + step * moved[:, 1]).clamp(min=1)


def _draw(first: Tensor, second: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw from Beta(a, b), kept off 0 and 1, whose logarithms are infinite."""
    # torch's Beta takes no generator, so a seed from the generator goes to numpy's.
    seed = torch.randint(2**62, (), generator=generator).item()
    drawn = np.random.default_rng(seed).beta(first, second, size=(count, len(first)))
    return torch.from_numpy(drawn).clamp(1e-6, 1 - 1e-6)
