"""The explorer of lesson 03, driven from Python: compute, panel, goal and trace, picture."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from panel_html import WAIT, alt, cells

from nlcourse import datasets, noise
from nlcourse.lessons.l03 import panel as rooms
from nlcourse.lessons.l03.panel import NoiseExplorer, NoiseSettings
from nlcourse.noise import human as human_noise
from nlcourse.panels.runner import LatestOnly
from nlcourse.panels.state import Goal


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def majority_goal() -> Goal:
    return Goal(
        "More than 80 % wrong labels, and every class keeps its majority.",
        lambda one: (one.wrong > 0.8 and one.margin > 0, one.summary()),
    )


@pytest.fixture
def panel(digits):
    return NoiseExplorer(digits, goal=majority_goal())


def move(panel: NoiseExplorer, **values) -> None:
    for name, value in values.items():
        panel.controls[name].value = value
    assert panel.wait(WAIT)


# ---- compute -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", noise.KINDS)
def test_labels_are_those_of_the_package(digits, kind):
    made = rooms.compute(digits, NoiseSettings(kind, 0.3, 4))
    same = noise.inject(digits, kind, 0.3, seed=4)
    assert torch.equal(made.data.labels, same.labels)
    noise.check_transition(made.matrix, 10)


def test_matrix_of_each_kind(digits):
    def matrix(kind):
        return rooms.compute(digits, NoiseSettings(kind, 0.3)).matrix

    assert torch.equal(matrix("pairflip"), noise.pairflip_matrix(10, 0.3))
    assert torch.equal(matrix("asymmetric"), noise.asymmetric_matrix("digits", 0.3))
    assert torch.equal(matrix("symmetric"), noise.symmetric_matrix(10, 0.3))
    including = noise.symmetric_matrix(10, 0.3, include_true=True)
    assert torch.equal(matrix("symmetric-including-true"), including)
    human = human_noise.rescale(human_noise.human_matrix("worse"), 0.3)
    assert torch.equal(matrix("human-shaped"), human)
    made = rooms.compute(digits, NoiseSettings("instance", 0.3))
    observed = noise.observed_matrix(made.data.labels, made.data.true_labels, 10)
    assert torch.equal(made.matrix, observed)


def test_margin_is_right_minus_most_frequent_wrong(digits):
    def margin(kind, rate):
        return rooms.compute(digits, NoiseSettings(kind, rate)).margin

    assert margin("pairflip", 0.45) == pytest.approx(0.10)
    assert margin("pairflip", 0.5) == pytest.approx(0.0)
    assert margin("symmetric", 0.9) == pytest.approx(0.0)
    assert margin("symmetric", 0.0) == pytest.approx(1.0)
    assert margin("symmetric-including-true", 0.9) == pytest.approx(0.1)


def test_human_shaped_noise_has_a_highest_rate_and_ten_classes(digits):
    with pytest.raises(ValueError, match="at most"):
        rooms.compute(digits, NoiseSettings("human-shaped", 0.95))

    class Two:
        num_classes = 2

    with pytest.raises(ValueError, match="ten classes"):
        rooms.compute(Two(), NoiseSettings("human-shaped", 0.2))


# ---- the panel -----------------------------------------------------------------------------------


def test_picture_follows_the_sliders(panel):
    pictures = {panel.picture.value}
    for values in ({"rate": 0.7}, {"kind": "pairflip"}, {"draw": 3}):
        move(panel, **values)
        pictures.add(panel.picture.value)
    assert len(pictures) == 4
    assert panel.settings == NoiseSettings("pairflip", 0.7, 3)
    assert panel.run.settings == panel.settings
    assert "pairflip, rate 0.7" in panel.picture.value
    assert all(panel.controls[name].continuous_update for name in ("rate", "draw"))


def test_another_draw_changes_labels_and_not_the_matrix(panel):
    before = panel.run
    move(panel, draw=5)
    assert torch.equal(panel.run.matrix, before.matrix)
    assert not torch.equal(panel.run.data.labels, before.data.labels)


def test_goal_verdict_and_trace(panel):
    assert panel.tries == []
    assert panel.table.value == ""
    assert "press Keep this try" in panel.status.value
    move(panel, kind="pairflip", rate=0.45)
    panel.keep_button.click()
    assert panel.tries[-1].reached is False
    assert "Not yet" in panel.status.value
    move(panel, kind="symmetric", rate=0.85)
    assert "press Keep this try" in panel.status.value
    panel.keep_button.click()
    assert panel.tries[-1].reached is True
    assert "Goal reached" in panel.status.value
    found = cells(panel.table.value)
    assert found[7:10] == ["1", "pairflip", "0.45"]
    assert found[14:17] == ["► 2", "symmetric", "0.85"]
    panel.clear_button.click()
    assert panel.tries == []
    assert panel.table.value == ""


def test_a_try_is_kept_once(panel):
    first = panel.try_out(kind="pairflip", rate=0.3)
    panel.try_out(kind="symmetric", rate=0.3)
    assert panel.try_out(kind="pairflip", rate=0.3) is first
    assert [one.number for one in panel.tries] == [1, 2]


def test_try_out_takes_what_the_controls_say_for_the_rest(panel):
    move(panel, rate=0.25, draw=2)
    assert panel.try_out(kind="pairflip").settings == NoiseSettings("pairflip", 0.25, 2)


def test_impossible_settings_are_said_and_can_be_left(panel):
    move(panel, kind="human-shaped", rate=0.95)
    assert "at most" in panel.status.value
    assert panel.keep() is None
    with pytest.raises(ValueError, match="not possible"):
        panel.figure()
    move(panel, rate=0.4)
    assert panel.keep().number == 1


def test_unknown_settings_are_refused(panel, digits):
    with pytest.raises(ValueError, match="`settings` out of kind, rate, draw"):
        panel.try_out(noise_rate=0.2)
    with pytest.raises(ValueError, match="`kind` out of"):
        panel.try_out(kind="gaussian")
    with pytest.raises(ValueError, match=r"`rate` in \[0, 1\]"):
        panel.try_out(rate=1.2)
    with pytest.raises(ValueError, match="`kinds` out of"):
        NoiseExplorer(digits, kinds=("symmetric", "nonsense"))
    with pytest.raises(ValueError, match=r"`rate` in \[0, 1\]"):
        NoiseExplorer(digits, rate=1.5)


# ---- background ----------------------------------------------------------------------------------


def test_latest_question_is_always_answered_and_those_between_are_skipped():
    asked, done, gate = [0], [], threading.Event()

    def action():
        gate.wait(WAIT)
        done.append(asked[0])

    worker = LatestOnly(action)
    began = time.perf_counter()
    for asked[0] in range(1, 101):
        worker.ask()
    assert time.perf_counter() - began < 5  # asking does not wait for the action
    gate.set()
    assert worker.wait(WAIT)
    assert done[-1] == 100
    assert len(done) <= 2


def test_after_a_failure_the_next_question_is_answered():
    done = []

    def action():
        done.append(1)
        raise ValueError("once")

    worker = LatestOnly(action)
    for _ in range(2):
        worker.ask()
        assert worker.wait(WAIT)
    assert len(done) == 2


# ---- render --------------------------------------------------------------------------------------


def test_alt_text_is_made_from_the_numbers(panel):
    made = panel.try_out(kind="asymmetric", rate=0.4)
    text = panel.figure().alt_text
    assert f"{made.wrong:.1%} wrong labels" in text
    assert "0.60 to 1.00" in text
    wrong = int(made.data.is_wrong[panel.samples].sum())
    assert f"Of 40 sample images {wrong} have a wrong label" in text
    assert "try 1 (asymmetric, rate 0.4, draw 0)" in text
    html = panel.picture.value
    assert "Heat map" in alt(html)
    assert 'aria-live="polite"' in html


def test_figure_draws_no_wrong_frame_without_noise(panel):
    clean, noisy = (panel.try_out(rate=rate).figure for rate in (0.0, 0.8))
    assert len(clean.axes[1].patches) == 0
    assert len(noisy.axes[1].patches) > 20
    assert "keeps its majority" in clean.alt_text


def test_words_of_lost_majorities(panel, digits):
    lost = panel.try_out(kind="pairflip", rate=0.6).summary()
    assert "10 classes lose theirs" in lost
    one = noise.pairflip_matrix(10, 0.1)
    one[0] = torch.tensor([0.2, 0.8] + [0.0] * 8)
    made = rooms.NoiseTry(NoiseSettings(), history=rooms.NoisyLabels(digits, one))
    assert "1 class loses its majority" in made.summary()
