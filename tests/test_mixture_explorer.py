"""The panel of lesson 11: the split of the labels, drawn while the network trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panel_html import alt

from nlcourse.lessons.l11.panel import (
    MixtureExplorer,
    Split,
    area_under_curve,
    draw_split,
    split_of,
)
from nlcourse.methods.dividemix import DivideMix, clean_probability, co_divide
from nlcourse.methods.mixmatch import confidence_penalty
from nlcourse.panels import Goal


def panel(**options) -> MixtureExplorer:
    small = {"epochs": 3, "noise_rate": 0.4, "warm_up": 1}
    return MixtureExplorer({"views": 1}, **small | options)


def make_split(**changes) -> Split:
    generator = torch.Generator().manual_seed(0)
    wrong = torch.arange(100) >= 60
    losses = torch.where(wrong, 0.8, 0.1) + 0.1 * torch.rand(100, generator=generator)
    fields = {
        "epoch": 7,
        "losses": losses,
        "clean": clean_probability(losses),
        "is_wrong": wrong,
        "warm_up": False,
        "threshold": 0.5,
        "area": 1.0,
    }
    return Split(**fields | changes)


def picture(explorer: MixtureExplorer) -> str:
    return alt(explorer.division.value)


# --- the picture ---


def test_the_words_of_the_picture_are_its_numbers():
    words = draw_split(make_split()).alt_text
    assert "epoch 7: 60% of the labels are believed, 100% of those are right; AUC 1.000" in words
    low = make_split().losses[:60].median().item()
    assert f"right labels {low:.2f}" in words
    assert "holds 60% of the labels" in words


def test_bars_and_curves_hold_all_labels():
    figure = draw_split(make_split())
    axes = figure.axes[0]
    counted = sum(bar.get_height() for bar in axes.patches[:40])
    assert counted == 60
    for line, share in zip(axes.lines[:2], (60, 40), strict=True):
        area = np.trapezoid(line.get_ydata(), line.get_xdata()) / 0.025
        assert area == pytest.approx(share, rel=0.1)
    believed = make_split().losses[:60].max().item()
    assert axes.lines[2].get_xdata()[0] == pytest.approx(believed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"losses": torch.zeros(100), "clean": torch.ones(100)}, "All losses are equal"),
        ({"is_wrong": torch.zeros(100, dtype=torch.bool)}, "of the wrong ones (there are none)"),
        ({"clean": torch.zeros(100)}, "0% of the labels are believed;"),
        ({"warm_up": True}, "epoch 7 (warm-up)"),
        ({"area": float("nan")}, "of those are right. Median"),
    ],
)
def test_pictures_of_extremes(change, words):
    assert words in draw_split(make_split(**change)).alt_text


def test_area_under_the_curve_counts_pairs():
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 5, (40,), generator=generator).float()
    positive = torch.rand(40, generator=generator) < 0.4
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a in scores[positive].tolist()
        for b in scores[~positive].tolist()
    ]
    assert area_under_curve(scores, positive) == pytest.approx(sum(pairs) / len(pairs))
    assert np.isnan(area_under_curve(scores, torch.ones(40, dtype=torch.bool)))


def test_a_split_is_what_the_method_saw():
    method = DivideMix(warm_up=2, threshold=0.7)
    method.build(lambda: torch.nn.Linear(4, 2), 6, 2)
    method.losses[1] = torch.tensor([1.0, 2.0, 3.0, 5.0, 2.0, 1.0])
    method.clean[1] = torch.tensor([0.9, 0.8, 0.2, 0.1, 0.75, 0.6])
    method.epoch = 2
    split = split_of(method, torch.tensor([False, False, True, True, False, False]), network=1)
    assert split.losses.tolist() == [0.0, 0.25, 0.5, 1.0, 0.25, 0.0]
    assert (split.epoch, split.warm_up, split.area, split.border) == (3, False, 1.0, 0.25)


# --- the panel ---


def test_the_picture_comes_with_the_run_and_is_kept():
    explorer = panel()
    assert explorer.division.value == ""
    with pytest.raises(ValueError, match="Nothing was tried"):
        explorer.split_figure()
    run = explorer.try_out()
    assert run.finished
    assert "epoch 3:" in picture(explorer)
    assert explorer.split_figure().alt_text == picture(explorer)
    first = picture(explorer)
    explorer.try_out(epochs=2)
    assert "epoch 2:" in picture(explorer)
    explorer.try_out()  # the stored run comes back, and its split with it
    assert picture(explorer) == first
    explorer.clear()
    assert explorer.division.value == ""


def test_it_is_drawn_while_it_trains():
    seen = []
    explorer = panel(epochs=4)
    show = explorer._show_run

    def spy(run):
        show(run)
        seen.append((len(run.history), explorer.split.epoch, run.running))

    explorer.runner.on_change = spy
    explorer.start()
    assert explorer.wait(120)
    assert seen[0] == (1, 1, True)
    assert seen[-1] == (4, 4, False)


def test_stop_keeps_the_split():
    explorer = panel(epochs=100)
    explorer.runner.on_change = lambda run: (explorer._show_run(run), explorer.stop())
    explorer.start()
    assert explorer.wait(120)
    assert 1 <= len(explorer.run.history) < 100
    assert explorer.split.epoch >= 1
    assert "topped after epoch" in explorer.view.status.value


def test_the_controls_are_those_of_the_method():
    explorer = panel()
    run = explorer.try_out(warm_up=2, threshold=0.9, lambda_u=0.0, penalty=True)
    made = explorer._method
    told = made.settings
    assert (told.warm_up, told.threshold, told.lambda_u) == (2, 0.9, 0.0)
    assert made.penalize is confidence_penalty
    assert told.views == 1
    assert "warm up 2" in run.settings.method_in_words()
    with pytest.raises(ValueError, match="Expected `settings` out of"):
        explorer.try_out(sharpness=1)


def test_a_students_pieces_are_used_and_the_goal_is_judged():
    asked = []

    def mine(first, second, threshold):
        asked.append(threshold)
        return co_divide(first, second, threshold)

    goal = Goal("Precise.", lambda run: (run.history.last["label_precision"] > 0.7, "so it is"))
    explorer = MixtureExplorer({"views": 1, "divide": mine}, epochs=3, warm_up=1, goal=goal)
    run = explorer.try_out()
    assert asked == [0.5, 0.5]
    assert run.reached is True
    assert "so it is" in explorer.view.status.value


def test_clean_labels_have_no_auc_but_a_picture():
    explorer = panel(noise_kinds=("none",), noise_rate=0.0)
    explorer.try_out()
    assert "AUC" not in picture(explorer)
