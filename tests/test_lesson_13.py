"""Lesson 13's claims: its panel, and what it says of stored tables."""

from __future__ import annotations

from statistics import mean

import pytest
from lesson_cells import LESSONS, code_cells, ended, only, run_cells
from nlcourse.checks import check, hint
from scipy.stats import spearmanr

from nlcourse.experiments import papers, results

LESSON = LESSONS / "13_arena.py"


def without_trainings(source: str) -> str:
    """Keep what the lesson's panel needs."""
    needed = ("import torch", "from nlcourse.checks import", "def my_loss", "class Mine")
    kept = only(*needed, "my_loss = check", "def judge", "arena = Arena")(source)
    trains = any(word in kept for word in ("fit(", ".train(", "best_and_last = check"))
    return "" if trains else kept


@pytest.fixture
def arena():
    imports = [source for source in code_cells(LESSON) if "from nlcourse.checks import" in source]
    assert len(imports) == 1  # of what stands in `names`
    names = run_cells(LESSON, edit=without_trainings, names={"check": check, "hint": hint})
    yield from ended(names["arena"])


def test_the_panel_is_driven_to_its_goal(arena):
    far = arena.try_out(noise_kind="symmetric", noise_rate=0.4)
    near = arena.try_out(noise_kind="symmetric", noise_rate=0.05)
    assert (far.reached, near.reached) == (False, True)
    assert "cross entropy is" in far.verdict
    assert "at symmetric 5 %" in near.verdict
    assert set(near.histories) == {"cross-entropy", "elr", "mine"}


def test_the_goal_wants_three_methods_and_time(arena):
    assert arena.try_out("cross-entropy", "elr", epochs=1).reached is False
    assert "three methods and 30 epochs" in arena.run.verdict


def test_the_pattern_of_people_is_a_kind_of_noise(arena):
    match = arena.try_out("cross-entropy", "mine", noise_kind="human", epochs=1)
    data = match.data
    assert data.noise_rate == pytest.approx(0.4, abs=0.05)
    seven = data.true_labels == 9  # trucks, which people take for automobiles
    to_one = (data.labels[seven] == 1).float().mean().item()
    assert to_one > 0.2


# What the lesson says of stored tables, where they hold it ----------------------------------------


@pytest.fixture(scope="module")
def rows():
    return results.load("classroom_methods")


def gain(rows, method: str, column: str, noise=("symmetric", 0.4)) -> float:
    which = dict(zip(("noise", "rate"), noise, strict=True))
    ours, plain = (
        results.numbers(rows, column, method=name, **which) for name in (method, "cross-entropy")
    )
    return 100 * (mean(ours) - mean(plain))


def test_gains_are_large_in_the_last_epochs_and_small_in_the_best(rows):
    methods = {row["method"] for row in rows if (row["noise"], row["rate"]) == ("symmetric", "0.4")}
    last, best = (
        max(gain(rows, name, column) for name in methods) for column in ("mean_of_last_ten", "best")
    )
    assert last > 3 * best


@pytest.mark.parametrize(
    "noise", [("pairflip", 0.45), ("instance", 0.4), ("symmetric", 0.8)], ids=str
)
def test_where_the_best_epoch_of_cross_entropy_is_poor_best_epochs_gain_much(rows, noise):
    assert gain(rows, "joint-optimization", "best", noise) > 10


def test_the_lesson_tells_the_correlations_of_asymmetric_noise(rows):
    told = []
    for name in ("mnist", "fashion_mnist"):
        there = results.ranking(results.load(f"{name}_methods"), "asymmetric", 0.4)
        here = results.ranking(rows, "asymmetric", 0.4)
        told.append(f"{spearmanr([(here[m], there[m]) for m in there]).statistic:.2f}")
    words = LESSON.read_text(encoding="utf-8").replace("\n#", "")
    assert f"({told[0]} and {told[1]})" in words


def test_the_lesson_tells_the_gain_of_weight_decay(rows):
    told = f"{gain(rows, 'weight-decay', 'mean_of_last_ten'):+.1f} points at 40 %"
    assert told in LESSON.read_text(encoding="utf-8")


def test_mentornet_does_better_when_it_is_told_the_rate(rows):
    assert gain(rows, "mentornet-told", "mean_of_last_ten") > gain(
        rows, "mentornet", "mean_of_last_ten"
    )


def test_attentive_feature_mixup_adds_little_on_symmetric_noise(rows):
    assert abs(gain(rows, "attentive-feature-mixup", "mean_of_last_ten")) < 8


def test_searched_curves_drop_more_than_the_noise_rate_and_do_not_always_win():
    table = results.load("s2e_search")
    shares = [float(row["largest_share_dropped"]) for row in table if row["method"] == "s2e"]
    told = results.numbers(table, "mean_of_last_ten", method="co-teaching, told the rate")
    searched = results.numbers(table, "mean_of_last_ten", method="s2e")
    assert len(shares) == len(told) == len(searched) == 5
    assert min(shares) > 0.4
    wins = sum(a > b for a, b in zip(searched, told, strict=True))
    assert 0 < wins < 5
    assert searched[shares.index(max(shares))] == min(searched)


def test_the_predicted_span_of_one_baseline():
    plain = [
        float(row["accuracy"])
        for row in papers.load(dataset="CIFAR-10", noise_rate=0.2)
        if papers.ours(row["method"]) == "cross-entropy"
        and row["noise_type"] not in ("asymmetric", "pairflip", "instance")
    ]
    assert len(plain) == 7
    assert max(plain) - min(plain) > 12
