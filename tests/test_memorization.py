"""The measures of lesson 02, against autograd one image at a time, closed forms and definitions."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lesson_cells import LESSONS, code_cells, run_cells
from nlcourse.memorization import (
    Search,
    Watch,
    critical_sample_ratio,
    critical_samples,
    epochs_to_fit,
    gini,
    lass_step,
    loss_sensitivity,
    unrolled_loss_sensitivity,
)
from torch.nn import functional as F

from nlcourse import datasets, memorization
from nlcourse.base import Batch
from nlcourse.lessons.l02.adversarial import AdversarialTraining
from nlcourse.methods import CrossEntropy
from nlcourse.training import fit
from nlcourse.training.batches import Images
from nlcourse.training.networks import mlp

SHAPE = (1, 3, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(n=7, num_classes=4, seed=0, dtype=torch.float64):
    draw = generator(seed)
    images = torch.randn(n, *SHAPE, generator=draw, dtype=dtype)
    return images, torch.randint(num_classes, (n,), generator=draw)


def network(num_classes=4, hidden=(6,), seed=0, dtype=torch.float64, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mlp(SHAPE, num_classes, hidden=hidden, **options).to(dtype)


# Loss sensitivity --------------------------------------------------------------------------------


def test_sensitivity_is_that_of_each_image_alone(monkeypatch):
    monkeypatch.setattr(memorization, "BATCH", 3)  # several batches, the last one smaller
    net, (images, labels) = network(), sample()
    found = loss_sensitivity(net, images, labels)
    for x, y, value in zip(images, labels, found, strict=True):
        x = x[None].clone().requires_grad_()
        F.cross_entropy(net(x), y[None]).backward()
        assert value == pytest.approx(x.grad.abs().sum().item(), rel=1e-12)


def test_sensitivity_agrees_with_finite_differences():
    net, (images, labels) = network(), sample(n=3)
    h = 1e-6
    slopes = torch.zeros_like(images)
    with torch.no_grad():
        for pixel in range(images[0].numel()):
            shift = torch.zeros_like(images[0]).flatten()
            shift[pixel] = h
            up, down = (images + sign * shift.view(SHAPE) for sign in (1, -1))
            losses = [F.cross_entropy(net(x), labels, reduction="none") for x in (up, down)]
            slopes.view(3, -1)[:, pixel] = (losses[0] - losses[1]) / (2 * h)
    expected = slopes.abs().flatten(1).sum(1)
    torch.testing.assert_close(
        loss_sensitivity(net, images, labels), expected, rtol=1e-6, atol=1e-8
    )


def test_sensitivity_of_a_linear_network_in_closed_form():
    weight = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    images, labels = torch.tensor([[0.5, 0.25], [1.0, -1.0]]), torch.tensor([0, 1])
    probabilities = (images @ weight.T).softmax(1)
    slopes = (probabilities - F.one_hot(labels, 2)) @ weight
    found = loss_sensitivity(lambda x: x @ weight.T, images, labels)
    torch.testing.assert_close(found, slopes.abs().sum(1))


def test_sensitivity_leaves_network_and_images_as_they_were():
    net, (images, labels) = network(dropout=0.5), sample()
    net.train()
    net[1].eval()  # a frozen part stays frozen
    net[1].weight.grad = torch.full_like(net[1].weight, 7.0)
    modes = [part.training for part in net.modules()]
    state, copy = torch.get_rng_state(), images.clone()
    with torch.no_grad():
        first = loss_sensitivity(net, images, labels)
    assert torch.equal(first, loss_sensitivity(net, images, labels))  # no dropout
    assert [part.training for part in net.modules()] == modes
    assert net[1].weight.grad.eq(7).all()
    assert net[-1].weight.grad is None
    assert not first.requires_grad
    assert not images.requires_grad
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), state)


def test_mode_comes_back_after_an_error():
    net = network().train()
    with pytest.raises(RuntimeError):
        loss_sensitivity(net, torch.zeros(2, 1, 5, 5, dtype=torch.float64), torch.zeros(2).long())
    assert all(part.training for part in net.modules())


def test_unrolled_sensitivity_of_one_step_agrees_with_finite_differences():
    net, (images, labels) = network(), sample(n=4)
    options = {"steps": 3, "lr": 0.2, "batch_size": 2}
    found = unrolled_loss_sensitivity(net, images, labels, generator=generator(), **options)

    def final_loss(train_images):
        weights = {k: p.detach().clone().requires_grad_() for k, p in net.named_parameters()}
        order, left = generator(), 3
        while left:
            for index in torch.randperm(4, generator=order).split(2)[:left]:
                out = torch.func.functional_call(net, weights, (train_images[index],))
                slopes = torch.autograd.grad(F.cross_entropy(out, labels[index]), weights.values())
                weights = {
                    k: (w - 0.2 * s).detach().requires_grad_()
                    for (k, w), s in zip(weights.items(), slopes, strict=True)
                }
                left -= 1
        return F.cross_entropy(torch.func.functional_call(net, weights, (images,)), labels).item()

    h = 1e-5
    for example in range(4):
        total = 0.0
        for pixel in range(9):
            losses = []
            for sign in (1, -1):
                moved = images.clone()
                moved[example].view(-1)[pixel] += sign * h
                losses.append(final_loss(moved))
            total += abs(losses[0] - losses[1]) / (2 * h)
        assert found[example].item() == pytest.approx(total, rel=1e-4, abs=1e-8)


def test_unrolled_sensitivity_is_zero_for_an_example_never_met():
    net, (images, labels) = network(), sample(n=6)
    before = [p.clone() for p in net.parameters()]
    found = unrolled_loss_sensitivity(
        net, images, labels, steps=1, lr=0.1, batch_size=2, generator=generator()
    )
    met = torch.randperm(6, generator=generator())[:2]
    assert (found > 0).nonzero().flatten().tolist() == sorted(met.tolist())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": 0.0}, {"batch_size": 0}])
def test_unrolled_sensitivity_says_which_numbers_it_wants(wrong):
    with pytest.raises(ValueError, match="steps"):
        unrolled_loss_sensitivity(network(), *sample(), **({"steps": 2, "lr": 0.1} | wrong))


# Gini --------------------------------------------------------------------------------------------

SHARES = st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(lambda v: sum(v) > 1e-3)


@given(SHARES)
def test_gini_is_half_the_relative_mean_difference(values):
    x = torch.tensor(values, dtype=torch.float64)
    mean_difference = (x[:, None] - x[None, :]).abs().mean()
    expected = (mean_difference / (2 * x.mean())).item()
    assert gini(x) == pytest.approx(expected, abs=1e-9)


@given(SHARES, st.floats(1e-3, 1e3), st.randoms())
def test_gini_knows_neither_unit_nor_order(values, factor, rng):
    mixed = [factor * value for value in values]
    rng.shuffle(mixed)
    assert gini(torch.tensor(mixed)) == pytest.approx(gini(torch.tensor(values)), abs=1e-5)
    assert 0 <= gini(torch.tensor(values)) <= 1 - 1 / len(values) + 1e-12


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000])
def test_gini_in_closed_form(n):
    one_has_all = torch.zeros(n)
    one_has_all[0] = 3.0
    assert gini(one_has_all) == pytest.approx((n - 1) / n)
    assert gini(torch.full((n,), 0.1)) == pytest.approx(0.0, abs=1e-12)
    assert gini(torch.arange(1, n + 1)) == pytest.approx((n - 1) / (3 * n))


def test_gini_of_extreme_values():
    assert gini(torch.zeros(5)) == 0.0
    assert gini(torch.tensor([1e308, 1e308, 0.0], dtype=torch.float64)) == pytest.approx(1 / 3)
    assert gini(torch.tensor([1e-320, 0.0], dtype=torch.float64)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "values", [[], [1.0, -1.0], [1.0, math.nan], [math.inf, 1.0], [[1.0, 2.0]]]
)
def test_gini_refuses_what_cannot_be_shared_out(values):
    with pytest.raises(ValueError, match="values"):
        gini(torch.tensor(values))


# Critical samples --------------------------------------------------------------------------------


def two_classes(n=200, seed=3):
    """A linear classifier of two classes, and the l-infinity distance of each image to it."""
    draw = generator(seed)
    weight = torch.randn(9, generator=draw, dtype=torch.float64)
    images = torch.randn(n, *SHAPE, generator=draw, dtype=torch.float64)
    scores = images.flatten(1) @ weight + 0.3
    return (
        lambda x: F.pad((x.flatten(1) @ weight + 0.3)[:, None], (1, 0)),
        images,
        scores.abs() / weight.abs().sum(),
    )


@pytest.mark.parametrize("radius", [0.02, 0.1, 0.3])
def test_search_finds_all_critical_images_of_a_linear_classifier(radius):
    net, images, distance = two_classes()
    critical = distance < radius
    assert 0 < critical.sum() < len(images)
    found = critical_samples(net, images, radius, generator=generator())
    assert torch.equal(found, critical)
    assert torch.equal(critical_samples(net, images, radius, Search(single_step=True)), critical)
    ratio = critical_sample_ratio(net, images, radius, generator=generator())
    assert ratio == critical.double().mean().item()


def test_search_finds_all_of_several_linear_classes_and_one_step_a_part():
    draw = generator(5)
    weight = torch.randn(5, 9, generator=draw, dtype=torch.float64)
    images = torch.randn(400, *SHAPE, generator=draw, dtype=torch.float64)

    def net(x):
        return x.flatten(1) @ weight.T

    logits = net(images)
    own = logits.argmax(1)
    # Critical: some other class can be reached, each alone at its own corner of the box.
    gaps = logits.gather(1, own[:, None]) - logits
    reach = 0.25 * (weight[own][:, None, :] - weight).abs().sum(2)
    critical = ((gaps < reach) & (F.one_hot(own, 5) == 0)).any(1)
    found = critical_samples(net, images, 0.25, generator=generator())
    fast = critical_samples(net, images, 0.25, Search(single_step=True))
    assert not (found & ~critical).any()  # it proves: nothing is found that is not there
    assert not (fast & ~found).any()
    assert fast.sum() < found.sum()
    assert found.sum() >= 0.98 * critical.sum()


def test_search_is_not_blinded_by_a_sure_network():
    weight = torch.tensor([[60.0, 0.0], [0.0, 60.0]])
    images = torch.tensor([[1.0, -1.0]])  # p of the other class is e^-120: 0 in float32
    probability = (images @ weight.T).softmax(1)[0, 1]
    assert probability == 0
    found = critical_samples(lambda x: x @ weight.T, images, 1.2, generator=generator())
    assert found.all()


def test_radius_per_channel():
    images = torch.zeros(1, 2, 1, 1)

    def net(x):  # class 1 as soon as the second channel exceeds 0.5
        return torch.stack((torch.full((len(x),), 0.5), x[:, 1, 0, 0]), dim=1)

    wide, narrow = (torch.tensor(r).view(2, 1, 1) for r in ([0.1, 0.6], [0.6, 0.1]))
    assert critical_sample_ratio(net, images, wide, generator=generator()) == 1.0
    assert critical_sample_ratio(net, images, narrow, generator=generator()) == 0.0


@pytest.mark.parametrize("options", [{}, {"single_step": True}])
def test_radius_zero_finds_nothing(options):
    net, images, _ = two_classes()
    assert critical_sample_ratio(net, images, 0.0, Search(**options)) == 0.0


def test_search_stays_in_the_box():
    net, images, _ = two_classes(n=20)
    seen = []

    def move(moved, images, gradient, kick, radius, step):
        seen.append((lass_step(moved, images, gradient, 30 * kick, radius, step), images))
        return seen[-1][0]

    search = Search(iterations=5, move=move)
    critical_samples(net, images, 0.05, search, generator())
    assert len(seen) == 5
    assert max((moved - start).abs().max().item() for moved, start in seen) <= 0.05 + 1e-12


def test_found_images_drop_out_of_the_search(monkeypatch):
    net, images, distance = two_classes()
    sizes = []

    def move(*arguments):
        sizes.append(len(arguments[0]))
        return lass_step(*arguments)

    critical_samples(net, images, 0.3, Search(iterations=30, move=move), generator())
    assert sizes[0] == len(images)
    assert sizes[-1] == (distance >= 0.3).sum()
    sizes.clear()
    critical_samples(net, images[distance < 0.1], 0.3, Search(move=move), generator())
    assert len(sizes) < 100  # nobody left: an early end


def test_same_generator_same_answer_and_no_other_randomness(monkeypatch):
    net, images = network(hidden=(16,), num_classes=5, dropout=0.5), sample(n=60)[0]
    net.train()
    state = torch.get_rng_state()
    search = Search(iterations=2)
    first = critical_samples(net, images, 0.3, search, generator(1))
    again = critical_samples(net, images, 0.3, search, generator(1))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    draws = {
        tuple(critical_samples(net, images, 0.3, search, generator(s)).tolist()) for s in range(8)
    }
    assert len(draws) > 1


def test_labels_and_caller_s_no_grad_play_no_part():
    net, images, distance = two_classes(n=30)
    with torch.no_grad():
        found = critical_samples(net, images, 0.1, generator=generator())
    assert torch.equal(found, distance < 0.1)


IMAGES = torch.zeros(2, *SHAPE)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ((IMAGES, -0.1), {}, ValueError, "radius"),
        ((IMAGES, math.nan), {}, ValueError, "radius"),
        ((IMAGES, math.inf), {}, ValueError, "radius"),
        ((IMAGES, torch.tensor([0.1, -0.1])), {}, ValueError, "radius"),
        ((IMAGES, 0.1), {"iterations": 0}, ValueError, "iterations"),
        ((IMAGES[:0], 0.1), {}, ValueError, "n from 1"),
        ((IMAGES.byte(), 0.1), {}, TypeError, "`images` as a tensor of floats"),
    ],
)
def test_search_refuses_bad_input(arguments, options, error, said):
    with pytest.raises(error, match=said):
        critical_sample_ratio(network(dtype=torch.float32), *arguments, Search(**options))


def test_one_class_has_no_boundary():
    with pytest.raises(ValueError, match="two classes"):
        critical_sample_ratio(network(num_classes=1, dtype=torch.float32), IMAGES, 0.1)


@pytest.mark.parametrize(
    ("images", "labels", "error", "said"),
    [
        (IMAGES[:0], torch.zeros(0).long(), ValueError, "n from 1"),
        (IMAGES.byte(), torch.zeros(2).long(), TypeError, "`images` as a tensor of floats"),
        (IMAGES, torch.zeros(3).long(), ValueError, "labels"),
        (IMAGES, torch.zeros(2), TypeError, "labels"),
    ],
)
def test_sensitivity_refuses_bad_input(images, labels, error, said):
    with pytest.raises(error, match=said):
        loss_sensitivity(network(dtype=torch.float32), images, labels)


def test_method_in_place_of_a_network_is_said():
    method = CrossEntropy()
    method.build(lambda: network(dtype=torch.float32), 2, 4)
    with pytest.raises(TypeError, match="network"):
        loss_sensitivity(method, IMAGES, torch.zeros(2).long())
    with pytest.raises(TypeError, match="network"):
        critical_sample_ratio(method, IMAGES, 0.1)


# As training goes on -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def seen_by_network(data):
    images = Images(data.images, data.mean, data.std).get(slice(None))
    test_images = Images(data.test_images, data.mean, data.std).get(slice(None))
    return images, test_images


def test_watch_measures_and_does_not_disturb(digits):
    data = digits.subset(100)
    images, test_images = seen_by_network(data)
    options = {
        "epochs": 5,
        "network": partial(mlp, hidden=(16,), dropout=0.2),
        "progress": False,
    }
    plain = fit(CrossEntropy(), data, **options)
    method = CrossEntropy()
    watch = Watch(
        method, images, data.labels, test_images, radius=0.1, every=2, search=Search(iterations=3)
    )
    watched = fit(method, data, on_epoch=watch, **options)
    assert watched["train_loss"] == plain["train_loss"]
    assert watch["epoch"] == [1, 2, 4]
    assert all(0 <= ratio <= 1 for ratio in watch["csr"])
    assert watch["gini"][0] == watch["mean_gini"][0]
    assert watch["gini"][1:] != watch["mean_gini"][1:]


def test_watch_averages_what_it_has_seen(digits):
    data = digits.subset(60)
    images, test_images = seen_by_network(data)
    method, seen = CrossEntropy(), []
    watch = Watch(
        method, images, data.labels, test_images, radius=0.1, search=Search(single_step=True)
    )

    def both(history):
        watch(history)
        seen.append(loss_sensitivity(method.network, images, data.labels))

    fit(method, data, epochs=4, on_epoch=both, progress=False)
    mean = torch.stack(seen).mean(0)
    torch.testing.assert_close(watch.mean_sensitivity, mean)
    assert watch["mean_gini"][-1] == pytest.approx(gini(mean), abs=1e-6)
    with pytest.raises(ValueError, match="every"):
        Watch(method, images, data.labels, test_images, radius=0.1, every=0)


def test_epochs_to_fit_is_the_first_epoch_that_does(digits):
    data = digits.subset(80)
    options = {"network": partial(mlp, hidden=(32,)), "seed": 1}
    took = epochs_to_fit(CrossEntropy(), data, accuracy=0.9, **options)
    accuracies = fit(CrossEntropy(), data, epochs=int(took), **options)["given_accuracy"]
    assert accuracies[-1] >= 0.9
    assert all(value < 0.9 for value in accuracies[:-1])
    assert epochs_to_fit(CrossEntropy(), data, max_epochs=1, lr=1e-4, **options) == math.inf
    with pytest.raises(ValueError, match="accuracy"):
        epochs_to_fit(CrossEntropy(), data, accuracy=0.0)


def test_width_of_zero_is_refused(digits):
    with pytest.raises(ValueError, match="at least 1 unit"):
        epochs_to_fit(CrossEntropy(), digits.subset(20), network=partial(mlp, hidden=(0,)))


# Adversarial training ----------------------------------------------------------------------------


def adversarial(radius, weight=0.5):
    method = AdversarialTraining(radius, weight)
    method.build(lambda: network(num_classes=3, dtype=torch.float64), 5, 3)
    images, labels = sample(n=5, num_classes=3)
    return method, Batch(images, labels, torch.arange(5))


def test_adversarial_loss_by_hand():
    method, batch = adversarial(0.1, weight=0.3)
    x = batch.images.clone().requires_grad_()
    plain = F.cross_entropy(method.network(x), batch.labels)
    (slope,) = torch.autograd.grad(plain, x)
    moved = F.cross_entropy(method.network(batch.images + 0.1 * slope.sign()), batch.labels)
    loss = method.loss(batch)
    assert loss.item() == pytest.approx(0.7 * plain.item() + 0.3 * moved.item(), rel=1e-12)
    assert moved > plain
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize(("radius", "weight"), [(0.0, 0.5), (0.3, 0.0)])
def test_adversarial_training_without_a_move_is_cross_entropy(radius, weight):
    method, batch = adversarial(radius, weight)
    plain = F.cross_entropy(method.network(batch.images), batch.labels)
    torch.testing.assert_close(method.loss(batch), plain)


@pytest.mark.parametrize(
    ("radius", "weight", "said"),
    [(-0.1, 0.5, "radius"), (math.nan, 0.5, "radius"), (0.1, 1.5, "weight"), (0.1, -1, "weight")],
)
def test_adversarial_training_refuses_bad_settings(radius, weight, said):
    with pytest.raises(ValueError, match=said):
        AdversarialTraining(radius, weight)


# Lesson 02 ---------------------------------------------------------------------------------------

LESSON = LESSONS / "02_closer_look.py"


def test_explorer_of_the_lesson_judges_width_and_examples():
    cells = code_cells(LESSON)
    place = next(i for i, cell in enumerate(cells) if "explorer = Explorer(" in cell)
    first = next(i for i, cell in enumerate(cells) if "train = partial(" in cell)
    needed = {0, 1, first, *range(place - 2, place + 1)}
    wanted = {cells[number] for number in needed}
    explorer = run_cells(LESSON, edit=lambda cell: cell if cell in wanted else "")["explorer"]
    wide = explorer.try_out(noise_rate=0.4, width=128, examples=200, epochs=40)
    narrow = explorer.try_out(noise_rate=0.4, width=4, examples=200, epochs=40)
    assert (wide.reached, narrow.reached) == (False, False)  # one memorizes, one learns nothing
    assert wide.history.last["wrong_as_given"] > 0.5 > narrow.history.last["wrong_as_given"]
    assert explorer.try_out(noise_rate=0.4, width=16, examples=1200).reached
    assert [dict(run.settings.options)["width"] for run in explorer.tries] == [128, 4, 16]
    assert "width 128" in explorer.tries[0].settings.in_words()
