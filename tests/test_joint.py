"""Joint optimization against numpy loops, autograd, closed forms and a history kept by hand."""

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
from nlcourse.experiments import recipes
from nlcourse.methods import CrossEntropy, FromSoftLabels
from nlcourse.methods.joint import (
    JointOptimization,
    entropy_loss,
    hard_labels,
    label_loss,
    most_different_hard_labels,
    next_labels,
    prior_loss,
    soft_labels,
)
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp

SMALL = functools.partial(mlp, hidden=(16,), dropout=0.2)


def draw(seed, rows=7, classes=4):
    """Return random probabilities in 64 bits."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return scores.softmax(dim=1)


def draw_prior(seed, classes=4):
    return draw(seed, 1, classes)[0]


def hard(*arguments):
    return hard_labels(next_labels(*arguments))


def few(count):
    """Return an update of the `count` most different labels."""

    def update(labels, *more):
        return most_different_hard_labels(labels, next_labels(labels, *more), count)

    return update


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(200), "symmetric", 0.4, seed=1)


# --- the two penalties ---


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 6))
def test_prior_loss_against_a_loop(seed, rows, classes):
    s, p = draw(seed, rows, classes), draw_prior(seed + 1, classes)
    expected = 0.0
    for j in range(classes):
        mean = sum(s[i, j].item() for i in range(rows)) / rows
        expected += p[j].item() * math.log(p[j].item() / mean)
    assert prior_loss(s, p).item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 6))
def test_entropy_loss_against_a_loop(seed, rows, classes):
    s = draw(seed, rows, classes).numpy()
    expected = np.mean([-sum(v * math.log(v) for v in row) for row in s])
    assert entropy_loss(torch.tensor(s)).item() == pytest.approx(expected, abs=1e-12)


def test_the_penalties_where_they_are_known():
    uniform = torch.full((3, 4), 0.25)
    assert entropy_loss(uniform).item() == pytest.approx(math.log(4))
    assert entropy_loss(torch.eye(4)).item() == 0
    assert prior_loss(torch.eye(4), uniform[0]).item() == pytest.approx(0, abs=1e-7)
    # The mean (3/4, 1/4) against (1/2, 1/2).
    s = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    known = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert prior_loss(s, torch.tensor([0.5, 0.5])).item() == pytest.approx(known)


def test_a_class_without_prior_costs_nothing():
    value = prior_loss(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([1.0, 0.0, 0.0]))
    assert value.item() == pytest.approx(math.log(2))


def test_gradients_are_those_of_the_formulas():
    s, p = draw(3).requires_grad_(), draw_prior(4)
    assert torch.autograd.gradcheck(prior_loss, (s, p), atol=1e-7)
    assert torch.autograd.gradcheck(entropy_loss, (s,), atol=1e-7)
    # dL_p / ds_ij = -p_j / (n mean_j);   dL_e / ds_ij = -(log s_ij + 1) / n
    (of_prior,) = torch.autograd.grad(prior_loss(s, p), s)
    (of_entropy,) = torch.autograd.grad(entropy_loss(s), s)
    values = s.detach()
    expected = (-p / (len(s) * values.mean(dim=0))).expand_as(s)
    torch.testing.assert_close(of_prior, expected)
    torch.testing.assert_close(of_entropy, -(values.log() + 1) / len(s))


def test_a_saturated_softmax_gives_finite_gradients():
    logits = torch.tensor([[300.0, 0.0, 0.0], [300.0, 0.0, 0.0]], requires_grad=True)
    s = logits.softmax(dim=1)
    assert s[0, 1] == 0
    (prior_loss(s, torch.full((3,), 1 / 3)) + entropy_loss(s)).backward()
    assert logits.grad.isfinite().all()


# --- L_c ---


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_label_loss_against_numpy_and_torch(seed):
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y, s = draw(seed + 1, 6), logits.softmax(dim=1)
    expected = np.mean(np.sum(y.numpy() * np.log(y.numpy() / s.numpy()), axis=1))
    assert label_loss(logits, y).item() == pytest.approx(expected, abs=1e-12)
    torchs = F.kl_div(logits.log_softmax(dim=1), y, reduction="batchmean")
    assert label_loss(logits, y).item() == pytest.approx(torchs.item(), abs=1e-12)


def test_label_loss_on_one_hot_labels_is_cross_entropy():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    hot = F.one_hot(labels, 3).float()
    torch.testing.assert_close(label_loss(logits, hot), F.cross_entropy(logits, labels))


def test_what_the_code_drops_is_constant_in_the_weights():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y, p = draw(1, 5), draw_prior(2)
    s = logits.softmax(dim=1)
    ours = label_loss(logits, y) + prior_loss(s, p)
    codes = -(y * s.log()).sum(dim=1).mean() - (p * s.mean(dim=0).log()).sum()
    dropped = (y * y.log()).sum(dim=1).mean() + (p * p.log()).sum()
    assert (ours - codes).item() == pytest.approx(dropped.item())
    one, other = (torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (ours, codes))
    torch.testing.assert_close(one, other)


def test_labels_equal_to_the_prediction_teach_nothing():
    """Why the penalties are needed: with L_c alone every network is a fixed point."""
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y = soft_labels(logits.softmax(dim=1))
    (gradient,) = torch.autograd.grad(label_loss(logits, y), logits)
    assert gradient.abs().max() < 1e-15


def test_one_class_for_everything_is_free_without_l_p():
    """Why L_p is needed: for this network L_c and L_e are 0, and L_p is not."""
    logits = torch.tensor([[50.0, 0.0, 0.0]]).repeat(4, 1)
    s = logits.softmax(dim=1)
    assert label_loss(logits, hard_labels(s)).item() == pytest.approx(0, abs=1e-6)
    assert entropy_loss(s).item() == pytest.approx(0, abs=1e-6)
    assert prior_loss(s, torch.full((3,), 1 / 3)).item() > 10


# --- new labels ---


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 9), st.integers(2, 6))
def test_hard_labels_against_a_loop(seed, rows, classes):
    s = draw(seed, rows, classes)
    expected = []
    for row in s.tolist():
        top = max(range(classes), key=row.__getitem__)
        expected.append([float(j == top) for j in range(classes)])
    hard = hard_labels(s)
    assert hard.shape == (rows, classes)
    assert hard.dtype == s.dtype
    assert hard.tolist() == expected


def test_soft_labels_are_the_predictions_and_nothing_shared():
    s = draw(0).requires_grad_()
    soft = soft_labels(s)
    assert torch.equal(soft, s)
    assert not soft.requires_grad
    soft[0, 0] = 7
    assert s[0, 0] != 7


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 10))
def test_most_different_hard_labels_against_a_loop(seed, count):
    y, s = draw(seed, 8), draw(seed + 1, 8)
    distance = [
        sum(a * math.log(a / b) for a, b in zip(u, v, strict=True))
        for u, v in zip(y.tolist(), s.tolist(), strict=True)
    ]
    far = sorted(range(8), key=distance.__getitem__)[::-1][:count]
    new = most_different_hard_labels(y, s, count)
    for i in range(8):
        assert torch.equal(new[i], hard_labels(s)[i] if i in far else y[i])


def test_next_labels_waits_and_then_averages_the_newest():
    y, seen = draw(0), torch.stack([draw(i) for i in range(1, 7)])
    assert torch.equal(next_labels(y, seen[:3], 3, 4, 2), y)
    expected = (seen[2].numpy() + seen[3].numpy()) / 2
    np.testing.assert_allclose(next_labels(y, seen[:4], 4, 4, 2).numpy(), expected)
    expected = sum(seen[i].numpy() for i in (3, 4, 5)) / 3
    np.testing.assert_allclose(next_labels(y, seen, 30, 4, 3).numpy(), expected)


# --- the method: labels and predictions, epoch by epoch ---


class Diary(JointOptimization):
    """Keeps every epoch's predictions and labels, as no ring would."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.said, self.learned_from = [], []

    def train_epoch(self, batches, step):
        said = torch.full((200, 10), math.nan)
        labels = torch.full((200, 10), math.nan)

        def watch(loss, batch):
            # The same dropout masks as in the step itself: what is said here is what it says there.
            state = torch.get_rng_state()
            with torch.no_grad():
                said[batch.index] = self.network(batch.images).softmax(dim=1)
            torch.set_rng_state(state)
            step(loss, batch)
            labels[batch.index] = self.current_labels[batch.index]

        super().train_epoch(batches, watch)
        self.said.append(said)
        self.learned_from.append(labels)


@pytest.mark.parametrize("update", [next_labels, hard])
def test_labels_are_the_mean_of_what_was_said_in_training(noisy, update):
    method = Diary(begin=4, average=3, next_labels=update)
    fit(
        method,
        noisy,
        network=SMALL,
        epochs=9,
        seed=0,
        progress=False,
        device="cpu",
    )
    given_labels = F.one_hot(noisy.labels, 10).float()
    for epoch in range(4):
        assert torch.equal(method.learned_from[epoch], given_labels)
    for epoch in range(4, 9):
        mean = sum(method.said[epoch - k] for k in (1, 2, 3)) / 3
        expected = hard_labels(mean) if update is hard else mean
        torch.testing.assert_close(method.learned_from[epoch], expected)
    final = sum(method.said[-3:]) / 3
    expected = hard_labels(final) if update is hard else final
    torch.testing.assert_close(method.current_labels, expected)


def test_an_update_of_k_changes_at_most_k_labels_an_epoch(noisy):
    method = Diary(begin=3, average=2, next_labels=few(5))
    fit(
        method,
        noisy,
        network=SMALL,
        epochs=10,
        seed=0,
        progress=False,
        device="cpu",
    )
    labels = [*method.learned_from, method.current_labels]
    moved = [int((a != b).any(dim=1).sum()) for a, b in zip(labels, labels[1:], strict=False)]
    assert moved[:2] == [0, 0]
    assert max(moved) <= 5
    assert sum(moved) > 5


def test_the_loss_is_the_papers_sum():
    torch.manual_seed(0)
    network = torch.nn.Linear(6, 3)
    prior = torch.tensor([0.5, 0.3, 0.2])
    method = JointOptimization(0.7, 0.3, begin=1, average=1, prior=prior)
    method.build(lambda: network, 20, 3)
    batch = Batch(torch.randn(9, 6), torch.randint(3, (9,)), torch.randperm(20)[:9])
    s = network(batch.images).softmax(dim=1).detach().double().numpy()
    loss_c = np.mean([-math.log(s[i, y]) for i, y in enumerate(batch.labels.tolist())])
    p, mean = prior.double().numpy(), s.mean(axis=0)
    loss_p = np.sum(p * np.log(p / mean))
    loss_e = -np.mean(np.sum(s * np.log(s), axis=1))
    assert method.loss(batch).item() == pytest.approx(loss_c + 0.7 * loss_p + 0.3 * loss_e)


def test_without_penalties_and_before_the_first_update_it_is_cross_entropy(noisy):
    options = {
        "network": SMALL,
        "epochs": 3,
        "seed": 0,
        "progress": False,
        "device": "cpu",
    }
    joint = fit(JointOptimization(0, 0, begin=3, average=1), noisy, **options)
    plain = fit(CrossEntropy(), noisy, **options)
    assert joint["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-5)


def test_a_students_pieces_are_used(noisy):
    calls = set()

    def spy(name, function):
        def watched(*arguments):
            calls.add(name)
            return function(*arguments)

        return watched

    method = JointOptimization(
        begin=2,
        average=2,
        prior_loss=spy("prior", prior_loss),
        entropy_loss=spy("entropy", entropy_loss),
        next_labels=spy("next", hard),
    )
    options = {
        "network": SMALL,
        "epochs": 4,
        "seed": 0,
        "progress": False,
        "device": "cpu",
    }
    theirs = fit(method, noisy, **options)
    assert calls == {"prior", "entropy", "next"}
    ours = fit(JointOptimization(begin=2, average=2, next_labels=hard), noisy, **options)
    assert theirs["train_loss"] == ours["train_loss"]


@pytest.mark.parametrize("stopped_after", [1, 3, 5])  # before, within and after the first ring
@pytest.mark.parametrize("update", [next_labels, few(20)], ids=["soft", "few"])
def test_a_stopped_run_goes_on_bit_for_bit(noisy, tmp_path, stopped_after, update):
    def run(on_epoch=None, **rare):
        method = JointOptimization(begin=4, average=3, next_labels=update)
        history = fit(
            method,
            noisy,
            network=SMALL,
            epochs=8,
            progress=False,
            device="cpu",
            on_epoch=on_epoch,
            options=Options(**rare),
        )
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]
        return str(rows), method.state_dict()

    stop, path = threading.Event(), tmp_path / "run.pt"
    run(
        checkpoint=path,
        stop=stop,
        on_epoch=lambda history: stop.set() if len(history) == stopped_after else None,
    )
    rows, state = run(checkpoint=path)
    expected_rows, expected_state = run()
    assert rows == expected_rows
    assert {"current_labels", "recorded"} <= set(state)
    assert all(torch.equal(state[name], value) for name, value in expected_state.items())


def test_built_again_it_has_forgotten_its_labels(noisy):
    options = {
        "network": SMALL,
        "epochs": 4,
        "seed": 0,
        "progress": False,
        "device": "cpu",
    }
    method = JointOptimization(begin=2, average=2)
    first, second = (fit(method, noisy, **options)["train_loss"] for _ in "12")
    assert first == second


# --- the second step ---


def test_the_second_step_learns_from_the_labels_it_was_given(noisy):
    y = draw(5, 200, 10).float()
    method = FromSoftLabels(y)
    fit(
        method,
        noisy,
        network=SMALL,
        epochs=2,
        seed=0,
        progress=False,
        device="cpu",
    )
    assert torch.equal(method.current_labels, y)
    method.eval()
    batch = Batch(torch.randn(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64), torch.arange(3, 8))
    s = method.network(batch.images).softmax(dim=1).detach().numpy()
    target = y[3:8].numpy()
    expected = np.mean(np.sum(target * np.log(target / s), axis=1))
    assert method.loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_the_second_step_keeps_a_copy():
    y = draw(5, 6, 3)
    method = FromSoftLabels(y)
    y[0] = 0
    assert method.current_labels[0].sum().item() == pytest.approx(1)


# --- bad input ---

BAD = torch.tensor([[0.9, 0.9]])
NEGATIVE = torch.tensor([[1.5, -0.5]])
GOOD = torch.tensor([[0.4, 0.6]])


@pytest.mark.parametrize("function", [entropy_loss, soft_labels, hard_labels])
@pytest.mark.parametrize("wrong", [BAD, NEGATIVE, GOOD * math.nan])
def test_what_is_no_probability_is_refused(function, wrong):
    with pytest.raises(ValueError, match="sum to 1"):
        function(wrong)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: prior_loss(BAD, GOOD[0]), "is a softmax missing"),
        (lambda: prior_loss(GOOD, BAD[0]), "`prior` .* got sums from 1.8"),
        (lambda: prior_loss(GOOD, torch.tensor([1.0])), r"`prior` of shape \(2,\)"),
        (lambda: entropy_loss(GOOD[0]), r"shape \(n, C\), got \(2,\)"),
        (lambda: JointOptimization(alpha=-1), "`alpha` and `beta` of at least 0"),
        (lambda: JointOptimization(beta=-0.1), "`alpha` and `beta` of at least 0"),
        (lambda: JointOptimization(begin=9), "`begin` of at least `average`, got 9 and 10"),
        (lambda: JointOptimization(average=0), "`average` of at least 1"),
        (lambda: FromSoftLabels(BAD), "`labels` with rows"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_prior_or_labels_for_other_data_are_refused(noisy):
    with pytest.raises(ValueError, match=r"`prior` of shape \(10,\)"):
        fit(JointOptimization(prior=GOOD[0]), noisy, epochs=1, progress=False)
    with pytest.raises(ValueError, match="`prior` .* sum to 1"):
        fit(JointOptimization(prior=torch.full((10,), 0.2)), noisy, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"`labels` of shape \(200, 10\)"):
        fit(FromSoftLabels(draw(0, 199, 10)), noisy, epochs=1, progress=False)


# --- does it work ---


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_at_40_percent_noise_it_ends_well_above_cross_entropy(seed):
    data = noise.inject(datasets.load("digits"), "symmetric", 0.4, seed=seed)
    recipe = recipes.find("classroom", "joint-optimization")
    weights, options = recipe.arguments, recipe.options()
    options |= {"seed": seed, "progress": False, "device": "cpu"}
    method = JointOptimization(**weights)
    joint = fit(method, data, **options).last["test_accuracy"]
    plain = fit(CrossEntropy(), data, **options).last["test_accuracy"]
    right = (method.current_labels.argmax(dim=1) == data.true_labels).float().mean().item()
    assert joint > plain + 0.15
    assert right > 1 - data.noise_rate + 0.25
