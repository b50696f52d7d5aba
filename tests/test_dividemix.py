"""DivideMix beside loops, closed forms, scikit-learn by hand and its own algorithm box."""

import dataclasses
import functools
import math
import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.datasets.augment import Augment
from nlcourse.methods import CrossEntropy, DivideMix, dividemix
from nlcourse.methods.dividemix import clean_probability, co_divide, co_guess, co_refine, sharpen
from nlcourse.methods.gaussian_mixture import SETTINGS, fit_mixture, normalised
from nlcourse.methods.joint import prior_loss
from nlcourse.methods.mixmatch import (
    confidence_penalty,
    endless,
    even_prior_loss,
    semi_supervised_loss,
    unsupervised_weight,
)
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp

SMALL = functools.partial(mlp, hidden=(16,), dropout=0.2)
QUICK = {"warm_up": 1, "views": 1}


def probabilities(n, classes, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1)


def two_groups(seed=0, low=60, high=40):
    generator = torch.Generator().manual_seed(seed)
    small = 0.3 + 0.1 * torch.randn(low, generator=generator, dtype=torch.float64)
    large = 2.5 + 0.5 * torch.randn(high, generator=generator, dtype=torch.float64)
    losses = torch.cat((small, large))
    return losses[torch.randperm(low + high, generator=generator)]


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(200), "symmetric", 0.4, seed=0)


def run(method, data, **changes):
    options = {
        "network": SMALL,
        "epochs": 4,
        "seed": 3,
        "progress": False,
        "device": "cpu",
    }
    return fit(method, data, **options | changes)


# --- the mixture ---


@pytest.mark.parametrize("seed", range(6))
def test_w_is_bayes_rule_with_scikit_learns_curves(seed):
    losses = two_groups(seed, 20 + 20 * seed, 80)
    values = ((losses - losses.min()) / (losses.max() - losses.min())).numpy()[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mixture = GaussianMixture(**SETTINGS).fit(values)
    low = int(np.argmin(mixture.means_))
    expected = []
    for value in values[:, 0]:
        densities = [
            share * math.exp(-((value - mean) ** 2) / (2 * var)) / math.sqrt(var)
            for share, mean, var in zip(
                mixture.weights_,
                mixture.means_[:, 0],
                mixture.covariances_[:, 0, 0],
                strict=True,
            )
        ]
        expected.append(densities[low] / sum(densities))
    torch.testing.assert_close(clean_probability(losses), torch.tensor(expected).double())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 100), st.floats(0, 50))
def test_w_does_not_mind_scale_shift_or_order(seed, scale, shift):
    losses = two_groups(seed)
    w = clean_probability(losses)
    assert ((w >= 0) & (w <= 1)).all()
    torch.testing.assert_close(clean_probability(scale * losses + shift), w, atol=1e-3, rtol=0)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(clean_probability(losses[order]), w[order], atol=0.02, rtol=0)


@pytest.mark.parametrize(("low", "high"), [(90, 10), (10, 90)])
def test_the_clean_ones_are_the_small_losses_however_few(low, high):
    losses = two_groups(5, low, high)
    assert (clean_probability(losses) > 0.5).sum() == low
    mixture, w = fit_mixture(losses)
    assert mixture.weights_[mixture.means_[:, 0].argmin()] == pytest.approx(low / 100, abs=0.03)
    torch.testing.assert_close(w, clean_probability(losses))


def test_where_no_loss_stands_out_all_are_clean():
    assert clean_probability(torch.full((5,), 0.3)).tolist() == [1.0] * 5
    assert clean_probability(torch.tensor([0.3])).tolist() == [1.0]
    assert clean_probability(torch.tensor([])).tolist() == []
    assert normalised(torch.full((3,), 2.0)).tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="two different"):
        fit_mixture(torch.full((3,), 2.0))


def test_the_mixture_keeps_dtype_and_random_state():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert clean_probability(two_groups().float()).dtype == torch.float32
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (torch.tensor(1.0), "reduction='none'"),
        (torch.tensor([1, 2, 3]), "floats"),
        (torch.tensor([1.0, math.nan]), "finite"),
        (torch.tensor([1.0, math.inf, 2.0]), "finite"),
    ],
)
def test_losses_that_are_none_are_refused(losses, words):
    with pytest.raises(ValueError, match=words):
        clean_probability(losses)


def test_divisions_cross():
    first, second = torch.tensor([0.9, 0.1, 0.7]), torch.tensor([0.2, 0.6, 0.8])
    crossed = co_divide(first, second, 0.5)
    assert [mask.tolist() for mask in crossed] == [[False, True, True], [True, False, True]]


# --- labels ---


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 6), st.floats(0.05, 3))
def test_sharpen_against_a_loop(seed, n, classes, temperature):
    p = probabilities(n, classes, seed)
    expected = []
    for row in p.tolist():
        powers = [math.exp(math.log(value) / temperature) for value in row]
        expected.append([power / sum(powers) for power in powers])
    torch.testing.assert_close(sharpen(p, temperature), torch.tensor(expected).double())


def test_sharpen_where_it_is_known():
    p = torch.tensor([[0.6, 0.3, 0.1]])
    torch.testing.assert_close(sharpen(p, 1.0), p)
    squares = torch.tensor([[0.36, 0.09, 0.01]])
    torch.testing.assert_close(sharpen(p, 0.5), squares / 0.46)
    # Powers of 1000 underflow when they are taken one by one.
    torch.testing.assert_close(sharpen(p, 1e-3), torch.tensor([[1.0, 0.0, 0.0]]))
    assert sharpen(torch.tensor([[0.0, 1.0]]), 0.5).tolist() == [[0.0, 1.0]]
    entropy = [-(q * q.log()).sum() for q in (sharpen(p, 0.5), p, sharpen(p, 2.0))]
    assert entropy[0] < entropy[1] < entropy[2]


@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        sharpen(torch.tensor([[0.5, 0.5]]), temperature)
    with pytest.raises(ValueError, match="temperature"):
        DivideMix(temperature=temperature)


@pytest.mark.parametrize("rows", [[[0.5, 0.6]], [[1.5, -0.5]], [[math.nan, 1.0]], [[3.0, 4.0]]])
def test_rows_that_are_no_probabilities_are_refused(rows):
    rows = torch.tensor(rows)
    with pytest.raises(ValueError, match="sum to 1"):
        sharpen(rows, 0.5)
    with pytest.raises(ValueError, match="sum to 1"):
        co_guess([rows, rows], 0.5)
    with pytest.raises(ValueError, match="sum to 1"):
        co_refine(torch.tensor([0]), torch.tensor([0.5]), rows, 0.5)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 6), st.floats(0.2, 2))
def test_co_refine_against_a_loop(seed, n, classes, temperature):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    w = torch.rand(n, generator=generator, dtype=torch.float64)
    p = probabilities(n, classes, seed)
    expected = []
    for i in range(n):
        mixed = [
            w[i].item() * (c == labels[i].item()) + (1 - w[i].item()) * p[i, c].item()
            for c in range(classes)
        ]
        powers = [value ** (1 / temperature) for value in mixed]
        expected.append([power / sum(powers) for power in powers])
    measured = co_refine(labels, w, p, temperature)
    torch.testing.assert_close(measured, torch.tensor(expected).double())
    rows = F.one_hot(labels, classes).double()
    torch.testing.assert_close(co_refine(rows, w, p, temperature), measured)


def test_what_is_surely_right_stays_and_what_is_surely_wrong_goes():
    p = torch.tensor([[0.2, 0.8], [0.2, 0.8]])
    rows = co_refine(torch.tensor([0, 0]), torch.tensor([1.0, 0.0]), p, 0.5)
    torch.testing.assert_close(rows, torch.stack((torch.tensor([1.0, 0.0]), sharpen(p, 0.5)[0])))


def test_co_guess_is_the_sharpened_mean_of_a_list_or_a_tensor():
    some = [probabilities(5, 4, seed) for seed in range(4)]
    mean = sum(some) / 4
    expected = mean**2 / (mean**2).sum(dim=1, keepdim=True)
    torch.testing.assert_close(co_guess(some, 0.5), expected)
    torch.testing.assert_close(co_guess(torch.stack(some), 0.5), expected)
    with pytest.raises(ValueError, match="at least one"):
        co_guess([], 0.5)


def test_no_gradient_flows_through_labels_and_guesses():
    p = probabilities(3, 4).requires_grad_()
    assert not co_guess([p, p], 0.5).requires_grad
    assert not co_refine(torch.tensor([0, 1, 2]), torch.rand(3), p, 0.5).requires_grad


@pytest.mark.parametrize(
    ("w", "words"), [([0.5, 0.5], "clean_probability"), ([1.2], "0..1"), ([math.nan], "0..1")]
)
def test_co_refine_refuses_weights_that_are_none(w, words):
    with pytest.raises(ValueError, match=words):
        co_refine(torch.tensor([0]), torch.tensor(w), torch.tensor([[0.5, 0.5]]), 0.5)


# --- losses ---


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 5), st.floats(0, 100))
def test_semi_supervised_loss_against_a_loop(seed, n, classes, lambda_u):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    rows, k = probabilities(n, classes, seed + 1), 1 + seed % (n - 1)
    p = logits.softmax(dim=1)
    cross = [-sum((rows[i, c] * p[i, c].log()).item() for c in range(classes)) for i in range(k)]
    squares = [(p[i, c] - rows[i, c]).item() ** 2 for i in range(k, n) for c in range(classes)]
    expected = sum(cross) / len(cross) + lambda_u * sum(squares) / len(squares)
    measured = semi_supervised_loss(logits, rows, k, lambda_u).item()
    assert measured == pytest.approx(expected, rel=1e-9)


def test_both_parts_have_images():
    logits = torch.randn(4, 3, requires_grad=True)
    rows = probabilities(4, 3).float()
    for count in (0, 4, 5):
        with pytest.raises(ValueError, match="num_labelled"):
            semi_supervised_loss(logits, rows, count, 1.0)


def test_confidence_penalty_is_minus_the_entropy_and_finite():
    logits = torch.randn(6, 5, dtype=torch.float64)
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    assert confidence_penalty(logits).item() == pytest.approx(-entropy.item())
    sure = (1000 * torch.eye(3)).requires_grad_()
    value = confidence_penalty(sure)
    value.backward()
    assert value.item() == 0
    assert sure.grad.isfinite().all()
    assert confidence_penalty(torch.zeros(2, 4)).item() == pytest.approx(-math.log(4))


def test_the_prior_term_is_that_of_joint_optimization():
    p = probabilities(12, 5)
    even = torch.full((5,), 0.2, dtype=torch.float64)
    torch.testing.assert_close(even_prior_loss(p), prior_loss(p, even))
    never = torch.tensor([[1.0, 0.0]], requires_grad=True)
    even_prior_loss(never).backward()
    assert even_prior_loss(never).isfinite()
    assert never.grad.isfinite().all()


def test_lambda_u_grows_along_a_line_and_stays():
    weights = [unsupervised_weight(since, 25.0, 16) for since in (0, 0.5, 8, 16, 40)]
    assert weights == pytest.approx([0, 25 / 32, 12.5, 25, 25])


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 9))
def test_endless_batches_use_all_examples_equally(count, steps, size):
    index = 100 + torch.arange(count)
    batches = list(endless(index, steps, size, torch.Generator().manual_seed(1)))
    assert [len(batch) for batch in batches] == [size] * steps
    seen = torch.bincount(torch.cat(batches) - 100, minlength=count)
    assert seen.max() - seen.min() <= 1
    assert all(len(batch) == 0 for batch in endless(index[:0], steps, size, None))


# --- the method ---


class Fixed(DivideMix):
    """Looks over the shoulder: every batch that is trained on, with its network's gradient."""

    def train_epoch(self, data, step):
        self.seen = []

        def watched(loss, batch):
            before = [[w.clone() for w in net.parameters()] for net in self.networks]
            step(loss, batch)
            moved = [
                any(not torch.equal(a, b) for a, b in zip(old, net.parameters(), strict=True))
                for old, net in zip(before, self.networks, strict=True)
            ]
            self.seen.append((moved, batch.index.clone()))

        super().train_epoch(data, watched)


def test_warm_up_moves_both_and_later_each_step_moves_one(noisy):
    method = Fixed(**QUICK)
    run(method, noisy, epochs=1)
    assert [moved for moved, _ in method.seen] == [[True, True]] * 4  # 200 / 64
    method = Fixed(**QUICK, steps=3)
    run(method, noisy, epochs=3, weight_decay=1e-2)
    assert [moved for moved, _ in method.seen] == [[True, False]] * 3 + [[False, True]] * 3


def test_each_network_learns_labels_from_its_peers_division(noisy):
    method = Fixed(**QUICK)
    run(method, noisy, epochs=3)
    for moved, index in method.seen:
        judge = moved.index(False)  # the network that did not move
        assert (method.clean[judge][index] > 0.5).all()
    for number in (0, 1):
        clean = method.clean[1 - number] > 0.5
        assert torch.equal(method.selected[number], clean)
        indices = [index for moved, index in method.seen if moved[number]]
        assert len(indices) == -(-int(clean.sum()) // 64)


def test_the_warm_up_is_cross_entropy_with_the_penalty(noisy):
    torch.manual_seed(0)
    for penalize in (None, confidence_penalty):
        method = DivideMix(penalize=penalize)
        method.build(lambda: nn.Linear(6, 3), 20, 3)
        batch = Batch(torch.randn(20, 6), torch.arange(20) % 3, torch.arange(20))
        expected = 0.0
        for network in method.networks:
            logits = network(batch.images)
            expected = expected + F.cross_entropy(logits, batch.labels)
            if penalize:
                expected = expected + confidence_penalty(logits)
        data = Shelf(batch.images, batch.labels, 20)
        took = []
        method.warm_up((0, 1), data, lambda loss, batch, took=took: took.append(loss(batch)))
        torch.testing.assert_close(took, [expected])


class Shelf:
    """Training data as they are, in one batch."""

    def __init__(self, images, labels, batch_size):
        self.pixels, self.labels, self.batch_size = images, labels, batch_size

    def __iter__(self):
        yield self.batch(torch.arange(len(self.labels)))

    def batch(self, index, augment=None):
        return Batch(self.pixels[index], self.labels[index], index)


def keep_labels(labels, clean_probability, probabilities, temperature):
    return F.one_hot(labels, probabilities.shape[1]).to(probabilities)


def guess_alone(probabilities, temperature):
    return co_guess(probabilities[: len(probabilities) // 2], temperature)


@pytest.mark.parametrize(
    ("pieces", "refines", "guesses", "alone", "prior"),
    [
        ({}, True, True, False, True),
        ({"refine_labels": keep_labels}, False, True, False, True),
        ({}, True, False, False, True),
        ({"guess_labels": guess_alone}, True, True, True, True),
        ({"prior": None}, True, True, False, False),
    ],
)
def test_one_step_is_the_algorithm_box(pieces, refines, guesses, alone, prior):
    """Refine, guess, sharpen and add up by hand; alpha 0 leaves mixup out."""
    torch.manual_seed(1)
    method = DivideMix(alpha=0.0, lambda_u=10.0, views=2, **pieces)
    method.build(lambda: nn.Linear(5, 3), 12, 3)
    method.epoch = 18
    shelf = Shelf(torch.randn(12, 5), torch.arange(12) % 3, 4)
    index, other = torch.arange(4), torch.arange(4, 10)
    w = torch.rand(12)
    batch = Batch(shelf.pixels[index], shelf.labels[index], index)
    lambda_u = unsupervised_weight(8.0, 10.0, 16)
    measured = method.loss_of(0, w, other if guesses else other[:0], shelf, lambda_u, batch)

    own, peer = method.networks
    y = F.one_hot(batch.labels, 3).float()
    p = own(batch.images).softmax(1)
    rows = y
    if refines:
        rows = (w[:4, None] * y + (1 - w[:4, None]) * p) ** 2
        rows = rows / rows.sum(1, keepdim=True)
    loss = -(rows.detach() * own(batch.images).log_softmax(1)).sum(1).mean()
    everybody = [p]
    if guesses:
        q = own(shelf.pixels[other]).softmax(1)
        mean = q if alone else (q + peer(shelf.pixels[other]).softmax(1)) / 2
        guess = mean**2 / (mean**2).sum(1, keepdim=True)
        loss = loss + 5.0 * ((q - guess.detach()) ** 2).mean()  # half of the ramp of 16 epochs
        everybody.append(q)
    if prior:
        mean = torch.cat(everybody).mean(0)
        loss = loss + (torch.full((3,), 1 / 3) * (1 / 3 / mean).log()).sum()
    torch.testing.assert_close(measured, loss)
    gradients = torch.autograd.grad(measured, list(own.parameters()))
    expected = torch.autograd.grad(loss, list(own.parameters()))
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert all(parameter.grad is None for parameter in peer.parameters())


def test_views_are_augmented_anew_and_mixed_together(noisy, monkeypatch):
    mixed = []

    def mix(images, rows, alpha, generator):
        mixed.append((images.clone(), len(rows), alpha))
        return images, rows

    monkeypatch.setattr(dividemix, "mixup", mix)
    crop = Options(augment=Augment(crop=1))
    run(DivideMix(warm_up=1, views=2), noisy, epochs=2, options=crop)
    assert mixed
    for images, count, alpha in mixed:
        assert count == 2 * 64 + 2 * 64
        assert alpha == 4.0
        assert not torch.equal(images[:64], images[64:128])


def test_a_network_without_a_division_warms_up_again(noisy):
    history = run(DivideMix(**QUICK, mixture=torch.zeros_like), noisy)
    assert all(math.isfinite(loss) for loss in history["train_loss"])
    assert history["label_recall"] == [1.0] * 4
    everybody = run(DivideMix(**QUICK, mixture=torch.ones_like), noisy)
    assert all(math.isfinite(loss) for loss in everybody["train_loss"])
    assert everybody["label_precision"][-1] == pytest.approx(1 - noisy.noise_rate)


def test_a_students_pieces_are_the_ones_that_run(noisy):
    used = set()

    def spy(name, function):
        def inner(*arguments):
            used.add(name)
            return function(*arguments)

        return inner

    pieces = {
        "mixture": spy("mixture", clean_probability),
        "divide": spy("divide", co_divide),
        "refine_labels": spy("refine", co_refine),
        "guess_labels": spy("guess", co_guess),
        "objective": spy("loss", semi_supervised_loss),
        "prior": spy("prior", even_prior_loss),
        "penalize": spy("penalty", confidence_penalty),
    }
    mine = run(DivideMix(**QUICK, **pieces), noisy)
    assert used == {"mixture", "divide", "refine", "guess", "loss", "prior", "penalty"}
    plain = run(DivideMix(**QUICK, penalize=confidence_penalty), noisy)
    assert mine["train_loss"] == plain["train_loss"]


def test_losses_are_those_of_the_networks_in_evaluation_mode(noisy):
    method = DivideMix(**QUICK)
    seen = {}

    class Peek(DivideMix):
        def fit_mixtures(self, data):
            super().fit_mixtures(data)
            assert all(network.training for network in self.networks)
            self.eval()
            images = data.images(slice(None))
            for number, network in enumerate(self.networks):
                with torch.no_grad():
                    logits = network(images)
                seen[number] = F.cross_entropy(logits, data.labels, reduction="none")
            self.train()

    method = Peek(**QUICK)
    run(method, noisy)
    for number in (0, 1):
        torch.testing.assert_close(method.losses[number], seen[number])
        w = clean_probability(normalised(seen[number]))
        torch.testing.assert_close(method.clean[number], w)


def test_averaged_losses_are_the_mean_of_the_latest(noisy):
    handed = []

    def mixture(losses):
        handed.append(losses.clone())
        return clean_probability(losses)

    alone, averaged = [], []
    for count, kept in ((1, alone), (3, averaged)):
        handed.clear()
        run(DivideMix(warm_up=5, average_losses=count, mixture=mixture), noisy, epochs=5)
        kept.extend(handed[::2])  # those of the first network
    torch.testing.assert_close(averaged[0], alone[0])
    torch.testing.assert_close(averaged[1], (alone[0] + alone[1]) / 2)
    torch.testing.assert_close(averaged[4], (alone[2] + alone[3] + alone[4]) / 3)


def test_modes_of_the_networks_while_labels_are_made():
    modes = []

    class Watch(nn.Linear):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    shelf = Shelf(torch.randn(6, 4), torch.tensor([0, 1] * 3), 3)
    index, other = torch.arange(3), torch.arange(3, 6)
    batch = Batch(shelf.pixels[index], shelf.labels[index], index)
    method = DivideMix(views=1)
    method.build(lambda: Watch(4, 2), 6, 2)
    method.train()
    method.loss_of(1, torch.ones(6), other, shelf, 1.0, batch)
    assert modes == [(True, False), (True, False), (False, False), (True, True)]
    assert all(network.training for network in method.networks)


def test_the_prediction_comes_from_the_mean_of_the_logits():
    method = DivideMix()
    method.build(lambda: nn.Linear(4, 3), 5, 3)
    images = torch.randn(7, 4)
    first, second = (network(images) for network in method.networks)
    torch.testing.assert_close(method(images), ((first + second) / 2).softmax(1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warm_up": 0}, "warm_up"),
        ({"views": 0}, "views"),
        ({"average_losses": 0}, "average_losses"),
        ({"threshold": 1.5}, "threshold"),
        ({"alpha": -1.0}, "alpha"),
        ({"lambda_u": -1.0}, "lambda_u"),
        ({"lambda_u": math.inf}, "lambda_u"),
        ({"steps": -1}, "steps"),
        ({"ramp_epochs": 0}, "ramp_epochs"),
        ({"threshold": math.nan}, "threshold"),
    ],
)
def test_bad_settings_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        DivideMix(**changes)


@pytest.mark.parametrize("changes", [{}, {"average_losses": 3, "views": 2}])
def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(changes, noisy, tmp_path):
    make = functools.partial(DivideMix, **QUICK | changes)
    crop, stop = Options(augment=Augment(crop=1)), threading.Event()
    whole_method, method = make(), make()
    whole = run(whole_method, noisy, epochs=6, options=crop)
    kept = dataclasses.replace(crop, checkpoint=tmp_path / "run.pt")
    first = run(
        make(),
        noisy,
        epochs=6,
        options=dataclasses.replace(kept, stop=stop),
        on_epoch=lambda history: stop.set() if len(history) == 3 else None,
    )
    assert first.stopped
    second = run(method, noisy, epochs=6, options=kept)
    for column in ("train_loss", "test_accuracy", "label_precision"):
        assert second[column] == whole[column]
    ours, theirs = method.state_dict(), whole_method.state_dict()
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_batch_norm_gets_along(noisy):
    history = run(DivideMix(**QUICK), noisy, network="small-cnn", epochs=2)
    assert math.isfinite(history.last["train_loss"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(5))
def test_at_60_percent_noise_it_holds_what_cross_entropy_loses(seed):
    data = noise.inject(datasets.load("digits"), "symmetric", 0.6, seed=seed)
    options = {"network": "mlp", "epochs": 40, "seed": seed}
    divided = run(DivideMix(warm_up=5, views=1), data, **options)
    plain = run(CrossEntropy(), data, **options)
    assert divided.last["test_accuracy"] > plain.last["test_accuracy"] + 0.3
    assert divided.last["label_precision"] > 0.9
