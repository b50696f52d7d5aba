"""CurriculumNet against loops, the three subsets, the stages, and a run taken up again."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.methods.curriculum import (
    CurriculumNet,
    density_subsets,
    local_density,
    reduced,
    split_by_density,
)
from nlcourse.methods.features import all_features, features
from nlcourse.training import Options, fit
from nlcourse.training.batches import Images
from nlcourse.training.networks import mlp, nine_layer_cnn, small_cnn
from nlcourse.training.preact_resnet import preact_resnet18

SMALL = functools.partial(mlp, hidden=(32,), dropout=0.2)
FIT = {"network": SMALL, "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(300), "symmetric", 0.3, seed=1)


# --- features ---


@pytest.mark.parametrize("make", [mlp, small_cnn, nine_layer_cnn, preact_resnet18])
def test_features_are_what_makes_the_logits(make):
    torch.manual_seed(0)
    network = make((3, 32, 32), 10).eval()
    images = torch.randn(2, 3, 32, 32)
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch.testing.assert_close(last(features(network, images)), network(images))


def test_all_features_are_taken_in_evaluation_mode_and_leave_the_mode(noisy):
    torch.manual_seed(0)
    network = SMALL((1, 8, 8), 10).train()
    images = Images(noisy.images, noisy.mean, noisy.std)
    seen = all_features(network, images.get, len(images))
    assert network.training
    assert not seen.requires_grad
    torch.testing.assert_close(seen, features(network.eval(), images.get(slice(None))))


def test_a_network_without_a_linear_layer():
    with pytest.raises(ValueError, match="ends in a linear layer"):
        features(torch.nn.Flatten(), torch.zeros(1, 4))


# --- density ---


def density_by_loop(points, share):
    distances = [[sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in points]
                 for p in points]  # fmt: skip
    everything = sorted(d for row in distances for d in row)
    cutoff = everything[math.ceil(share * len(everything)) - 1]
    return [
        sum(row[j] < cutoff for j in range(len(points)) if j != i)
        for i, row in enumerate(distances)
    ]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 3), st.floats(0.05, 1.0))
def test_density_against_a_loop(seed, n, d, share):
    points = torch.randint(-5, 6, (n, d), generator=torch.Generator().manual_seed(seed))
    assert local_density(points.double(), share).tolist() == density_by_loop(points.tolist(), share)


@given(st.integers(0, 10_000))
def test_density_does_not_change_when_points_move_together(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(-5, 6, (10, 3), generator=generator).double()
    order = torch.randperm(10, generator=generator)
    rho = local_density(points)
    assert torch.equal(local_density(4 * points + 7), rho)
    assert torch.equal(local_density(points[order]), rho[order])


def test_a_dense_crowd_and_a_stranger():
    crowd = torch.randn(9, 2, generator=torch.Generator().manual_seed(0)) / 10
    rho = local_density(torch.cat([crowd, torch.tensor([[9.0, 9.0]])]))
    assert rho[-1] == 0
    assert rho[:-1].min() > 0


def test_nobody_and_equal_points():
    assert local_density(torch.zeros(0, 3)).tolist() == []
    assert local_density(torch.zeros(1, 3)).tolist() == [0]
    assert local_density(torch.ones(5, 3)).tolist() == [0] * 5  # no distance is below the cutoff 0


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_density_refuses_other_shares_and_shapes(share):
    with pytest.raises(ValueError, match="share"):
        local_density(torch.zeros(3, 2), share)
    with pytest.raises(ValueError, match=r"\(n, d\)"):
        local_density(torch.zeros(3))


# --- subsets ---


def best_three_way_cut(values):
    """The cut of sorted numbers into three runs with the least sum of squares: 1-D k-means."""
    ordered = sorted(values)

    def spread(part):
        return float(np.var(part) * len(part)) if part else 0.0

    cuts = [(i, j) for i in range(1, len(ordered)) for j in range(i + 1, len(ordered))]
    low, high = min(
        cuts,
        key=lambda c: (
            spread(ordered[: c[0]]) + spread(ordered[c[0] : c[1]]) + spread(ordered[c[1] :])
        ),
    )
    return ordered[low], ordered[high]


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_the_split_is_k_means_in_one_dimension(seed):
    generator = np.random.default_rng(seed)
    groups = [generator.normal(centre, 1.0, 6) for centre in (0, 20, 40)]
    density = np.concatenate(groups).round().astype(int)
    middle, top = best_three_way_cut(density.tolist())
    expected = np.where(density >= top, 0, np.where(density >= middle, 1, 2))
    assert split_by_density(torch.as_tensor(density)).tolist() == expected.tolist()


def test_fewer_densities_than_subsets():
    assert split_by_density(torch.tensor([4, 4, 4])).tolist() == [0, 0, 0]
    assert split_by_density(torch.tensor([1, 4, 4, 1])).tolist() == [1, 0, 0, 1]


def test_every_class_is_split_by_itself():
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.randn(60, 4, generator=generator), torch.arange(60) % 3
    subsets = density_subsets(points, labels, 4)  # class 3 has no example
    for label in range(3):
        own = points[labels == label]
        expected = split_by_density(local_density(own))
        assert torch.equal(subsets[labels == label], expected)
    with pytest.raises(ValueError, match="labels"):
        density_subsets(points, labels[:5], 3)


def test_many_features_are_reduced_by_pca():
    wide = torch.randn(30, 300, generator=torch.Generator().manual_seed(0))
    few = reduced(wide, 5)
    expected = PCA(5, random_state=0).fit_transform(wide.numpy())
    torch.testing.assert_close(few, torch.as_tensor(expected))
    assert reduced(wide, 256).shape == (30, 30)
    assert reduced(few) is few
    # With as many components as points no distance changes.
    exact = reduced(wide.double())
    assert torch.pdist(exact).numpy() == pytest.approx(torch.pdist(wide.double()).numpy())


# --- the method ---


def test_the_stages_and_who_takes_part(noisy):
    method, seen = CurriculumNet(2, 2), []

    def look(history):
        seen.append((method.stage, method.selected[0].clone(), method.subsets.clone()))

    history = fit(method, noisy, epochs=8, on_epoch=look, **FIT)
    assert [stage for stage, _, _ in seen] == [0, 0, 1, 1, 2, 2, 3, 3]
    for stage, selected, subsets in seen:
        expected = subsets < stage if stage else torch.zeros(len(noisy.labels), dtype=torch.bool)
        assert torch.equal(selected, expected)
    assert method.subsets.unique().tolist() == [0, 1, 2]
    assert np.isnan(history["label_precision"][:2]).all()
    for epoch in (2, 4, 6):
        chosen = seen[epoch][1]
        expected = (~noisy.is_wrong)[chosen].float().mean().item()
        assert history["label_precision"][epoch] == pytest.approx(expected)
    assert history["label_recall"][7] == pytest.approx(1.0)


def test_the_split_is_that_of_the_first_networks_features(noisy):
    method = CurriculumNet(2, 1)
    fit(method, noisy, epochs=3, **FIT)
    seen = all_features(
        method.networks[0], Images(noisy.images, noisy.mean, noisy.std).get, len(noisy.labels)
    )
    assert torch.equal(method.subsets, density_subsets(seen, noisy.labels, 10))


def test_the_loss_is_weighted_by_subset():
    method = CurriculumNet(weights=(1.0, 0.5, 0.25))
    torch.manual_seed(0)
    method.build(lambda: torch.nn.Linear(4, 3), 6, 3)
    method.subsets.copy_(torch.tensor([0, 1, 2, 0, 1, 2]))
    images, labels, index = (
        torch.randn(4, 4),
        torch.tensor([0, 2, 1, 1]),
        torch.tensor([5, 0, 1, 3]),
    )
    expected = 0.0
    for image, label, weight in zip(images, labels, (0.25, 1.0, 0.5, 1.0), strict=True):
        expected += weight * F.cross_entropy(method.networks[1](image[None]), label[None]).item()
    loss = method.loss(Batch(images, labels, index))
    assert loss.item() == pytest.approx(expected / 4)


def test_one_network_learns_at_a_time(noisy):
    method, kept = CurriculumNet(2, 1), []
    fit(method, noisy, epochs=4, **FIT, on_epoch=lambda h: kept.append(
        [net[-1].weight.clone() for net in method.networks]))  # fmt: skip
    assert torch.equal(kept[1][0], kept[3][0])
    assert torch.equal(kept[0][1], kept[1][1])
    assert not torch.equal(kept[1][1], kept[2][1])


def test_a_students_density_is_the_one_that_runs(noisy):
    sizes = []

    def density(own):
        sizes.append(len(own))
        return np.arange(len(own))

    method = CurriculumNet(1, 1, density=density)
    fit(method, noisy, epochs=2, **FIT)
    assert sizes == noisy.labels.bincount(minlength=10).tolist()
    members = (noisy.labels == 3).nonzero().flatten()
    assert method.subsets[members[0]] == 2
    assert method.subsets[members[-1]] == 0


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_a_run_taken_up_again_ends_the_same(noisy, tmp_path, stop_after):
    whole, part, last = (CurriculumNet(2, 1) for _ in range(3))
    expected = fit(whole, noisy, epochs=6, **FIT)
    file = tmp_path / "run.pt"
    fit(CurriculumNet(2, 1), noisy, epochs=stop_after, **FIT, options=Options(checkpoint=file))
    got = fit(part, noisy, epochs=6, **FIT, options=Options(checkpoint=file))
    fit(last, noisy, epochs=6, **FIT, options=Options(checkpoint=file))
    for column in ("train_loss", "test_accuracy"):
        assert got[column] == expected[column]
    for method in (part, last):
        assert torch.equal(method(noisy.test_images), whole(noisy.test_images))


@pytest.mark.parametrize(
    ("options", "word"),
    [({"initial_epochs": 0}, "initial_epochs"), ({"stage_epochs": 0}, "stage_epochs"),
     ({"weights": (1.0, 0.5)}, "three"), ({"weights": (1.0, -0.5, 0.5)}, "weights"),
     ({"weights": (1.0, 0.5, math.inf)}, "weights")],
)  # fmt: skip
def test_settings_without_a_meaning(options, word):
    with pytest.raises(ValueError, match=word):
        CurriculumNet(**options)


def test_the_dense_subset_has_fewer_wrong_labels(noisy):
    method = CurriculumNet(5, 1)
    fit(method, noisy, epochs=6, **FIT)
    wrong = [noisy.is_wrong[method.subsets == k].float().mean().item() for k in (0, 2)]
    assert wrong[0] < 0.3 < wrong[1]
