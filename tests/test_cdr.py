"""CDR beside loops, SGD's own weight decay and the algorithm box written out."""

import dataclasses
import functools
import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.methods import CrossEntropy
from nlcourse.methods.cdr import (
    CDR,
    code_direction,
    critical_mask,
    importance,
    is_weight,
    paper_direction,
)
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp, small_cnn


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- importance ---


def test_importance_against_a_loop():
    parameter, gradient = drawn(3, 4), drawn(3, 4, seed=1)
    measured = importance(parameter, gradient)
    for i in range(3):
        for j in range(4):
            expected = math.fabs(parameter[i, j].item() * gradient[i, j].item())
            assert measured[i, j].item() == expected


def test_importances_without_their_signs_sum_to_the_slope_of_the_scaled_loss():
    """The paper's derivation: G(t) = L(tW) has the slope <grad L(W), W> at t = 1."""
    inputs, labels = drawn(20, 5), torch.arange(20) % 3
    weights = drawn(3, 5, seed=1).requires_grad_()

    def loss(t):
        return F.cross_entropy(inputs @ (t * weights).T, labels)

    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(one), one)
    (gradient,) = torch.autograd.grad(loss(1.0), weights)
    summands = (gradient * weights).detach()
    torch.testing.assert_close(slope, summands.sum())
    torch.testing.assert_close(importance(weights, gradient), summands.abs())


def test_importance_carries_no_gradient_and_leaves_its_arguments():
    parameter, gradient = nn.Parameter(torch.tensor([-2.0])), torch.tensor([3.0])
    measured = importance(parameter, gradient)
    assert measured.tolist() == [6.0]
    assert not measured.requires_grad
    assert (parameter.item(), gradient.item()) == (-2.0, 3.0)
    with pytest.raises(ValueError, match="one shape"):
        importance(torch.zeros(2, 3), torch.zeros(3, 2))


# --- critical_mask ---


@settings(max_examples=80)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.floats(0, 1))
def test_mask_against_one_sorted_list(seed, sizes, share):
    importances = [drawn(size, seed=seed + n).abs() for n, size in enumerate(sizes)]
    masks = critical_mask(importances, share)
    values = sorted((v for part in importances for v in part.tolist()), reverse=True)
    chosen = values[: int(share * len(values))]
    for part, mask in zip(importances, masks, strict=True):
        assert mask.dtype == torch.bool
        assert mask.tolist() == [value in chosen for value in part.tolist()]


def test_one_ranking_for_all_parameters():
    large, small = torch.tensor([[9.0, 8.0], [7.0, 6.0]]), torch.tensor([1.0, 2.0])
    first, second = critical_mask([large, small], 4 / 6)
    assert first.tolist() == [[True, True], [True, True]]
    assert second.tolist() == [False, False]


def test_ties_are_all_critical_and_the_edges_mean_what_they_say():
    values = [torch.tensor([0.0, 1.0, 1.0, 1.0])]
    assert critical_mask(values, 0.25)[0].tolist() == [False, True, True, True]
    assert critical_mask(values, 0.0)[0].tolist() == [False] * 4
    assert critical_mask(values, 1.0)[0].tolist() == [True] * 4
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="the critical part"):
            critical_mask(values, share)
    with pytest.raises(ValueError, match="at least one"):
        critical_mask([], 0.5)


# --- the rules ---


@pytest.mark.parametrize("rule", [paper_direction, code_direction])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 2, 2)])
def test_directions_against_a_loop(rule, shape):
    parameter, gradient = drawn(*shape), drawn(*shape, seed=1)
    critical, tau, decay = drawn(*shape, seed=2) > 0, 0.3, 0.07
    measured = rule(parameter, gradient, critical, tau, decay).flatten().tolist()
    rows = zip(*(part.flatten().tolist() for part in (parameter, gradient, critical)), strict=True)
    for value, (w, g, chosen) in zip(measured, rows, strict=True):
        if rule is paper_direction:
            expected = ((1 - tau) * g if chosen else 0) + decay * math.copysign(1, w)
        elif len(shape) == 1:  # a bias: nothing is masked or scaled
            expected = g + decay * w
        else:
            expected = ((1 - tau) * g if chosen else 0) + decay * w
        assert value == pytest.approx(expected)


def test_the_papers_decay_is_the_slope_of_the_l1_norm_and_the_codes_of_half_the_l2_norm():
    weights = drawn(3, 4).requires_grad_()
    nothing, none = torch.zeros_like(weights), torch.zeros(3, 4, dtype=torch.bool)
    (l1,) = torch.autograd.grad(0.2 * weights.abs().sum(), weights)
    (l2,) = torch.autograd.grad(0.2 * weights.square().sum() / 2, weights)
    torch.testing.assert_close(paper_direction(weights, nothing, none, 0.4, 0.2), l1)
    torch.testing.assert_close(code_direction(weights, nothing, none, 0.4, 0.2), l2)
    assert paper_direction(torch.zeros(2), torch.zeros(2), none[0, :2], 0.4, 0.2).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"noise_rate": 1.0}, "share of wrong labels"), ({"noise_rate": -0.1}, "`noise_rate`"),
     ({"noise_rate": math.nan}, "`noise_rate`"), ({"decay": -1.0}, "`decay`"),
     ({"decay": math.inf}, "`decay`"), ({"gradient": torch.zeros(3)}, "one shape"),
     ({"critical": torch.zeros(2, 1, dtype=torch.bool)}, "one shape")],
)  # fmt: skip
@pytest.mark.parametrize("rule", [paper_direction, code_direction])
def test_directions_refuse_what_has_no_meaning(rule, change, words):
    arguments = {
        "parameter": torch.zeros(2),
        "gradient": torch.zeros(2),
        "critical": torch.zeros(2, dtype=torch.bool),
        "noise_rate": 0.4,
        "decay": 0.1,
    }
    rule(**arguments)
    with pytest.raises(ValueError, match=words):
        rule(**arguments | change)


# --- the method ---


def make_batch(size=20):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(size, 6, generator=generator)
    return Batch(images, torch.randint(3, (size,), generator=generator), torch.arange(size))


def two_layers():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def built(method, make=two_layers):
    torch.manual_seed(0)
    method.build(make, 20, 3)
    return method


def take_step(method, optimizer, batch):
    optimizer.zero_grad()
    method.loss(batch).backward()
    method.change_gradients()
    optimizer.step()


@pytest.mark.parametrize("mode", ["paper", "code"])
def test_three_steps_are_the_algorithm_box(mode):
    tau, decay, lr = 0.4, 0.02, 0.3
    batch, method = make_batch(), built(CDR(tau, mode=mode, decay=decay))
    reference = two_layers()
    reference.load_state_dict(method.network.state_dict())
    optimizer = torch.optim.SGD(method.parameters(), lr=lr)
    for _ in range(3):
        take_step(method, optimizer, batch)
        loss = F.cross_entropy(reference(batch.images), batch.labels)
        parameters = list(reference.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        entries = sorted(
            abs(g * w)
            for parameter, gradient in zip(parameters, gradients, strict=True)
            if mode == "paper" or parameter.dim() == 2
            for w, g in zip(parameter.flatten().tolist(), gradient.flatten().tolist(), strict=True)
        )
        threshold = entries[-int((1 - tau) * len(entries))]
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                free = mode == "code" and parameter.dim() == 1
                critical = (gradient * parameter).abs().double() >= threshold * (1 - 1e-6)
                taken = gradient if free else (1 - tau) * gradient * critical
                fading = parameter.sign() if mode == "paper" else parameter
                parameter -= lr * (taken + decay * fading)
    for ours, theirs in zip(method.network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_in_mode_code_the_decay_is_sgds_weight_decay_momentum_and_all():
    batch = make_batch()
    inside, outside = built(CDR(0.3, mode="code", decay=0.1)), built(CDR(0.3, mode="code", decay=0))
    one = torch.optim.SGD(inside.parameters(), lr=0.2, momentum=0.9)
    other = torch.optim.SGD(outside.parameters(), lr=0.2, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        take_step(inside, one, batch)
        take_step(outside, other, batch)
    for ours, theirs in zip(inside.parameters(), outside.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", ["paper", "code"])
def test_without_noise_and_decay_it_is_cross_entropy(mode):
    data = noise.inject(datasets.load("digits").subset(200), "symmetric", 0.4, seed=0)
    run = functools.partial(fit, data=data, epochs=3, progress=False, device="cpu")
    plain, same = run(CrossEntropy()), run(CDR(0.0, mode=mode, decay=0.0))
    assert plain["train_loss"] == same["train_loss"]
    assert plain["test_accuracy"] == same["test_accuracy"]


def test_what_is_ranked_in_each_mode():
    seen = {}
    for mode in ("paper", "code"):

        def mask(importances, share, mode=mode):
            seen[mode] = [tuple(values.shape) for values in importances], share
            return critical_mask(importances, share)

        method = built(CDR(0.3, mode=mode, mask=mask), lambda: small_cnn((1, 8, 8), 3, width=2))
        images = torch.randn(20, 1, 8, 8)
        method.loss(make_batch()._replace(images=images)).backward()
        method.change_gradients()
    network = small_cnn((1, 8, 8), 3, width=2)
    shapes = [tuple(parameter.shape) for parameter in network.parameters()]
    assert seen["paper"] == (shapes, 0.7)
    assert seen["code"] == ([shape for shape in shapes if len(shape) in (2, 4)], 0.7)
    assert 1 in map(len, seen["paper"][0])
    assert [is_weight(torch.zeros((2,) * n)) for n in range(5)] == [False, False, True, False, True]


def test_a_parameter_that_took_no_part_is_left_alone():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle, self.used = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, images):
            return self.used(images)

    for momentum in (0.0, 0.9):
        method = built(CDR(0.4, momentum=momentum), Unused)
        before = method.network.idle.weight.clone()
        take_step(method, torch.optim.SGD(method.parameters(), lr=0.1), make_batch())
        assert torch.equal(method.network.idle.weight, before)


def test_sgds_momentum_moves_what_is_not_critical_and_the_own_momentum_does_not():
    """The finding of lesson 12: a mask on gradients does not hold still what has a momentum."""
    moved = {}
    for own in (False, True):
        masks = iter([True, False])

        def mask(importances, share, masks=masks):
            value = next(masks)
            return [torch.full_like(values, value, dtype=torch.bool) for values in importances]

        method = built(CDR(0.4, decay=0.0, mask=mask, momentum=0.9 if own else 0.0))
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.0 if own else 0.9)
        take_step(method, optimizer, make_batch())
        between = [parameter.detach().clone() for parameter in method.network.parameters()]
        take_step(method, optimizer, make_batch())
        moved[own] = sum(
            (new - old).abs().sum().item()
            for new, old in zip(method.network.parameters(), between, strict=True)
        )
    assert moved[True] == 0
    assert moved[False] > 0.01


@pytest.mark.parametrize("mode", ["paper", "code"])
def test_own_momentum_leaves_the_decay_as_strong_as_sgds_does(mode):
    """A weight that nothing but the decay moves ends up fading at the same pace under both."""

    def nothing(importances, share):
        return [torch.zeros_like(values, dtype=torch.bool) for values in importances]

    pace = {}
    for own in (False, True):
        method = CDR(0.4, mode=mode, decay=1e-4, mask=nothing, momentum=0.9 if own else 0.0)
        method = built(method, lambda: nn.Linear(6, 3, bias=False))
        weight = method.network.weight
        with torch.no_grad():
            weight.copy_(weight.sign())
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.0 if own else 0.9)
        for _ in range(100):
            before = weight.detach().clone()
            take_step(method, optimizer, make_batch())
        pace[own] = (weight - before).abs() / before.abs()
    assert pace[True].max() > 0
    torch.testing.assert_close(pace[True], pace[False], rtol=0.01, atol=0)


def test_own_momentum_is_sgds_when_all_is_critical():
    def everything(importances, share):
        return [torch.ones_like(values, dtype=torch.bool) for values in importances]

    def plain(parameter, gradient, critical, noise_rate, decay):
        return gradient

    own = built(CDR(momentum=0.9, mask=everything, direction=plain))
    sgd = built(CDR(mask=everything, direction=plain))
    one = torch.optim.SGD(own.parameters(), lr=0.2)
    other = torch.optim.SGD(sgd.parameters(), lr=0.2, momentum=0.9)
    for _ in range(4):
        take_step(own, one, make_batch())
        take_step(sgd, other, make_batch())
    for ours, theirs in zip(own.network.parameters(), sgd.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [({"noise_rate": 1.0}, "`noise_rate`"), ({"noise_rate": -0.1}, "`noise_rate`"),
     ({"decay": -1.0}, "`decay`"), ({"mode": "both"}, "paper, code"),
     ({"momentum": 1.0}, "`momentum`"), ({"momentum": -0.1}, "`momentum`")],
)  # fmt: skip
def test_the_method_refuses_bad_settings(settings_, words):
    with pytest.raises(ValueError, match=words):
        CDR(**settings_)


def test_a_students_pieces_are_the_ones_that_run():
    calls = []

    def named(function):
        def called(*arguments):
            calls.append(function.__name__)
            return function(*arguments)

        return called

    pieces = {"importance": importance, "mask": critical_mask, "direction": paper_direction}
    method = built(CDR(0.2, **{name: named(piece) for name, piece in pieces.items()}))
    method.loss(make_batch()).backward()
    method.change_gradients()
    assert calls == ["importance"] * 4 + ["critical_mask"] + ["paper_direction"] * 4


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(momentum, tmp_path):
    data = noise.inject(datasets.load("digits").subset(200), "symmetric", 0.4, seed=0)
    network = functools.partial(mlp, hidden=(32,))
    run = functools.partial(
        fit,
        data=data,
        network=network,
        epochs=4,
        progress=False,
        device="cpu",
    )
    plain, path = Options(momentum=0.0), tmp_path / "run.pt"
    whole_method, method = CDR(0.4, momentum=momentum), CDR(0.4, momentum=momentum)
    whole = run(whole_method, options=plain)
    stop = threading.Event()
    stopping = dataclasses.replace(plain, checkpoint=path, stop=stop)
    run(method, options=stopping, on_epoch=lambda h: stop.set() if len(h) == 2 else None)
    method = CDR(0.4, momentum=momentum)
    resumed = run(method, options=dataclasses.replace(plain, checkpoint=path))
    assert resumed["train_loss"] == whole["train_loss"]
    assert torch.equal(method.network[1].weight, whole_method.network[1].weight)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_at_classroom_scale_it_learns_and_tau_holds_memorization_off(seed):
    data = noise.inject(datasets.load("digits"), "symmetric", 0.4, seed=seed)
    run = functools.partial(fit, data=data, epochs=40, seed=seed, progress=False, device="cpu")
    plain = run(CrossEntropy())
    for mode in ("paper", "code"):
        held = run(CDR(0.6, mode=mode))
        assert held.best() > 0.85
        assert held.last["wrong_as_given"] < plain.last["wrong_as_given"] - 0.2
