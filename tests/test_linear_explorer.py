"""The panel of lesson 04, driven through `.value`: answers, goal, verdict, trace, errors."""

from __future__ import annotations

import pytest
from panel_html import WAIT, alt, cells

from nlcourse import linear
from nlcourse.lessons.l04.panel import LinearExplorer, LinearSettings, compute
from nlcourse.panels import Goal


def judge(run):
    seen = run.history["wrong_as_true"][-1]
    return bool(seen > 0.5), f"seen through {seen:.0%}"


def panel(**options) -> LinearExplorer:
    options = {"p": 30, "steps": 300, "goal": Goal("Do not memorize.", judge)} | options
    return LinearExplorer(**options)


def move(explorer: LinearExplorer, **values) -> None:
    for name, value in values.items():
        explorer.controls[name].value = value
    assert explorer.wait(WAIT)


def test_moving_a_slider_computes_and_shows_it():
    explorer = panel()
    assert explorer.run is None
    assert "no try yet" in explorer.picture.value
    assert all(widget.continuous_update for widget in explorer.controls.values())
    move(explorer, lr=0.1)
    assert explorer.run.settings.lr == 0.1
    assert explorer.run.finished
    assert "step size 0.1" in alt(explorer.picture.value)
    assert "Try 1: wrongly labelled seen through" in explorer.picture.value


def test_a_run_is_that_of_the_model_with_the_settings_of_the_sliders():
    explorer = panel(seed=3)
    move(explorer, sigma=0.2, flip=0.3, ratio=0.5, lr=1.0, lambda_=2.0)
    settings = explorer.run.settings
    assert settings == LinearSettings(0.2, 0.3, 0.5, 1.0, 2.0, p=30, steps=300, seed=3)
    assert settings.n == 60
    again = compute(settings)
    assert (again["wrong_as_true"] == explorer.run.history["wrong_as_true"]).all()
    plain = compute(LinearSettings(0.2, 0.3, 0.5, 1.0, 0.0, p=30, steps=300, seed=3))
    assert (again["wrong_as_true"] != plain["wrong_as_true"]).any()


def test_values_that_a_slider_only_passes_leave_no_trace():
    explorer = panel(steps=100_000)
    for ratio in (0.5, 0.45, 0.4, 0.35):  # faster than the settling time
        explorer.controls["ratio"].value = ratio
    assert explorer.wait(WAIT)
    assert [run.settings.ratio for run in explorer.tries] == [0.35]


def test_goal_verdict_and_trace():
    explorer = panel()
    assert "Do not memorize." in explorer.goal.value
    bad = explorer.try_out(lr=5.0, lambda_=0.0)
    assert bad.reached is False
    assert "✗ Not yet: seen through" in explorer.status.value
    good = explorer.try_out(lr=0.5, lambda_=5.0)
    assert good.reached is True
    assert "✓ Goal reached: seen through" in explorer.status.value
    assert {"1", "► 2", "5", f"✗ {bad.verdict}", f"✓ {good.verdict}"} <= set(
        cells(explorer.table.value)
    )
    assert "In grey: 1 earlier try." in explorer.picture.value


def test_the_same_settings_come_from_memory():
    explorer = panel()
    first = explorer.try_out(lr=0.2)
    other = explorer.try_out(lr=0.3)
    assert explorer.try_out(lr=0.2) is first
    assert explorer.run is first
    assert "computed before" in explorer.status.value
    assert explorer.tries == [first, other]
    move(explorer, lr=10**-0.5)  # a step of the slider
    move(explorer, lr=0.2)
    assert explorer.run is first


def test_try_out_takes_the_run_that_a_slider_has_asked_for():
    explorer = panel()
    explorer.start()
    run = explorer.try_out()
    assert [one.number for one in explorer.tries] == [1]
    assert run.number == 1


def test_tries_are_cleared():
    explorer = panel(steps=3)
    explorer.try_out()
    explorer.clear()
    assert explorer.tries == []
    assert explorer.table.value == ""
    assert explorer.run is None


def test_an_error_is_shown_and_the_panel_survives():
    explorer = panel(p=1, seed=0)  # two points: sooner or later no label is wrong
    move(explorer, flip=0.05, ratio=1.5)
    assert isinstance(explorer.run.error, ValueError)
    assert "ValueError: Expected at least one wrongly labelled example" in explorer.status.value
    with pytest.raises(ValueError, match="at least one"):
        explorer.try_out(flip=0.05, sigma=0.3)
    move(explorer, flip=0.5, ratio=0.2)
    assert explorer.run.error is None
    assert explorer.run.finished


def test_a_step_size_at_which_the_run_diverges_is_said():
    explorer = panel()
    with pytest.raises(linear.DivergedError, match="smaller `lr`"):
        explorer.try_out(lr=1e308)
    assert "DivergedError" in explorer.status.value


@pytest.mark.parametrize("call", [lambda: panel(noise=1), lambda: panel().try_out(rate=0.4)])
def test_unknown_settings_are_said(call):
    with pytest.raises(ValueError, match="Expected `settings` out of sigma, flip, ratio"):
        call()


@pytest.mark.parametrize(("flip", "ratio", "inside"), [(0.4, 0.85, True), (0.4, 0.5, False)])
def test_the_region_is_drawn_and_told(flip, ratio, inside):
    run = panel(p=100, steps=10).try_out(flip=flip, ratio=ratio)
    assert run.settings.inside is inside
    figure = run.figure
    assert "0.6 to 1" in figure.alt_text
    assert f"({'inside' if inside else 'outside'} the region)" in figure.alt_text
    strip = figure.axes[-1]
    assert strip.patches[0].get_x() == pytest.approx(0.6)
    assert strip.lines[0].get_xdata() == [ratio]


def test_the_static_figure_shows_earlier_tries():
    explorer = panel()
    with pytest.raises(ValueError, match="Nothing was tried yet"):
        explorer.figure()
    for lr in (0.1, 0.2, 0.4):
        explorer.try_out(lr=lr)
    figure = explorer.figure()
    assert "In grey, try 2," in figure.alt_text
    assert len(figure.axes[0].lines) == 5  # three curves and two ghosts


def test_shown_for_the_first_time_it_begins_by_itself():
    explorer = panel()
    bundle = explorer._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/plain"].startswith("A live panel")
    assert explorer.wait(WAIT)
    assert explorer.run.finished
