"""The arena of lesson 13: methods train one after the other on the same noisy labels, live.

Runner, controls and data are those of the other panels. A try here is a *match*: several methods,
one noise. What a method did on a noise is kept, so that a match with one more method trains only
that one. Settings come from ``recipes.toml``; a student's own method stands beside the others.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import isnan

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
from matplotlib.figure import Figure

from ...base import Method
from ...experiments import recipes
from ...panels import plots, render
from ...panels.compute import (
    Corruption,
    OnEpoch,
    Parameter,
    Trainer,
    check_choice,
    noise_choices,
    settled,
    warm_up,
)
from ...panels.panel import RunPanel
from ...panels.state import Goal, Run, State
from ...panels.view import View, control, menu
from ...training.history import History

SETTING = "classroom"  # of recipes.toml
MOST = len(plots.COLOURS)  # methods in a match: more could not be told apart
STARTERS = ("cross-entropy", "co-teaching", "elr")
COLUMNS = {"test_accuracy": "Test accuracy", "wrong_as_given": "Wrong labels memorized"}
BOARD = ("noise", "method", "last ten", "last", "best", "memorized", "label precision", "seconds")

# From the data, kind and rate of its noise and the epochs to a fresh method and options of `fit`.
Prepare = Callable[[object, str, float, int], tuple[Method, dict[str, object]]]


# ---- state ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatchSettings:
    """Everything that decides a match; equal settings give equal curves.

    Attributes:
        dataset: name of the data.
        noise_kind: how the labels are corrupted.
        noise_rate: share of the corrupted examples, 0..1.
        methods: the methods in the order in which they train.
        epochs_each: passes through the data, of each.
        seed: of noise and training.
    """

    dataset: str
    noise_kind: str
    noise_rate: float
    methods: tuple[str, ...]
    epochs_each: int = 60
    seed: int = 0

    @property
    def epochs(self) -> int:
        """Epochs of all methods together."""
        return self.epochs_each * len(self.methods)

    @property
    def noise(self) -> str:
        """The noise in words: ``symmetric 40 %``."""
        return f"{self.noise_kind} {100 * self.noise_rate:.0f} %"

    def in_words(self) -> str:
        """Return one line with all settings."""
        names = ", ".join(self.methods)
        return f"{self.dataset}, {self.noise}, {self.epochs_each} epochs: {names}"


@dataclass
class Bouts:
    """How the methods of a match are doing.

    Attributes:
        histories: by the name of the method, in the order of the match.
        notes: what there is to say of a method: that it diverged, or could not take part.
        data: the data set that they learn from.
        stopped: why the match ended early, or "".
    """

    histories: dict[str, History] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    data: object = None
    stopped: str = ""

    def __len__(self) -> int:
        """Return the number of finished epochs, of all methods together."""
        return sum(len(history) for history in self.histories.values())

    def standing(self) -> list[tuple[str, float]]:
        """Return the methods with the mean of their last ten test accuracies, the best first."""
        means = [
            (name, history.mean_last("test_accuracy", 10))
            for name, history in self.histories.items()
            if len(history)
        ]
        return sorted(means, key=lambda pair: -pair[1])


@dataclass(repr=False)
class Match(Run):
    """One try; ``history`` holds the :class:`Bouts`."""

    settings: MatchSettings
    history: Bouts = field(default_factory=Bouts)

    @property
    def histories(self) -> dict[str, History]:
        """The history of each method, by its name."""
        return self.history.histories

    @property
    def data(self) -> object:
        """The data set that the methods learned from."""
        return self.history.data

    @property
    def finished(self) -> bool:
        """Every method trained to its end, diverged, or could not take part."""
        told = set(self.histories) | set(self.history.notes)
        whole = not self.history.stopped and told == set(self.settings.methods)
        return not self.running and self.error is None and whole

    @property
    def figure(self) -> Figure:
        """A fresh static figure of this match, for ``plots.show``."""
        return draw(self)

    def summary(self) -> str:
        """Say in a sentence who leads."""
        standing = self.history.standing()
        if not standing:
            return "no epoch finished yet"
        told = [f"{name} {100 * mean:.1f} %" for name, mean in standing]
        return f"mean of the last ten test accuracies: {', '.join(told)}"


class ArenaState(State):
    """The matches of a panel."""

    run_type = Match

    @property
    def ghosts(self) -> list[Match]:
        """The match before: the curves of more could not be told apart."""
        return super().ghosts[-1:]

    def end(self, run: Match) -> None:
        """Judge a match that has ended and store it when it is whole."""
        super().end(run)
        if run.error is None and not run.finished:
            run.verdict = f"stopped after {len(run.history)} epochs: no verdict"


# ---- compute -------------------------------------------------------------------------------------


def from_recipe(name: str) -> Prepare:
    """Return how to make a method of ``recipes.toml`` ready.

    Raises:
        ValueError: there is no such recipe.
    """
    recipes.find(SETTING, name)  # a wrong name is said now and not at Start

    def prepare(data, kind: str, rate: float, epochs: int) -> tuple[Method, dict[str, object]]:
        recipe = recipes.find(SETTING, name, noise=kind, rate=rate)
        recipe = dataclasses.replace(recipe, epochs=epochs)
        return recipe.make_method(data, kind, rate), recipe.options()

    return prepare


def from_class(make: Callable[[], Method]) -> Prepare:
    """Return how to make a student's method ready: trained as cross entropy is."""

    def prepare(data, kind: str, rate: float, epochs: int) -> tuple[Method, dict[str, object]]:
        recipe = dataclasses.replace(recipes.find(SETTING, "cross-entropy"), epochs=epochs)
        return make(), recipe.options()

    return prepare


class Umpire:
    """Trains the methods of a match one after the other.

    Args:
        entries: who may take part: name -> how to make it ready.
        data: name -> data set, or None to load it when it is needed.
        noise: name -> function ``(dataset, rate, seed) -> dataset``.
    """

    def __init__(
        self,
        entries: Mapping[str, Prepare],
        data: Mapping[str, object],
        noise: Mapping[str, Corruption],
    ) -> None:
        """Train nothing yet."""
        self.entries = dict(entries)
        self._source = Trainer(data, noise, ())
        self._stored: dict[MatchSettings, tuple[History, str]] = {}

    def corrupted(self, settings: MatchSettings):
        """Return the data set with the noise of the settings."""
        return self._source.corrupted(settings)

    def __call__(self, settings: MatchSettings, stop: threading.Event, on_epoch: OnEpoch) -> Bouts:
        """Train, in the thread of the caller; what was trained before is taken as it was."""
        bouts = Bouts(data=self.corrupted(settings))
        for name in settings.methods:
            alone = dataclasses.replace(settings, methods=(name,))
            if alone not in self._stored:
                stopped = self._bout(alone, bouts, stop, on_epoch)
                if stopped:
                    bouts.stopped = stopped
                    break
                self._stored[alone] = bouts.histories[name], bouts.notes.get(name, "")
            bouts.histories[name], note = self._stored[alone]
            if note:
                bouts.notes[name] = note
        return bouts

    def _bout(self, alone: MatchSettings, bouts: Bouts, stop, on_epoch: OnEpoch) -> str:
        """Train one method into `bouts`; return why it was stopped, or ""."""
        from ...training import DivergedError, Options, fit

        (name,) = alone.methods
        bouts.histories[name] = History()

        def follow(history: History) -> None:
            bouts.histories[name] = history
            on_epoch(bouts)

        try:
            method, options = self.entries[name](
                bouts.data, alone.noise_kind, alone.noise_rate, alone.epochs_each
            )
        except ValueError as error:  # no such method for this noise: the others go on
            bouts.notes[name] = f"could not take part: {error}"
            return ""
        try:
            history = fit(method, bouts.data, seed=alone.seed, progress=False, on_epoch=follow, **options, options=Options(stop=stop))  # fmt: skip
        except DivergedError as error:
            history = error.history
            bouts.notes[name] = f"diverged in epoch {len(history) + 1}"
        bouts.histories[name] = history
        return history.stopped


# ---- the panel -----------------------------------------------------------------------------------


class Arena(RunPanel):
    """A panel with a box to tick for each method, live curves, and a board that grows.

    Show it as the last line of a cell. Start trains the chosen methods one after the other in the
    background. :meth:`try_out` does the same from code, and waits.

    Args:
        dataset: a name of ``datasets.NAMES`` or a :class:`~nlcourse.datasets.Dataset`.
        methods: names of recipes ("classroom" in recipes.toml); all of them when left out.
        own: a student's methods: name -> class or function that returns a fresh method.
        chosen: the names that are ticked at first.
        noise_kinds: names of ``noise.KINDS``, and mappings from a new name to a function
            ``(dataset, rate, seed) -> dataset``; the first is chosen at the start.
        noise_rate: at the start, 0..0.9.
        epochs: of each method at the start.
        goal: what to reach, or None.
        seed: of noise and training.

    Raises:
        ValueError: an unknown method or kind of noise, a name that is taken, or too many chosen.
    """

    RECALLED = "This match was played before:"

    def __init__(
        self,
        dataset="digits",
        *,
        methods: Iterable[str] | None = None,
        own: Mapping[str, Callable[[], Method]] | None = None,
        chosen: Sequence[str] | None = None,
        noise_kinds: Iterable[str | Mapping[str, Corruption]] | str = (
            "symmetric",
            "asymmetric",
            "pairflip",
            "instance",
        ),
        noise_rate: float = 0.4,
        epochs: int = 30,
        goal: Goal | None = None,
        seed: int = 0,
    ) -> None:
        """Build the panel and get ready for the first Start."""
        names = tuple(recipes.names(SETTING) if methods is None else methods)
        entries = {name: from_recipe(name) for name in names}
        for name, make in (own or {}).items():
            if name in entries:
                raise ValueError(f"Expected a name that is not taken, got {name!r}")
            entries[name] = from_class(make)
        data = {dataset: None} if isinstance(dataset, str) else {dataset.name: dataset}
        kinds = noise_choices(noise_kinds)
        self.seed = seed
        (self.dataset,) = data
        self.umpire = Umpire(entries, data, kinds)
        self.controls = _controls(list(kinds), noise_rate, epochs)
        ticked = chosen if chosen is not None else [*(own or {}), *STARTERS]
        self.boxes = _boxes(entries, ticked)
        self._check(tuple(ticked))
        view = View(self.controls.values(), self.boxes.values(), buttons=self._buttons())
        super().__init__(ArenaState(goal), view, self.umpire)
        self._show()
        threading.Thread(target=warm_up, name="nlcourse-ready", daemon=True).start()

    def start(self) -> None:
        """Train what is ticked in the background; a match that is on is stopped."""
        try:
            super().start()
        except ValueError as error:  # too many are ticked, or none
            self._say(str(error))

    def try_out(self, *methods: str, **changes) -> Match:
        """Train and wait, with the controls' values but for some changes.

        Args:
            methods: names; those that are ticked when left out.
            changes: ``noise_kind``, ``noise_rate``, ``epochs`` (of each method), ``seed``.

        Returns:
            The match, with ``histories`` by name, its ``data`` and a static ``figure``.

        Raises:
            ValueError: a setting or a method that the panel does not have.
            Exception: whatever ended the match.
        """
        return self._try(self._changed(changes, methods))

    def rows(self) -> list[dict[str, object]]:
        """Return the board: one row for each method and noise of the matches, best first."""
        return board_rows(self.tries)

    def _changed(self, changes: Mapping[str, object], methods: Sequence[str] = ()) -> MatchSettings:
        values = self._values(changes, seed=self.seed)
        check_choice("`noise_kind`", values["noise_kind"], self.controls["noise_kind"].options)
        ticked = tuple(name for name, box in self.boxes.items() if box.value)
        methods = tuple(methods) or ticked
        self._check(methods)
        return MatchSettings(
            self.dataset,
            values["noise_kind"],
            settled(values["noise_rate"]),
            methods,
            values["epochs"],
            values["seed"],
        )

    def _check(self, methods: tuple[str, ...]) -> None:
        for name in methods:
            check_choice("methods", name, self.umpire.entries)
        if not 1 <= len(set(methods)) == len(methods) <= MOST:
            raise ValueError(
                f"Expected 1 to {MOST} different methods, got {len(methods)}: more curves cannot "
                "be told apart"
            )

    def _begin(self, settings: MatchSettings) -> Match:
        match = super()._begin(settings)
        self._show()  # the board has a row for each method from the start
        return match

    def _draw(self, run: Match | None, ghosts: Sequence[Match]) -> Figure:
        return draw(run, ghosts)

    def _caption(self, run: Match | None, ghosts: int) -> str:
        if run is None:
            return "Tick some methods, choose a noise, then press Start."
        return f"Match {run.number}: {run.summary()}."

    def _table(self) -> str:
        return board_html(self.tries)


def _controls(kinds: list[str], noise_rate: float, epochs: int) -> dict[str, W.Widget]:
    numbers = (
        Parameter("noise_rate", float(noise_rate), 0.0, 0.9, 0.05, percent=True),
        Parameter("epochs", int(epochs), 1, max(120, epochs), 1, label="epochs of each"),
    )
    controls = {"noise_kind": menu("noise-kind", "noise", kinds, kinds[0])}
    return controls | {parameter.name: control(parameter) for parameter in numbers}


def _boxes(entries: Iterable[str], ticked: Sequence[str]) -> dict[str, W.Checkbox]:
    layout = W.Layout(width="15em")
    boxes = {}
    for name in entries:
        box = W.Checkbox(value=name in ticked, description=name, indent=False, layout=layout)
        box.add_class(f"nlcourse-method-{name.replace(' ', '-')}")
        boxes[name] = box
    return boxes


# ---- render --------------------------------------------------------------------------------------


def draw(match: Match | None, before: Sequence[Match] = ()) -> Figure:
    """Return the figure of a match: test accuracy on the left, memorized labels on the right."""
    # A fixed layout: matplotlib's automatic ones are solved anew at every drawing.
    figure, panels = plots.new_figure(2, height=4.2, layout=None)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.86, bottom=0.27, wspace=0.17)
    figure.suptitle(_heading(match), fontsize=plots.FONT)
    last = max([m.settings.epochs_each for m in (match, *before) if m], default=30)
    for axes, (column, heading) in zip(panels, COLUMNS.items(), strict=True):
        _prepare(axes, heading, last)
        for ghost in before:
            _grey_curves(axes, ghost, column)
        if match is not None:
            _curves(axes, match, column)
    named = [line for line in panels[0].lines if not line.get_label().startswith("_")]
    if named:
        handles = sorted(named, key=lambda line: line.get_color() == render.GHOST)  # grey last
        figure.legend(
            handles=handles, loc="lower center", ncols=4, fontsize=plots.SMALL_FONT,
            frameon=False, handlelength=3.5,
        )  # fmt: skip
    figure.alt_text = alt_text(match, before)
    return figure


def _heading(match: Match | None) -> str:
    if match is None:
        return "No match yet"
    settings = match.settings
    return f"{settings.dataset}, {settings.noise}, {settings.epochs_each} epochs of each"


def _prepare(axes, heading: str, last: int) -> None:
    axes.set_title(heading, fontsize=plots.FONT)
    axes.set_xlabel("epoch", fontsize=plots.FONT, labelpad=1)
    axes.set_ylabel("share (%)", fontsize=plots.FONT)
    axes.set_xlim(0, last + 0.5)
    axes.set_ylim(0, 102)
    plots.tidy(axes)


def _curves(axes, match: Match, column: str) -> None:
    looks = zip(plots.COLOURS.values(), plots.DASHES, plots.MARKERS, strict=True)
    # By the place in the match, so that a method keeps its look when others drop out.
    for name, (colour, dash, marker) in zip(match.settings.methods, looks, strict=False):
        history = match.histories.get(name)
        if history is None or not len(history):
            continue
        axes.plot(
            history["epoch"], plots.percent(history, column), label=name, color=colour,
            linestyle=dash, marker=marker, markersize=5, linewidth=2, zorder=3,
            markevery=max(1, len(history) // 8),
        )  # fmt: skip


def _grey_curves(axes, match: Match, column: str) -> None:
    for place, history in enumerate(match.histories.values()):
        label = f"match {match.number}: {match.settings.noise}" if place == 0 else None
        axes.plot(
            history["epoch"], plots.percent(history, column), color=render.GHOST, linewidth=1,
            zorder=1, label=label,
        )  # fmt: skip


def alt_text(match: Match | None, before: Sequence[Match] = ()) -> str:
    """Say what the figure shows, from its numbers."""
    if match is None or not len(match.history):
        return "Two empty charts, test accuracy and memorized labels against epoch: no match yet."
    told = []
    for column, heading in COLUMNS.items():
        told.append(f"{heading}:")
        told += [
            plots.line_in_words(name, plots.percent(history, column), history["epoch"], "epoch")
            for name, history in match.histories.items()
            if len(history)
        ]
    told += [f"In grey match {m.number}, {m.settings.in_words()}; {m.summary()}." for m in before]
    return f"Curves in percent against epoch, {match.settings.in_words()}. {' '.join(told)}"


def board_rows(matches: Iterable[Match]) -> list[dict[str, object]]:
    """Return a row for each method and noise, grouped by noise, the best mean first."""
    rows: dict[tuple, dict[str, object]] = {}
    for match in matches:
        for name in match.settings.methods:
            alone = dataclasses.replace(match.settings, methods=(name,))
            rows.pop(alone, None)  # the latest match says it
            rows[alone] = _board_row(match, name)
    order = list(dict.fromkeys(row["noise"] for row in rows.values()))
    return sorted(rows.values(), key=lambda row: (order.index(row["noise"]), -row["last ten"]))


def _board_row(match: Match, name: str) -> dict[str, object]:
    settings, history = match.settings, match.histories.get(name, History())
    row = {"noise": f"{settings.noise}, {settings.epochs_each} epochs", "method": name}
    if settings.seed:
        row["noise"] += f", seed {settings.seed}"
    row |= dict.fromkeys(BOARD[2:], float("nan")) | {"note": match.history.notes.get(name, "")}
    row["last ten"] = -1.0 if not len(history) else history.mean_last("test_accuracy", 10)
    if len(history):
        last = history.last
        row |= {"last": last["test_accuracy"], "best": history.best()}
        row |= {"memorized": last["wrong_as_given"], "label precision": last["label_precision"]}
        row["seconds"] = sum(history["seconds"])
    return row


def board_html(matches: Sequence[Match]) -> str:
    """Return the board as a table; empty without a match."""
    rows = board_rows(matches)
    if not rows:
        return ""
    caption = (
        "The board of this panel: test accuracy in percent, the mean of the last ten epochs decides"
    )
    told = [f"Match {match.number}, {match.settings.noise}: {_verdict(match)}" for match in matches]
    told += [f"{row['method']} on {row['noise']}: {row['note']}" for row in rows if row["note"]]
    items = "".join(f"<li>{escape(words)}</li>" for words in told)
    return render.table_html(caption, BOARD, map(_row_html, rows)) + f"<ul>{items}</ul>"


def _verdict(match: Match) -> str:
    words = match.verdict or ("training …" if match.running else match.summary())
    return render.marked(match, words)


def _row_html(row: Mapping[str, object]) -> str:
    shares = ("last ten", "last", "best", "memorized", "label precision")
    cells = [_percent(row[name]) for name in shares]
    cells.append("–" if isnan(row["seconds"]) else f"{row['seconds']:.1f}")
    noise, method = escape(row["noise"]), escape(row["method"])
    filled = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><td>{noise}</td><th scope="row">{method}</th>{filled}</tr>'


def _percent(value: float) -> str:
    return "–" if isnan(value) or value < 0 else f"{100 * value:.1f}"
