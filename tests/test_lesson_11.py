"""Lesson 11's claims: its explorer, and its sources."""

from __future__ import annotations

import re

from lesson_cells import LESSONS, only, run_cells

from nlcourse.experiments import papers, results

LESSON = LESSONS / "11_dividemix.py"


def without_training(source: str) -> str:
    """Keep the cells that define and train nothing, and the explorer's own."""
    own = ("def co_", "def clean_", "def semi_", "def confidence_", "pieces =", "MixtureExplorer")
    return only(*own, "import datasets")(source).partition("mine = fit")[0]


def test_the_panel_of_the_lesson_judges_its_goal():
    panel = run_cells(LESSON, edit=without_training)["explorer"]
    early = panel.try_out(epochs=3, warm_up=1)
    assert early.reached is False
    assert "precision" in early.verdict
    easy = panel.try_out(epochs=3, noise_rate=0.2)
    assert (easy.reached, easy.verdict) == (False, "the goal is for 80 % noise and 20 epochs")
    assert panel.split_figure().alt_text


def test_the_recorded_table_has_five_seeds_of_every_run():
    rows = results.load("classroom_dividemix")
    names = ("method", "variant", "lambda_u", "noise", "rate")
    runs: dict[tuple, list] = {}
    for row in rows:
        runs.setdefault(tuple(row[name] for name in names), []).append(row["seed"])
    assert all(sorted(seeds) == list("01234") for seeds in runs.values())
    assert len(runs) >= 30


def test_the_papers_numbers_are_those_of_its_table():
    rows = papers.load(paper="DivideMix", metric="last")
    last = {float(row["accuracy"]) for row in rows}
    text = LESSON.read_text(encoding="utf-8")
    told = re.search(r"(?s)paper = \{(.*?)\}", text)[1]
    assert {float(number) for number in re.findall(r": ([\d.]+),", told)} <= last
    assert "asymmetric, 72.3" in text
    assert 72.3 in last
