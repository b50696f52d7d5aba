"""S2E: the curves against numpy, the steps against torch's Beta, and a search that finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlcourse import datasets, noise
from nlcourse.lessons.l13.s2e import (
    NUMBERS,
    drop_share,
    fisher_information,
    log_density_gradient,
    natural_step,
    schedule,
    search,
)
from nlcourse.methods import CoTeaching
from nlcourse.training import fit


def numbers_of(seed, low=0.01):
    generator = torch.Generator().manual_seed(seed)
    return low + (1 - 2 * low) * torch.rand(NUMBERS, generator=generator, dtype=torch.float64)


# --- the curves ---


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 200))
def test_the_curve_is_the_formula(seed, epochs):
    numbers = numbers_of(seed)
    m, eb, ea, pb, pa, lp, ls, m2, c, lr, gs, gp = numbers.numpy() * [
        1, 1, 0.5, 1, 0.5, 2, 0.5, 1, 1, 0.5, 0.5, 2,
    ]  # fmt: skip
    t = np.arange(epochs, dtype=float)
    rising = m * (1 - np.exp(-ea * np.power(t, eb)))
    rising += (1 - m) * m2 * (1 - 1 / np.power(pa * t + 1, pb))
    rising += (1 - m) * (1 - m2) * (1 - np.log(1 + c) / np.log(1 + c + lr * t))
    late = np.power(t / epochs, lp) * ls
    late += np.log(1 + np.power(t, gp)) / np.log(1 + np.power(float(epochs), gp)) * gs
    expected = np.clip(rising - late, 0, 0.99)
    measured = [drop_share(numbers, epoch, epochs) for epoch in range(epochs)]
    np.testing.assert_allclose(measured, expected, atol=1e-7)
    assert measured[0] == pytest.approx(0, abs=1e-12)


def test_after_the_end_the_curve_stays():
    numbers = numbers_of(3)
    assert drop_share(numbers, 90, 60) == drop_share(numbers, 60, 60)


@pytest.mark.parametrize(
    ("numbers", "epoch", "epochs", "word"),
    [(torch.full((11,), 0.5), 0, 9, "12 `numbers`"), (torch.zeros(12), 0, 9, r"in \(0, 1\)"),
     (torch.full((12,), 0.5), -1, 9, "`epoch`"), (torch.full((12,), 0.5), 0, 0, "`epochs`")],
)  # fmt: skip
def test_what_makes_no_curve_is_refused(numbers, epoch, epochs, word):
    with pytest.raises(ValueError, match=word):
        drop_share(numbers, epoch, epochs)


def test_co_teaching_runs_on_a_found_curve():
    noisy = noise.inject(datasets.load("digits").subset(200), "symmetric", 0.4, seed=0)
    numbers, asked = torch.full((NUMBERS,), 0.6), []
    numbers[[6, 10]] = 0.01  # little is taken away late: the curve rises from the start
    curve = schedule(numbers, 3)

    def watched(*arguments):
        asked.append(curve(*arguments))
        return asked[-1]

    method = CoTeaching(0.4, forget_rate=watched)
    history = fit(method, noisy, epochs=3, progress=False, device="cpu")
    wanted = {drop_share(numbers, epoch, 3) for epoch in range(3)}
    assert set(asked) == wanted
    assert len(wanted) == 3
    # 200 examples in batches of 64, 64, 64 and 8: each network keeps this many of them.
    kept = sum(int((1 - drop_share(numbers, 2, 3)) * size) for size in (64, 64, 64, 8))
    assert int(method.selected.sum()) == 2 * kept
    assert math.isfinite(history.last["train_loss"])


# --- the distribution ---


def test_the_gradient_of_the_density_against_autograd():
    generator = torch.Generator().manual_seed(0)
    first, second = 1 + 4 * torch.rand(2, 5, generator=generator, dtype=torch.float64)
    drawn = torch.rand(7, 5, generator=generator, dtype=torch.float64)
    a, b = first.clone().requires_grad_(), second.clone().requires_grad_()
    for row in drawn:
        log_density = torch.distributions.Beta(a, b).log_prob(row).sum()
        expected = torch.autograd.grad(log_density, (a, b))
        measured = log_density_gradient(row, first, second)
        torch.testing.assert_close(measured, torch.stack(expected, dim=-1))


def test_the_fisher_information_is_the_covariance_of_that_gradient():
    first, second = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])
    torch.manual_seed(0)
    drawn = torch.distributions.Beta(first, second).sample((400_000,))
    slopes = log_density_gradient(drawn.clamp(1e-6, 1 - 1e-6), first, second)
    for k in range(2):
        measured = torch.cov(slopes[:, k].T)
        torch.testing.assert_close(
            measured, fisher_information(first, second)[k], atol=0.03, rtol=0.05
        )


def test_a_step_goes_towards_the_better_draws_and_equal_scores_move_nothing():
    one = torch.ones(1, dtype=torch.float64)
    drawn = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    first, second = natural_step(one, one, drawn, torch.tensor([0.0, 0.5, 1.0]).double(), 1.0)
    assert first > 1
    assert second == 1  # it would have gone below
    same = natural_step(one, one, drawn, torch.ones(3).double(), 1.0)
    assert [side.item() for side in same] == [1, 1]


def test_the_size_of_a_step_does_not_depend_on_the_units():
    first, second = torch.full((2, NUMBERS), 2.0, dtype=torch.float64)
    drawn = torch.stack([numbers_of(seed) for seed in range(6)])
    scores = torch.arange(6).double()
    one = natural_step(first, second, drawn, scores, 0.1)
    other = natural_step(first, second, drawn, 100 * scores + 7, 0.1)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


# --- the search ---


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_what_chance_does_not(seed):
    """Two of the numbers matter: near 0.8 and 0.3 is best."""

    def score(numbers):
        return -((numbers[0] - 0.8) ** 2) - (numbers[1] - 0.3) ** 2

    generator = torch.Generator().manual_seed(seed)
    found = search(score, rounds=40, draws=20, generator=generator)
    assert len(found.tried) == 800
    assert found.best_score == max(score for _, score in found.tried)
    early, late = (
        np.mean([score for _, score in part]) for part in (found.tried[:100], found.tried[-100:])
    )
    assert late > early / 2  # scores are negative
    means = (found.first / (found.first + found.second)).tolist()
    assert means[0] == pytest.approx(0.8, abs=0.2)
    assert means[1] == pytest.approx(0.3, abs=0.2)


def test_the_same_generator_draws_the_same():
    def run():
        generator = torch.Generator().manual_seed(7)
        return search(lambda n: n.sum().item(), rounds=2, draws=3, generator=generator)

    one, other = run(), run()
    assert torch.equal(one.best, other.best)
    assert one.best_score == other.best_score


@pytest.mark.parametrize("arguments", [{"rounds": 0, "draws": 3}, {"rounds": 1, "draws": 1}])
def test_a_search_without_comparison_is_refused(arguments):
    with pytest.raises(ValueError, match="nothing|at least"):
        search(lambda numbers: 0.0, **arguments, generator=torch.Generator())
