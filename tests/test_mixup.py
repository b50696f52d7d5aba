"""mixup against a loop, the share's distribution, and the method's step."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlcourse.base import Batch
from nlcourse.methods.mixup import Mixup, draw_share, label_rows, mix_pairs, mixup


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=8, classes=5, seed=0):
    generator = seeded(seed)
    images = torch.rand(n, 2, 3, 3, generator=generator, dtype=torch.float64)
    return images, torch.randint(classes, (n,), generator=generator)


# ---- mixing with a known partner and share -------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.floats(0, 1), st.integers(0, 10**6))
def test_mix_pairs_against_a_loop(n, share, seed):
    images, labels = batch(n, seed=seed)
    rows = F.one_hot(labels, 5).double()
    partner = torch.randperm(n, generator=seeded(seed))
    mixed_images, mixed_rows = mix_pairs(images, rows, partner, share)
    large = share if share > 0.5 else 1 - share
    for i, j in enumerate(partner.tolist()):
        for got, old in ((mixed_images, images), (mixed_rows, rows)):
            expected = large * old[i].numpy() + (1 - large) * old[j].numpy()
            np.testing.assert_allclose(got[i].numpy(), expected)


def test_mixing_changes_no_input():
    images, labels = batch()
    before = images.clone(), labels.clone()
    mixup(images, labels, 1.0, seeded())
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


# ---- the whole -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.floats(0.1, 40), st.integers(0, 10**6))
def test_mixed_rows_tell_what_is_in_the_mixed_images(n, alpha, seed):
    # One class an example: the row then says by itself who was mixed, and how much of each.
    images = torch.rand(n, 4, generator=seeded(seed), dtype=torch.float64)
    mixed, rows = mixup(images, torch.eye(n, dtype=torch.float64), alpha, seeded(seed))
    torch.testing.assert_close(mixed, rows @ images)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(n, dtype=torch.float64))
    # The first keeps the majority, and the share is the same for the whole batch.
    own = rows.diagonal()
    assert (own >= 0.5 - 1e-12).all()
    assert own[own < 1].unique().numel() <= 1
    # Everybody is somebody's partner once.
    torch.testing.assert_close(rows.sum(dim=0), torch.ones(n, dtype=torch.float64))


def test_the_same_generator_mixes_the_same_and_moves_on():
    images, labels = batch()
    one = mixup(images, labels, 4.0, seeded(3))
    generator = seeded(3)
    again, later = (mixup(images, labels, 4.0, generator) for _ in range(2))
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    assert not torch.equal(one[0], later[0])


def test_without_a_generator_the_global_one_is_used():
    images, labels = batch()
    torch.manual_seed(5)
    one = mixup(images, labels, 4.0)[0]
    torch.manual_seed(5)
    assert torch.equal(one, mixup(images, labels, 4.0)[0])
    assert not torch.equal(one, mixup(images, labels, 4.0)[0])


def test_numbers_or_rows_are_the_same_labels():
    images, labels = batch()
    rows = F.one_hot(labels, 5).double()
    for given_labels in (labels, rows):
        mixed, mixed_rows = mixup(images, given_labels, 1.0, seeded(), num_classes=5)
        assert mixed.dtype == mixed_rows.dtype == torch.float64
        assert mixed_rows.shape == (8, 5)
    torch.testing.assert_close(
        mixup(images, labels, 1.0, seeded(), num_classes=5)[1],
        mixup(images, rows, 1.0, seeded())[1],
    )


def test_number_of_classes_is_that_of_the_largest_label_when_left_out():
    assert label_rows(torch.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert label_rows(torch.tensor([0, 2]), 4).shape == (2, 4)


def test_no_mixing_at_alpha_0():
    images, labels = batch()
    mixed, rows = mixup(images, labels, 0.0, seeded(), num_classes=5)
    assert torch.equal(mixed, images)
    assert torch.equal(rows, F.one_hot(labels, 5).double())


@pytest.mark.parametrize("alpha", [0.3, 1.0, 8.0])
def test_share_is_drawn_from_beta(alpha):
    generator = seeded(1)
    shares = np.array([draw_share(alpha, generator) for _ in range(4000)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert shares.mean() == pytest.approx(0.5, abs=4 * (variance / 4000) ** 0.5)
    assert shares.var() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize(
    ("images", "labels", "alpha", "more", "error", "word"),
    [
        (torch.zeros(2, 3).byte(), torch.tensor([0, 1]), 1.0, {}, TypeError, "floats"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), 1.0, {}, TypeError, "int64"),
        (torch.zeros(2, 3), [0, 1], 1.0, {}, TypeError, "int64"),
        (torch.zeros(2, 3), torch.eye(3), 1.0, {}, ValueError, "one label an image"),
        (torch.zeros(2, 3), torch.ones(2, 4), 1.0, {}, ValueError, "sum to 1"),
        (torch.zeros(2, 3), torch.tensor([[2.0, -1.0]] * 2), 1.0, {}, ValueError, "numbers from 0"),
        (torch.zeros(2, 3), torch.eye(2), 1.0, {"num_classes": 3}, ValueError, "3 classes"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), 1.0, {"num_classes": 3}, ValueError, "0 to 2"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), 1.0, {}, ValueError, "from 0"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), -1.0, {}, ValueError, "alpha"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), float("nan"), {}, ValueError, "alpha"),
    ],
)
def test_bad_input_is_said(images, labels, alpha, more, error, word):
    with pytest.raises(error, match=word):
        mixup(images, labels, alpha, seeded(), **more)


# ---- the method ----------------------------------------------------------------------------------


def test_method_takes_cross_entropy_of_both_labels_by_their_shares():
    images, labels = batch(10)
    images = images.flatten(1).float()
    method = Mixup(2.0)
    torch.manual_seed(0)
    method.build(lambda: torch.nn.Linear(18, 5), 10, 5)
    method.generator = seeded(7)
    got = method.loss(Batch(images, labels, torch.arange(10)))

    generator = seeded(7)
    share = draw_share(2.0, generator)
    share = max(share, 1 - share)
    partner = torch.randperm(10, generator=generator)
    logits = method.network(share * images + (1 - share) * images[partner])
    expected = share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(
        logits, labels[partner]
    )
    torch.testing.assert_close(got, expected)


def test_a_students_mix_is_the_one_that_runs():
    asked = []

    def mix(images, rows, partner, share):
        asked.append((rows.shape, share))
        return images, rows

    images, labels = batch(10)
    method = Mixup(1.0, mix=mix)
    method.build(lambda: torch.nn.Linear(18, 5), 10, 5)
    images = images.flatten(1).float()
    got = method.loss(Batch(images, labels, torch.arange(10)))
    torch.testing.assert_close(got, F.cross_entropy(method.network(images), labels))
    assert asked[0][0] == (10, 5)


def test_method_refuses_a_negative_alpha():
    with pytest.raises(ValueError, match="alpha"):
        Mixup(-1.0)
