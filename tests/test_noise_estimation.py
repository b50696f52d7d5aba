"""Estimating a transition matrix: hand-made cases, properties (real training: test_lesson_03)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlcourse import noise
from nlcourse.noise import estimation as est


def softmax_rows(n: int, classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)).softmax(1)


def by_loop(probabilities, quantile=1.0):
    """The paper's definition in numpy: sort the scores of a class, take one rank."""
    table = probabilities.numpy()
    rank = max(int(np.ceil(quantile * len(table))), 1) - 1
    return np.stack([table[np.argsort(table[:, c])[rank]] for c in range(table.shape[1])])


def test_rows_are_those_of_the_surest_example():
    p = torch.tensor([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1]])
    assert est.anchor_points(p).tolist() == [1, 2, 0]
    torch.testing.assert_close(est.estimate_transition(p), p[[1, 2, 0]].double())


@given(
    n=st.integers(1, 60),
    classes=st.integers(2, 6),
    quantile=st.sampled_from([0.01, 0.5, 0.9, 0.97, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_agrees_with_a_loop(n, classes, quantile, seed):
    p = softmax_rows(n, classes, seed)
    got = est.estimate_transition(p, quantile=quantile)
    np.testing.assert_allclose(got.numpy(), by_loop(p, quantile), rtol=1e-12)
    assert got.dtype == torch.float64
    noise.check_transition(got)


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 8))
def test_exact_when_there_are_anchors_and_the_network_knows_the_posterior(seed, classes):
    """If clean posteriors have anchor points and p = T^t clean, the estimate is T itself."""
    generator = torch.Generator().manual_seed(seed)
    matrix = noise.symmetric_matrix(classes, 0.3)
    clean = torch.rand(50, classes, generator=generator, dtype=torch.float64)
    clean = torch.cat((clean / clean.sum(1, keepdim=True), torch.eye(classes).double()))
    torch.testing.assert_close(est.estimate_transition(clean @ matrix), matrix)


def test_a_robust_rank_leaves_examples_learned_by_heart_aside():
    matrix = noise.pairflip_matrix(3, 0.4)
    honest = matrix.repeat(100, 1)
    by_heart = torch.eye(3).double()  # three of 303: sure of a label it has only memorized
    p = torch.cat((honest, by_heart))
    assert est.matrix_error(est.estimate_transition(p), matrix).min() > 0.3
    robust = est.estimate_transition(p, quantile=est.PATRINI_QUANTILE)
    assert est.matrix_error(robust, matrix).max() < 1e-9


def test_input_is_left_as_it_is():
    p = softmax_rows(200, 4)
    before = p.clone()
    est.estimate_transition(p, quantile=0.97)
    assert torch.equal(p, before)  # the published Keras code writes zeros into it


def test_no_gradient_flows_and_float32_is_welcome():
    p = softmax_rows(20, 3).float().requires_grad_()
    got = est.estimate_transition(p)
    assert not got.requires_grad
    torch.testing.assert_close(got.sum(1), torch.ones(3, dtype=torch.float64))


def test_error_is_the_share_in_the_wrong_column():
    true = torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    got = est.matrix_error(torch.eye(3), true)
    torch.testing.assert_close(got, torch.tensor([0.2, 0.0, 0.5], dtype=torch.float64))
    assert est.matrix_error(true, true).max() == 0
    assert est.matrix_error(torch.eye(3).roll(1, 0), torch.eye(3)).tolist() == [1, 1, 1]


def test_rate_is_the_mean_off_the_diagonal():
    assert est.noise_rate(noise.symmetric_matrix(10, 0.4)) == pytest.approx(0.4)
    assert est.noise_rate(noise.asymmetric_matrix("cifar10", 0.4)) == pytest.approx(0.2)
    assert est.noise_rate(torch.eye(4)) == 0


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ([[0.5, 0.5]], TypeError, "tensor of floats, got list"),
        (torch.ones(3, 2, dtype=torch.int64), TypeError, "got torch.int64"),
        (torch.ones(4), ValueError, r"`probabilities` \(n, C\) of"),
        (torch.ones(0, 3), ValueError, "at least one example"),
        (torch.ones(3, 1), ValueError, "two classes"),
        (torch.tensor([[2.0, -1.0]]), ValueError, "softmax missing"),
        (torch.tensor([[1.0, 2.0]]), ValueError, "softmax missing"),
        (torch.tensor([[float("nan"), 1.0]]), ValueError, "softmax missing"),
    ],
)
def test_bad_probabilities_are_refused(bad, error, says):
    with pytest.raises(error, match=says):
        est.estimate_transition(bad)


@pytest.mark.parametrize("quantile", [0.0, -1.0, 1.1, float("nan")])
def test_bad_quantiles_are_refused(quantile):
    with pytest.raises(ValueError, match="`quantile` in"):
        est.estimate_transition(softmax_rows(5, 3), quantile=quantile)


def test_errors_of_unequal_matrices_are_refused():
    with pytest.raises(ValueError, match="3 rows"):
        est.matrix_error(torch.eye(2), torch.eye(3))
    with pytest.raises(ValueError, match="sum to 1"):
        est.noise_rate(torch.ones(2, 2))
