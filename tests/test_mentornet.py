"""MentorNet's curriculum against brute force, its schedule by hand, and its runs."""

from __future__ import annotations

import functools
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.methods import CrossEntropy
from nlcourse.methods.mentornet import MentorNet, curriculum_weights
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp

# --- the weights ---


@settings(max_examples=60)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=8), st.floats(0, 3), st.floats(0.1, 3))
def test_weights_minimise_what_they_are_said_to(losses, threshold, width):
    grid = np.linspace(0, 1, 2001)
    weights = curriculum_weights(torch.tensor(losses).double(), threshold, width=width)
    for loss, weight in zip(losses, weights.tolist(), strict=True):
        cost = grid * loss + width / 2 * grid**2 - (threshold + width) * grid
        assert weight == pytest.approx(grid[cost.argmin()], abs=1e-3)


def test_without_width_the_weights_are_self_paced():
    losses = torch.tensor([0.0, 0.999, 1.0, 1.001, 7.0])
    assert curriculum_weights(losses, 1.0).tolist() == [1, 1, 1, 0, 0]
    assert curriculum_weights(losses, torch.tensor(1.0), width=1e-6).tolist() == [1, 1, 1, 0, 0]


def test_the_border_falls_in_a_straight_line():
    losses = torch.tensor([0.0, 2.0, 2.5, 3.0, 3.5, 4.0, 9.0])
    weights = curriculum_weights(losses, 2.0, width=2.0)
    assert weights.tolist() == [1, 1, 0.75, 0.5, 0.25, 0, 0]


def test_no_gradient_flows_through_the_weights():
    losses = torch.tensor([1.0, 2.5], requires_grad=True)
    assert not curriculum_weights(losses, 2.0, width=1.0).requires_grad


@pytest.mark.parametrize(
    ("losses", "width", "word"),
    [(torch.tensor(1.0), 0.0, "reduction='none'"), (torch.ones(2, 2), 0.0, r"\(n,\)"),
     (torch.ones(2), -1.0, "`width`"), (torch.ones(2), math.nan, "`width`")],
)  # fmt: skip
def test_weights_refuse_what_has_no_meaning(losses, width, word):
    with pytest.raises(ValueError, match=word):
        curriculum_weights(losses, 1.0, width=width)


# --- the method ---


def built(method, size=40, classes=3):
    torch.manual_seed(0)
    method.build(lambda: torch.nn.Linear(6, classes), size, classes)
    method.generator = torch.Generator().manual_seed(0)
    return method


def make_batch(size=40):
    generator = torch.Generator().manual_seed(5)
    images = 3 * torch.randn(size, 6, generator=generator)
    labels = torch.randint(3, (size,), generator=generator)
    return Batch(images, labels, torch.randperm(size, generator=generator))


def losses_of(method, batch):
    return F.cross_entropy(method.network(batch.images), batch.labels, reduction="none").detach()


EVERYBODY = {"drop_early": 0.0, "drop_late": 0.0}


def test_the_threshold_is_the_running_mean_of_the_percentile():
    method, batch = built(MentorNet(0.6, decay=0.8, **EVERYBODY)), make_batch()
    expected = np.quantile(losses_of(method, batch).numpy(), 0.6)
    for _ in range(5):
        method.loss(batch)
        assert method.threshold.item() == pytest.approx(expected, rel=1e-5)
        with torch.no_grad():  # another network, other losses
            method.network.weight.mul_(1.5)
        level = np.quantile(losses_of(method, batch).numpy(), 0.6)
        expected = 0.8 * expected + 0.2 * level


def test_burn_in_then_hard_then_soft():
    batch = make_batch()
    method = built(MentorNet(0.5, burn_in=2, soft_from=4, width=0.5, decay=0.0, **EVERYBODY))
    losses = losses_of(method, batch)
    middle = losses.quantile(0.5)
    hard = (losses <= middle).float()
    soft = (1 - (losses - middle) / 0.5).clamp(0, 1)
    assert 0 < soft[(soft > 0) & (soft < 1)].numel() < len(soft)
    for epoch, weights in ((0, None), (1, None), (2, hard), (3, hard), (4, soft), (9, soft)):
        method.epoch = epoch
        method.selected.zero_()
        expected = losses.mean() if weights is None else (weights * losses).mean()
        assert method.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)
        counted = torch.ones(40) if weights is None else weights
        assert method.selected[0, batch.index].tolist() == (counted > 0).tolist()


def test_only_what_counts_has_a_gradient():
    batch = make_batch()
    method = built(MentorNet(0.5, burn_in=0, soft_from=9, decay=0.0, **EVERYBODY))
    losses = losses_of(method, batch)
    kept = losses <= losses.quantile(0.5)
    method.loss(batch).backward()
    own = F.cross_entropy(method.network(batch.images[kept]), batch.labels[kept], reduction="sum")
    (expected,) = torch.autograd.grad(own / 40, method.network.weight)
    torch.testing.assert_close(method.network.weight.grad, expected)


@pytest.mark.parametrize(("epoch", "dropped"), [(0, 0.5), (5, 0.2)])
def test_some_are_left_out_at_random(epoch, dropped):
    method = built(MentorNet(1.0, burn_in=3, drop_early=0.5, drop_late=0.2), size=4000)
    method.epoch = epoch
    method.threshold.fill_(1e9)
    method.loss(make_batch(4000))
    assert method.selected.float().mean().item() == pytest.approx(1 - dropped, abs=0.03)


def test_a_students_weights_are_the_ones_that_count():
    seen = []

    def mine(losses, threshold, *, width):
        seen.append((float(threshold), width))
        return torch.zeros_like(losses)

    method = built(MentorNet(burn_in=0, soft_from=1, width=0.3, decay=0.0, weights=mine))
    assert method.loss(make_batch()).item() == 0
    method.epoch = 1
    method.loss(make_batch())
    assert [width for _, width in seen] == [0.0, 0.3]


def test_a_known_noise_rate_sets_the_percentile():
    assert MentorNet(noise_rate=0.4).percentile == pytest.approx(0.6)
    assert MentorNet().percentile == 0.7


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"noise_rate": 1.0}, "noise_rate"), ({"percentile": 0}, "percentile"),
     ({"percentile": 1.2}, "percentile"),
     ({"burn_in": -1}, "burn_in"), ({"burn_in": 9, "soft_from": 8}, "soft_from"),
     ({"width": 0}, "width"), ({"decay": 1.0}, "decay"), ({"drop_early": 1.0}, "drop_early"),
     ({"drop_late": -0.1}, "drop_late")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        MentorNet(**arguments)


# --- in the loop ---


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(digits, tmp_path):
    noisy = noise.inject(digits.subset(200), "symmetric", 0.4, seed=0)
    make = functools.partial(MentorNet, burn_in=2, soft_from=4)
    network = functools.partial(mlp, hidden=(16,), dropout=0.2)
    quiet = {"progress": False, "device": "cpu"}
    run = functools.partial(fit, data=noisy, network=network, epochs=6, seed=3, **quiet)
    whole, stop = run(make()), threading.Event()
    kept = Options(checkpoint=tmp_path / "run.pt", stop=stop)
    first = run(
        make(), options=kept,
        on_epoch=lambda history: stop.set() if len(history) == 3 else None,
    )  # fmt: skip
    assert first.stopped
    second = run(make(), options=Options(checkpoint=kept.checkpoint))
    for column in ("train_loss", "test_accuracy", "label_precision"):
        assert str(second[column]) == str(whole[column])  # nan is not equal to nan


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_with_the_right_percentile_it_forgets_little(digits, seed):
    """The margins are far below what was measured."""
    noisy = noise.inject(digits, "symmetric", 0.4, seed=seed)
    run = functools.partial(fit, data=noisy, epochs=60, seed=seed, progress=False, device="cpu")
    plain, method = run(CrossEntropy()), run(MentorNet(noise_rate=0.4))
    assert method.last["test_accuracy"] > plain.last["test_accuracy"] + 0.08
    assert method.last["label_precision"] > 0.9
