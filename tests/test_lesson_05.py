"""Lesson 05's claims: every assert of the lesson for five seeds, its explorer, and what it cites.

The cells are run as they stand in the source, with another `SEED`. So what the students see and
what is tested here cannot drift apart.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch

from nlcourse import plots

SOURCE = Path(__file__).parent.parent / "notebooks" / "lessons" / "05_learning_rate.py"
SEEDS = range(5)


def code_cells() -> list[str]:
    parts = re.split(r"(?m)^# %%(.*)\n", SOURCE.read_text(encoding="utf-8"))[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [source for header, source in pairs if "[markdown]" not in header]


def run_cells(monkeypatch, seed: int, wanted=lambda source: True) -> dict:
    """Run the code cells of the lesson with a seed; return what they defined."""
    shown = []
    monkeypatch.setattr(plots, "show", shown.append)
    names = {"__name__": "lesson_05", "shown": shown}
    for source in code_cells():
        if wanted(source):
            source = re.sub(r"(?m)^SEED = 0$", f"SEED = {seed}", source)
            exec(compile(source, SOURCE.name, "exec"), names)
    assert names["SEED"] == seed
    return names


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_assert_of_the_lesson_holds(seed, monkeypatch):
    names = run_cells(monkeypatch, seed)
    assert len(names["shown"]) == 6
    assert all(len(figure.alt_text) > 100 for figure in names["shown"])


def is_setting(source: str) -> bool:
    """The cells that define and train nothing, and the explorer's own."""
    defines = ("import math", "def network", "DECAY =", "def train", "def fall", "grid =")
    own = ("def step_schedule", "def irreducible_loss", "def estimate_noise_rate", "Explorer")
    return any(word in source for word in (*defines, *own))


@pytest.fixture
def explorer(monkeypatch):
    """The lesson's panel, without the long runs of the cells above it."""
    names: dict = {"__name__": "lesson_05"}
    for source in code_cells():
        if not is_setting(source):
            continue
        if "def fall" in source:
            source = source.partition('print("  rate')[0]
        if "grid =" in source:  # the measured curve needs the long runs, the formula does not
            names |= {"rates": [0.0], "levels": [0.0]}
        exec(compile(source, SOURCE.name, "exec"), names)
    panel = names["explorer"]
    yield panel
    panel.stop()
    panel.wait(10)


def test_explorer_is_driven_to_its_goal(explorer):
    slow = explorer.try_out(lr=0.001)
    high = explorer.try_out(lr=0.2)
    assert (slow.reached, high.reached) == (False, True)
    assert "noise" in high.verdict
    assert [run.settings.noise_rate for run in explorer.tries] == [0.6, 0.6]
    assert explorer.figure().alt_text


def test_explorer_says_that_a_rate_is_too_high(explorer):
    explorer.controls["lr"].value = 10.0
    explorer.controls["epochs"].value = 3
    explorer.start()
    assert explorer.wait(60)
    assert explorer.run.reached is not True


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
def test_answer_to_question_1_it_is_the_decay_of_a_single_step(seed, monkeypatch):
    wanted = ("import math", "def network", "DECAY =", "def train")
    names = run_cells(monkeypatch, seed, lambda source: any(word in source for word in wanted))
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
def test_answer_to_question_4_small_batches_memorize_less(seed, monkeypatch):
    wanted = ("import math", "def network", "DECAY =", "def train")
    names = run_cells(monkeypatch, seed, lambda source: any(word in source for word in wanted))
    small = names["train"](0.4, lr=0.02, batch_size=20).mean_last("wrong_as_given")
    usual = names["train"](0.4, lr=0.02).mean_last("wrong_as_given")
    assert small < usual - 0.2
