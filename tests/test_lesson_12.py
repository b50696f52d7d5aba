"""Lesson 12's claims: its explorer, and its table."""

from __future__ import annotations

import pytest
from lesson_cells import LESSONS, ended, only, run_cells

from nlcourse.experiments import results

LESSON = LESSONS / "12_cdr.py"


def without_runs(source: str) -> str:
    """Keep what the lesson's panel needs."""
    needed = ("SEED = 0", "def importance", "def critical_mask", "_direction(", "rules =")
    kept = only("import Explorer", "Explorer(", *needed)(source).partition("mine = {}")[0]
    return kept if "def judge" in kept or "check(" not in kept else ""


@pytest.fixture
def explorer():
    yield from ended(run_cells(LESSON, edit=without_runs)["explorer"])


def test_explorer_judges_the_goal_it_states(explorer):
    settings = {"epochs": 2, "assumed_rate": 0.8}
    assert explorer.try_out(noise_rate=0.2, **settings).reached is False
    assert "40 %" in explorer.tries[-1].verdict
    other = explorer.try_out(**{"the paper's rule": True}, **settings)
    assert other.reached is False
    assert "assumed 80%" in other.verdict
    first, second = (run.history["train_loss"] for run in explorer.tries[-2:])
    assert first != second
    assert "the paper's rule on" in explorer.figure().alt_text


@pytest.mark.slow
def test_explorer_is_driven_to_its_goal(explorer):
    assert explorer.try_out(assumed_rate=0.4).reached is False
    assert explorer.try_out(assumed_rate=0.8).reached is True


def test_the_recorded_table_is_whole():
    rows = results.load("classroom_cdr")
    decided = ("rule", "tau", "part", "lr", "momentum", "own_momentum", "noise", "rate")
    seeds: dict[tuple, list[str]] = {}
    for row in rows:
        seeds.setdefault(tuple(row[name] for name in decided), []).append(row["seed"])
    assert all(sorted(found) == list("01234")[: len(found)] for found in seeds.values())
    whole = [what for what, found in seeds.items() if len(found) == 5]
    assert len(whole) >= 28  # the tables of five seeds: methods and noises, and the grid
    for row in rows:
        assert 0 < float(row["chosen"]) <= float(row["best"])
        assert 1 <= int(row["stopped_at"]) <= int(row["epochs"]) == 60
