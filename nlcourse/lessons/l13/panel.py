"""The arena of lesson 13: methods train one after the other on the same noisy labels, live.

A try here is a *match*: several methods, one noise. What a method did on a noise is kept, so that a
match with one more method trains only that one. Settings come from ``recipes.toml``; a student's
own method stands beside the others, trained as cross entropy is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from math import isnan
from typing import Any

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
import numpy as np

from ...base import Method, expect, expect_one_of
from ...datasets import Dataset
from ...experiments import recipes
from ...panels import plots, render
from ...panels.compute import Menu, NoiseKinds, OnEpoch, Parameter, Trainer, noise_choices, warm_up
from ...panels.panel import RunPanel
from ...panels.state import Goal, Run, State
from ...panels.view import View, controls
from ...training import DivergedError, fit
from ...training.history import History

SETTING = "classroom"  # of recipes.toml
MOST = len(plots.COLOURS)  # methods in a match: more could not be told apart
STARTERS = ("cross-entropy", "co-teaching", "elr")
COLUMNS = {"test_accuracy": "Test accuracy", "wrong_as_given": "Wrong labels memorized"}
KINDS = ("symmetric", "asymmetric", "pairflip", "instance")


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
    data: Any = None
    stopped: str = ""

    def __len__(self) -> int:
        """Return the number of finished epochs, of all methods together."""
        return sum(len(history) for history in self.histories.values())

    def standing(self) -> list[tuple[str, float]]:
        """Return the methods with the mean of their last ten test accuracies, the best first."""
        begun = {name: history for name, history in self.histories.items() if len(history)}
        means = {name: each.mean_last("test_accuracy", 10) for name, each in begun.items()}
        return sorted(means.items(), key=lambda pair: -pair[1])


@dataclass(repr=False, eq=False)
class Match(Run[MatchSettings, Bouts]):
    """One try; ``history`` holds the :class:`Bouts`."""

    history: Bouts = field(default_factory=Bouts)
    noun = "Match"
    histories = property(lambda self: self.history.histories, doc="Of each method, by its name.")
    data = property(lambda self: self.history.data, doc="What the methods learned from.")

    @property
    def finished(self) -> bool:
        """Every method trained to its end, diverged, or could not take part."""
        told = set(self.histories) | set(self.history.notes)
        whole = not self.history.stopped and told == set(self.settings.methods)
        return not self.running and self.error is None and whole

    @property
    def where(self) -> str:
        """How far it came, all methods together."""
        return f"{len(self.history)} epochs"

    def heading(self) -> str:
        """Return what the caption calls this match."""
        return f"Match {self.number}"

    def summary(self) -> str:
        """Say in a sentence who leads."""
        told = [f"{name} {100 * mean:.1f} %" for name, mean in self.history.standing()]
        return (
            f"mean of the last ten test accuracies: {', '.join(told)}"
            if told
            else ("no epoch finished yet")
        )


class ArenaState(State):
    """The matches of a panel; one stays in grey: the curves of more could not be told apart."""

    run_type = Match
    max_ghosts = 1


class Umpire:
    """Trains the methods of a match one after the other.

    Args:
        names: the recipes that may take part.
        own: a student's methods: name -> class or function that returns a fresh method.
        source: draws the labels.
    """

    def __init__(
        self, names: Iterable[str], own: Mapping[str, Callable[[], Method]], source: Trainer
    ) -> None:
        """Train nothing yet; a wrong name is said now and not at Start."""
        self.own, self.source = dict(own), source
        recipes_of = {name: recipes.find(SETTING, name) for name in names}
        for name in own:
            expect(name not in recipes_of, "a name that is not taken", repr(name))
        self.entries = (*recipes_of, *own)
        self._stored: dict[MatchSettings, tuple[History, str]] = {}

    def __call__(self, settings: MatchSettings, stop: threading.Event, on_epoch: OnEpoch) -> Bouts:
        """Train, in the thread of the caller; what was trained before is taken as it was."""
        bouts = Bouts(data=self.source.corrupted(settings))
        for name in settings.methods:
            alone = replace(settings, methods=(name,))
            if alone not in self._stored:
                bouts.stopped = self._bout(alone, bouts, stop, on_epoch)
                if bouts.stopped:
                    break
                self._stored[alone] = bouts.histories[name], bouts.notes.get(name, "")
            bouts.histories[name], note = self._stored[alone]
            if note:
                bouts.notes[name] = note
        return bouts

    def _bout(
        self, alone: MatchSettings, bouts: Bouts, stop: threading.Event, on_epoch: OnEpoch
    ) -> str:
        """Train one method into `bouts`; return why it was stopped, or ""."""
        (name,) = alone.methods
        bouts.histories[name] = History()

        def follow(history: History) -> None:
            bouts.histories[name] = history
            on_epoch(bouts)

        recipe = recipes.find(
            SETTING,
            "cross-entropy" if name in self.own else name,
            noise=None if name in self.own else alone.noise_kind,
            rate=None if name in self.own else alone.noise_rate,
        )
        recipe = replace(recipe, epochs=alone.epochs_each)
        try:
            make = self.own.get(name)
            noise = alone.noise_kind, alone.noise_rate
            method = make() if make else recipe.make_method(bouts.data, *noise)
        except ValueError as error:  # no such method for this noise: the others go on
            bouts.notes[name] = f"could not take part: {error}"
            return ""
        told = recipe.options()
        told |= {"progress": False, "on_epoch": follow}
        told["options"] = replace(told["options"], stop=stop)
        try:
            history = fit(method, bouts.data, seed=alone.seed, **told)
        except DivergedError as error:
            history = error.history
            bouts.notes[name] = f"diverged in epoch {len(history) + 1}"
        bouts.histories[name] = history
        return history.stopped


class Arena(RunPanel):
    """A panel with a box to tick for each method, live curves, and a board that grows.

    Show it as the last line of a cell. Start trains the chosen methods one after the other in the
    background.

    Args:
        dataset: a name of ``datasets.NAMES`` or a :class:`~nlcourse.datasets.Dataset`.
        methods: names of recipes ("classroom" in recipes.toml); all of them when left out.
        own: a student's methods: name -> class or function that returns a fresh method.
        chosen: the names that are ticked at first.
        noise_kinds: names of ``noise.KINDS``, and mappings from a new name to a function
            ``(dataset, rate, seed) -> dataset``; the first is chosen at the start.
        goal: what to reach, or None.
        first: first values of ``noise_rate`` (0..0.9) and ``epochs`` (of each method), and ``seed``
            of noise and training.

    Raises:
        ValueError: an unknown method or kind of noise, a name that is taken, or too many chosen.
    """

    state_type = ArenaState
    first = "Tick some methods, choose a noise, then press Start."
    recalled = "This match was played before:"
    caption = (
        "The board of this panel: test accuracy in percent, the mean of the last ten epochs decides"
    )

    def __init__(
        self,
        dataset: str | Dataset = "digits",
        *,
        methods: Iterable[str] | None = None,
        own: Mapping[str, Callable[[], Method]] | None = None,
        chosen: Sequence[str] | None = None,
        noise_kinds: NoiseKinds = KINDS,
        goal: Goal | None = None,
        **first: Any,
    ) -> None:
        """Build the panel and get ready for the first Start."""
        own = own or {}
        name = dataset if isinstance(dataset, str) else dataset.name
        kinds = noise_choices(noise_kinds)
        source = Trainer({name: None if isinstance(dataset, str) else dataset}, kinds)
        names = recipes.names(SETTING) if methods is None else methods
        self.umpire = Umpire(names, own, source)
        self.dataset, self.fixed = name, {"seed": first.pop("seed", 0)}
        entries = (
            Menu("noise_kind", tuple(kinds), "noise"),
            Parameter("noise_rate", 0.4, 0.0, 0.9, 0.05, percent=True),
            Parameter("epochs", 30, 1, max(120, first.get("epochs", 0)), 1, label="epochs of each"),
        )
        self.controls = controls(entries, first)
        ticked = tuple(chosen if chosen is not None else [*own, *STARTERS])
        self._check(ticked)
        self.boxes = {entry: _box(entry, entry in ticked) for entry in self.umpire.entries}
        view = View(self.controls.values(), self.boxes.values(), buttons=self._buttons())
        super().__init__(view, goal, self.umpire)
        self._show()
        threading.Thread(target=warm_up, name="nlcourse-ready", daemon=True).start()

    def start(self) -> None:
        """Train what is ticked in the background; a match that is on is stopped."""
        try:
            super().start()
        except ValueError as error:  # too many are ticked, or none
            self._say(str(error))

    def try_out(self, *methods: str, **changes: Any) -> Any:
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

    def rows(self) -> list[dict[str, Any]]:
        """Return the board: one row for each method and noise of the matches, best first."""
        return board_rows(self.tries)

    def _changed(self, changes: Mapping[str, Any], methods: Sequence[str] = ()) -> MatchSettings:
        values = self._values(self.controls, changes)
        methods = tuple(methods) or tuple(name for name, box in self.boxes.items() if box.value)
        self._check(methods)
        epochs = values.pop("epochs")
        return MatchSettings(self.dataset, methods=methods, epochs_each=epochs, **values)

    def _check(self, methods: tuple[str, ...]) -> None:
        for name in methods:
            expect_one_of("methods", name, self.umpire.entries)
        fits = 1 <= len(set(methods)) == len(methods) <= MOST
        why = "more curves cannot be told apart"
        expect(fits, f"1 to {MOST} different methods", len(methods), why)

    def _begin(self, settings: MatchSettings) -> Run:
        match = super()._begin(settings)
        self._show()  # the board has a row for each method from the start
        return match

    def _charts(self, run: Match | None, ghosts: Sequence[Match]) -> list[render.Chart]:
        last = max([m.settings.epochs_each for m in (run, *ghosts) if m], default=30)
        # By the place in the match, so that a method keeps its look when others drop out.
        looks = dict(zip(run.settings.methods, plots.looks(), strict=False)) if run else {}
        return [
            render.Chart(
                heading,
                [
                    render.Curve(name, plots.percent(history, column), looks[name])
                    for name, history in (run.histories.items() if run else ())
                    if len(history)
                ],
                [
                    render.Curve("", plots.percent(history, column))
                    for match in ghosts
                    for history in match.histories.values()
                    if len(history)
                ],
                "".join(f"match {match.number}: {match.settings.noise}" for match in ghosts),
                xlim=(0, last + 0.5),
                named=column == "test_accuracy",
            )
            for column, heading in COLUMNS.items()
        ]

    def _table(self) -> str:
        rows = [_row_in_words(row) for row in self.rows()]
        table = render.table_html(self.caption, rows, "method")
        told = [f"Match {match.number}, {match.settings.noise}: {_verdict(match)}"
                for match in self.tries]  # fmt: skip
        told += [f"{r['method']} on {r['noise']}: {r['note']}" for r in self.rows() if r["note"]]
        items = "".join(f"<li>{escape(words)}</li>" for words in told)
        return f"{table}<ul>{items}</ul>" if table else ""


def _box(name: str, ticked: bool) -> W.Checkbox:
    layout = W.Layout(width="15em")
    box = W.Checkbox(value=ticked, description=name, indent=False, layout=layout)
    box.add_class(f"nlcourse-method-{name.replace(' ', '-')}")
    return box


def board_rows(matches: Iterable[Run]) -> list[dict[str, Any]]:
    """Return a row for each method and noise, grouped by noise, the best mean first."""
    rows: dict[MatchSettings, dict[str, Any]] = {}
    for match in matches:
        for name in match.settings.methods:
            alone = replace(match.settings, methods=(name,))
            rows.pop(alone, None)  # the latest match says it
            rows[alone] = _board_row(match, name)
    order = list(dict.fromkeys(row["noise"] for row in rows.values()))
    return sorted(rows.values(), key=lambda row: (order.index(row["noise"]), -row["last ten"]))


def _board_row(match: Run, name: str) -> dict[str, Any]:
    settings, history = match.settings, match.history.histories.get(name, History())
    seed = f", seed {settings.seed}" if settings.seed else ""
    nan = dict.fromkeys(("test_accuracy", "wrong_as_given", "label_precision"), float("nan"))
    last, begun = history.last if len(history) else nan, len(history) > 0
    return {
        "noise": f"{settings.noise}, {settings.epochs_each} epochs{seed}",
        "method": name,
        "last ten": history.mean_last("test_accuracy", 10) if begun else -1.0,
        "last": last["test_accuracy"],
        "best": history.best() if begun else float("nan"),
        "memorized": last["wrong_as_given"],
        "label precision": last["label_precision"],
        "seconds": float(np.sum(history["seconds"])) if begun else float("nan"),
        "note": match.history.notes.get(name, ""),
    }


def _row_in_words(row: Mapping[str, Any]) -> dict[str, str]:
    words = {"noise": row["noise"], "method": row["method"]}
    for name in ("last ten", "last", "best", "memorized", "label precision"):
        value = row[name]
        words[name] = "–" if isnan(value) or value < 0 else f"{100 * value:.1f}"
    return words | {"seconds": "–" if isnan(row["seconds"]) else f"{row['seconds']:.1f}"}


def _verdict(match: Run) -> str:
    words = match.verdict or ("training …" if match.running else match.summary())
    return render.marked(match, words)
