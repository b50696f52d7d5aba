"""The arena without a browser: matches against `fit`, the board, errors, driven controls."""

from __future__ import annotations

import threading

import pytest
from panel_html import WAIT, alt, cells
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.experiments import recipes
from nlcourse.lessons.l13 import board
from nlcourse.lessons.l13 import panel as rooms
from nlcourse.lessons.l13.panel import MOST, Arena, Bouts, Match, MatchSettings, board_rows
from nlcourse.methods import Method
from nlcourse.panels import Goal
from nlcourse.training import fit


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits").subset(200)


class Mine(Method):
    """A student's method in ten lines: cross entropy with a little label smoothing."""

    def loss(self, batch):
        return F.cross_entropy(self.network(batch.images), batch.labels, label_smoothing=0.2)


class Wild(Method):
    """Diverges at once."""

    def loss(self, batch):
        return 1e30 * self.network(batch.images).exp().sum()


class Slow(Method):
    """Waits in its second epoch until the test lets it go."""

    reached, gate = threading.Event(), threading.Event()

    def loss(self, batch):
        if self.epoch == 1:
            self.reached.set()
            self.gate.wait(WAIT)
        return F.cross_entropy(self.network(batch.images), batch.labels)


def judge(match):
    name, mean = match.history.standing()[0]
    return name == "elr", f"{name} leads with {mean:.0%}"


def panel(digits, **options) -> Arena:
    options = {"epochs": 3, "chosen": ("cross-entropy", "elr")} | options
    return Arena(digits, **options)


# --- a match ---


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_a_match_is_what_fit_gives_with_the_recipes(digits, kind):
    match = panel(digits, seed=2).try_out("cross-entropy", "forward-true", noise_kind=kind)
    noisy = noise.inject(digits, kind, 0.4, seed=2)
    assert (match.data.labels == noisy.labels).all()
    for name in match.settings.methods:
        recipe = recipes.find("classroom", name)
        expected = recipe.train(
            noisy, seed=2, kind=kind, rate=0.4, epochs=3, progress=False, device="cpu"
        )
        assert match.histories[name]["test_accuracy"] == expected["test_accuracy"]


def test_a_students_method_trains_as_cross_entropy_does_but_for_its_loss(digits):
    match = panel(digits, own={"mine": Mine}, chosen=None).try_out("mine")
    noisy = noise.inject(digits, "symmetric", 0.4, seed=0)
    options = recipes.find("classroom", "cross-entropy").options() | {"epochs": 3}
    expected = fit(Mine(), noisy, progress=False, **options, device="cpu")
    assert match.histories["mine"]["test_accuracy"] == expected["test_accuracy"]


def test_a_students_method_is_ticked_at_first(digits):
    arena = panel(digits, own={"mine": Mine}, chosen=None)
    assert arena.settings.methods == ("cross-entropy", "co-teaching", "elr", "mine")


def test_its_history_enters_the_class_board(digits, tmp_path):
    match = panel(digits, own={"mine": Mine}, chosen=("mine",)).try_out()
    row = board.add(
        match.histories["mine"], "Ada", match.data, noise=match.settings.noise,
        path=tmp_path / "board.csv",
    )  # fmt: skip
    assert row["method"] == "Mine()"
    assert row["noise"] == "symmetric 40 %"


def test_every_recipe_can_be_chosen(digits):
    arena = Arena(digits)
    assert tuple(arena.boxes) == recipes.names("classroom")
    for name in arena.boxes:
        assert arena._changed({}, (name,)).methods == (name,)


# --- what is kept ---


def test_only_what_is_new_is_trained(digits, monkeypatch):
    trained = []
    once = rooms.Umpire._bout

    def bout(self, alone, *rest):
        trained.append((*alone.methods, alone.noise_rate))
        return once(self, alone, *rest)

    monkeypatch.setattr(rooms.Umpire, "_bout", bout)
    arena = panel(digits)
    first = arena.try_out("cross-entropy")
    second = arena.try_out("cross-entropy", "gce")
    assert trained == [("cross-entropy", 0.4), ("gce", 0.4)]
    assert second.histories["cross-entropy"] is first.histories["cross-entropy"]
    assert arena.try_out("cross-entropy") is first
    assert "played before" in arena.status.value
    arena.try_out("gce", noise_rate=0.2)
    assert trained[2:] == [("gce", 0.2)]


def test_matches_are_cleared(digits):
    arena = panel(digits, epochs=1)
    arena.try_out("cross-entropy")
    arena.clear()
    assert arena.tries == []
    assert arena.table.value == ""
    assert "no try yet" in alt(arena.picture.value)


# --- goal, verdict, trace ---


def test_goal_verdict_and_board(digits):
    arena = panel(digits, goal=Goal("Let ELR win.", judge), epochs=6)
    assert "Let ELR win." in arena.goal.value
    alone = arena.try_out("cross-entropy")
    assert alone.reached is False
    assert "✗ Not yet: cross-entropy leads" in arena.status.value
    won = arena.try_out("elr")
    assert won.reached is True
    assert "✓ Goal reached" in arena.status.value
    assert "cross-entropy leads with" in arena.table.value
    found, history = cells(arena.table.value), won.histories["elr"]
    at = found.index("elr")
    assert found[at + 1] == f"{100 * history.mean_last('test_accuracy', 10):.1f}"
    assert found[at + 3] == f"{100 * history.best():.1f}"
    assert "In grey, match 1" in alt(arena.picture.value)


def test_the_board_groups_by_noise_and_ranks_within(digits):
    arena = panel(digits)
    arena.try_out("cross-entropy", "elr")
    arena.try_out("cross-entropy", noise_rate=0.2)
    arena.try_out("gce")
    rows = arena.rows()
    noises = [row["noise"] for row in rows]
    assert noises == ["symmetric 40 %, 3 epochs"] * 3 + ["symmetric 20 %, 3 epochs"]
    means = [row["last ten"] for row in rows[:3]]
    assert means == sorted(means, reverse=True)
    assert {row["method"] for row in rows[:3]} == {"cross-entropy", "elr", "gce"}


def test_the_figure_has_a_curve_a_method_and_the_last_match_in_grey(digits):
    arena = panel(digits)
    with pytest.raises(ValueError, match="Nothing was tried yet"):
        arena.figure()
    arena.try_out("cross-entropy", "elr", noise_rate=0.2)
    match = arena.try_out("gce", "elr", "mixup")
    figure = arena.figure()
    left = figure.axes[0]
    assert len(left.lines) == 5
    drawn = {line.get_label(): line for line in left.lines}
    assert list(drawn["gce"].get_ydata()) == pytest.approx(
        [100 * value for value in match.histories["gce"]["test_accuracy"]]
    )
    looks = {(line.get_color(), line.get_linestyle()) for line in left.lines[:3]}
    assert len(looks) == 3
    named = [text.get_text() for text in left.get_legend().texts]
    assert named == ["gce", "elr", "mixup", "match 1: symmetric 20 %"]
    assert "gce starts at" in figure.alt_text
    assert "symmetric 40 %" in figure.alt_text
    assert len(match.figure.axes[0].lines) == 3


# --- live ---


def test_start_trains_in_the_background_and_shows_it(digits):
    arena = panel(digits)
    arena.start()
    assert arena.wait(WAIT)
    assert arena.run.finished
    assert list(arena.run.histories) == ["cross-entropy", "elr"]
    assert "elr starts at" in alt(arena.picture.value)
    assert 'aria-busy="false"' in arena.picture.value
    assert "Match 1: mean of the last ten" in arena.picture.value


def test_stop_ends_the_match_and_keeps_what_was_trained(digits):
    Slow.reached.clear()
    Slow.gate.clear()
    arena = panel(digits, own={"slow": Slow}, chosen=("cross-entropy", "slow", "elr"))
    arena.boxes["elr"].value = False  # the boxes stand in the order of the recipes, own ones last
    arena.start()
    assert Slow.reached.wait(WAIT)
    assert arena.run.running
    assert 'aria-busy="true"' in arena.picture.value
    arena.stop()
    Slow.gate.set()
    assert arena.wait(WAIT)
    match = arena.run
    assert not match.finished
    assert len(match.histories["cross-entropy"]) == 3
    assert len(match.histories["slow"]) == 1
    assert "stopped after 4 epochs: no verdict" in match.verdict
    again = arena.try_out()
    assert again.finished  # a stopped bout is trained anew, not taken from memory
    assert again.histories["cross-entropy"] is match.histories["cross-entropy"]
    assert len(again.histories["slow"]) == 3


def test_a_new_start_stops_the_old_one(digits):
    Slow.reached.clear()
    Slow.gate.clear()
    arena = panel(digits, own={"slow": Slow}, chosen=("slow",))
    arena.start()
    assert Slow.reached.wait(WAIT)
    first = arena.run
    arena.boxes["slow"].value = False
    arena.boxes["cross-entropy"].value = True
    arena.start()
    Slow.gate.set()
    assert arena.wait(WAIT)
    assert not first.finished
    assert arena.run.settings.methods == ("cross-entropy",)
    assert arena.run.finished


# --- what goes wrong ---


def test_a_method_that_cannot_take_part_does_not_end_the_match(digits):
    arena = panel(digits)
    match = arena.try_out("forward-true", "cross-entropy", noise_kind="instance")
    assert match.finished
    assert len(match.histories["forward-true"]) == 0
    assert "could not take part" in match.history.notes["forward-true"]
    assert "forward-true on instance 40 %, 3 epochs: could not take part" in arena.table.value
    assert "forward-true" not in alt(arena.picture.value).partition("Test accuracy:")[2]


def test_a_method_that_diverges_is_told_and_kept(digits):
    arena = panel(digits, own={"wild": Wild}, chosen=("wild", "cross-entropy"))
    match = arena.try_out("wild", "cross-entropy")
    assert match.finished
    assert match.history.notes == {"wild": "diverged in epoch 1"}
    assert len(match.histories["cross-entropy"]) == 3
    assert "diverged in epoch 1" in arena.table.value
    arena.try_out("wild", "elr")
    assert arena.run.history.notes == {"wild": "diverged in epoch 1"}  # from memory, too


def test_a_slip_in_a_students_method_is_shown(digits):
    class Broken(Method):
        def loss(self, batch):
            return self.network(batch.pictures)

    arena = panel(digits, own={"broken": Broken}, chosen=("broken",))
    arena.start()
    assert arena.wait(WAIT)
    assert "AttributeError" in arena.status.value
    with pytest.raises(AttributeError, match="pictures"):
        arena.try_out("broken")
    assert arena.try_out("cross-entropy").finished


def test_names_stay_text(digits):
    arena = panel(digits, own={"<b>x</b>": Mine}, chosen=("<b>x</b>",))
    arena.try_out()
    assert "<b>" not in arena.table.value + arena.picture.value + arena.status.value
    assert "&lt;b&gt;x&lt;/b&gt;" in arena.table.value


@pytest.mark.parametrize(
    ("call", "word"),
    [(lambda a: a.try_out("none"), "Expected `methods` out of"),
     (lambda a: a.try_out("elr", "elr"), "different methods"),
     (lambda a: a.try_out(rate=0.2), "Expected `settings` out of noise_kind"),
     (lambda a: a.try_out(noise_kind="odd"), "Expected `noise_kind` out of")],
)  # fmt: skip
def test_unknown_settings_are_said(digits, call, word):
    with pytest.raises(ValueError, match=word):
        call(panel(digits))


def test_too_many_or_none_ticked_is_said_in_the_panel(digits):
    arena = panel(digits)
    for box in arena.boxes.values():
        box.value = True
    arena.start()
    assert f"1 to {MOST} different methods" in arena.status.value
    for box in arena.boxes.values():
        box.value = False
    arena.start()
    assert "got 0" in arena.status.value
    assert arena.run is None


@pytest.mark.parametrize(
    ("options", "word"),
    [({"methods": ("none",)}, "out of cross-entropy"), ({"own": {"elr": Mine}}, "not taken"),
     ({"chosen": ("none",)}, "Expected `methods`"), ({"noise_kinds": ("odd",)}, "noise_kinds")],
)  # fmt: skip
def test_a_panel_that_cannot_be_is_refused(digits, options, word):
    with pytest.raises(ValueError, match=word):
        panel(digits, **options)


def test_a_board_of_a_match_under_way_has_no_number_yet():
    match = Match(MatchSettings("digits", "symmetric", 0.4, ("elr",)), 1, Bouts(), running=True)
    (row,) = board_rows([match])
    assert row["method"] == "elr"
    assert rooms._verdict(match) == "training …"
