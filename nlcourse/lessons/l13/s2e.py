"""S2E: search for the schedule by which Co-teaching drops examples.

Yao, Yang, Han, Niu and Kwok 2020, "Searching to Exploit Memorization Effect in Learning with Noisy
Labels" (arXiv 1911.02377); their code: LARS-research/S2E. Lesson 13 says where it stands.

S2E draws curves from a family, trains Co-teaching with each, and moves towards those that do well
on **clean** validation labels: a search around a method, so it is not in ``METHODS``. Twelve
numbers in (0, 1) make a curve. Each has a Beta distribution of its own, uniform at first, whose
parameters a and b make a step along the natural gradient of the expected score after each round of
draws. Where paper and code differ: docs/deviations.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...base import expect

NUMBERS = 12  # that make a curve
# The numbers that the code squeezes or stretches after drawing them from (0, 1).
SCALES = torch.tensor([1, 1, 0.5, 1, 0.5, 2, 0.5, 1, 1, 0.5, 0.5, 2])


def drop_share(numbers: Tensor, epoch: int, epochs: int) -> float:
    """Return the share to drop in an epoch: a mix of three rising curves, less two late ones.

    With t = epoch and T = epochs the rising curves are ``1 - exp(-a t^b)``, ``1 - (1 + a t)^-b``
    and ``1 - log(1 + a) / log(1 + a + b t)``; what is taken away again towards the end are parts of
    ``(t / T)^a`` and ``log(1 + t^a) / log(1 + T^a)``. In [0, 0.99], 0 in the first epoch, and
    constant from T on. `numbers` is float ``(12,)``.
    """
    known = numbers.shape == (NUMBERS,) and bool(((numbers > 0) & (numbers < 1)).all())
    expect(known, f"{NUMBERS} `numbers` in (0, 1)", numbers)
    expect(epoch >= 0 and epochs >= 1, "`epoch` from 0 and `epochs` from 1", f"{epoch}, {epochs}")
    scaled = (numbers.cpu() * SCALES).tolist()  # in the order of the code's parameters
    mix, b_1, a_1, b_2, a_2, late, late_size, mix_2, a_3, b_3, log_size, log_power = scaled
    t = min(epoch, epochs)
    rising = (
        mix * (1 - math.exp(-a_1 * t**b_1))
        + (1 - mix) * mix_2 * (1 - (1 + a_2 * t) ** -b_2)
        + (1 - mix) * (1 - mix_2) * (1 - math.log1p(a_3) / math.log1p(a_3 + b_3 * t))
    )
    falling = late_size * (t / epochs) ** late
    falling += log_size * math.log1p(t**log_power) / math.log1p(epochs**log_power)
    return min(max(rising - falling, 0.0), 0.99)


def schedule(numbers: Tensor, epochs: int) -> Callable[..., float]:
    """Return the curve as ``CoTeaching(forget_rate=...)`` takes it; other arguments have no say."""
    return lambda epoch, *settings, **more: drop_share(numbers, epoch, epochs)


def log_density_gradient(draws: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the gradient of ``log Beta(x; a, b)`` in a and b: ``(..., d, 2)``."""
    both = torch.digamma(a + b)
    in_a = draws.log() + both - torch.digamma(a)
    in_b = (-draws).log1p() + both - torch.digamma(b)
    return torch.stack((in_a, in_b), dim=-1)


def fisher_information(a: Tensor, b: Tensor) -> Tensor:
    """Return the Fisher information of each Beta distribution, from ``(d,)`` to ``(d, 2, 2)``."""
    both = torch.polygamma(1, a + b)
    in_a, in_b = torch.polygamma(1, a) - both, torch.polygamma(1, b) - both
    return torch.stack((in_a, -both, -both, in_b), dim=-1).unflatten(-1, (2, 2))


def natural_step(
    a: Tensor, b: Tensor, drawn: Tensor, scores: Tensor, step: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Move Beta distributions ``(d,)`` towards those of the draws ``(n, d)`` with high scores."""
    advantage = (scores - scores.mean()) / scores.std().clamp(min=torch.finfo(scores.dtype).tiny)
    gradient = (advantage[:, None, None] * log_density_gradient(drawn, a, b)).mean(dim=0)
    moved = torch.linalg.solve(fisher_information(a, b), gradient)
    # As in the code: below 1 a Beta distribution would pile up at 0 and 1.
    return (a + step * moved[:, 0]).clamp(min=1), (b + step * moved[:, 1]).clamp(min=1)


class Search(NamedTuple):
    """What a search has found."""

    best: Tensor  # the numbers of the best curve drawn, (12,)
    best_score: float
    tried: list[tuple[Tensor, float]]  # every draw with its score, in order
    first: Tensor  # a of the Beta distributions now
    second: Tensor  # and b


def search(
    score: Callable[[Tensor], float], *, rounds: int, draws: int, generator: torch.Generator
) -> Search:
    """Look for the numbers ``(12,)`` with the highest score, in so many rounds of draws.

    The score may be Co-teaching's accuracy on clean validation labels: a training each time.
    """
    expect(rounds >= 1, "`rounds` of at least 1", rounds)
    expect(draws >= 2, "`draws` of at least 2", draws, "one has nothing to be compared with")
    a, b = torch.ones(2, NUMBERS, dtype=torch.float64)
    tried: list[tuple[Tensor, float]] = []
    for _ in range(rounds):
        # torch's Beta takes no generator, so a seed from the generator goes to numpy's.
        seed = int(torch.randint(2**62, (), generator=generator))
        drawn = torch.from_numpy(np.random.default_rng(seed).beta(a, b, size=(draws, NUMBERS)))
        drawn = drawn.clamp(1e-6, 1 - 1e-6)  # off 0 and 1, whose logarithms are infinite
        scores = torch.tensor([float(score(numbers)) for numbers in drawn], dtype=torch.float64)
        tried += zip(drawn, scores.tolist(), strict=True)
        a, b = natural_step(a, b, drawn, scores)
    best, best_score = max(tried, key=lambda pair: pair[1])
    return Search(best, best_score, tried, a, b)
