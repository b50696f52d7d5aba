"""Attentive feature mixup against loops and autograd, its pairs, and its runs."""

from __future__ import annotations

import functools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.base import Batch
from nlcourse.methods.afm import AttentiveFeatureMixup, PairAttention, mixed_loss
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp

# --- the pieces ---


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 6))
def test_mixed_loss_against_a_loop(seed, pairs, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(pairs, classes, generator=generator, dtype=torch.float64)
    one, two = torch.randint(classes, (2, pairs), generator=generator)
    share = torch.rand(pairs, generator=generator, dtype=torch.float64)
    total = 0.0
    for z, a, b, w in zip(logits.numpy(), one.tolist(), two.tolist(), share.tolist(), strict=True):
        log_p = z - np.log(np.exp(z).sum())
        total -= w * log_p[a] + (1 - w) * log_p[b]
    assert mixed_loss(logits, one, two, share).item() == pytest.approx(total / pairs)


def test_no_pairs_no_loss():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert mixed_loss(torch.zeros(0, 3), nothing, nothing, torch.zeros(0)).item() == 0


def test_a_mixture_of_equal_labels_is_cross_entropy_whatever_the_share():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    for share in (0.0, 0.3, 1.0):
        loss = mixed_loss(logits, labels, labels, torch.full((5,), share))
        torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


def test_the_attention_is_the_formula():
    torch.manual_seed(0)
    attention = PairAttention(8).double()
    f1, f2 = torch.randn(2, 5, 8, dtype=torch.float64)
    assert attention.first.out_features == 6  # three quarters, as 1536 of 2048
    w = attention(f1, f2)
    for k in range(5):
        hidden = np.maximum(attention.first(f1[k]).detach().numpy(), 0)
        hidden = hidden + np.maximum(attention.second(f2[k]).detach().numpy(), 0)
        score = attention.score.weight.detach().numpy()[0] @ hidden + attention.score.bias.item()
        assert w[k].item() == pytest.approx(1 / (1 + np.exp(-score)))


def test_a_network_without_a_linear_layer_is_refused():
    with pytest.raises(ValueError, match="linear layer"):
        AttentiveFeatureMixup().build(nn.Flatten, 4, 2)


@pytest.mark.parametrize("lambda_", [-0.1, 1.1])
def test_a_weight_outside_of_0_to_1_is_refused(lambda_):
    with pytest.raises(ValueError, match="weight of the mixed loss"):
        AttentiveFeatureMixup(lambda_)


# --- the loss ---


def make_batch(size=9):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(size, 6, generator=generator)
    return Batch(images, torch.randint(3, (size,), generator=generator), torch.arange(size))


def built(**options):
    torch.manual_seed(1)
    method = AttentiveFeatureMixup(**options)
    method.build(lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), 20, 3)
    return method


@pytest.mark.parametrize("mix_labels", [True, False])
def test_the_loss_by_hand_for_an_odd_batch(mix_labels):
    method, batch = built(lambda_=0.6, mix_labels=mix_labels), make_batch(9)
    body, head = method.network[:2], method.network[2]
    mixed = 0.0
    for i, j in zip(range(4), range(4, 8), strict=True):  # the ninth has no partner
        f1, f2 = body(batch.images[i]), body(batch.images[j])
        w = method.attention(f1, f2)
        z = head(w * f1 + (1 - w) * f2)
        w = w if mix_labels else 0.5
        mixed = mixed + w * F.cross_entropy(z, batch.labels[i])
        mixed = mixed + (1 - w) * F.cross_entropy(z, batch.labels[j])
    plain = F.cross_entropy(head(body(batch.images)), batch.labels)
    expected = 0.6 * mixed / 4 + 0.4 * plain
    torch.testing.assert_close(method.loss(batch), expected.squeeze())


def test_without_the_mixed_part_it_is_cross_entropy():
    method, batch = built(lambda_=0.0), make_batch()
    torch.testing.assert_close(
        method.loss(batch), F.cross_entropy(method.network(batch.images), batch.labels)
    )


def test_a_batch_of_one_has_no_pair():
    method, batch = built(lambda_=0.5), make_batch(1)
    plain = F.cross_entropy(method.network(batch.images), batch.labels)
    torch.testing.assert_close(method.loss(batch), 0.5 * plain)


def test_the_attention_learns_and_predictions_do_without_it():
    method, batch = built(), make_batch()
    method.loss(batch).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.attention.parameters())
    assert {name.partition(".")[0] for name, _ in method.named_parameters()} == {
        "networks",
        "attention",
    }
    before = method(batch.images)
    with torch.no_grad():
        method.attention.score.weight.add_(100)
    assert torch.equal(method(batch.images), before)


def test_a_lower_loss_is_reached_by_leaning_to_the_easier_label():
    """The gradient of the share points to the label with the smaller loss."""
    share = torch.tensor([0.5], requires_grad=True)
    logits = torch.tensor([[3.0, 0.0, 0.0]])
    mixed_loss(logits, torch.tensor([0]), torch.tensor([2]), share).backward()
    assert share.grad.item() < 0  # more of the first


# --- in the loop ---


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(200), "symmetric", 0.4, seed=0)


def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(noisy, tmp_path):
    network = functools.partial(mlp, hidden=(16,), dropout=0.2)
    run = functools.partial(
        fit, data=noisy, network=network, epochs=4, seed=3, progress=False, device="cpu"
    )
    whole, stop, path = run(AttentiveFeatureMixup()), threading.Event(), tmp_path / "run.pt"
    run(
        AttentiveFeatureMixup(), options=Options(checkpoint=path, stop=stop),
        on_epoch=lambda history: stop.set() if len(history) == 2 else None,
    )  # fmt: skip
    second = run(AttentiveFeatureMixup(), options=Options(checkpoint=path))
    for column in ("train_loss", "test_accuracy"):
        assert second[column] == whole[column]


def test_it_learns_with_batch_norm_and_augmentation(noisy):
    from nlcourse.datasets.augment import Augment

    augmented = Options(augment=Augment(crop=1))
    options = {"epochs": 8, "progress": False, "device": "cpu", "options": augmented}
    history = fit(AttentiveFeatureMixup(), noisy, network="small-cnn", **options)
    assert history.last["train_loss"] < history.rows[0]["train_loss"]
    assert history.best() > 0.4
