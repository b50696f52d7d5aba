"""The explorer without a browser: its rooms one by one, then the panel driven from Python."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

import pytest
from panel_html import WAIT, Texts, png

from nlcourse.panels import Explorer, Goal, MethodChoice, Parameter, method_choice, plots, render
from nlcourse.panels.compute import PARAMETERS, Trainer, noise_choices
from nlcourse.panels.runner import Pace, Runner
from nlcourse.panels.state import MAX_STORED, MAX_TRIES, Run, Settings, State
from nlcourse.training.history import COLUMNS, History

SETTINGS = Settings("digits", "symmetric", 0.4, 0.05, "cross-entropy", epochs=3)


def make_row(epoch: int, accuracy: float, precision: float = math.nan) -> dict[str, float]:
    row = dict.fromkeys(COLUMNS, math.nan) | {"epoch": epoch, "test_accuracy": accuracy}
    row |= {"given_accuracy": 0.5, "wrong_as_given": 1 - accuracy, "wrong_as_true": accuracy}
    return row | {"wrong_as_other": 0.0, "label_precision": precision}


def make_history(epochs: int = 3, accuracy: float = 0.75, **more) -> History:
    return History([make_row(epoch + 1, accuracy, **more) for epoch in range(epochs)])


class FakeTraining:
    """Trains nothing: accuracy is 1 - noise rate. A gate may hold it after the first epoch."""

    def __init__(self, hold: bool = False, fail: Exception | None = None) -> None:
        self.calls: list[Settings] = []
        self.at_work = 0
        self.most_at_work = 0
        self.fail = fail
        self.held = threading.Event()
        self.gate = threading.Event()
        if not hold:
            self.gate.set()

    def __call__(self, settings, stop, on_epoch) -> History:
        self.calls.append(settings)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        history = History()
        try:
            while len(history) < settings.epochs:
                if stop.is_set():
                    history.stopped = "stopped"
                    break
                history.rows.append(make_row(len(history) + 1, 1 - settings.noise_rate))
                on_epoch(history)
                if self.fail:
                    raise self.fail
                self.held.set()
                while not self.gate.is_set() and not stop.is_set():
                    time.sleep(0.001)
        finally:
            self.at_work -= 1
        return history


def make_explorer(training: FakeTraining | None = None, **options) -> Explorer:
    return Explorer(train=training or FakeTraining(), epochs=3, **options)


def picture_of(explorer: Explorer) -> bytes:
    return png(explorer.view.figure.value)


# --- state ---------------------------------------------------------------------------------------


def test_tries_ghosts_and_store_are_bounded():
    state = State()
    for number in range(MAX_STORED + 5):
        run = state.begin(replace(SETTINGS, seed=number))
        run.history = make_history()
        state.end(run)
    assert len(state.tries) == MAX_TRIES
    assert [run.number for run in state.ghosts] == list(range(MAX_STORED - 1, MAX_STORED + 5))
    assert len(state.ghosts) == State.max_ghosts
    assert state.current not in state.ghosts
    assert state.recall(replace(SETTINGS, seed=0)) is None
    assert state.recall(replace(SETTINGS, seed=MAX_STORED)) is not None


def test_only_whole_runs_are_judged_and_stored():
    state = State(Goal("g", lambda run: (True, "well done")))
    short = state.begin(SETTINGS)
    short.history = make_history(2)
    state.end(short)
    assert short.reached is None
    assert "stopped after epoch 2" in short.verdict
    assert state.recall(SETTINGS) is None
    whole = state.begin(SETTINGS)
    whole.history = make_history(3)
    state.end(whole)
    assert (whole.reached, whole.verdict) == (True, "well done")
    assert state.recall(SETTINGS) is whole


def test_a_broken_judge_does_not_end_the_panel():
    state = State(Goal("g", lambda run: 1 / 0))
    run = state.begin(SETTINGS)
    run.history = make_history()
    state.end(run)
    assert run.reached is None
    assert "ZeroDivisionError" in run.verdict


# --- compute -------------------------------------------------------------------------------------


def test_every_parameter_of_a_method_reaches_it():
    choice = method_choice("co-teaching")
    method = choice.build({"assumed_noise_rate": 0.25, "ramp_epochs": 7, "cross": True})
    assert (method.noise_rate, method.ramp_epochs) == (0.25, 7)


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_methods_can_be_made_with_the_first_values(name):
    choice = method_choice(name)
    assert choice.build({p.name: p.default for p in choice.parameters}).num_networks >= 1


def test_a_students_piece_replaces_the_packages_own():
    def select(losses, share):
        return losses.argsort()[:1]

    choice = method_choice("co-teaching", select=select)
    assert choice.build({"assumed_noise_rate": 0.2}).select is select


def test_own_corruptions_stand_beside_the_packages():
    choices = noise_choices(
        ["symmetric", "none", {"mine": lambda data, rate, seed: (data, rate, seed)}]
    )
    assert list(choices) == ["symmetric", "none", "mine"]
    assert choices["mine"]("data", 0.3, 1) == ("data", 0.3, 1)
    assert choices["none"]("data", 0.3, 1) == "data"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_choices(["sideways"]), "sideways"),
        (lambda: method_choice("magic"), "magic"),
        (lambda: make_explorer(hide=["colour"]), "colour"),
        (lambda: make_explorer(colour=1), "colour"),
        (lambda: make_explorer().try_out(colour=1), "colour"),
        (lambda: make_explorer().try_out(method="magic"), "magic"),
    ],
)
def test_unknown_names_are_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_same_noise_is_drawn_once():
    calls = []
    trainer = Trainer({"d": "data"}, {"n": lambda *a: calls.append(a) or a}, [])
    settings = Settings("d", "n", 0.2, 0.1, "m", seed=5)
    assert trainer.corrupted(settings) == trainer.corrupted(replace(settings, lr=0.3))
    assert calls == [("data", 0.2, 5)]


# --- runner --------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def drive(pace: Pace, clock: Clock, *, epochs: int, epoch: float, price: float) -> list[float]:
    """Train `epochs` of `epoch` seconds with drawings of `price` seconds; return when it drew."""
    drawn = []

    def draw():
        clock.now += price
        drawn.append(clock.now)

    for _ in range(epochs):
        clock.now += epoch
        if pace.due():
            pace.draw(draw)
    pace.draw(draw)
    return drawn


@pytest.mark.parametrize("price", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("epoch", [0.001, 0.02, 0.5])
def test_the_pace_keeps_rate_and_share(epoch, price):
    clock = Clock()
    pace = Pace(clock)
    drawn = drive(pace, clock, epochs=400, epoch=epoch, price=price)
    assert drawn[0] == pytest.approx(epoch + price)  # the first point waits for nothing
    gaps = [later - sooner - price for sooner, later in zip(drawn[:-1], drawn[1:-1], strict=False)]
    assert all(gap >= 0.1 - 1e-9 for gap in gaps)
    # The first drawing and the last one come even when they are more than their share.
    assert pace.drawing_time <= 0.2 * pace.training_time + 2 * price
    assert pace.training_time == pytest.approx(400 * epoch)


def test_a_dear_first_drawing_does_not_silence_the_rest():
    clock = Clock()
    pace = Pace(clock)
    clock.now += 0.02
    pace.draw(lambda: setattr(clock, "now", clock.now + 0.1))  # lays the figure out
    assert len(drive(pace, clock, epochs=50, epoch=0.1, price=0.01)) > 15


def test_a_new_run_waits_for_the_old_one_and_the_caller_for_none():
    training = FakeTraining(hold=True)
    ended = []
    runner = Runner(training, lambda run: None, ended.append)
    first, second = Run(SETTINGS, 1, running=True), Run(SETTINGS, 2, running=True)
    runner.start(first)
    assert training.held.wait(WAIT)
    runner.start(second)
    training.gate.set()
    assert runner.wait(WAIT)
    assert ended == [first, second]
    assert training.most_at_work == 1
    assert len(first.history) < 3
    assert len(second.history) == 3


def test_keyboard_interrupt_ends_the_blocking_form_and_keeps_its_history():
    def train(settings, stop, on_epoch):
        on_epoch(make_history(2))
        raise KeyboardInterrupt

    run = Run(SETTINGS, 1, running=True)
    Runner(train, lambda run: None, lambda run: None).blocking(run)
    assert len(run.history) == 2
    assert run.history.stopped == "interrupted"
    assert run.error is None


# --- render --------------------------------------------------------------------------------------


def make_run(number: int = 1, **more) -> Run:
    return Run(SETTINGS, number=number, history=make_history(**more))


def test_the_picture_follows_run_and_ghosts():
    charts = make_explorer()._charts
    album = render.Album()

    def draw(run, ghosts=()):
        return album.png(charts(run, ghosts))

    empty = draw(None)
    alone = draw(make_run())
    haunted = draw(make_run(2), [make_run(1, accuracy=0.25)])
    other = draw(make_run(2), [make_run(3, accuracy=0.5)])
    assert len({empty, alone, haunted, other}) == 4
    assert draw(make_run()) == alone  # nothing of the later ones stays behind


def test_a_moving_picture_is_that_of_the_static_figure():
    panel = make_explorer()
    charts = panel._charts(make_run(), [make_run(2, accuracy=0.25)])
    picture = render.Picture([replace(chart, curves=[*chart.curves]) for chart in charts])
    again = render.draw(charts)
    assert picture.png(charts) == plots.encode(drawn(again), compress_level=3)


def drawn(figure):
    figure.canvas.draw()
    return figure.canvas.buffer_rgba()


def test_selecting_methods_show_label_precision():
    charts = make_explorer()._charts
    plain, selecting = make_run(), make_run(epochs=1, precision=0.9)
    assert "label precision" not in [curve.label for curve in charts(plain, ())[1].curves]
    words = render.alt_text(selecting, (), charts(selecting, ()))
    assert "label precision is 90" in words


def test_a_picture_has_alt_text_and_a_live_caption():
    (_, image, _), (_, caption, text) = Texts(render.image_html(b"png", '<"a">', "<b>")).cells
    assert image["alt"] == '<"a">'
    assert image["src"].startswith("data:image/png;base64,")
    assert (caption, text) == ({"aria-live": "polite"}, "<b>")


def test_the_still_figure_of_a_run_has_its_own_description():
    figure = make_explorer().try_out(noise_rate=0.25).figure
    assert "test starts at 75" in figure.alt_text
    assert not any(line.get_animated() for axes in figure.axes for line in axes.lines)


def test_the_panels_own_figure_has_the_ghosts():
    explorer = make_explorer()
    with pytest.raises(ValueError, match="Nothing was tried"):
        explorer.figure()
    explorer.try_out(noise_rate=0.2)
    explorer.try_out(noise_rate=0.5)
    figure = explorer.figure()
    assert "In grey, try 1, digits, symmetric 20 %" in figure.alt_text
    assert [text.get_text() for text in figure.axes[0].texts] == ["", "1"]


# --- the panel -----------------------------------------------------------------------------------


def test_start_returns_at_once_shows_a_point_and_stop_keeps_it():
    training = FakeTraining(hold=True)
    explorer = make_explorer(training)
    empty = picture_of(explorer)
    explorer.view.start.click()
    assert training.held.wait(WAIT)
    assert explorer.run.running
    assert picture_of(explorer) != empty
    assert "epoch 1 of 3" in explorer.view.figure.value
    assert 'aria-busy="true"' in explorer.view.figure.value
    began = time.perf_counter()
    explorer.view.stop.click()
    assert explorer.wait(WAIT)
    assert time.perf_counter() - began < 2
    assert len(explorer.run.history) == 1
    assert "Stopped after epoch 1" in explorer.view.status.value
    assert 'aria-busy="false"' in explorer.view.figure.value


def test_stop_before_any_start_does_nothing():
    explorer = make_explorer()
    explorer.view.stop.click()
    assert explorer.run is None


def test_controls_decide_what_is_trained():
    training = FakeTraining()
    explorer = make_explorer(training, options=[Parameter("weight_decay", 0.0, 0.0, 0.1, 0.01)])
    explorer.controls["noise_rate"].value = 0.2
    explorer.controls["lr"].value = 0.1
    explorer.controls["method"].value = "co-teaching"
    explorer.controls["weight_decay"].value = 0.05
    explorer.view.parameters["co-teaching"]["cross"].value = False
    explorer.view.start.click()
    assert explorer.wait(WAIT)
    (settings,) = training.calls
    assert (settings.noise_rate, settings.lr, settings.method) == (0.2, 0.1, "co-teaching")
    assert dict(settings.options) == {"weight_decay": 0.05}
    expected = {"assumed_noise_rate": 0.4, "cross": False, "ramp_epochs": 10}
    assert dict(settings.parameters) == expected


def test_the_parameters_of_the_chosen_method_are_shown():
    explorer = make_explorer(hide=["ramp_epochs"])
    assert explorer.view.parameter_box.children == ()
    explorer.controls["method"].value = "co-teaching"
    labels = [widget.description for widget in explorer.view.parameter_box.children]
    assert labels == ["assumed noise rate", "cross the two selections"]


def test_menus_with_one_entry_are_not_shown():
    explorer = make_explorer(methods="cross-entropy", noise_kinds=["symmetric", "pairflip"])
    shown = explorer.view.box.children[1].children
    assert explorer.controls["method"] not in shown
    assert explorer.controls["dataset"] not in shown
    assert explorer.controls["noise_kind"] in shown


def test_sliders_report_when_they_are_let_go():
    explorer = make_explorer()
    sliders = [w for w in explorer.controls.values() if hasattr(w, "continuous_update")]
    assert len(sliders) == 3
    assert not any(slider.continuous_update for slider in sliders)
    assert all(widget.description for widget in explorer.controls.values())


def test_the_same_settings_show_the_stored_run():
    training = FakeTraining()
    explorer = make_explorer(training)
    first = explorer.try_out(noise_rate=0.2)
    explorer.try_out(noise_rate=0.5)
    assert explorer.try_out(noise_rate=0.1 + 0.1) is first
    assert len(training.calls) == 2
    assert len(explorer.tries) == 2
    assert "trained before" in explorer.view.status.value
    assert "Try 1" in explorer.view.figure.value


def test_a_stored_run_stops_the_one_that_is_on():
    training = FakeTraining()
    explorer = make_explorer(training)
    stored = explorer.try_out(noise_rate=0.2)
    training.gate.clear()
    training.held.clear()
    explorer.controls["noise_rate"].value = 0.6
    explorer.start()
    assert training.held.wait(WAIT)
    explorer.controls["noise_rate"].value = 0.2
    explorer.view.start.click()
    assert explorer.wait(WAIT)
    assert explorer.run is stored
    assert "Try 1" in explorer.view.figure.value


def test_goal_verdict_and_trace():
    goal = Goal("At least 75 %", lambda run: (run.best()[0] >= 0.75, f"{run.best()[0]:.0%}"))
    explorer = make_explorer(goal=goal)
    assert "At least 75 %" in explorer.view.goal.value
    explorer.try_out(noise_rate=0.5)
    assert "✗ Not yet: 50%" in explorer.view.status.value
    explorer.try_out(noise_rate=0.2)
    assert "✓ Goal reached: 80%" in explorer.view.status.value
    cells = Texts(explorer.view.tries.value).cells
    heads = [text for tag, attrs, text in cells if attrs.get("scope") == "col"]
    rows = [text for tag, attrs, text in cells if attrs.get("scope") == "row"]
    assert ("caption", {}, "Your tries") in cells
    assert heads[-1] == "verdict"
    assert rows == ["1", "► 2"]
    texts = [text for _, _, text in cells]
    assert "✗ 50%" in texts
    assert "✓ 80%" in texts
    assert "1 earlier try" in explorer.view.figure.value


def test_clear_forgets_the_tries():
    explorer = make_explorer()
    empty = picture_of(explorer)
    explorer.try_out()
    explorer.view.clear.click()
    assert explorer.tries == []
    assert explorer.view.tries.value == ""
    assert picture_of(explorer) == empty


def test_an_error_in_the_background_is_shown_and_the_panel_survives():
    training = FakeTraining(fail=RuntimeError("the loss is <nan>"))
    explorer = make_explorer(training)
    explorer.view.start.click()
    assert explorer.wait(WAIT)
    shown = explorer.view.status.value
    assert "RuntimeError: the loss is &lt;nan&gt;" in shown
    assert "press Start again" in shown
    assert "Traceback" in shown
    assert len(explorer.run.history) == 1
    training.fail = None
    explorer.view.start.click()
    assert explorer.wait(WAIT)
    assert explorer.run.finished
    assert "RuntimeError" not in explorer.view.status.value


def test_the_blocking_form_raises_what_ended_it():
    explorer = make_explorer(FakeTraining(fail=RuntimeError("boom")))
    with pytest.raises(RuntimeError, match="boom"):
        explorer.try_out()
    assert "boom" in explorer.view.status.value


def test_a_reader_without_kernel_is_told_what_to_do():
    bundle = make_explorer()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "run the notebook" in bundle["text/plain"]


def test_parts_carry_the_classes_that_tests_and_styles_look_for():
    view = make_explorer().view
    parts = {"start": view.start, "stop": view.stop, "clear": view.clear, "figure": view.figure}
    parts |= {"noise-rate": view.controls["noise_rate"], "tries": view.tries}
    for name, widget in parts.items():
        assert f"nlcourse-{name}" in widget._dom_classes


# --- with real training --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(epochs=2, noise_kinds=["symmetric", "none"])


@pytest.mark.parametrize("method", ["cross-entropy", "co-teaching"])
def test_digits_are_trained_and_repeatable(explorer, method):
    from nlcourse import datasets, noise, training

    run = explorer.try_out(method=method, noise_rate=0.3)
    assert run.finished
    assert run.history.last["test_accuracy"] > 0.5
    data = noise.inject(datasets.load("digits"), "symmetric", 0.3, seed=0)
    fresh = explorer.trainer.methods[method].build(dict(run.settings.parameters))
    again = training.fit(fresh, data, epochs=2, lr=0.05, seed=0, progress=False)
    assert again["test_accuracy"] == run.history["test_accuracy"]


def test_without_noise_the_picture_says_that_no_label_is_wrong(explorer):
    run = explorer.try_out(noise_kind="none")
    assert "memorized" not in run.figure.alt_text
    assert run.figure.axes[1].texts[0].get_visible()


def test_divergence_is_told_with_its_advice(explorer):
    explorer.controls["lr"].value = 10.0
    explorer.start()
    assert explorer.wait(WAIT)
    explorer.controls["lr"].value = 0.05
    shown = explorer.view.status.value
    assert ("DivergedError" in shown) == (explorer.run.error is not None)
    with pytest.raises(RuntimeError, match="smaller learning rate"):
        explorer.try_out(lr=1e4)
    assert "smaller learning rate" in explorer.view.status.value


def test_real_training_stops_within_a_step(explorer):
    explorer.controls["epochs"].value = 120
    explorer.start()
    deadline = time.perf_counter() + WAIT
    while not len(explorer.run.history) and time.perf_counter() < deadline:
        time.sleep(0.005)
    explorer.stop()
    assert explorer.wait(WAIT)
    explorer.controls["epochs"].value = 2
    assert 0 < len(explorer.run.history) < 120
    assert explorer.run.history.stopped.startswith("stopped")


def test_a_method_of_ones_own_can_be_tried(explorer):
    from nlcourse.methods import CrossEntropy

    class Mine(CrossEntropy):
        pass

    panel = Explorer(methods=[MethodChoice("mine", Mine)], epochs=1)
    assert panel.try_out().history.settings["method"].startswith("Mine")
