"""Suspects: films, scores, cross-validation, confident learning, precision and recall, the list."""

from __future__ import annotations

import csv
import functools
import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlcourse import datasets, noise
from nlcourse.lessons.l08 import suspects
from nlcourse.lessons.l08.watched import WatchedCrossEntropy
from nlcourse.methods import CrossEntropy
from nlcourse.methods.curriculum import local_density
from nlcourse.methods.self_learning import all_prototypes, prototype_labels
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp

SMALL = functools.partial(mlp, hidden=(32,))
FIT = {"network": SMALL, "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(300), "symmetric", 0.3, seed=1)


def draw(seed, n=30, classes=4):
    generator = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)).softmax(dim=1)
    return p, torch.randint(classes, (n,), generator=generator)


def ranked(seed, n=25):
    """Scores with ties, and flags with at least one of each kind."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(8, (n,), generator=generator).float()
    is_wrong = torch.rand(n, generator=generator) < 0.4
    is_wrong[:2] = torch.tensor([True, False])
    return scores, is_wrong


# --- the film ---


def test_the_film_holds_every_epoch_and_aum_leaves_out_the_first(noisy):
    method = WatchedCrossEntropy()
    film, seen = suspects.Film(method), []

    def look(history):
        film(history)
        seen.append((method.last_margins.clone(), method.last_losses.clone()))

    fit(method, noisy, epochs=4, on_epoch=look, **FIT)
    assert all(torch.equal(a, b) for a, (b, _) in zip(film.margins, seen, strict=True))
    expected = sum(m.double() for m, _ in seen[1:]) / 3
    torch.testing.assert_close(film.aum().double(), expected)
    torch.testing.assert_close(film.aum(2), seen[1][0])
    torch.testing.assert_close(film.mean_loss(3), (seen[1][1] + seen[2][1]) / 2)


def test_watching_changes_nothing(noisy):
    watched, plain = (fit(m, noisy, epochs=2, **FIT) for m in (WatchedCrossEntropy(),
                                                               CrossEntropy()))  # fmt: skip
    assert watched["test_accuracy"] == plain["test_accuracy"]
    assert watched["train_loss"] == pytest.approx(plain["train_loss"])


@pytest.mark.parametrize("epochs", [0, 1, 4])
def test_a_film_that_is_too_short(noisy, epochs):
    method = WatchedCrossEntropy()
    film = suspects.Film(method)
    fit(method, noisy, epochs=3, on_epoch=film, **FIT)
    with pytest.raises(ValueError, match="from 2 to 3"):
        film.aum(epochs)


# --- scores ---


@given(st.integers(0, 10_000))
def test_label_losses_are_minus_log_probability(seed):
    p, labels = draw(seed)
    expected = [-math.log(row[y]) for row, y in zip(p.tolist(), labels.tolist(), strict=True)]
    assert suspects.label_losses(p, labels).tolist() == pytest.approx(expected)


def test_a_probability_of_0_gives_a_finite_loss():
    loss = suspects.label_losses(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert loss.isfinite().all()
    assert loss > 80


def test_logits_are_refused():
    logits, labels = torch.randn(5, 3), torch.zeros(5, dtype=torch.int64)
    for call in (suspects.label_losses,
                 lambda p, y: suspects.confident_learning(y, p)):  # fmt: skip
        with pytest.raises(ValueError, match="softmax"):
            call(logits, labels)
    with pytest.raises(ValueError, match=r"\(n, C\)"):
        suspects.label_losses(torch.ones(3), labels)


def test_prototype_doubt_is_positive_where_the_label_would_change():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 5, generator=generator), torch.arange(60) % 3
    doubt = suspects.prototype_doubt(features, labels, 3)
    changed = prototype_labels(features, all_prototypes(features, labels, 3)) != labels
    assert torch.equal(doubt > 0, changed)
    assert 0 < changed.sum() < 60


def test_density_doubt_is_the_share_that_is_not_close():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(30, 4, generator=generator), torch.arange(30) % 2
    doubt = suspects.density_doubt(features, labels, 3)
    for label in range(2):
        own = local_density(features[labels == label])
        torch.testing.assert_close(doubt[labels == label], 1 - own / 14)
    alone = suspects.density_doubt(features[:1], labels[:1], 2)
    assert alone.tolist() == [1]


# --- out of sample ---


def rows_of(images):
    return [tuple(row) for row in images.flatten(1).tolist()]


class Marking(CrossEntropy):
    """Predicts class 0 for every image that it has seen in training, class 1 for others."""

    folds: list = []  # noqa: RUF012 - one list for all of them

    def train_epoch(self, batches, step):
        Marking.folds.append(set(rows_of(batches.images(slice(None)))))
        super().train_epoch(batches, step)

    def forward(self, images):
        known = [int(row not in Marking.folds[-1]) for row in rows_of(images)]
        return torch.nn.functional.one_hot(torch.tensor(known), 10).float()


def test_every_example_is_predicted_by_networks_that_have_not_seen_it(noisy):
    Marking.folds.clear()
    p = suspects.out_of_sample_probabilities(noisy, folds=3, make_method=Marking, epochs=1, **FIT)
    assert len({tuple(row) for row in noisy.images.flatten(1).tolist()}) == 300
    assert p.argmax(dim=1).tolist() == [1] * 300
    assert [len(fold) for fold in Marking.folds] == [200] * 3


def test_out_of_sample_predictions_do_not_follow_the_labels_they_are_judged_with(noisy):
    p = suspects.out_of_sample_probabilities(noisy, folds=4, epochs=20, **FIT)
    assert p.shape == (300, 10)
    torch.testing.assert_close(p.sum(dim=1), torch.ones(300))
    # By heart it would be all of them.
    assert (p.argmax(dim=1) == noisy.labels)[noisy.is_wrong].float().mean() < 0.3
    again = suspects.out_of_sample_probabilities(noisy, folds=4, epochs=20, **FIT)
    assert torch.equal(p, again)


def test_a_training_that_somebody_stops_ends_them_all(noisy):
    stop = threading.Event()
    stop.set()
    settings = FIT | {"options": Options(stop=stop)}
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 1"):
        suspects.out_of_sample_probabilities(noisy, folds=2, epochs=2, **settings)


def test_true_labels_play_no_part(noisy):
    import dataclasses

    lying = dataclasses.replace(noisy, true_labels=noisy.true_labels.flip(0))
    options = {"folds": 2, "epochs": 2} | FIT
    one, other = (suspects.out_of_sample_probabilities(d, **options) for d in (noisy, lying))
    assert torch.equal(one, other)


@pytest.mark.parametrize("folds", [1, 300])
def test_folds_that_cannot_be(noisy, folds):
    with pytest.raises(ValueError, match="folds"):
        suspects.out_of_sample_probabilities(noisy, folds=folds, **FIT)


# --- confident learning ---


def confident_joint(p, labels):
    """Count by hand, after Northcutt et al.: given label i, confidently j."""
    classes = p.shape[1]
    usual = np.array([p[labels == j, j].mean() for j in range(classes)])
    joint = np.zeros((classes, classes))
    for row, label in zip(p, labels, strict=True):
        above = [j for j in range(classes) if row[j] >= usual[j]]
        if above:
            joint[label, max(above, key=lambda j: row[j])] += 1
    return joint


def test_confident_learning_finds_planted_errors():
    generator = np.random.default_rng(0)
    true = np.repeat(np.arange(3), 60)
    p = generator.dirichlet([1, 1, 1], 180) * 0.2
    p[np.arange(180), true] += 0.8
    labels = true.copy()
    planted = generator.choice(180, 18, replace=False)
    labels[planted] = (labels[planted] + 1) % 3
    flags, doubt = suspects.confident_learning(torch.as_tensor(labels), torch.as_tensor(p))
    assert set(flags.nonzero().flatten().tolist()) == set(planted)
    assert set(doubt.argsort(descending=True)[:18].tolist()) == set(planted)
    own = p[np.arange(180), labels]
    np.testing.assert_allclose(doubt.numpy(), 1 - own, atol=1e-9)
    # What the library counts is what the paper says.
    joint = confident_joint(p, labels)
    assert joint.sum() - joint.trace() == 18


def test_confident_learning_ranks_as_the_loss_does():
    p, labels = draw(3)
    _, doubt = suspects.confident_learning(labels, p)
    losses = suspects.label_losses(p, labels)
    assert doubt.argsort().tolist() == losses.argsort().tolist()


def test_without_cleanlab_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    p, labels = draw(0)
    with pytest.raises(ImportError, match=r"pip install 'nlcourse\[suspects\]'"):
        suspects.confident_learning(labels, p)


def test_the_module_needs_neither_cleanlab_nor_scikit_learn_to_import():
    code = (
        "import sys; sys.modules['cleanlab'] = None; sys.modules['sklearn'] = None; "
        "sys.modules['matplotlib'] = None; import nlcourse.lessons.l08.suspects"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- precision and recall ---


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_the_measures_of_a_ranking_against_loops(seed):
    scores, is_wrong = ranked(seed)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[is_wrong].tolist()
        for b in scores[~is_wrong].tolist()
    ]
    precise, area = suspects.average_precision(scores, is_wrong)
    assert area == pytest.approx(sum(pairs) / len(pairs))
    expected, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        flagged = [i for i, score in enumerate(scores.tolist()) if score >= threshold]
        hits = sum(bool(is_wrong[i]) for i in flagged)
        precision, recall = hits / len(flagged), hits / int(is_wrong.sum())
        measured = suspects.precision_and_recall(scores >= threshold, is_wrong)
        assert measured == pytest.approx((precision, recall))
        expected += (recall - before) * precision
        before = recall
    assert precise == pytest.approx(expected)


def test_a_perfect_and_a_useless_ranking():
    is_wrong = torch.arange(1000) % 5 == 0
    assert suspects.average_precision(is_wrong.float(), is_wrong) == (1.0, 1.0)
    assert suspects.average_precision(torch.zeros(1000), is_wrong) == pytest.approx((0.2, 0.5))


def test_rankings_that_cannot_be_judged():
    flags = torch.tensor([True, False])
    for scores, wrong, word in (
        (torch.tensor([1.0, math.nan]), flags, "finite"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.bool), "some wrong labels"),
        (torch.zeros(3), flags, r"\(n,\)"),
    ):
        with pytest.raises(ValueError, match=word):
            suspects.average_precision(scores, wrong)
    with pytest.raises(ValueError, match="some right labels"):
        suspects.average_precision(torch.zeros(2), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="flags"):
        suspects.precision_and_recall(torch.zeros(2), flags)


def test_nothing_flagged_has_no_precision():
    nobody, one = torch.zeros(2, dtype=torch.bool), torch.tensor([True, False])
    precision, recall = suspects.precision_and_recall(nobody, one)
    assert math.isnan(precision)
    assert recall == 0


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_most_suspicious_are_the_highest(seed, share):
    scores, _ = ranked(seed)
    flags = suspects.most_suspicious(scores, share)
    assert flags.sum() == round(share * len(scores))
    if 0 < flags.sum() < len(scores):
        assert scores[flags].min() >= scores[~flags].max()
    with pytest.raises(ValueError, match="share"):
        suspects.most_suspicious(scores, 1.5)


def test_what_is_left_without_the_suspects(noisy):
    rest = suspects.without(noisy, noisy.is_wrong)
    assert torch.equal(rest.labels, noisy.true_labels[~noisy.is_wrong])
    assert torch.equal(rest.images, noisy.images[~noisy.is_wrong])
    assert rest.noise_rate == 0
    assert torch.equal(rest.test_images, noisy.test_images)
    with pytest.raises(ValueError, match="all of them flagged"):
        suspects.without(noisy, torch.ones(300, dtype=torch.bool))


# --- the list ---


def test_the_list_is_in_order_and_suggests_another_label():
    labels, scores = torch.tensor([0, 1, 1, 2]), torch.tensor([0.1, 2.0, 0.5, 2.0])
    p = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    rows = suspects.suspect_list(
        labels, scores, flags=scores > 0.2, probabilities=p, class_names=["zero", "one", "two"]
    )
    assert rows == [
        {"rank": 1, "position": 1, "given_label": "one", "suggested_label": "two", "score": 2.0},
        {"rank": 2, "position": 3, "given_label": "two", "suggested_label": "zero", "score": 2.0},
        {"rank": 3, "position": 2, "given_label": "one", "suggested_label": "zero", "score": 0.5},
    ]
    everybody = suspects.suspect_list(labels, scores)
    assert [row["position"] for row in everybody] == [1, 3, 2, 0]
    assert everybody[0] == {"rank": 1, "position": 1, "given_label": 1, "score": 2.0}
    with pytest.raises(ValueError, match="one score an example"):
        suspects.suspect_list(labels, scores[:2])


def test_the_saved_list_is_read_back(tmp_path):
    rows = suspects.suspect_list(torch.tensor([3, 4]), torch.tensor([0.5, 0.75]))
    path = suspects.save_suspects(tmp_path / "suspects.csv", rows)
    with open(path, newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"rank": "1", "position": "1", "given_label": "4", "score": "0.75"},
            {"rank": "2", "position": "0", "given_label": "3", "score": "0.5"},
        ]
    with pytest.raises(ValueError, match="at least one suspect"):
        suspects.save_suspects(path, [])


def test_the_rankings_find_wrong_labels(noisy):
    method = WatchedCrossEntropy()
    film = suspects.Film(method)
    fit(method, noisy, epochs=15, on_epoch=film, **FIT)
    assert suspects.average_precision(-film.aum(), noisy.is_wrong)[0] > 0.85
