"""Deep self-learning against loops: prototypes, corrected labels, two-part loss, whole runs."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.methods.features import all_features
from nlcourse.methods.self_learning import (
    SelfLearning,
    all_prototypes,
    choose_prototypes,
    class_scores,
    cosines,
    density_and_resemblance,
    prototype_labels,
    two_part_loss,
)
from nlcourse.training import Options, fit
from nlcourse.training.batches import Images
from nlcourse.training.networks import mlp

SMALL = functools.partial(mlp, hidden=(32,))
FIT = {"network": SMALL, "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(300), "symmetric", 0.3, seed=1)


def points(seed, n=9, d=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


# --- prototypes ---


@given(st.integers(0, 10_000))
def test_cosines_against_torch(seed):
    one, other = points(seed), points(seed + 1, 5)
    expected = F.cosine_similarity(one[:, None], other[None], dim=2)
    torch.testing.assert_close(cosines(one, other), expected)


def by_the_paper(s, top_share):
    """Return rho and eta, with plain loops."""
    n = len(s)
    ordered = sorted((value for row in s for value in row), reverse=True)
    close = ordered[math.ceil(top_share * n * n) - 1]
    rho = [sum((value > close) - (value < close) for value in row) for row in s]
    eta = []
    for i in range(n):
        denser = [s[i][j] for j in range(n) if rho[j] > rho[i]]
        eta.append(max(denser) if denser else min(s[i]))
    return rho, eta


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0.05, 1.0))
def test_density_and_resemblance_against_loops(seed, n, share):
    # Whole numbers: no two similarities are equal by rounding alone.
    half = torch.randint(0, 20, (n, n), generator=torch.Generator().manual_seed(seed))
    s = (half + half.T).double()
    rho, eta = density_and_resemblance(s, share)
    expected = by_the_paper(s.tolist(), share)
    assert (rho.tolist(), eta.tolist()) == expected


def test_close_is_the_top_share_and_not_the_bottom():
    s = torch.eye(5) + 0.1  # 5 of 25 entries are large: 20 %
    rho, _ = density_and_resemblance(s, 0.2)
    # S_c is the smallest large entry: equal to it counts 0, everything else is below.
    assert rho.tolist() == [-4] * 5
    rho, _ = density_and_resemblance(s, 0.4)
    assert rho.tolist() == [1] * 5


def test_prototypes_are_dense_and_differ():
    """Two crowds and a stranger: the copies of the first crowd's middle are passed over."""
    angles = torch.tensor([0.0, 0.001, 0.002, 0.5, 0.52, 2.5])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    rho, eta = density_and_resemblance(cosines(features, features))
    chosen = choose_prototypes(features, 2).tolist()
    assert rho[chosen[0]] == rho.max()
    assert eta[chosen].max() < 0.95
    again = choose_prototypes(features, 4).tolist()
    assert again[:2] == chosen  # whoever is too similar comes after all the others
    rest = [i for i in again if eta[i] >= 0.95]
    assert rest == [0]
    assert again[-1] == 0


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 10))
def test_choice_of_prototypes_against_loops(seed, n, count):
    features = points(seed, n)
    s = cosines(features, features)
    rho, eta = by_the_paper(s.tolist(), 0.4)
    order = sorted(range(n), key=lambda i: (eta[i] >= 0.95, -rho[i], i))
    assert choose_prototypes(features, count).tolist() == order[:count]


def test_prototypes_of_nobody_and_bad_settings():
    assert choose_prototypes(torch.zeros(0, 3)).tolist() == []
    with pytest.raises(ValueError, match="count"):
        choose_prototypes(torch.zeros(2, 3), 0)
    with pytest.raises(ValueError, match=r"\(m, d\)"):
        choose_prototypes(torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(m, m\)"):
        density_and_resemblance(torch.zeros(2, 3))


@pytest.mark.parametrize("sample", [1000, 6])
def test_every_class_chooses_among_its_own(sample):
    features, labels = points(0, 40), torch.arange(40) % 3
    generator = torch.Generator().manual_seed(3)
    found = all_prototypes(features, labels, 4, count=2, sample=sample, generator=generator)
    assert [len(own) for own in found] == [2, 2, 2, 0]
    for label, own in enumerate(found[:3]):
        for one in own:
            assert (features[labels == label] == one).all(dim=1).any()
        if sample == 1000:
            members = features[labels == label]
            assert torch.equal(own, members[choose_prototypes(members, 2)])


# --- labels ---


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_labels_against_a_loop(seed):
    features = points(seed)
    prototypes = [points(seed + 1 + k, 1 + k) for k in range(3)]
    scores = class_scores(features, prototypes)
    for i, f in enumerate(features):
        for c, some in enumerate(prototypes):
            each = [float(f @ p / math.sqrt(f @ f) / math.sqrt(p @ p)) for p in some]
            assert scores[i, c].item() == pytest.approx(sum(each) / len(each), abs=1e-12)
    assert torch.equal(prototype_labels(features, prototypes), scores.argmax(dim=1))


def test_a_class_without_prototypes_gets_nobody():
    empty = torch.zeros(0, 4, dtype=torch.float64)
    labels = prototype_labels(points(0), [empty, points(1), empty])
    assert labels.tolist() == [1] * 9
    with pytest.raises(ValueError, match="at least one class"):
        class_scores(points(0), [])


# --- the loss ---


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_two_part_loss_is_cross_entropy_with_mixed_labels(seed, alpha):
    logits = points(seed, 6)
    given_, corrected = torch.randint(4, (2, 6), generator=torch.Generator().manual_seed(seed))
    hot = F.one_hot(torch.stack([given_, corrected]), 4).double()
    rows = (1 - alpha) * hot[0] + alpha * hot[1]
    expected = -(rows * logits.log_softmax(dim=1)).sum(dim=1).mean()
    loss = two_part_loss(logits, given_, corrected, alpha)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)


# --- the method ---


def test_warm_up_is_cross_entropy_and_keeps_the_given_labels(noisy):
    method = SelfLearning(warm_up=3)
    fit(method, noisy, epochs=2, **FIT)
    assert torch.equal(method.current_labels.argmax(dim=1), noisy.labels)
    plain = torch.nn.functional.cross_entropy(method.network(noisy.images), noisy.labels)
    batch = Batch(noisy.images, noisy.labels, torch.arange(len(noisy.labels)))
    torch.testing.assert_close(method.loss(batch), plain)


def test_labels_are_those_of_the_networks_own_features(noisy):
    method = SelfLearning(warm_up=2)
    history = fit(method, noisy, epochs=4, **FIT)
    seen = all_features(
        method.network, Images(noisy.images, noisy.mean, noisy.std).get, len(noisy.labels)
    )
    labels = prototype_labels(seen, all_prototypes(seen, noisy.labels, 10))
    assert torch.equal(method.current_labels.argmax(dim=1), labels)
    assert torch.equal(method.current_labels.sum(dim=1), torch.ones(len(labels)))
    recovered = (labels == noisy.true_labels).float().mean().item()
    assert history.last["label_recovery"] == pytest.approx(recovered)


def test_after_the_warm_up_the_loss_has_two_parts(noisy):
    method = SelfLearning(0.3, warm_up=1)
    fit(method, noisy, epochs=2, **FIT)
    index = torch.arange(50, 90)
    batch = Batch(noisy.images[index], noisy.labels[index], index)
    logits = method.network(batch.images)
    corrected = method.current_labels[index].argmax(dim=1)
    assert (corrected != batch.labels).any()
    expected = two_part_loss(logits, batch.labels, corrected, 0.3)
    torch.testing.assert_close(method.loss(batch), expected)


def test_a_students_relabelling_is_the_one_that_runs(noisy):
    calls = []

    def relabel(features, prototypes):
        calls.append((len(features), [len(some) for some in prototypes]))
        return prototype_labels(features, prototypes).numpy()

    fit(SelfLearning(warm_up=2, count=3, relabel=relabel), noisy, epochs=3, **FIT)
    assert calls == [(300, [3] * 10)] * 2


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_run_taken_up_again_ends_the_same(noisy, tmp_path, stop_after):
    make = functools.partial(SelfLearning, warm_up=2, sample=20)  # so that prototypes are drawn
    whole, part = make(), make()
    expected = fit(whole, noisy, epochs=5, **FIT)
    file = tmp_path / "run.pt"
    fit(make(), noisy, epochs=stop_after, **FIT, options=Options(checkpoint=file))
    got = fit(part, noisy, epochs=5, **FIT, options=Options(checkpoint=file))
    for column in ("train_loss", "test_accuracy", "label_recovery"):
        assert got[column] == expected[column]
    assert torch.equal(part.current_labels, whole.current_labels)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"alpha": 1.2}, "alpha"), ({"alpha": -0.1}, "alpha"), ({"warm_up": 0}, "warm_up"),
     ({"count": 0}, "count"), ({"sample": 0}, "sample")],
)  # fmt: skip
def test_settings_without_a_meaning(arguments, word):
    with pytest.raises(ValueError, match=word):
        SelfLearning(**arguments)


def test_more_labels_are_true_than_were_given():
    noisy = noise.inject(datasets.load("digits"), "symmetric", 0.3, seed=1)
    method = SelfLearning(warm_up=6)
    history = fit(method, noisy, epochs=7, progress=False, device="cpu")
    assert history.last["label_recovery"] > 1 - noisy.noise_rate + 0.1
