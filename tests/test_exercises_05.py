"""Lesson 05's exercises: right answers written differently (the mistakes are in test_exercises)."""

from __future__ import annotations

import bisect
import math

import numpy as np
import pytest
import torch

from nlcourse.lessons.sources import solution

step_schedule, irreducible_loss, estimate_noise_rate = map(solution, ("5.1", "5.2", "5.3"))


def schedule_by_loop(epoch, lr, milestones, factor):
    for milestone in milestones:
        if milestone <= epoch:
            lr = lr * factor
    return lr


def schedule_by_bisect(epoch, lr, milestones, factor):
    return np.float32(lr * factor ** bisect.bisect_right(milestones, epoch))


def schedule_by_torch(epoch, lr, milestones, factor):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, factor)
    for _ in range(epoch):
        optimizer.step()
        schedule.step()
    return optimizer.param_groups[0]["lr"]


def schedule_as_tensor(epoch, lr, milestones, factor):
    return lr * torch.tensor(factor) ** (torch.tensor(milestones) <= epoch).sum()


def loss_by_formula(noise_rate, num_classes):
    right, wrong = 1 - noise_rate, noise_rate / (num_classes - 1)
    loss = -right * math.log(right) if right else 0.0
    return loss - noise_rate * math.log(wrong) if wrong else loss


def loss_by_distribution(noise_rate, num_classes):
    row = [1 - noise_rate] + [noise_rate / (num_classes - 1)] * (num_classes - 1)
    return torch.distributions.Categorical(probs=torch.tensor(row)).entropy()


def loss_by_cross_entropy(noise_rate, num_classes):
    row = torch.full((1, num_classes), noise_rate / (num_classes - 1), dtype=torch.float64)
    row[0, 0] = 1 - noise_rate
    return torch.nn.functional.cross_entropy(row.clamp_min(1e-300).log(), row)


def loss_by_numpy(noise_rate, num_classes):
    row = np.full(num_classes, noise_rate / (num_classes - 1))
    row[-1] = 1 - noise_rate
    row = row[row > 0]
    return -np.sum(row * np.log(row))


def rate_by_loop(loss, noise_rates, losses):
    rates, known = noise_rates.tolist(), losses.tolist()
    if loss <= known[0]:
        return rates[0]
    for k in range(len(known) - 1):
        if loss <= known[k + 1]:
            share = (loss - known[k]) / (known[k + 1] - known[k])
            return (1 - share) * rates[k] + share * rates[k + 1]
    return rates[-1]


def rate_by_searchsorted(loss, noise_rates, losses):
    right = torch.searchsorted(losses, loss).clamp(1, len(losses) - 1)
    share = (loss - losses[right - 1]) / (losses[right] - losses[right - 1])
    return torch.lerp(noise_rates[right - 1], noise_rates[right], share.clamp(0, 1))


def rate_by_clipping(loss, noise_rates, losses):
    loss = np.clip(loss, losses[0].item(), losses[-1].item())
    return np.interp(loss, losses.numpy(), noise_rates.numpy())


ALTERNATIVES = {
    "5.1": [schedule_by_loop, schedule_by_bisect, schedule_by_torch, schedule_as_tensor],
    "5.2": [loss_by_formula, loss_by_distribution, loss_by_cross_entropy, loss_by_numpy],
    "5.3": [rate_by_loop, rate_by_searchsorted, rate_by_clipping],
}


def test_schedule_is_that_of_torch_in_every_epoch():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=(6, 12), gamma=0.1)
    for epoch in range(20):
        ours = step_schedule(epoch, 0.2, (6, 12), 0.1)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def test_loss_of_a_network_that_knows_the_noise_is_the_irreducible_one():
    """Draw many labels and take torch's cross entropy of the exact probabilities."""
    rate, classes, n = 0.4, 10, 200_000
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(n, generator=generator) < rate
    other = torch.randint(1, classes, (n,), generator=generator)
    labels = torch.where(wrong, other, torch.zeros_like(other))  # the true class is 0
    row = torch.full((classes,), rate / (classes - 1))
    row[0] = 1 - rate
    drawn = torch.nn.functional.cross_entropy(row.log().expand(n, classes), labels).item()
    assert irreducible_loss(rate, classes) == pytest.approx(drawn, abs=0.01)


def test_no_other_prediction_has_a_smaller_expected_loss():
    row = torch.tensor([0.6] + [0.4 / 9] * 9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        guess = (row.log() + 0.5 * torch.randn(10, generator=generator)).softmax(dim=0)
        assert -(row * guess.log()).sum() > irreducible_loss(0.4, 10)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.37, 0.6, 0.85])
def test_estimate_turns_the_closed_form_round(rate):
    rates = torch.linspace(0, 0.9, 181, dtype=torch.float64)
    losses = torch.tensor([irreducible_loss(r, 10) for r in rates.tolist()])
    assert estimate_noise_rate(irreducible_loss(rate, 10), rates, losses) == pytest.approx(
        rate, abs=1e-3
    )
