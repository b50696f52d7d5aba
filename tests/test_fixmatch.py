"""FixMatch beside loops: the draw of the labelled set, the loss of two views, the step."""

import dataclasses
import functools
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlcourse import datasets
from nlcourse.datasets.augment import Augment
from nlcourse.methods.fixmatch import STRONG, FixMatch, draw_labelled, pseudo_label_loss
from nlcourse.training import Options, fit


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits").subset(200)


def run(method, data, **changes):
    options = {"epochs": 2, "seed": 3, "progress": False, "device": "cpu"}
    return fit(method, data, **options | changes)


@settings(max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 5), st.integers(1, 8))
def test_so_many_of_each_class_are_drawn(seed, n, classes, per_class):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    mask = draw_labelled(labels, per_class, classes, generator)
    for c in range(classes):
        there = int((labels == c).sum())
        assert int(mask[labels == c].sum()) == min(per_class, there)


def test_every_example_of_a_class_is_drawn_equally_often():
    labels, generator = torch.zeros(8, dtype=torch.int64), torch.Generator().manual_seed(0)
    counts = sum(draw_labelled(labels, 2, 3, generator).long() for _ in range(4000))
    assert counts.tolist() == pytest.approx([1000] * 8, rel=0.12)
    with pytest.raises(ValueError, match="per_class"):
        draw_labelled(labels, 0, 3)


@settings(max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 9), st.floats(0.2, 0.99))
def test_the_loss_of_two_views_against_a_loop(seed, n, threshold):
    generator = torch.Generator().manual_seed(seed)
    weak, strong = 2 * torch.randn(2, n, 4, generator=generator, dtype=torch.float64)
    total = 0.0
    for w, s in zip(weak, strong, strict=True):
        p = w.softmax(0)
        if p.max() >= threshold:
            total -= s.log_softmax(0)[p.argmax()].item()
    measured = pseudo_label_loss(weak, strong, threshold).item()
    assert measured == pytest.approx(total / n, abs=1e-9)


def test_only_the_strong_view_learns():
    weak, strong = (torch.randn(5, 3, requires_grad=True) for _ in range(2))
    pseudo_label_loss(weak, strong, 0.0).backward()
    assert weak.grad is None
    assert strong.grad.abs().sum() > 0
    unsure = torch.zeros(5, 3)
    assert pseudo_label_loss(unsure, strong, 0.95).item() == 0


def test_the_mask_is_given_or_drawn_once_and_measured(digits):
    method = FixMatch(per_class=3)
    masks = []
    history = run(method, digits, on_epoch=lambda _: masks.append(method.labelled.clone()))
    assert int(masks[0].sum()) == 30
    assert torch.equal(masks[0], masks[1])
    assert history["label_recall"] == pytest.approx([30 / 200] * 2)
    mine = torch.zeros(200, dtype=torch.bool)
    mine[:50] = True
    told = FixMatch(mine)
    run(told, digits)
    assert torch.equal(told.labelled, mine)
    assert torch.equal(told.selected[0], mine)


def test_labels_outside_the_mask_are_never_seen(digits):
    mask = torch.arange(200) < 60
    labels = digits.labels.clone()
    labels[60:] = (labels[60:] + 1) % 10
    one, other = FixMatch(mask), FixMatch(mask)
    run(one, digits)
    run(other, digits.with_labels(labels))
    for name, value in one.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], value)


def test_one_view_is_weak_and_one_is_strong(digits):
    seen = []

    class Watch(FixMatch):
        def loss_of(self, other, data, batch):
            plain = data.images(other)
            self.network.register_forward_pre_hook(
                lambda module, inputs: seen.append((inputs[0].clone(), plain, len(batch.index)))
            )
            return super().loss_of(other, data, batch)

    run(Watch(per_class=2, ratio=2, noise=0.0), digits, epochs=1, network="mlp")
    images, plain, labelled = seen[0]
    assert (labelled, len(plain)) == (20, 40)
    assert len(images) == 20 + 40 + 40
    assert torch.equal(images[20:60], plain)  # no augmentation was asked of `fit`
    strong = images[60:]
    assert not torch.equal(strong, plain)
    holes = (strong == 0).flatten(1).sum(dim=1)  # exactly 0, the mean, is never a pixel's value
    assert holes.max() == STRONG.cutout**2
    assert holes.min() >= 4  # a hole at a corner


def test_without_the_unlabelled_part_it_is_supervised(digits):
    calls = []

    def loss(weak, strong, threshold):
        calls.append(threshold)
        return pseudo_label_loss(weak, strong, threshold)

    run(FixMatch(lambda_u=0.0, loss_of_views=loss), digits)
    assert calls == []
    run(FixMatch(threshold=0.8, loss_of_views=loss), digits)
    assert set(calls) == {0.8}


def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(digits, tmp_path):
    crop, stop = Options(augment=Augment(crop=1)), threading.Event()
    whole = run(FixMatch(per_class=2), digits, epochs=4, options=crop)
    kept = dataclasses.replace(crop, checkpoint=tmp_path / "run.pt")
    run(
        FixMatch(per_class=2),
        digits,
        epochs=4,
        options=dataclasses.replace(kept, stop=stop),
        on_epoch=lambda history: stop.set() if len(history) == 2 else None,
    )
    second = run(FixMatch(per_class=2), digits, epochs=4, options=kept)
    for column in ("train_loss", "test_accuracy"):
        assert second[column] == whole[column]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": 1.1}, "threshold"),
        ({"lambda_u": -1}, "lambda_u"),
        ({"noise": -0.1}, "noise"),
        ({"ratio": 0}, "ratio"),
        ({"per_class": 0}, "per_class"),
        ({"labelled": torch.zeros(5, dtype=torch.bool)}, "at least one"),
        ({"labelled": torch.ones(5)}, "mask of bool"),
    ],
)
def test_bad_settings_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        FixMatch(**changes)


def test_a_mask_for_other_data_is_refused(digits):
    with pytest.raises(ValueError, match="shape"):
        run(FixMatch(torch.ones(7, dtype=torch.bool)), digits)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(5))
def test_four_labels_a_class_go_further_with_fixmatch(seed):
    data = datasets.load("digits")
    cosine = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=20)
    options = {"epochs": 20, "seed": seed, "schedule": cosine}
    alone = run(FixMatch(lambda_u=0.0), data, **options).last["test_accuracy"]
    helped = run(FixMatch(ratio=3), data, **options).last["test_accuracy"]
    assert helped > alone + 0.01
