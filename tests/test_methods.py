"""Methods against independent references: loops, closed forms, two separate optimizers."""

import functools
import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.methods import METHODS, CoTeaching, CrossEntropy, Method
from nlcourse.methods.co_teaching import crossed_losses, forget_rate, own_losses, small_loss_indices
from nlcourse.methods.joint import hard_labels, next_labels
from nlcourse.training import Options, fit
from nlcourse.training.networks import small_cnn

# --- forget_rate ---


def test_forget_rate_is_the_papers_schedule():
    # Golden values of algorithm 1: R(T) = 1 - min(T / T_k * tau, tau) with tau = 0.45, T_k = 10.
    measured = [forget_rate(epoch, 0.45, 10) for epoch in range(13)]
    expected = [0.045 * min(epoch, 10) for epoch in range(13)]
    assert measured == pytest.approx(expected)


def test_forget_rate_with_exponents_of_the_appendix():
    assert [forget_rate(epoch, 0.5, 10, 2) for epoch in range(1, 6)] == pytest.approx(
        [0.05, 0.2, 0.45, 0.5, 0.5]
    )
    slow = [forget_rate(epoch, 0.5, 10, 0.5) for epoch in (1, 2, 3, 10, 100)]
    assert slow == pytest.approx([0.05, 0.0707, 0.0866, 0.1581, 0.5], abs=1e-4)


def test_the_official_codes_schedule_is_one_epoch_ahead():
    # linspace(0, tau, T_k), from the code: the full rate is reached at index 9, not 10.
    code = np.linspace(0, 0.45, 10)
    paper = [forget_rate(epoch, 0.45, 9) for epoch in range(10)]
    assert paper == pytest.approx(list(code))


@settings(max_examples=100)
@given(st.integers(0, 300), st.floats(0, 0.99), st.floats(0.5, 50), st.floats(0.25, 3))
def test_forget_rate_grows_to_the_noise_rate_and_no_further(epoch, rate, ramp, exponent):
    now = forget_rate(epoch, rate, ramp, exponent)
    later = forget_rate(epoch + 1, rate, ramp, exponent)
    assert 0 <= now <= later <= rate
    assert forget_rate(0, rate, ramp, exponent) == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((-1, 0.4, 10), "epoch"), ((0, 1.0, 10), "noise_rate"), ((0, 1.4, 10), "share of wrong"),
     ((0, 0.4, 0), "ramp_epochs"), ((0, 0.4, 10, 0), "exponent")],
)  # fmt: skip
def test_forget_rate_refuses_what_has_no_meaning(arguments, word):
    with pytest.raises(ValueError, match=word):
        forget_rate(*arguments)


# --- small_loss_indices ---


@settings(max_examples=100)
@given(st.lists(st.floats(0, 100, width=32), max_size=40), st.floats(0, 1))
def test_small_loss_indices_against_a_loop(losses, share):
    kept = small_loss_indices(torch.tensor(losses), share)
    left, expected = list(range(len(losses))), []
    for _ in range(int((1 - share) * len(losses))):
        smallest = min(left, key=lambda position: losses[position])
        left.remove(smallest)
        expected.append(smallest)
    assert kept.tolist() == expected
    assert kept.dtype == torch.int64


def test_small_loss_indices_refuses_other_shapes_and_shares():
    with pytest.raises(ValueError, match="reduction='none'"):
        small_loss_indices(torch.tensor(0.4), 0.2)
    with pytest.raises(ValueError, match="share to drop"):
        small_loss_indices(torch.rand(4), 1.2)


# --- crossed_losses ---


def test_each_network_learns_from_what_its_peer_kept():
    first = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    second = torch.tensor([10.0, 20.0, 30.0, 40.0], requires_grad=True)
    loss_first, loss_second = crossed_losses(
        first, second, torch.tensor([0, 1]), torch.tensor([2, 3])
    )
    assert loss_first.item() == 3.5
    assert loss_second.item() == 15.0
    (loss_first + loss_second).backward()
    assert first.grad.tolist() == [0, 0, 0.5, 0.5]
    assert second.grad.tolist() == [0.5, 0.5, 0, 0]


def test_an_empty_selection_teaches_nothing():
    nothing = torch.tensor([], dtype=torch.int64)
    losses = torch.rand(3, requires_grad=True)
    total = sum(crossed_losses(losses, losses, nothing, nothing))
    total.backward()
    assert total.item() == 0
    assert losses.grad.tolist() == [0, 0, 0]


# --- the whole step ---


def linear_pair(seed):
    torch.manual_seed(seed)
    return [torch.nn.Linear(6, 3) for _ in range(2)]


def make_batch(size=20):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(size, 6, generator=generator)
    labels = torch.randint(3, (size,), generator=generator)
    return Batch(images, labels, torch.arange(size))


@pytest.mark.parametrize("piece", [crossed_losses, own_losses])
def test_a_co_teaching_step_is_the_algorithm_box(piece):
    """One optimizer on the sum of two losses steps like one optimizer a network."""
    batch = make_batch()
    method = CoTeaching(0.5, ramp_epochs=2, losses=piece)
    waiting = iter(linear_pair(0))
    method.build(lambda: next(waiting), 20, 3)
    method.epoch = 1  # the share to drop is 0.25: 15 of 20 are kept
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    method.loss(batch).backward()
    optimizer.step()

    reference = linear_pair(0)
    kept = []
    for network in reference:
        losses = [
            F.cross_entropy(network(batch.images[i : i + 1]), batch.labels[i : i + 1]).item()
            for i in range(20)
        ]
        kept.append(sorted(range(20), key=lambda position, losses=losses: losses[position])[:15])
    for number, network in enumerate(reference):
        chosen = kept[1 - number] if piece is crossed_losses else kept[number]
        own = torch.optim.SGD(network.parameters(), lr=0.1)
        F.cross_entropy(network(batch.images[chosen]), batch.labels[chosen]).backward()
        own.step()
        assert sorted(method.selected[number].nonzero().flatten().tolist()) == sorted(chosen)
    for ours, theirs in zip(method.networks, reference, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight)
        torch.testing.assert_close(ours.bias, theirs.bias)


def test_the_two_networks_start_different():
    method = CoTeaching(0.2)
    method.build(lambda: torch.nn.Linear(4, 2), 8, 2)
    assert not torch.equal(method.networks[0].weight, method.networks[1].weight)


def test_a_students_pieces_are_the_ones_that_run():
    calls = []

    def select(losses, share):
        calls.append(("select", share))
        return small_loss_indices(losses, share)

    def losses(*arguments):
        calls.append(("losses",))
        return crossed_losses(*arguments)

    def rate(epoch, noise_rate, ramp_epochs, exponent=1.0):
        return 0.125

    method = CoTeaching(0.5, select=select, losses=losses, forget_rate=rate)
    method.build(lambda: torch.nn.Linear(6, 3), 20, 3)
    method.loss(make_batch())
    assert calls == [("select", 0.125), ("select", 0.125), ("losses",)]


def test_what_is_noted_as_selected_follows_the_piece_that_runs():
    def first_three(first, second, kept_by_first, kept_by_second):
        return first[:3].sum(), 0 * second.sum()

    method = CoTeaching(0.5, losses=first_three)
    method.build(lambda: torch.nn.Linear(6, 3), 20, 3)
    method.loss(make_batch()).backward()
    assert method.selected[0].nonzero().flatten().tolist() == [0, 1, 2]
    assert not method.selected[1].any()
    before = method.selected.clone()
    with torch.no_grad():  # somebody only wants to know the loss
        assert method.loss(make_batch()) > 0
    assert method.selected.equal(before)


def test_own_losses_leaves_the_exchange_out():
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert own_losses(first, second, torch.tensor([0]), torch.tensor([1])) == (1.0, 4.0)


def test_cross_entropy_is_minus_log_probability():
    method = CrossEntropy()
    method.build(lambda: torch.nn.Linear(6, 3), 20, 3)
    batch = make_batch()
    probabilities = method(batch.images)
    expected = -sum(
        math.log(row[label])
        for row, label in zip(probabilities.tolist(), batch.labels, strict=True)
    )
    assert method.loss(batch).item() == pytest.approx(expected / 20, rel=1e-5)


def make(name, **settings):
    """A method with its defaults but for some; a noise rate that it must be told is 0.2."""
    needed = inspect.signature(METHODS[name]).parameters.get("noise_rate")
    told = needed is not None and needed.default is needed.empty
    return METHODS[name](**({"noise_rate": 0.2} if told else {}), **settings)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_predicts_probabilities(name):
    method = make(name)
    method.build(lambda: torch.nn.Linear(6, 3), 20, 3)
    probabilities = method(torch.randn(5, 6))
    assert probabilities.shape == (5, 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_in_short_numbers(name):
    # As on a GPU: all losses are finite, though bfloat16 cannot tell 1 - 1e-4 from 1.
    noisy = noise.inject(datasets.load("digits").subset(200), "symmetric", 0.2)
    network = functools.partial(small_cnn, width=8)
    options = {
        "network": network,
        "progress": False,
        "device": "cpu",
        "options": Options(batch_size=40, precision="bfloat16"),
    }
    history = fit(make(name), noisy, epochs=3, **options)
    assert np.isfinite(history["train_loss"]).all()
    assert history.settings["precision"] == "bfloat16"


def next_hard_labels(*arguments):
    return hard_labels(next_labels(*arguments))


EARLY = {"begin": 2, "average": 2}
ON_GPU = {name: (name, {}) for name in METHODS} | {
    "dividemix": ("dividemix", {"warm_up": 1, "views": 1}),
    "joint-optimization": ("joint-optimization", EARLY),
    "joint-optimization, hard": ("joint-optimization", EARLY | {"next_labels": next_hard_labels}),
}
# Here not even fetching a batch or relabelling makes the processor wait.
WHOLE_EPOCHS = {"co-teaching", "joint-optimization"}


def never_waiting(action):
    """Let torch raise at every call that makes the processor wait for the GPU."""

    @functools.wraps(action)
    def watched(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return action(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return watched


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "settings"), ON_GPU.values(), ids=ON_GPU)
def test_no_step_waits_for_the_gpu(name, settings):
    noisy = noise.inject(datasets.load("digits").subset(300), "symmetric", 0.4, seed=1)
    method = make(name, **settings)
    epoch = method.train_epoch
    if name in WHOLE_EPOCHS:
        method.train_epoch = never_waiting(epoch)
    else:
        method.train_epoch = lambda batches, step: epoch(batches, never_waiting(step))
    history = fit(method, noisy, network="small-cnn", epochs=4, progress=False, device="cuda")
    assert np.isfinite(history["train_loss"]).all()


def test_a_method_without_a_loss_says_so():
    class Unfinished(Method):
        pass

    with pytest.raises(NotImplementedError, match="Unfinished needs"):
        Unfinished().loss(make_batch())
