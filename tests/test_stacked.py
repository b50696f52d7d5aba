"""Several networks trained as one, beside each of them trained alone."""

import functools
import math
import threading

import pytest
import torch
from torch import nn

from nlcourse import datasets, noise
from nlcourse.methods import CoTeaching, CrossEntropy
from nlcourse.training import Options, fit
from nlcourse.training.history import COLUMNS
from nlcourse.training.networks import mlp, small_cnn
from nlcourse.training.stacked import StackedMLP, StackedRun, fit_stacked

small = functools.partial(mlp, hidden=(24, 16))
QUIET = {"network": small, "progress": False, "device": "cpu"}
SHARES = [name for name in COLUMNS if "accuracy" in name or "wrong" in name]


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits").subset(300)


def noisy(data, rate, seed=0):
    return noise.inject(data, "symmetric", rate, seed=seed) if rate else data


def assert_alike(together, alone, examples):
    """Equal to a few roundings: losses to 1e-4, shares to three examples of the smallest group."""
    assert len(together) == len(alone)
    for one, other in zip(together.rows, alone.rows, strict=True):
        assert tuple(one) == COLUMNS
        assert one["epoch"] == other["epoch"]
        assert one["lr"] == other["lr"]
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        for name in SHARES:
            assert one[name] == pytest.approx(other[name], abs=3 / examples, nan_ok=True), name


# --- the same as alone ---


def test_each_run_is_the_one_that_fit_would_have_made(digits):
    rates, seeds, lrs = [0.0, 0.2, 0.4, 0.4, 0.6], [0, 1, 2, 2, 3], [0.05, 0.05, 0.1, 0.02, 0.2]
    sets = [noisy(digits, rate, seed) for rate, seed in zip(rates, seeds, strict=True)]
    runs = list(map(StackedRun, sets, seeds, lrs))
    options = {
        "epochs": 4,
        "weight_decay": 1e-3,
        "options": Options(batch_size=48, momentum=0.8),
    } | QUIET
    together = fit_stacked(runs, **options)
    for number, history in enumerate(together):
        method = CrossEntropy()
        alone = fit(method, sets[number], seed=seeds[number], lr=lrs[number], **options)
        assert_alike(history, alone, examples=60)
        assert history.settings["seed"] == seeds[number]
        ours, theirs = runs[number].method.network.state_dict(), method.network.state_dict()
        for name, weights in theirs.items():
            torch.testing.assert_close(ours[name], weights, rtol=1e-3, atol=1e-5)
    losses = [history.last["train_loss"] for history in together]
    assert len(set(losses)) == len(losses), "runs with other settings came out the same"


def test_one_network_alone_is_a_stack_too(digits):
    data = noisy(digits, 0.3)
    (history,) = fit_stacked([StackedRun(data, 5)], epochs=3, **QUIET)
    assert_alike(history, fit(CrossEntropy(), data, seed=5, epochs=3, **QUIET), examples=60)


def test_a_run_does_not_depend_on_its_neighbours(digits):
    """Other labels, seeds and rates beside it change a run by no more than rounding."""
    data = noisy(digits, 0.4)
    options = {"epochs": 3} | QUIET
    (alone,) = fit_stacked([StackedRun(data, 1)], **options)
    beside = fit_stacked(
        [StackedRun(noisy(digits, 0.8, 3), 7, 0.5), StackedRun(data, 1)], **options
    )
    assert_alike(beside[1], alone, examples=60)


def test_the_stack_computes_what_each_network_computes():
    generator = torch.Generator().manual_seed(0)
    networks = [small((1, 4, 4), 3) for _ in range(3)]
    images = torch.randn(3, 5, 1, 4, 4, generator=generator)
    stack = StackedMLP(networks)
    logits = stack(images.flatten(2))
    for number, network in enumerate(networks):
        torch.testing.assert_close(logits[number], network(images[number]))
    fresh = [small((1, 4, 4), 3) for _ in range(3)]
    stack.unstack(fresh)
    for network, copy in zip(networks, fresh, strict=True):
        assert torch.equal(network[1].weight, copy[1].weight)


def test_it_leaves_random_state_and_threads_alone(digits):
    torch.manual_seed(3)
    expected, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(3)
    fit_stacked([StackedRun(digits)], epochs=1, **QUIET)
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads


# --- ends ---


def test_stop_keeps_the_finished_epochs_of_all(digits):
    stop, seen = threading.Event(), []

    def watch(histories):
        seen.append([len(history) for history in histories])
        if len(seen) == 2:
            stop.set()

    histories = fit_stacked(
        [StackedRun(digits), StackedRun(noisy(digits, 0.5), 1)],
        epochs=50,
        on_epoch=watch,
        options=Options(stop=stop),
        **QUIET,
    )
    assert seen == [[1, 1], [2, 2]]
    assert [len(history) for history in histories] == [2, 2]
    assert {history.stopped for history in histories} == {"stopped in epoch 3 of 50"}


def test_the_stop_button_of_jupyter_keeps_them_too(digits):
    def interrupt(histories):
        raise KeyboardInterrupt

    (history,) = fit_stacked([StackedRun(digits)], epochs=9, on_epoch=interrupt, **QUIET)
    assert (len(history), history.stopped) == (1, "interrupted in epoch 2 of 9")


def test_a_run_that_diverges_ends_alone(digits):
    options = {"epochs": 4, "options": Options(momentum=0.0)} | QUIET
    wild, tame = fit_stacked([StackedRun(digits, 0, 1e20), StackedRun(digits, 1)], **options)
    assert "diverged in epoch" in wild.stopped
    assert "learning rate 1e+20" in wild.stopped
    assert len(wild) < 4
    assert (len(tame), tame.stopped) == (4, "")
    assert math.isfinite(tame.last["train_loss"])
    assert_alike(tame, fit(CrossEntropy(), digits, seed=1, **options), examples=60)


# --- bad input ---


def test_networks_that_cannot_be_stacked_are_named(digits):
    dropout = functools.partial(mlp, dropout=0.2)
    options = QUIET | {"epochs": 1}
    with pytest.raises(ValueError, match="Dropout.*one after the other with `fit`"):
        fit_stacked([StackedRun(digits)], **options | {"network": dropout})
    with pytest.raises(ValueError, match="Conv2d"):
        fit_stacked([StackedRun(digits)], **options | {"network": small_cnn})
    linear = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Expected networks of Flatten"):
        StackedMLP([linear])
    with pytest.raises(ValueError, match="one shape"):
        StackedMLP([mlp((1, 2, 2), 3, hidden=(4,)), mlp((1, 2, 2), 3, hidden=(5,))])


def test_bad_settings_are_refused(digits):
    one = StackedRun(digits)
    calls = [
        ([], {}, "at least one run"),
        ([StackedRun(digits, lr=-1.0)], {}, "above 0"),
        ([one], {"epochs": 0}, "`epochs` of at least 1"),
        ([one], {"options": Options(batch_size=0)}, "`batch_size` of at least 1"),
        ([one], {"options": Options(precision="bfloat16")}, "`stop` alone"),
        ([StackedRun(digits, method=CoTeaching(0.4))], {}, "CrossEntropy, got CoTeaching"),
        ([one, StackedRun(digits.with_images(digits.images.flip(0)))], {}, "given labels only"),
    ]
    for runs, change, message in calls:
        with pytest.raises(ValueError, match=message):
            fit_stacked(runs, **{"epochs": 1} | QUIET | change)


@pytest.mark.gpu
def test_a_gpu_trains_the_same_stack(digits):
    options = {"epochs": 10, "network": small, "progress": False}
    on_gpu, on_cpu = (
        fit_stacked(
            [StackedRun(noisy(digits, 0.4 * i), i) for i in (0, 1)], device=device, **options
        )
        for device in ("cuda", "cpu")
    )
    for one, other in zip(on_gpu, on_cpu, strict=True):
        assert abs(one.best() - other.best()) < 0.08
