"""Lesson 05's claims: its explorer, and two answers to its questions for several seeds."""

from __future__ import annotations

import functools

import pytest
import torch
from lesson_cells import LESSONS, ended, only, run_cells

LESSON = LESSONS / "05_learning_rate.py"
SEEDS = range(5)
TRAINING = only("import math", "def network", "DECAY =", "def train")


def without_long_runs(source: str) -> str:
    """Keep the cells that define and train nothing, and the explorer's own."""
    defines = ("import math", "def network", "DECAY =", "def train", "def fall", "grid =")
    own = ("def step_schedule", "def irreducible_loss", "def estimate_noise_rate", "Explorer")
    kept = only(*defines, *own)(source)
    return kept.partition('print("  rate')[0] if "def fall" in kept else kept


@pytest.fixture
def explorer():
    """The lesson's panel; the measured curve needs the long runs, the formula does not."""
    names = run_cells(LESSON, edit=without_long_runs, names={"rates": [0.0], "levels": [0.0]})
    yield from ended(names["explorer"])


def test_explorer_is_driven_to_its_goal(explorer):
    slow = explorer.try_out(lr=0.001)
    high = explorer.try_out(lr=0.2)
    assert (slow.reached, high.reached) == (False, True)
    assert "noise" in high.verdict
    assert [run.settings.noise_rate for run in explorer.tries] == [0.6, 0.6]
    assert explorer.figure().alt_text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"noise_rate": 0.1, "lr": 0.2}, "noise; the goal is for symmetric noise of 60 %"),
        ({"noise_kind": "pairflip", "noise_rate": 0.2, "lr": 0.2}, "symmetric noise of 60 %"),
        ({"lr": 0.001, "epochs": 15}, "at least 20 epochs"),
    ],
)
def test_explorer_refuses_what_is_not_the_goal(explorer, options, says):
    run = explorer.try_out(**options)
    assert not run.reached
    assert says in run.verdict


def test_explorer_says_that_a_rate_is_too_high(explorer):
    explorer.controls["lr"].value = 10.0
    explorer.controls["epochs"].value = 3
    explorer.start()
    assert explorer.wait(60)
    assert explorer.run.reached is not True


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
def test_answer_to_question_1_it_is_the_decay_of_a_single_step(seed):
    names = run_cells(LESSON, seed=seed, edit=TRAINING)
    schedule = functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=(180, 360))
    long = functools.partial(names["train"], 0.8, lr=0.2, epochs=540, schedule=schedule)
    more_time, less_decay = long(), long(weight_decay=names["DECAY"] / 3)
    assert more_time.mean_last("train_loss") > 1.5
    assert less_decay.mean_last("train_loss") < 0.3
    assert less_decay.mean_last("wrong_as_given") > 0.9
    # What the answer also says: H(0.8) is 2.26, and the plateau is lost with so little decay.
    ends = [sum(run["train_loss"][170:180]) / 10 for run in (more_time, less_decay)]
    assert ends[0] > 2
    assert ends[1] < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_answer_to_question_4_small_batches_memorize_less(seed):
    names = run_cells(LESSON, seed=seed, edit=TRAINING)
    small = names["train"](0.4, lr=0.02, batch_size=20).mean_last("wrong_as_given")
    usual = names["train"](0.4, lr=0.02).mean_last("wrong_as_given")
    assert small < usual - 0.2
