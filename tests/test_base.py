"""The checks of arguments: one error for each mistake, on every device, and none inside a step."""

import math

import numpy as np
import pytest
import torch

from nlcourse import base

NAN = math.nan
BAD_ROWS = {
    "logits": [[2.0, -1.0]],
    "sum": [[0.5, 0.5], [0.5, 0.6]],
    "negative": [[1.5, -0.5]],
    "nan": [[NAN, 1.0]],
    "infinite": [[math.inf, 0.0]],
}


def rows(values):
    return torch.tensor(values)


def test_expect_says_what_was_expected_what_came_and_why():
    base.expect(True, "never said", 0)
    with pytest.raises(ValueError, match=r"^Expected `beta` in \[0, 1\), got 1.2: too much$"):
        base.expect(False, "`beta` in [0, 1)", 1.2, "too much")


def test_a_choice_names_the_others_and_the_nearest():
    base.expect_one_of("kind", "hard", ("soft", "hard"))
    with pytest.raises(ValueError, match="`kind` out of soft, hard, got 'hrd': .*mean 'hard'"):
        base.expect_one_of("kind", "hrd", ("soft", "hard"))
    with pytest.raises(ValueError, match=r"got 7$"):
        base.expect_one_of("kind", 7, ("soft", "hard"))


@pytest.mark.parametrize("values", BAD_ROWS.values(), ids=BAD_ROWS)
def test_rows_that_are_no_probabilities_are_refused_but_for_inside_a_step(values):
    with pytest.raises(ValueError, match=r"`p` with rows of numbers from 0 on .*got sums from"):
        base.expect_rows("p", rows(values))
    with base.training_step():
        base.expect_rows("p", rows(values))
    with pytest.raises(ValueError, match="softmax"):  # and again after it
        base.expect_rows("p", rows(values))


def test_rows_may_be_rounded_but_a_matrix_that_was_written_down_may_not():
    base.expect_rows("p", rows([[0.99, 0.0]]))
    base.expect_rows("p", torch.rand(50, 10).softmax(1).bfloat16())
    base.expect_rows("p", torch.full((100, 100), 0.01), base.EXACT)
    base.expect_rows("p", torch.empty(0, 3))
    with pytest.raises(ValueError, match="transposed"):
        base.expect_rows("p", rows([[0.99, 0.0]]), base.EXACT, "is it transposed?")


@pytest.mark.parametrize("inside", [False, True])
def test_form_is_checked_everywhere(inside):
    """Shapes and dtypes cost no look at a number."""
    with base.training_step() if inside else pytest.MonkeyPatch.context():
        for values, got in (
            ([[1.0]], "list"),
            (np.eye(2), "ndarray"),
            (torch.eye(2).long(), "torch.int64"),
        ):
            with pytest.raises(TypeError, match=f"`p` as a tensor of floats, got {got}"):
                base.expect_rows("p", values)
        with pytest.raises(ValueError, match=r"`p` of shape \(n, C\), got \(3,\)"):
            base.expect_rows("p", torch.zeros(3))
        for labels, got in (([0], "list"), (torch.zeros(2), "float32"), (rows([True]), "bool")):
            with pytest.raises(TypeError, match=f"`y` as an int64 tensor of .*{got}.*long"):
                base.expect_labels("y", labels, 3)
        with pytest.raises(ValueError, match=r"`y` of shape \(n,\), got \(2, 2\): .*one-hot"):
            base.expect_labels("y", torch.eye(2).long(), 3)
        with pytest.raises(ValueError, match=r"`y` of shape \(4,\), got \(2,\)"):
            base.expect_labels("y", torch.tensor([0, 1]), 3, 4)


@pytest.mark.parametrize(("labels", "got"), [([0, 3], "0 to 3"), ([-1, 2], "-1 to 2")])
def test_labels_out_of_range_are_refused_but_for_inside_a_step(labels, got):
    labels = torch.tensor(labels)
    with pytest.raises(ValueError, match=rf"`y` from 0 to 2 \(3 classes\), got {got}"):
        base.expect_labels("y", labels, 3)
    with base.training_step():
        base.expect_labels("y", labels, 3)
    base.expect_labels("y", labels, 4, lowest=-1)
    base.expect_labels("y", torch.empty(0, dtype=torch.int64), 3)


def test_positions_are_inside_and_come_once():
    base.expect_index("index", torch.tensor([2, 0]), 3)
    for index, word in (([0, 3], r"in 0\.\.2, got 0 to 3"), ([1, 1], "at most once")):
        with pytest.raises(ValueError, match=word):
            base.expect_index("index", torch.tensor(index), 3)


def test_inside_a_step_no_value_is_looked_at():
    """A tensor on the meta device has no values: to look at one raises."""
    p, y = torch.zeros(4, 3, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta")
    checks = [
        lambda: base.expect_rows("p", p),
        lambda: base.expect_labels("y", y, 3, 4),
        lambda: base.expect_index("index", y, 4),
    ]
    for check in checks:
        with base.training_step():
            check()
        with pytest.raises(RuntimeError, match="meta"):
            check()


def test_a_step_within_a_step_and_one_that_fails_leave_the_checks_as_they_were():
    with base.training_step():
        with base.training_step():
            pass
        base.expect_rows("p", rows([[2.0, 2.0]]))
    with pytest.raises(RuntimeError, match="diverged"), base.training_step():
        raise RuntimeError("diverged")
    with pytest.raises(ValueError, match="`p`"):
        base.expect_rows("p", rows([[2.0, 2.0]]))


@pytest.mark.gpu
@pytest.mark.parametrize("values", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_gpu_gets_the_same_error(values):
    told = []
    for device in ("cpu", "cuda"):
        with pytest.raises(ValueError, match="`p`") as caught:
            base.expect_rows("p", rows(values).to(device))
        told.append(str(caught.value))
    assert told[0] == told[1]
