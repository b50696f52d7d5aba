"""Losses against loops with plain Python numbers, closed forms and autograd in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from nlcourse import datasets, losses, noise
from nlcourse.base import Batch
from nlcourse.lessons.sources import solution
from nlcourse.methods import ForwardCorrection, RobustLoss, TruncatedGCE
from nlcourse.training import Options, fit

C = 4
MATRIX = torch.tensor(
    [[0.7, 0.1, 0.2, 0.0], [0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.5, 0.0], [0.1, 0.1, 0.1, 0.7]],
    dtype=torch.float64,
)
# Name -> (loss, settings, the same for one example in plain numbers: p is a list, y the label).
PER_EXAMPLE = {
    "mae": (
        losses.mean_absolute_error,
        {},
        lambda p, y: sum(abs((k == y) - p[k]) for k in range(len(p))),
    ),
    "gce": (losses.generalized_cross_entropy, {}, lambda p, y: (1 - p[y] ** 0.7) / 0.7),
    "gce, q 0.2": (
        losses.generalized_cross_entropy,
        {"q": 0.2},
        lambda p, y: (1 - p[y] ** 0.2) / 0.2,
    ),
    "rce": (
        losses.reverse_cross_entropy,
        {},
        lambda p, y: -sum(p[k] * (0 if k == y else -4) for k in range(len(p))),
    ),
    "sce": (
        losses.symmetric_cross_entropy,
        {"alpha": 0.1, "beta": 2.0, "log_clip": -9.0},
        lambda p, y: (
            -0.1 * math.log(p[y]) - 2 * sum(p[k] * (0 if k == y else -9) for k in range(len(p)))
        ),
    ),
    "nce": (
        losses.normalized_cross_entropy,
        {},
        lambda p, y: math.log(p[y]) / sum(math.log(one) for one in p),
    ),
    "nce + rce": (
        losses.active_passive_loss,
        {"alpha": 3.0, "beta": 0.5, "passive": "rce"},
        lambda p, y: (
            3 * math.log(p[y]) / sum(math.log(one) for one in p) + 0.5 * 4 * (sum(p) - p[y])
        ),
    ),
    "nce + mae": (
        losses.active_passive_loss,
        {},
        lambda p, y: math.log(p[y]) / sum(math.log(one) for one in p) + 2 * (sum(p) - p[y]),
    ),
    "bootstrap": (
        losses.bootstrap_cross_entropy,
        {"beta": 0.9},
        lambda p, y: -sum((0.9 * (k == y) + 0.1 * p[k]) * math.log(p[k]) for k in range(len(p))),
    ),
    "bootstrap, hard": (
        losses.bootstrap_cross_entropy,
        {"beta": 0.8, "hard": True},
        lambda p, y: -0.8 * math.log(p[y]) - 0.2 * math.log(max(p)),
    ),
    "forward": (
        losses.forward_corrected_cross_entropy,
        {"matrix": MATRIX},
        lambda p, y: -math.log(sum(MATRIX[i, y].item() * p[i] for i in range(C))),
    ),
    "backward": (
        losses.backward_corrected_cross_entropy,
        {"matrix": MATRIX},
        lambda p, y: sum(MATRIX.inverse()[y, j].item() * -math.log(p[j]) for j in range(C)),
    ),
}
each_loss = pytest.mark.parametrize("name", PER_EXAMPLE)


def random_batch(n=12, seed=0, dtype=torch.float64, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, C, generator=generator, dtype=dtype)
    return logits, torch.randint(C, (n,), generator=generator)


# ---- every loss ----------------------------------------------------------------------------------


@each_loss
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 5))
def test_a_loss_is_its_formula(name, seed, scale):
    loss, more, formula = PER_EXAMPLE[name]
    logits, labels = random_batch(6, seed, scale=scale)
    got = loss(logits, labels, **more)
    assert got.shape == (6,)
    assert got.dtype == torch.float64
    rows = [[math.exp(z - max(row)) for z in row] for row in logits.tolist()]
    rows = [[odds / sum(row) for odds in row] for row in rows]
    expected = [formula(p, y) for p, y in zip(rows, labels.tolist(), strict=True)]
    assert got.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@each_loss
def test_gradient_is_that_of_finite_differences(name):
    loss, more, _ = PER_EXAMPLE[name]
    logits, labels = random_batch()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels, **more), (logits,))


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [50.0, 1e4])
def test_extreme_logits_give_numbers_and_gradients(name, dtype, size):
    loss, more, _ = PER_EXAMPLE[name]
    logits = (size * torch.tensor([[1.0, -1, 0, 0], [-1, 1, -1, -1]], dtype=dtype)).repeat(2, 1)
    labels = torch.tensor([0, 1, 2, 0])  # twice sure and right, twice sure and wrong
    logits.requires_grad_()
    values = loss(logits, labels, **more)
    gradient = torch.autograd.grad(values.sum(), logits)[0]
    assert values.dtype == dtype
    assert values.isfinite().all()
    assert gradient.isfinite().all()


@each_loss
def test_shifted_logits_change_nothing(name):
    loss, more, _ = PER_EXAMPLE[name]
    logits, labels = random_batch()
    torch.testing.assert_close(loss(logits + 100, labels, **more), loss(logits, labels, **more))


@each_loss
def test_an_empty_batch_has_no_losses(name):
    loss, more, _ = PER_EXAMPLE[name]
    assert loss(torch.empty(0, C), torch.empty(0, dtype=torch.int64), **more).shape == (0,)


@each_loss
@pytest.mark.parametrize(
    ("logits", "labels", "error", "word"),
    [
        (torch.zeros(2, C).long(), torch.tensor([0, 1]), TypeError, "floats"),
        ([[0.0] * C], torch.tensor([0]), TypeError, "floats"),
        (torch.zeros(C), torch.tensor([0]), ValueError, r"\(n, C\)"),
        (torch.zeros(2, C), torch.tensor([0.0, 1.0]), TypeError, "int64"),
        (torch.zeros(2, C), torch.tensor([0]), ValueError, r"shape \(2,\)"),
        (torch.zeros(2, C), torch.tensor([0, C]), ValueError, "from 0 to 3"),
        (torch.zeros(2, C), torch.tensor([-1, 0]), ValueError, "from 0 to 3"),
    ],
)
def test_bad_logits_and_labels_are_said(name, logits, labels, error, word):
    loss, more, _ = PER_EXAMPLE[name]
    with pytest.raises(error, match=word):
        loss(logits, labels, **more)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda z, y: losses.generalized_cross_entropy(z, y, q=1.2), "`q` in"),
        (lambda z, y: losses.generalized_cross_entropy(z, y, q=math.nan), "`q` in"),
        (lambda z, y: losses.symmetric_cross_entropy(z, y, -0.1, 1.0), "`alpha`"),
        (lambda z, y: losses.symmetric_cross_entropy(z, y, 0.1, math.inf), "`beta`"),
        (lambda z, y: losses.symmetric_cross_entropy(z, y, 0.1, 1.0, 1e-4), "`log_clip` below 0"),
        (lambda z, y: losses.active_passive_loss(z, y, passive="ce"), "mae"),
        (lambda z, y: losses.bootstrap_cross_entropy(z, y, 1.5), "`beta` in"),
        (lambda z, y: losses.forward_corrected_cross_entropy(z, y, 2 * torch.eye(C)), "sum to 1"),
        (lambda z, y: losses.forward_corrected_cross_entropy(z, y, torch.eye(3)), "4 rows"),
        (
            lambda z, y: losses.backward_corrected_cross_entropy(
                z, y, noise.symmetric_matrix(C, 0.75)
            ),
            "have an inverse",
        ),
    ],
)
def test_bad_settings_are_said(call, word):
    with pytest.raises(ValueError, match=word):
        call(*random_batch())


# ---- what the papers prove -----------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 10))
def test_symmetric_losses_sum_to_a_constant_over_the_labels(seed, scale):
    logits, _ = random_batch(1, seed, scale=scale)
    every = logits.repeat(C, 1), torch.arange(C)
    assert losses.mean_absolute_error(*every).sum().item() == pytest.approx(2 * (C - 1))
    assert losses.reverse_cross_entropy(*every).sum().item() == pytest.approx(4 * (C - 1))
    assert losses.normalized_cross_entropy(*every).sum().item() == pytest.approx(1)


def test_cross_entropy_is_not_symmetric():
    one, _ = random_batch(1, 0)
    other, _ = random_batch(1, 1)
    sums = [F.cross_entropy(z.repeat(C, 1), torch.arange(C)).item() for z in (one, other)]
    assert abs(sums[0] - sums[1]) > 0.1


def test_gce_lies_between_cross_entropy_and_half_of_mae():
    batch = random_batch()
    plain = F.cross_entropy(*batch, reduction="none")
    torch.testing.assert_close(losses.generalized_cross_entropy(*batch, q=0), plain)
    near = losses.generalized_cross_entropy(*batch, q=1e-9)
    torch.testing.assert_close(near, plain, rtol=1e-7, atol=1e-7)
    half = losses.mean_absolute_error(*batch) / 2
    torch.testing.assert_close(losses.generalized_cross_entropy(*batch, q=1), half)


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_gradient_of_gce_is_that_of_cross_entropy_times_p_to_the_q(q):
    logits, labels = random_batch()
    logits.requires_grad_()
    p = logits.detach().softmax(1).gather(1, labels[:, None])
    of_ce = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), logits)[0]
    of_gce = torch.autograd.grad(losses.generalized_cross_entropy(logits, labels, q).sum(), logits)[
        0
    ]
    torch.testing.assert_close(of_gce, p**q * of_ce)


def test_symmetric_cross_entropy_at_its_ends():
    batch = random_batch()
    plain = F.cross_entropy(*batch, reduction="none")
    torch.testing.assert_close(losses.symmetric_cross_entropy(*batch, 1, 0), plain)
    # With -2 for log 0 the reverse is the mean absolute error itself.
    reverse = losses.symmetric_cross_entropy(*batch, 0, 1, log_clip=-2.0)
    torch.testing.assert_close(reverse, losses.mean_absolute_error(*batch))


def test_the_clip_of_the_published_code():
    assert pytest.approx(-9.2103, abs=1e-4) == losses.CODE_LOG_CLIP


def test_bootstrap_at_its_ends():
    logits, labels = random_batch()
    plain = F.cross_entropy(logits, labels, reduction="none")
    for hard in (False, True):
        torch.testing.assert_close(
            losses.bootstrap_cross_entropy(logits, labels, 1.0, hard=hard), plain
        )
    own = losses.bootstrap_cross_entropy(logits, labels, 0.0)
    torch.testing.assert_close(own, losses.entropy(logits))
    predicted = F.cross_entropy(logits, logits.argmax(dim=1), reduction="none")
    sure = losses.bootstrap_cross_entropy(logits, labels, 0.0, hard=True)
    torch.testing.assert_close(sure, predicted)


def test_soft_bootstrap_lets_gradients_through_the_prediction():
    logits, labels = random_batch()
    logits.requires_grad_()
    value = losses.bootstrap_cross_entropy(logits, labels, 0.95).sum()
    through = torch.autograd.grad(value, logits)[0]
    target = 0.95 * F.one_hot(labels, C) + 0.05 * logits.detach().softmax(1)
    cut = torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), logits)[0]
    assert (through - cut).abs().max() > 1e-3


@pytest.mark.parametrize(
    "loss", [losses.forward_corrected_cross_entropy, losses.backward_corrected_cross_entropy]
)
def test_corrections_with_the_identity_are_cross_entropy(loss):
    batch = random_batch()
    plain = F.cross_entropy(*batch, reduction="none")
    torch.testing.assert_close(loss(*batch, torch.eye(C)), plain)


def test_minimum_of_the_forward_loss_is_the_clean_posterior():
    clean = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    given_posterior = clean @ MATRIX
    z = torch.zeros(C, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def expected_loss():
        optimizer.zero_grad()
        rows = z.expand(C, C)
        each = losses.forward_corrected_cross_entropy(rows, torch.arange(C), MATRIX)
        value = given_posterior @ each
        value.backward()
        return value

    optimizer.step(expected_loss)
    torch.testing.assert_close(z.detach().softmax(0), clean, atol=1e-5, rtol=1e-5)


def test_mean_of_the_backward_loss_over_the_noise_is_the_clean_loss():
    logits, labels = random_batch()
    each = torch.stack(
        [
            losses.backward_corrected_cross_entropy(logits, torch.full_like(labels, j), MATRIX)
            for j in range(C)
        ],
        dim=1,
    )
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close((MATRIX[labels] * each).sum(dim=1), expected)


def test_a_label_that_cannot_occur_is_infinitely_surprising():
    never = torch.tensor([[0.5, 0.5, 0.0]] * 3)
    logits, labels = torch.zeros(2, 3), torch.tensor([2, 1])
    values = losses.forward_corrected_cross_entropy(logits, labels, never)
    assert values.tolist() == pytest.approx([math.inf, math.log(2)])


# ---- a batch: the determinant --------------------------------------------------------------------


def test_determinant_is_its_formula():
    logits, labels = random_batch(40)
    p = logits.softmax(1)
    joint = torch.zeros(C, C, dtype=torch.float64)
    for row, label in zip(p, labels.tolist(), strict=True):
        joint[label] += row / 40
    got = losses.determinant_mutual_information(logits, labels)
    assert got.shape == ()
    assert got.item() == pytest.approx(-math.log(abs(torch.linalg.det(joint).item())))


def test_noise_adds_a_constant_to_the_determinant():
    # Labels in the exact shares of the matrix: what a class sends where, over many copies.
    logits, labels = random_batch(40)
    counts = (20 * MATRIX).round().long()
    copies = torch.cat([logits.repeat_interleave(20, dim=0)])
    noisy = torch.cat([torch.arange(C).repeat_interleave(counts[y]) for y in labels.tolist()])
    clean = losses.determinant_mutual_information(logits, labels)
    after = losses.determinant_mutual_information(copies, noisy)
    added = -math.log(abs(torch.linalg.det(MATRIX).item()))
    assert (after - clean).item() == pytest.approx(added)


def test_determinant_has_the_gradient_of_finite_differences():
    logits, labels = random_batch(20)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: losses.determinant_mutual_information(z, labels), (logits,)
    )


def test_a_batch_that_lacks_a_class_teaches_nothing():
    logits = torch.randn(6, C, requires_grad=True)
    value = losses.determinant_mutual_information(logits, torch.tensor([0, 1, 2, 0, 1, 2]))
    value.backward()
    assert value.item() == 0
    assert logits.grad.tolist() == [[0.0] * C] * 6


def test_entropy_is_largest_when_undecided():
    values = losses.entropy(torch.tensor([[0.0] * C, [1e4, 0, 0, 0]], dtype=torch.float64))
    assert values.tolist() == pytest.approx([math.log(C), 0.0])


# ---- the pull ------------------------------------------------------------------------------------


def test_pull_is_the_closed_form():
    p = torch.linspace(0.01, 0.99, 30, dtype=torch.float64)
    pull = losses.label_pull
    plain = pull(lambda z, y: F.cross_entropy(z, y, reduction="none"), p)
    torch.testing.assert_close(plain, 1 - p)
    torch.testing.assert_close(pull(losses.mean_absolute_error, p), 2 * p * (1 - p))
    torch.testing.assert_close(pull(losses.generalized_cross_entropy, p, q=0.3), p**0.3 * (1 - p))
    sce = pull(losses.symmetric_cross_entropy, p, alpha=0.1, beta=1.0)
    torch.testing.assert_close(sce, 0.1 * (1 - p) + 4 * p * (1 - p))


def test_pull_refuses_the_ends():
    with pytest.raises(ValueError, match="inside"):
        losses.label_pull(losses.mean_absolute_error, torch.tensor([0.0, 0.5]))


# ---- the methods ---------------------------------------------------------------------------------


def make_batch(size=30):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(size, 6, generator=generator)
    labels = torch.randint(C, (size,), generator=generator)
    return Batch(images, labels, torch.arange(size))


def built(method, size=30):
    torch.manual_seed(0)
    method.build(lambda: torch.nn.Linear(6, C), size, C)
    return method


def test_robust_loss_is_the_mean_of_its_loss():
    batch, method = make_batch(), built(RobustLoss(losses.generalized_cross_entropy, q=0.3))
    expected = losses.generalized_cross_entropy(method.network(batch.images), batch.labels, 0.3)
    assert method.loss(batch).item() == pytest.approx(expected.mean().item())


def test_l1_adds_the_sum_of_all_weights():
    batch = make_batch()
    plain, pulled = (built(RobustLoss(F.cross_entropy, l1=l1)) for l1 in (0.0, 0.5))
    size = sum(parameter.abs().sum().item() for parameter in plain.parameters())
    added = pulled.loss(batch).item() - plain.loss(batch).item()
    assert added == pytest.approx(0.5 * size, rel=1e-5)


def test_warm_up_is_cross_entropy():
    batch, method = make_batch(), built(RobustLoss(losses.mean_absolute_error, warm_up=2))
    plain = F.cross_entropy(method.network(batch.images), batch.labels).item()
    later = losses.mean_absolute_error(method.network(batch.images), batch.labels).mean().item()
    for epoch, expected in ((0, plain), (1, plain), (2, later)):
        method.epoch = epoch
        assert method.loss(batch).item() == pytest.approx(expected)


def test_truncation_leaves_out_unlikely_labels():
    batch, method = make_batch(), built(TruncatedGCE(q=0.7, k=0.25, start=1))
    everything = method.loss(batch).item()
    method.epoch = 1
    method.train_epoch([batch], lambda loss, batch: loss(batch))
    p = method(batch.images)[torch.arange(30), batch.labels]
    assert method.counts.tolist() == (p > 0.25).tolist()
    assert 0 < method.counts.sum() < 30
    kept = sum((1 - value**0.7) / 0.7 for value in p.tolist() if value > 0.25) / 30
    assert method.loss(batch).item() == pytest.approx(kept, rel=1e-4)
    assert method.loss(batch).item() < everything
    assert method.selected[0].tolist() == method.counts.tolist()


def test_truncation_keeps_its_choice_between_prunings():
    batch, method = make_batch(), built(TruncatedGCE(k=0.25, start=1, every=3))
    chosen = []
    for epoch in range(6):
        method.epoch = epoch
        with torch.no_grad():
            method.network.weight.normal_(generator=torch.Generator().manual_seed(epoch))
        method.train_epoch([batch], lambda loss, batch: loss(batch))
        chosen.append(method.counts.tolist())
    assert chosen[0] == [True] * 30
    assert chosen[1] == chosen[2] == chosen[3]
    assert chosen[4] == chosen[5] != chosen[3]


def test_forward_correction_estimates_and_starts_again():
    batch, method = make_batch(), built(ForwardCorrection(estimate_epochs=1, quantile=1.0))
    first = method.network.weight.detach().clone()
    method.train_epoch([batch], lambda loss, batch: loss(batch))
    assert method.loss(batch).item() == pytest.approx(
        F.cross_entropy(method.network(batch.images), batch.labels).item()
    )
    with torch.no_grad():
        method.network.weight.mul_(3)
        p = method(batch.images)
    method.epoch = 1
    method.train_epoch([batch], lambda loss, batch: loss(batch))
    rows = torch.stack([p[p[:, i].argmax()] for i in range(C)])
    torch.testing.assert_close(method.matrix, rows)
    assert torch.equal(method.network.weight, first)
    expected = losses.forward_corrected_cross_entropy(
        method.network(batch.images), batch.labels, rows
    )
    assert method.loss(batch).item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_forward_correction_takes_a_students_loss_and_matrix():
    asked = []

    def loss(logits, labels, matrix):
        asked.append(matrix)
        return F.cross_entropy(logits, labels, reduction="none")

    method = built(ForwardCorrection(MATRIX, loss=loss))
    method.loss(make_batch())
    torch.testing.assert_close(asked[0], MATRIX.float())


def test_a_students_loss_gets_the_matrix_on_the_device_of_the_logits():
    """No GPU is needed: torch's fake tensors refuse to mix devices as real ones do."""
    method = ForwardCorrection(loss=solution("6.3"))
    with FakeTensorMode():
        method.build(lambda: torch.nn.Linear(6, C, device="cuda"), 30, C)
        method.matrix = method.matrix.to("cuda")
        method.matrix_now = method.matrix.cpu()  # as the beginning of an epoch leaves it
        method.epoch = method.estimate_epochs
        labels = torch.zeros(30, dtype=torch.int64, device="cuda")
        loss = method.loss(Batch(torch.zeros(30, 6, device="cuda"), labels, labels))
    assert loss.device.type == "cuda"


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: RobustLoss(warm_up=-1), "warm_up"),
        (lambda: RobustLoss(l1=-0.1), "l1"),
        (lambda: TruncatedGCE(k=0.0), "`k`"),
        (lambda: TruncatedGCE(every=0), "`every`"),
        (lambda: ForwardCorrection(torch.ones(C, C)), "sum to 1"),
        (lambda: ForwardCorrection(estimate_epochs=0), "estimate_epochs"),
        (lambda: built(ForwardCorrection(torch.eye(3))), "4 rows"),
    ],
)
def test_methods_refuse_bad_settings(make, word):
    with pytest.raises(ValueError, match=word):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ForwardCorrection(estimate_epochs=2),
        lambda: TruncatedGCE(start=2, every=2),
        lambda: RobustLoss(losses.symmetric_cross_entropy, alpha=0.1, beta=1.0, warm_up=1),
    ],
    ids=["forward", "truncated", "symmetric"],
)
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not(make, tmp_path):
    noisy = noise.inject(datasets.load("digits"), "symmetric", 0.4, seed=1)
    options = {"seed": 1, "progress": False, "device": "cpu"}
    whole = fit(make(), noisy, epochs=5, **options)
    fit(make(), noisy, epochs=3, **options, options=Options(checkpoint=tmp_path / "run.pt"))
    resumed = fit(
        make(), noisy, epochs=5, **options, options=Options(checkpoint=tmp_path / "run.pt")
    )
    for column in ("test_accuracy", "train_loss", "wrong_as_given"):
        assert resumed[column] == whole[column]


def test_other_settings_are_another_run(tmp_path):
    data = datasets.load("digits").subset(100)
    options = {"epochs": 1, "progress": False, "options": Options(checkpoint=tmp_path / "run.pt")}
    fit(RobustLoss(losses.generalized_cross_entropy, q=0.7), data, **options)
    with pytest.raises(ValueError, match="another run"):
        fit(RobustLoss(losses.generalized_cross_entropy, q=0.6), data, **options)
