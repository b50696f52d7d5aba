"""Lesson 12's claims: every assert of the lesson for five seeds, its explorer, and its table.

The cells are run as they stand in the source, with another `SEED`. So what the students see and
what is tested here cannot drift apart.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nlcourse import plots, results

SOURCE = Path(__file__).parent.parent / "notebooks" / "lessons" / "12_cdr.py"
SEEDS = range(5)


def code_cells() -> list[str]:
    parts = re.split(r"(?m)^# %%(.*)\n", SOURCE.read_text(encoding="utf-8"))[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [source for header, source in pairs if "[markdown]" not in header]


def run_cells(monkeypatch, seed: int, wanted=lambda source: True) -> dict:
    """Run the code cells of the lesson with a seed; return what they defined."""
    shown = []
    monkeypatch.setattr(plots, "show", shown.append)
    names = {"__name__": "lesson_12", "shown": shown}
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
    assert len(names["shown"]) == 8
    assert all(len(figure.alt_text) > 100 for figure in names["shown"])


PANEL = ("SEED = 0", "def importance", "def critical_mask", "_direction(", "rules =", "Explorer(")


@pytest.fixture
def explorer(monkeypatch):
    """The lesson's panel, without the runs of the cells above it."""
    names: dict = {"__name__": "lesson_12"}
    for source in code_cells():
        if "import Explorer" in source or any(word in source for word in PANEL):
            source = source.partition("mine = {}")[0]
            if "def judge" in source or "check(" not in source:
                exec(compile(source, SOURCE.name, "exec"), names)
    panel = names["explorer"]
    yield panel
    panel.stop()
    panel.wait(10)


def test_explorer_judges_the_goal_it_states(explorer):
    settings = {"epochs": 2, "assumed_rate": 0.8}
    assert explorer.try_out(noise_rate=0.2, **settings).reached is False
    assert "40 %" in explorer.tries[-1].verdict
    other = explorer.try_out(papers_rule=True, **settings)
    assert other.reached is False
    assert "assumed 80%" in other.verdict
    first, second = (run.history["train_loss"] for run in explorer.tries[-2:])
    assert first != second
    assert explorer.figure().alt_text


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
