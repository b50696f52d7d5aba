"""Early stopping on held-out noisy labels."""

import pytest
import torch

from nlcourse import datasets, noise
from nlcourse.methods import CrossEntropy
from nlcourse.training import fit
from nlcourse.training.early_stopping import EarlyStopping, hold_out
from nlcourse.training.history import COLUMNS, History


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(300), "symmetric", 0.4, seed=0)


def test_the_two_parts_are_the_whole(noisy):
    part, out = hold_out(noisy, 0.1, seed=3)
    assert (len(part.labels), len(out)) == (270, 30)
    taken = torch.ones(300, dtype=torch.bool)
    taken[out] = False

    def rows(images, labels):
        return sorted(
            (*image.flatten().tolist(), label)
            for image, label in zip(images, labels.tolist(), strict=True)
        )

    assert rows(part.images, part.labels) == rows(noisy.images[taken], noisy.labels[taken])
    assert torch.equal(part.test_images, noisy.test_images)
    assert part.noise_rate == pytest.approx(noisy.noise_rate, abs=0.05)


def test_a_seed_decides_who_is_held_out(noisy):
    first, again, other = (hold_out(noisy, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first.sort().values, other.sort().values)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.0, 0.001, float("nan")])
def test_a_part_must_not_be_empty(noisy, share):
    with pytest.raises(ValueError, match="share|NaN"):
        hold_out(noisy, share)


def test_it_watches_the_given_labels_of_those_held_out(noisy):
    method = CrossEntropy()
    watch = EarlyStopping(method, noisy, share=0.2)
    history = fit(
        method,
        watch.training_part,
        epochs=4,
        progress=False,
        on_epoch=watch,
        device="cpu",
    )
    assert len(watch.accuracies) == 4
    _, out = hold_out(noisy, 0.2)
    mean, std = noisy.mean[0], noisy.std[0]
    with torch.no_grad():
        answers = method((noisy.images[out] - mean) / std).argmax(1)
    hits = sum(a == y for a, y in zip(answers.tolist(), noisy.labels[out].tolist(), strict=True))
    assert watch.accuracies[-1] == pytest.approx(hits / 60)
    place = max(range(4), key=lambda epoch: (watch.accuracies[epoch], -epoch))
    assert watch.best_epoch == place + 1
    assert watch.chosen(history) == history["test_accuracy"][place]
    assert watch.chosen(history, "train_loss") == history["train_loss"][place]


def test_the_first_of_several_best_epochs_is_taken(noisy):
    watch = EarlyStopping(CrossEntropy(), noisy)
    with pytest.raises(ValueError, match="no epoch yet"):
        _ = watch.best_epoch
    watch.accuracies = [0.1, 0.5, 0.5, 0.2]
    rows = [dict.fromkeys(COLUMNS, 0.0) | {"test_accuracy": value} for value in (1, 2, 3, 4)]
    assert watch.best_epoch == 2
    assert watch.chosen(History(rows)) == 2
    with pytest.raises(ValueError, match="resumed"):
        watch.chosen(History(rows[:3]))
