"""T-Revision: its losses beside loops, its stages, and a slack that finds what the matrix lacks."""

import functools
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nlcourse import datasets, losses, noise
from nlcourse.base import Batch
from nlcourse.methods.t_revision import TRevision, forward_loss, revised_matrix, reweighted_loss
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_a_revised_matrix_is_a_transition_matrix():
    matrix = noise.symmetric_matrix(5, 0.4)
    torch.testing.assert_close(revised_matrix(matrix, torch.zeros(5, 5)), matrix)
    revised = revised_matrix(matrix, 0.3 * drawn(5, 5))
    noise.check_transition(revised)
    assert (revised == 0).any()
    assert not torch.allclose(revised, matrix)


def test_forward_loss_is_that_of_the_losses_module():
    logits, labels = drawn(12, 4), torch.arange(12) % 4
    matrix = noise.pairflip_matrix(4, 0.3).double()
    expected = losses.forward_corrected_cross_entropy(logits, labels, matrix).mean()
    torch.testing.assert_close(forward_loss(logits, labels, matrix), expected)


def test_reweighted_loss_against_a_loop():
    logits, labels = drawn(12, 4), torch.arange(12) % 4
    matrix = noise.pairflip_matrix(4, 0.3).double()
    total = 0.0
    for row, label in zip(logits.softmax(1), labels.tolist(), strict=True):
        given = sum(row[k] * matrix[k, label] for k in range(4))
        total -= row[label] / given * row[label].log()
    torch.testing.assert_close(reweighted_loss(logits, labels, matrix), total / 12)


@pytest.mark.parametrize("loss", [forward_loss, reweighted_loss])
def test_without_noise_both_losses_are_cross_entropy(loss):
    logits, labels = drawn(12, 4), torch.arange(12) % 4
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(loss(logits, labels, eye), F.cross_entropy(logits, labels))


def test_the_weights_are_numbers_for_the_network():
    logits, labels = drawn(6, 3).requires_grad_(), torch.arange(6) % 3
    matrix = noise.symmetric_matrix(3, 0.3).double()
    (slope,) = torch.autograd.grad(reweighted_loss(logits, labels, matrix), logits)
    p = logits.detach().softmax(1)
    y = F.one_hot(labels, 3)
    weights = (p * y).sum(1) / (p @ matrix * y).sum(1)
    torch.testing.assert_close(slope, weights[:, None] * (p - y) / 6)


@pytest.mark.parametrize("loss", [forward_loss, reweighted_loss])
def test_the_losses_stay_finite_where_the_network_is_sure(loss):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    value = loss(logits, torch.tensor([1, 1]), torch.eye(2))
    value.backward()
    assert bool(value.isfinite())
    assert bool(logits.grad.isfinite().all())


def make_batch(size=30):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(size, 6, generator=generator)
    return Batch(images, torch.randint(3, (size,), generator=generator), torch.arange(size))


def built(method):
    torch.manual_seed(0)
    method.build(lambda: nn.Linear(6, 3), 30, 3)
    return method


@pytest.mark.parametrize("correction", ["forward", "reweight"])
def test_the_three_stages(correction):
    batch = make_batch()
    method = built(TRevision(estimate_epochs=1, revise_epoch=2, correction=correction))
    first = method.network.weight.detach().clone()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    rule = {"forward": forward_loss, "reweight": reweighted_loss}[correction]
    seen = []

    def step(loss, batch):
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        seen.append((value.item(), method.network(batch.images).detach(), method.raw_slack.grad))
        optimizer.step()

    for method.epoch in range(3):
        if method.epoch == 2:
            assert method.slack.abs().max() == 0
        method.train_epoch([batch], step)
        if method.epoch == 0:
            assert torch.equal(method.matrix, torch.eye(3))
            assert not torch.equal(method.network.weight, first)
    values, logits, slopes = zip(*seen, strict=True)
    assert values[0] == pytest.approx(F.cross_entropy(logits[0], batch.labels).item())
    assert torch.equal(logits[1], logits[0])  # fresh weights again
    assert not torch.equal(method.matrix, torch.eye(3))
    for stage in (1, 2):
        assert values[stage] == pytest.approx(
            rule(logits[stage], batch.labels, method.matrix).item()
        )
    assert slopes[0] is None
    assert slopes[1] is None
    assert slopes[2].abs().max() > 0
    assert method.slack.abs().max() > 0


def test_the_slack_learns_at_its_own_rate():
    moved = {}
    for rate in (0.01, 0.1):
        method = built(TRevision(estimate_epochs=1, revise_epoch=1, slack_rate=rate))
        method.epoch = 1
        method.matrix.copy_(noise.symmetric_matrix(3, 0.3))
        optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
        method.loss(make_batch()).backward()
        optimizer.step()
        moved[rate] = method.slack.detach()
    torch.testing.assert_close(moved[0.1], 10 * moved[0.01])


def test_the_slack_finds_what_the_matrix_lacks():
    """A network that knows the true classes, and T of another noise: dT has to correct it."""
    true = noise.pairflip_matrix(4, 0.3)
    labels = torch.arange(4).repeat(500)
    given = noise.corrupt(labels, true, torch.Generator().manual_seed(0))
    sure = 8.0 * F.one_hot(labels, 4)
    method = TRevision()
    method.build(lambda: nn.Linear(4, 4), 2000, 4)
    method.matrix.copy_(noise.symmetric_matrix(4, 0.5))
    optimizer = torch.optim.SGD([method.raw_slack], lr=20.0)
    for _ in range(200):
        optimizer.zero_grad()
        forward_loss(sure, given, method.transition).backward()
        optimizer.step()
    assert (method.transition - true).abs().max() < 0.05


@pytest.mark.parametrize(
    ("settings_", "words"),
    [({"estimate_epochs": 0}, "estimate_epochs"), ({"revise_epoch": 3}, "revise_epoch"),
     ({"correction": "backward"}, "forward, reweight"), ({"slack_rate": 0.0}, "slack_rate")],
)  # fmt: skip
def test_bad_settings_are_refused(settings_, words):
    with pytest.raises(ValueError, match=words):
        TRevision(**settings_)


def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(tmp_path):
    data = noise.inject(datasets.load("digits").subset(200), "symmetric", 0.4, seed=0)
    network = functools.partial(mlp, hidden=(32,))
    run = functools.partial(fit, data=data, network=network, epochs=5, progress=False, device="cpu")

    def make():
        return TRevision(estimate_epochs=2, revise_epoch=4)

    method, whole = make(), run(make())
    stop, path = threading.Event(), tmp_path / "run.pt"
    until = Options(checkpoint=path, stop=stop)
    run(make(), options=until, on_epoch=lambda h: stop.set() if len(h) == 3 else None)
    resumed = run(method, options=Options(checkpoint=path))
    assert resumed["train_loss"] == whole["train_loss"]
    assert method.slack.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_it_holds_memorization_off_at_classroom_scale(seed):
    from nlcourse.methods import CrossEntropy

    data = noise.inject(datasets.load("digits"), "symmetric", 0.4, seed=seed)
    run = functools.partial(fit, data=data, epochs=40, seed=seed, progress=False, device="cpu")
    plain, revised = run(CrossEntropy()), run(TRevision())
    assert revised.mean_last() > plain.mean_last() + 0.05
