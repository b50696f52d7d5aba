"""Lesson 08's claims: its explorer, and what it says of its table."""

from __future__ import annotations

import sys

import pytest
import torch
from lesson_cells import LESSONS, run_cells

from nlcourse.experiments import results

LESSON = LESSONS / "08_finding_wrong_labels.py"
SEEDS = range(5)
TABLE = "classroom_suspects"
NOISES = [("symmetric", 0.2), ("symmetric", 0.4), ("symmetric", 0.6), ("asymmetric", 0.4)]


def two_rankings_cannot_reach_the_goal(names):
    """What the goal's text promises, for the seeds of `test_lessons.py`."""
    panel = names["explorer"]
    assert panel.try_out(ranking="prototypes", share=0.37).history.recall > 0.85
    for name in ("last loss", "density"):  # wherever the cut
        curve = panel.curves[name]
        assert not ((curve["precision"] >= 95) & (curve["recall"] >= 93)).any()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_lesson_runs_without_cleanlab(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    names = run_cells(LESSON)
    assert "pip install" in capsys.readouterr().out
    assert names["flags"] is None


def recorded(what, noise, rate, column):
    rows = results.load(TABLE)
    return torch.tensor(results.numbers(rows, column, what=what, noise=noise, rate=rate))


@pytest.mark.parametrize(("noise", "rate"), NOISES)
def test_the_table_is_whole(noise, rate):
    rows = [
        row for row in results.load(TABLE) if row["noise"] == noise and float(row["rate"]) == rate
    ]
    names = {row["what"] for row in rows}
    assert len(names) == 17
    for name in names:
        seeds = [int(row["seed"]) for row in rows if row["what"] == name]
        assert sorted(seeds) == list(SEEDS)


@pytest.mark.parametrize(("noise", "rate"), NOISES)
def test_what_the_lesson_says_of_the_table(noise, rate):
    def mean(what, column):
        return recorded(what, noise, rate, column).mean().item()

    # "hardly differ": AUM and the mean loss.
    aum, loss = (mean(name, "average_precision") for name in ("AUM", "mean loss"))
    assert abs(aum - loss) < 0.01
    # "The fake class throws out too much rather than too little."
    assert mean("AUM, fake class", "recall") > mean("AUM, fake class", "precision")
    # cleanlab's default score orders as the loss.
    for epochs in ("", ", 10 epochs"):
        one, other = (
            mean(name + epochs, "average_precision")
            for name in ("confident learning", "out-of-sample loss")
        )
        assert one == pytest.approx(other, abs=1e-3)
    # "CurriculumNet's third stage: it memorizes again."
    assert mean("curriculum", "last") < mean("curriculum", "best") - 0.03
    assert mean("aum", "last") < mean("oracle", "last")
    # "cleanlab's cut is worth as much as its predictions."
    early, late = (
        mean(f"confident learning{epochs}, retrained", "last") for epochs in (", 10 epochs", "")
    )
    assert early > late


def test_the_prototypes_hold_out_best_under_asymmetric_noise():
    own = recorded("prototypes", "asymmetric", 0.4, "average_precision")
    names = ("AUM", "mean loss", "confident learning, 10 epochs", "density", "last loss")
    for name in names:
        assert (own > recorded(name, "asymmetric", 0.4, "average_precision")).all()


@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_aum_ends_near_its_best_with_little_symmetric_noise(rate):
    best, last = (recorded("aum", "symmetric", rate, c).mean() for c in ("best", "last"))
    assert best - last < 0.01


def test_under_asymmetric_noise_aum_may_throw_out_too_much():
    noise = ("asymmetric", 0.4)
    ends = recorded("aum", *noise, "last")
    below = ends < recorded("cross-entropy", *noise, "last")
    assert below.sum() == 1
    # Fewer than two thirds of the right labels are left in that run.
    assert recorded("aum", *noise, "label_recall")[below] < 2 / 3
    learner = recorded("self-learning", *noise, "last").mean()
    assert learner > ends.mean()


def test_the_fake_class_loses_most_precision_under_asymmetric_noise():
    means = [recorded("AUM, fake class", *noise, "precision").mean() for noise in NOISES]
    assert min(means) == means[-1]
