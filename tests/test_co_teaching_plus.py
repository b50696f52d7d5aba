"""Co-teaching+ against a plain loop over examples and one optimizer a network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.methods import CoTeaching, CoTeachingPlus
from nlcourse.methods.co_teaching import small_loss_indices
from nlcourse.methods.co_teaching_plus import disagreement, small_loss_among
from nlcourse.training import fit


def make_batch(size=40):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(size, 6, generator=generator)
    labels = torch.randint(3, (size,), generator=generator)
    return Batch(images, labels, torch.arange(size))


def linear_pair(seed):
    torch.manual_seed(seed)
    return [torch.nn.Linear(6, 3) for _ in range(2)]


def built(method, size=40, seed=0):
    waiting = iter(linear_pair(seed))
    method.build(lambda: next(waiting), size, 3)
    return method


# --- its two pieces ---


@settings(max_examples=60)
@given(st.integers(0, 2**30), st.integers(1, 30), st.floats(0, 1))
def test_small_loss_among_is_a_sort_by_hand(seed, size, share):
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(size, generator=generator)
    candidates = torch.rand(size, generator=generator) < 0.5
    places = [i for i in range(size) if candidates[i]]
    places.sort(key=lambda place: losses[place].item())
    count = max(int((1 - share) * len(places)), 1)
    kept = small_loss_among(losses, candidates, share)
    assert sorted(kept.nonzero().flatten().tolist()) == sorted(places[:count])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.25, 0.5, 0.9])
def test_with_every_example_a_candidate_it_is_co_teachings_selection(share):
    losses = torch.rand(64, generator=torch.Generator().manual_seed(1))
    kept = small_loss_among(losses, torch.ones(64, dtype=torch.bool), share)
    expected = small_loss_indices(losses, share)
    assert sorted(kept.nonzero().flatten().tolist()) == sorted(expected.tolist())


def test_without_candidates_nothing_is_kept():
    assert not small_loss_among(torch.rand(5), torch.zeros(5, dtype=torch.bool), 0.3).any()


def test_infinite_losses_are_kept_only_among_candidates():
    losses = torch.tensor([torch.inf, torch.inf, 1.0])
    kept = small_loss_among(losses, torch.tensor([False, True, False]), 0.0)
    assert kept.tolist() == [False, True, False]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match="share to drop"):
        small_loss_among(torch.rand(3), torch.ones(3, dtype=torch.bool), share)


def test_disagreement_refuses_outputs_of_different_batches():
    with pytest.raises(ValueError, match="same batch"):
        disagreement(torch.rand(3, 2), torch.rand(4, 2))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"noise_rate": 1.4}, "noise_rate"),
        ({"noise_rate": 0.2, "ramp_epochs": 0}, "ramp_epochs"),
        ({"noise_rate": 0.2, "warm_up": -1}, "warm_up"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        CoTeachingPlus(**arguments)


# --- the whole step ---


def test_a_step_is_the_algorithm_box():
    batch = make_batch()
    method = built(CoTeachingPlus(0.5, ramp_epochs=2, warm_up=0))
    method.epoch = 1  # the share to drop is 0.25
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    method.loss(batch).backward()
    optimizer.step()

    reference = linear_pair(0)
    outputs = [network(batch.images) for network in reference]
    differ = [
        i for i in range(40) if outputs[0][i].argmax().item() != outputs[1][i].argmax().item()
    ]
    assert 4 < len(differ) < 36
    kept = []
    for output in outputs:
        loss = {i: F.cross_entropy(output[i : i + 1], batch.labels[i : i + 1]) for i in differ}
        kept.append(sorted(differ, key=lambda i, loss=loss: loss[i].item()))
        kept[-1] = kept[-1][: int(0.75 * len(differ))]
    for number, network in enumerate(reference):
        chosen = kept[1 - number]
        own = torch.optim.SGD(network.parameters(), lr=0.1)
        F.cross_entropy(network(batch.images[chosen]), batch.labels[chosen]).backward()
        own.step()
        assert sorted(method.selected[number].nonzero().flatten().tolist()) == sorted(chosen)
        torch.testing.assert_close(method.networks[number].weight, network.weight)


def test_before_the_warm_up_ends_it_is_co_teaching():
    batch = make_batch()
    plus, plain = built(CoTeachingPlus(0.5, 2, warm_up=2)), built(CoTeaching(0.5, 2))
    plus.epoch = plain.epoch = 1
    losses = plus.loss(batch), plain.loss(batch)
    torch.testing.assert_close(*losses)
    sum(losses).backward()
    assert torch.equal(plus.selected, plain.selected)


def test_networks_that_agree_learn_nothing_and_stay_finite():
    method = CoTeachingPlus(
        0.4, warm_up=0, disagree=lambda first, second: first[:, 0] != first[:, 0]
    )
    built(method)
    total = method.loss(make_batch())
    total.backward()
    assert total.item() == 0
    assert all(not p.grad.any() for p in method.parameters())
    assert not method.selected.any()


def test_decoupling_trains_each_network_on_every_disagreement():
    batch = make_batch()
    method = built(CoTeachingPlus(0.0, warm_up=0))
    method.loss(batch)
    differ = disagreement(*(network(batch.images) for network in method.networks))
    assert torch.equal(method.selected, differ.expand(2, -1))


def test_one_seed_gives_one_history():
    data = noise.inject(datasets.load("digits").subset(200), "symmetric", 0.4, seed=0)
    runs = [
        fit(
            CoTeachingPlus(0.4, 2, warm_up=1),
            data,
            epochs=3,
            progress=False,
            device="cpu",
        )
        for _ in range(2)
    ]
    for column in ("train_loss", "test_accuracy", "label_precision", "label_recall"):
        assert runs[0][column] == runs[1][column]
    # From the second epoch on only disagreements are learned from.
    assert runs[0]["label_recall"][1] < runs[0]["label_recall"][0]
