"""Lesson 11's claims: every assert of the lesson for five seeds, its explorer, and what it cites.

The cells are run as they stand in the source, with another `SEED`. So what the students see and
what is tested here cannot drift apart.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nlcourse import papers, plots, results

SOURCE = Path(__file__).parent.parent / "notebooks" / "lessons" / "11_dividemix.py"
SEEDS = range(5)


def code_cells() -> list[str]:
    parts = re.split(r"(?m)^# %%(.*)\n", SOURCE.read_text(encoding="utf-8"))[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [source for header, source in pairs if "[markdown]" not in header]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_assert_of_the_lesson_holds(seed, monkeypatch):
    shown = []
    monkeypatch.setattr(
        plots, "show", lambda figure, alt=None: shown.append(alt or figure.alt_text)
    )
    names = {"__name__": "lesson_11"}
    for source in code_cells():
        source = re.sub(r"(?m)^SEED = 0$", f"SEED = {seed}", source)
        exec(compile(source, SOURCE.name, "exec"), names)
    assert names["SEED"] == seed
    assert len(shown) == 16
    assert all(len(words) > 60 for words in shown)


def is_setting(source: str) -> bool:
    """The cells that define and train nothing, and the explorer's own."""
    own = ("def co_", "def clean_", "def semi_", "def confidence_", "pieces =", "MixtureExplorer")
    return any(word in source for word in (*own, "import datasets"))


def test_the_panel_of_the_lesson_judges_its_goal():
    names: dict = {"__name__": "lesson_11"}
    for source in filter(is_setting, code_cells()):
        exec(compile(source.partition("mine = fit")[0], SOURCE.name, "exec"), names)
    panel = names["explorer"]
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
    text = SOURCE.read_text(encoding="utf-8")
    told = re.search(r"(?s)paper = \{(.*?)\}", text)[1]
    assert {float(number) for number in re.findall(r": ([\d.]+),", told)} <= last
    assert "asymmetric, 72.3" in text
    assert 72.3 in last
