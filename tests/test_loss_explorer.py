"""The panel of lesson 06: the pull follows the sliders, training waits for Start."""

from __future__ import annotations

import pytest
import torch
from panel_html import alt

from nlcourse import losses
from nlcourse.lessons.l06.panel import LOSSES, LossChoice, LossExplorer, draw_pull
from nlcourse.panels import Goal, Parameter


def panel(**options) -> LossExplorer:
    return LossExplorer(**{"epochs": 2, "noise_rate": 0.4} | options)


def test_the_pull_follows_menu_and_sliders_without_training():
    explorer = panel()
    assert "cross entropy" in alt(explorer.pull.value)
    explorer.controls["method"].value = "generalized cross entropy"
    explorer.view.parameters["generalized cross entropy"]["q"].value = 0.8
    assert "q 0.8" in alt(explorer.pull.value)
    before = explorer.pull.value
    explorer.view.parameters["generalized cross entropy"]["q"].value = 0.2
    assert explorer.pull.value != before
    assert explorer.run is None


def test_the_picture_stands_above_start():
    explorer = panel()
    children = list(explorer.view.box.children)
    assert children.index(explorer.view.parameter_box) < children.index(explorer.pull)
    assert children.index(explorer.pull) < children.index(explorer.view.figure)


def test_a_try_trains_with_the_loss_of_the_controls():
    goal = Goal("Any.", lambda run: (True, f"{run.history.last['test_accuracy']:.2f}"))
    explorer = panel(method="generalized cross entropy", goal=goal)
    one = explorer.try_out(q=0.0)
    other = explorer.try_out(q=1.0)
    plain = explorer.try_out(method="cross entropy")
    assert [len(run.history) for run in explorer.tries] == [2, 2, 2]
    assert one.history["test_accuracy"] == pytest.approx(plain.history["test_accuracy"], abs=0.02)
    assert other.history["train_loss"] != one.history["train_loss"]
    assert other.reached is True
    assert dict(other.settings.parameters) == {"q": 1.0}


def test_a_students_loss_fits():
    asked = []

    def mine(logits, labels, strength):
        asked.append(strength)
        return strength * losses.mean_absolute_error(logits, labels)

    choice = LossChoice("mine", mine, (Parameter("strength", 0.5, 0.0, 1.0, 0.1),))
    explorer = panel(choices=(*LOSSES, choice), method="mine")
    assert asked == [0.5]
    explorer.try_out(strength=0.7)
    assert set(asked) == {0.5, 0.7}


def test_the_words_of_the_picture_are_its_numbers():
    figure = draw_pull("mean absolute error", losses.mean_absolute_error)
    # 2 p (1 - p) is highest in the middle.
    assert "mean absolute error starts at 0.00399, is highest with 0.5 at p 0.5" in figure.alt_text
    line = figure.axes[0].lines[-1]
    p = torch.tensor(line.get_xdata())
    torch.testing.assert_close(torch.tensor(line.get_ydata()), 2 * p * (1 - p))


def test_the_static_picture_takes_changes():
    explorer = panel(method="generalized cross entropy")
    assert "(q 0.7)" in explorer.pull_figure(q=0.7).alt_text
    assert "(q 0.3)" in explorer.pull_figure().alt_text
    with pytest.raises(ValueError, match="strength"):
        explorer.pull_figure(strength=1.0)


def test_an_unknown_first_loss_is_said():
    with pytest.raises(ValueError, match="generalized cross entropy"):
        panel(method="GCE")
