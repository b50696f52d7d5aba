"""D2L: the dimension of known surfaces, the turning point, and the run around it."""

import functools
import math
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.methods.d2l import D2L, intrinsic_dimension, is_turning_point, label_weight
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- the dimension ---


def test_dimension_against_a_loop():
    features, k = drawn(15, 3), 5
    measured = intrinsic_dimension(features, k)
    for i in range(15):
        others = [math.dist(features[i].tolist(), row.tolist()) for row in features]
        nearest = sorted(d for j, d in enumerate(others) if j != i)[:k]
        mean = sum(math.log(d / nearest[-1]) for d in nearest) / k
        assert measured[i].item() == pytest.approx(-1 / mean)


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_dimension_of_a_flat_surface_in_a_large_space(dimensions):
    points = torch.rand(4000, dimensions, generator=torch.Generator().manual_seed(0)).double()
    bent_in = points @ drawn(dimensions, 20)
    # The mean of the inverse estimates nearly without bias; single points scatter.
    inverse = 1 / intrinsic_dimension(bent_in, 100)
    assert 1 / inverse.mean().item() == pytest.approx(dimensions, rel=0.12)


def test_dimension_has_no_unit_and_no_place():
    features = drawn(40, 3)
    same = intrinsic_dimension(1000 * features + 5)
    torch.testing.assert_close(intrinsic_dimension(features), same)


def test_dimension_is_finite_for_points_that_coincide():
    features = torch.cat([torch.zeros(30, 4), torch.ones(30, 4)])
    assert bool(intrinsic_dimension(features, 20).isfinite().all())
    for bad, k in ((torch.zeros(4), 2), (torch.zeros(4, 2), 4), (torch.zeros(4, 2), 1)):
        with pytest.raises(ValueError, match="Expected"):
            intrinsic_dimension(bad, k)


# --- the turning point and alpha ---


def test_turning_point_needs_a_whole_window_and_two_deviations():
    before = torch.tensor([4.0, 5.0, 4.0, 5.0])  # mean 4.5, standard deviation 0.5
    assert not is_turning_point(torch.cat([before, torch.tensor([5.49])]), 4)
    assert is_turning_point(torch.cat([before, torch.tensor([5.51])]), 4)
    assert not is_turning_point(torch.cat([before[1:], torch.tensor([50.0])]), 4)
    assert not is_turning_point(torch.tensor([50.0, 4, 5, 4, 5, 5.2]), 4)


def test_label_weight_falls_with_time_and_dimension():
    assert label_weight(0, 100, 7.0, 3.0) == 1
    assert label_weight(50, 100, 3.0, 3.0) == pytest.approx(math.exp(-0.5))
    assert label_weight(50, 100, 6.0, 3.0) == pytest.approx(math.exp(-1))
    for bad in ((1, 0, 1.0, 1.0), (1, 10, 1.0, 0.0)):
        with pytest.raises(ValueError, match="Expected"):
            label_weight(*bad)


# --- the method ---


def make_batch(size=30):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(size, 6, generator=generator)
    return Batch(images, torch.randint(3, (size,), generator=generator), torch.arange(size))


def told(values):
    """A dimension that says one value after the other."""
    waiting = iter(values)
    return lambda features, neighbours: torch.full((len(features),), next(waiting))


def built(method):
    torch.manual_seed(0)
    method.build(lambda: nn.Linear(6, 3), 30, 3)
    return method


def trained(dimensions, epochs, **settings):
    method = built(D2L(epochs, window=2, dimension=told(dimensions), **settings))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    weights, alphas = [], []

    def step(loss, batch):
        optimizer.zero_grad()
        loss(batch).backward()
        weights.append(method.network.weight.detach().clone())
        alphas.append(method.alpha)
        optimizer.step()

    for method.epoch in range(len(dimensions)):
        method.train_epoch([make_batch()], step)
    return method, weights, alphas


def test_it_turns_where_the_dimension_rises_and_goes_back_by_one_epoch():
    method, weights, alphas = trained([5.0, 4.0, 4.0, 9.0, 8.0], 10, start=0)
    assert method.turned_at.item() == 3
    torch.testing.assert_close(weights[3], weights[2])  # where the epoch before began
    assert not torch.equal(weights[2], weights[1])
    expected = [1, 1, 1, math.exp(-0.3 * 9 / 4), math.exp(-0.4 * 8 / 4)]
    assert alphas == pytest.approx(expected)


def test_it_does_not_turn_before_its_time_nor_without_a_rise():
    assert not trained([5.0, 4.0, 4.0, 9.0], 10, start=4)[0].turned
    assert trained([5.0, 4.0, 4.0, 9.0], 10, start=3)[0].turned
    method, _, alphas = trained([5.0, 4.0, 3.0, 2.0], 10, start=0)
    assert not method.turned
    assert alphas == [1] * 4


def test_the_loss_after_the_turn_is_that_of_mixed_labels():
    method, batch = built(D2L()), make_batch()
    method.alpha = 0.3
    logits = method.network(batch.images)
    rows = 0.3 * F.one_hot(batch.labels, 3) + 0.7 * F.one_hot(logits.argmax(1), 3)
    torch.testing.assert_close(method.loss(batch), F.cross_entropy(logits, rows))


def test_a_batch_that_is_too_small_is_left_out_or_named():
    method = built(D2L(neighbours=20))
    whole = method.measure([make_batch(30)])
    torch.testing.assert_close(method.measure([make_batch(30), make_batch(10)]), whole)
    with pytest.raises(ValueError, match="batch_size"):
        method.measure([make_batch(20)])


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"start": -1}, {"window": 1}, {"neighbours": 1}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match="Expected"):
        D2L(**bad)


def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(tmp_path):
    data = noise.inject(datasets.load("digits").subset(200), "symmetric", 0.6, seed=0)
    network = functools.partial(mlp, hidden=(32,))
    run = functools.partial(
        fit,
        data=data,
        network=network,
        epochs=12,
        lr=0.1,
        progress=False,
        device="cpu",
    )

    def make():
        return D2L(12, start=0, window=2)

    first, method = make(), make()
    whole = run(first)
    assert first.turned  # else the test would show little
    stop, path = threading.Event(), tmp_path / "run.pt"
    until = Options(checkpoint=path, stop=stop)
    run(make(), options=until, on_epoch=lambda h: stop.set() if len(h) == 8 else None)
    resumed = run(method, options=Options(checkpoint=path))
    assert resumed["train_loss"] == whole["train_loss"]
    assert method.alpha == first.alpha
    assert method.turned_at == first.turned_at
