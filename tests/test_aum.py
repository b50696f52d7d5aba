"""AUM against loops and numpy, its fake class, its two stages, and a run taken up again."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.lessons.l08.watched import WatchedCrossEntropy
from nlcourse.methods.aum import (
    AUM,
    PASSES,
    flag_suspects,
    margins,
    threshold_sets,
    widen,
)
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp, small_cnn
from nlcourse.training.preact_resnet import preact_resnet18

SMALL = functools.partial(mlp, hidden=(32,))
FIT = {"network": SMALL, "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(300), "symmetric", 0.3, seed=1)


def draw(seed, n=7, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=generator)


# --- margins ---


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 6))
def test_margins_against_a_loop(seed, n, classes):
    logits, labels = draw(seed, n, classes)
    found = margins(logits, labels).tolist()
    for row, label, margin in zip(logits.tolist(), labels.tolist(), found, strict=True):
        rivals = [value for place, value in enumerate(row) if place != label]
        assert margin == row[label] - max(rivals)


@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_a_margin_is_positive_where_the_label_is_predicted_and_ignores_a_shift(seed, shift):
    logits, labels = draw(seed)
    found = margins(logits, labels)
    assert torch.equal(found > 0, logits.argmax(dim=1) == labels)
    torch.testing.assert_close(margins(logits + shift, labels), found)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)), (torch.zeros(3), torch.zeros(3)),
     (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64))],
)  # fmt: skip
def test_margins_refuse_other_shapes(logits, labels):
    with pytest.raises(ValueError, match="at least two classes"):
        margins(logits, labels)


# --- the fake class ---


@given(st.integers(0, 1000), st.integers(2, 12), st.integers(12, 400))
def test_threshold_sets_are_disjoint_and_of_the_papers_size(seed, classes, size):
    size = max(size, classes + 1)
    sets = threshold_sets(size, classes, torch.Generator().manual_seed(seed))
    assert sets.shape == (2, size)
    assert sets.sum(dim=1).tolist() == [size // (classes + 1)] * 2
    assert not (sets[0] & sets[1]).any()
    again = threshold_sets(size, classes, torch.Generator().manual_seed(seed))
    assert torch.equal(sets, again)


def test_the_papers_and_the_codes_size_for_cifar10():
    assert threshold_sets(50_000, 10)[0].sum() == 4545  # the code has 50,000 // 10 = 5000


def test_too_few_examples_for_a_fake_class():
    with pytest.raises(ValueError, match="at least 11 examples"):
        threshold_sets(10, 10)


@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0, 100))
def test_flags_against_numpys_percentile(seed, m, percentile):
    generator = torch.Generator().manual_seed(seed)
    scores, fake = (torch.randn(k, generator=generator, dtype=torch.float64) for k in (30, m))
    threshold = np.percentile(fake.numpy(), percentile)
    far = (scores - threshold).abs() > 1e-12  # both interpolate, with another rounding
    expected = torch.as_tensor(scores.numpy() <= threshold)
    assert torch.equal(flag_suspects(scores, fake, percentile)[far], expected[far])


def test_the_codes_rule_is_the_same_where_nothing_is_interpolated():
    """The code flags who lies under more than 1 % of the fake class's margins."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2000, generator=generator)
    fake = torch.randn(301, generator=generator)  # the 99th percentile is one of them
    code = (scores[:, None] < fake[None, :]).float().mean(dim=1) > 0.01
    assert torch.equal(code, flag_suspects(scores, fake, 99))


@pytest.mark.parametrize("percentile", [-1.0, 100.5])
def test_flags_refuse_other_percentiles(percentile):
    with pytest.raises(ValueError, match="percentile"):
        flag_suspects(torch.zeros(2), torch.zeros(2), percentile)
    with pytest.raises(ValueError, match="percentile"):
        AUM(percentile=percentile)


def test_flags_need_somebody_with_the_fake_class():
    with pytest.raises(ValueError, match="some of the fake class"):
        flag_suspects(torch.zeros(2), torch.zeros(0))


@pytest.mark.parametrize("make", [mlp, small_cnn, preact_resnet18])
def test_every_network_gets_one_output_more(make):
    shape = (3, 32, 32) if make is preact_resnet18 else (1, 8, 8)
    network = widen(make(shape, 10)).eval()
    assert network(torch.zeros(2, *shape)).shape == (2, 11)
    with pytest.raises(ValueError, match="ends in a linear layer"):
        widen(torch.nn.ReLU())


# --- watched cross entropy ---


def test_what_is_watched_is_the_state_before_the_step():
    method = WatchedCrossEntropy()
    torch.manual_seed(0)
    method.build(lambda: torch.nn.Linear(5, 3), 6, 3)
    images, labels = torch.randn(4, 5), torch.tensor([0, 2, 1, 1])
    index = torch.tensor([5, 0, 3, 2])
    logits = method.network(images).detach()
    loss = method.loss(Batch(images, labels, index))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    torch.testing.assert_close(method.last_margins[index], margins(logits, labels))
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(method.last_losses[index], expected)
    assert method.last_margins[[1, 4]].tolist() == [0, 0]  # not in the batch


# --- the method ---


class Diary(AUM):
    """AUM that writes down what its recorder is given."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.pages = []

    def pass_loss(self, number, batch):
        logits = self.networks[number](batch.images).detach()
        self.pages.append((self.epoch, number, batch.index, batch.labels, logits))
        return super().pass_loss(number, batch)


def test_aum_is_the_mean_margin_after_the_first_epoch(noisy):
    method = Diary(4)
    fit(method, noisy, epochs=4, **FIT)
    size = len(noisy.labels)
    for number in range(PASSES):
        total, fake = torch.zeros(size), method.threshold_sets[number]
        for epoch, which, index, labels, logits in method.pages:
            if which == number and epoch > 0:
                own = [10 if fake[i] else int(y) for i, y in zip(index, labels, strict=True)]
                total[index] += margins(logits, torch.tensor(own))
        torch.testing.assert_close(method.margin_sums[number], total)
    assert method.counted == 3
    means = method.margin_sums / 3
    first, second = method.threshold_sets
    expected = torch.where(first, means[1], torch.where(second, means[0], means.mean(dim=0)))
    torch.testing.assert_close(method.aum(), expected)
    for own, row, fake in zip(method.threshold_aum(), means, method.threshold_sets, strict=True):
        torch.testing.assert_close(own, row[fake])


def test_a_suspect_is_flagged_in_every_pass_in_which_it_kept_its_label(noisy):
    method = AUM(3, 80.0)
    fit(method, noisy, epochs=3, **FIT)
    means = (method.margin_sums / method.counted).numpy()
    for i in range(len(noisy.labels)):
        flagged = [
            means[k, i] <= np.percentile(means[k][method.threshold_sets[k].numpy()], 80.0)
            for k in range(PASSES)
            if not method.threshold_sets[k, i]
        ]
        assert bool(method.suspects[i]) == all(flagged)
    assert 0 < method.suspects.sum() < len(noisy.labels)


def test_the_second_stage_learns_from_the_others_with_a_network_of_its_own(noisy):
    method = AUM(3)
    kept = []
    history = fit(
        method,
        noisy,
        epochs=5,
        on_epoch=lambda h: kept.append([net[-1].weight.clone() for net in method.networks]),
        **FIT,
    )
    # Rows: after epochs 1 to 5. The passes stand still after the third, the last until then.
    for number in range(PASSES):
        assert not torch.equal(kept[1][number], kept[2][number])
        assert torch.equal(kept[2][number], kept[4][number])
        assert kept[0][number].shape[0] == 11
    assert torch.equal(kept[0][2], kept[2][2])
    assert not torch.equal(kept[2][2], kept[3][2])
    assert kept[0][2].shape[0] == 10
    assert torch.equal(method.selected[0], ~method.suspects)
    assert np.isnan(history["label_precision"][:3]).all()
    right = (~method.suspects & ~noisy.is_wrong).sum() / (~method.suspects).sum()
    assert history["label_precision"][3:] == pytest.approx([right.item()] * 2)
    recall = (~method.suspects & ~noisy.is_wrong).sum() / (~noisy.is_wrong).sum()
    assert history["label_recall"][4] == pytest.approx(recall.item())


def test_the_second_stage_is_cross_entropy_on_the_others(noisy):
    method = AUM(2)
    fit(method, noisy, epochs=2, **FIT)
    index = (~method.suspects).nonzero().flatten()[:8]
    images = noisy.images[index].float()
    loss = method.loss(Batch(images, noisy.labels[index], index))
    expected = F.cross_entropy(method.networks[2](images), noisy.labels[index])
    torch.testing.assert_close(loss, expected)


def test_a_students_pieces_are_the_ones_that_run(noisy):
    calls = []

    def student_margins(logits, labels):
        calls.append("margins")
        return margins(logits, labels).numpy()

    def student_flags(scores, fake, percentile):
        calls.append(("flag", percentile))
        return [True] + [False] * (len(scores) - 1)

    method = AUM(2, 70.0, margins=student_margins, flag=student_flags)
    fit(method, noisy, epochs=3, **FIT)
    assert calls.count(("flag", 70.0)) == PASSES
    assert calls.count("margins") == PASSES * 5  # 300 examples in batches of 64, one epoch counts
    others = (method.threshold_sets.sum(dim=0) > 0) & method.suspects
    assert (method.suspects & ~others).nonzero().flatten().tolist() in ([0], [])


def test_predictions_are_of_the_true_classes_in_both_stages(noisy):
    for epochs in (2, 4):
        method = AUM(3)
        fit(method, noisy, epochs=epochs, **FIT)
        p = method(noisy.test_images)
        assert p.shape == (len(noisy.test_images), 10)
        torch.testing.assert_close(p.sum(dim=1), torch.ones(len(p)))


@pytest.mark.parametrize("stop_after", [2, 3, 4])
def test_a_run_taken_up_again_ends_the_same(noisy, tmp_path, stop_after):
    whole, parts = AUM(3), [AUM(3), AUM(3), AUM(3)]
    expected = fit(whole, noisy, epochs=5, **FIT)
    file = tmp_path / "run.pt"
    fit(parts[0], noisy, epochs=stop_after, **FIT, options=Options(checkpoint=file))
    got = fit(parts[1], noisy, epochs=5, **FIT, options=Options(checkpoint=file))
    fit(
        parts[2], noisy, epochs=5, **FIT, options=Options(checkpoint=file)
    )  # nothing is left to train
    for column in ("train_loss", "test_accuracy"):
        assert got[column] == expected[column]
    for part in parts[1:]:
        assert torch.equal(part.suspects, whole.suspects)
        assert torch.equal(part(noisy.test_images), whole(noisy.test_images))


def test_everybody_a_suspect_is_an_error_that_says_what_to_do(noisy):
    method = AUM(2, flag=lambda scores, fake, percentile: torch.ones(len(scores)).bool())
    with pytest.raises(ValueError, match="Try more than 2 `find_epochs`"):
        fit(method, noisy, epochs=3, **FIT)


def test_too_short_a_first_stage():
    with pytest.raises(ValueError, match="the first epoch does not count"):
        AUM(1)


def test_wrong_labels_have_the_lower_aum(noisy):
    method = AUM(8)
    fit(method, noisy, epochs=8, **FIT)
    aum = method.aum()
    assert aum[noisy.is_wrong].mean() < 0 < aum[~noisy.is_wrong].mean()
