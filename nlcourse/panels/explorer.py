"""The explorer: a live panel on which a network learns from noisy labels. Used in every lesson."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from math import isnan
from typing import Any

import numpy as np

from ..base import expect_one_of
from ..datasets import Dataset
from . import plots, render
from .compute import (
    Menu,
    MethodChoice,
    NoiseKinds,
    Parameter,
    Trainer,
    method_choice,
    noise_choices,
    warm_up,
)
from .panel import RunPanel
from .runner import Train
from .state import Goal, Run, Settings, pairs
from .view import MethodView, controls

EMBEDDED = "digits"  # can be made ready without asking: nothing is downloaded
PATIENCE = 3.0  # seconds: the panel appears when it is ready for Start, or after these
FIELDS = {field.name for field in fields(Settings)} - {"parameters", "options"}
ACCURACIES = ("test_accuracy", "given_accuracy")
SHARES = ("wrong_as_given", "wrong_as_true", "wrong_as_other")
SELECTED = ("wrong_as_given", "wrong_as_true", "label_precision")


class Explorer(RunPanel):
    """A panel with controls, live curves, earlier tries in grey, and a goal.

    Show it as the last line of a cell. Start trains in the background and returns at once: the
    notebook stays free. The same settings again show the stored run. :meth:`try_out` does the same
    from code, and waits.

    Args:
        dataset: a name of ``datasets.NAMES``, a :class:`~nlcourse.datasets.Dataset`, or several of
            them for a menu.
        noise_kinds: names of ``noise.KINDS``, "none", and mappings from a new name to a function
            ``(dataset, rate, seed) -> dataset``; the first is chosen at the start.
        methods: names of ``methods.METHODS`` or :class:`MethodChoice`; the first is chosen at the
            start.
        options: further controls; each is handed to ``training.fit`` by its name (``weight_decay``,
            say).
        hide: names of controls not to show ("dataset", "noise_kind", "noise_rate", "lr", "method",
            "epochs", or a parameter's name). A menu with one entry is never shown.
        goal: what to reach, or None.
        train: another way to train: ``train(settings, stop, on_epoch) -> History``.
        first: first values of controls by name: ``noise_rate`` (0..0.9), ``lr`` (0.001..10),
            ``epochs``, a method's parameter; or ``seed`` of noise and training: the same settings
            always give the same curves.

    Raises:
        ValueError: an unknown method, kind of noise or control.
    """

    settings_type = Settings

    def __init__(
        self,
        dataset: str | Dataset | Sequence[str | Dataset] = "digits",
        *,
        noise_kinds: NoiseKinds = ("symmetric", "pairflip"),
        methods: Iterable[str | MethodChoice] | str | MethodChoice = (
            "cross-entropy",
            "co-teaching",
        ),
        options: Sequence[Parameter] = (),
        hide: Iterable[str] = (),
        goal: Goal | None = None,
        train: Train | None = None,
        **first: Any,
    ) -> None:
        """Build the panel and get ready for the first Start."""
        several = [dataset] if isinstance(dataset, (str, Dataset)) else dataset
        data = {
            d if isinstance(d, str) else d.name: None if isinstance(d, str) else d for d in several
        }
        noise = noise_choices(noise_kinds)
        methods = [methods] if isinstance(methods, (str, MethodChoice)) else methods
        choices = [method_choice(m) if isinstance(m, str) else m for m in methods]
        entries: list[Parameter | Menu] = [
            Menu("dataset", tuple(data), "data"),
            Menu("noise_kind", tuple(noise), "noise"),
            Parameter("noise_rate", 0.4, 0.0, 0.9, 0.05, percent=True),
            Parameter("lr", 0.05, 1e-3, 10.0, 0.1, log=True, label="learning rate"),
            Menu("method", tuple(choice.name for choice in choices)),
            *options,
            Parameter("epochs", 30, 1, max(120, first.get("epochs", 0)), 1),
        ]
        self.options = tuple(option.name for option in options)
        self.fixed = {"seed": first.pop("seed", 0)}
        self.controls = controls(entries, first)
        parameters = {choice.name: controls(choice.parameters, first) for choice in choices}
        known = {*self.controls, *(name for group in parameters.values() for name in group)}
        for name in (*hide, *first):
            expect_one_of("controls", name, sorted(known))
        single = {e.name for e in entries if isinstance(e, Menu) and len(e.options) == 1}
        self.trainer = train or Trainer(data, noise, choices)
        view = MethodView(
            self.controls, parameters, hidden={*hide, *single}, buttons=self._buttons()
        )
        self.parameters = parameters
        super().__init__(view, goal, self.trainer)
        self._show()
        if isinstance(self.trainer, Trainer):
            ready = threading.Thread(
                target=self._get_ready, args=(self.trainer,), name="nlcourse-ready", daemon=True
            )
            ready.start()
            ready.join(PATIENCE)

    def _changed(self, changes: Mapping[str, Any]) -> Settings:
        method = changes.get("method", self.controls["method"].value)
        expect_one_of("method", method, self.parameters)
        group = self.parameters[method]
        values = self._values({**self.controls, **group}, changes)
        return Settings(
            **{name: values[name] for name in FIELDS},
            parameters=pairs({name: values[name] for name in group}),
            options=pairs({name: values[name] for name in self.options}),
        )

    def _get_ready(self, trainer: Trainer) -> None:
        warm_up()
        settings = self.settings
        if settings.dataset == EMBEDDED or trainer.data[settings.dataset] is not None:
            # What goes wrong here comes up again, and is shown, when Start is pressed.
            with contextlib.suppress(Exception):
                trainer.corrupted(settings)
        for columns in (SHARES, SELECTED):
            render.ALBUM.png(_charts(None, (), settings.epochs, columns))

    def _show_run(self, run: Run) -> None:
        # Many times a second: the words change when a run ends, also one that made way for another.
        if run is self.run:
            self._show_picture()
        if not run.running:
            self._say()

    def _say(self, note: str = "") -> None:
        super()._say(note)
        self.table.value = self._table()  # has a row for the run that is on

    def _charts(self, run: Run | None, ghosts: Sequence[Run]) -> list[render.Chart]:
        lengths = [run.settings.epochs] if run else []
        last = max([*lengths, *(len(ghost.history) for ghost in ghosts)], default=30)
        selects = run and len(run.history) and not isnan(run.history.last["label_precision"])
        return _charts(run, ghosts, last, SELECTED if selects else SHARES)

    def _picture(self) -> str:
        run, ghosts = self.run, self.state.ghosts
        charts = self._charts(run, ghosts)
        words = render.alt_text(run, (), charts)
        return render.image_html(render.ALBUM.png(charts), words, **self._below(run, len(ghosts)))

    def _cells(self, run: Run) -> dict[str, str]:
        settings = run.settings
        noise = f"{settings.noise_kind} {100 * settings.noise_rate:.0f} %"
        cells = {
            "noise": f"{settings.dataset}, {noise}",
            "learning rate": f"{settings.lr:.3g}",
            "method": settings.method_in_words(),
        }
        if not len(run.history):
            return cells | dict.fromkeys(("best test", "last test", "memorized"), "–")
        last, (best, epoch) = run.history.last, run.best()
        memorized = last["wrong_as_given"]
        return cells | {
            "best test": f"{100 * best:.1f} % (epoch {epoch})",
            "last test": f"{100 * last['test_accuracy']:.1f} %",
            "memorized": "–" if isnan(memorized) else f"{100 * memorized:.0f} %",
        }


def _charts(
    run: Run | None, ghosts: Sequence[Run], last: int, columns: Sequence[str]
) -> list[render.Chart]:
    """Accuracies on the left, the wrongly labelled examples on the right."""
    selects = columns == SELECTED
    begun = run is not None and len(run.history) > 0
    nothing_wrong = run is not None and begun and isnan(run.history.last["wrong_as_given"])
    return [
        render.Chart(
            heading,
            [_curve(run if begun else None, name) for name in names],
            [_ghost(ghost, names[0]) for ghost in ghosts],
            f"earlier tries, {plots.LABELS[names[0]].partition(' (')[0]}",
            ylabel=ylabel,
            xlim=(0, last + 0.5),
            note=note,
        )
        for heading, ylabel, names, note in (
            ("Accuracy", "share of the examples (%)", ACCURACIES, ""),
            (
                "Wrong labels, and the labels selected" if selects else "Wrongly labelled examples",
                "share (%)" if selects else "share of them (%)",
                columns,
                "no label is wrong" if nothing_wrong else "",
            ),
        )
    ]


def _curve(run: Run | None, name: str) -> render.Curve:
    values = plots.percent(run.history, name) if run else np.empty(0)
    return render.Curve(plots.LABELS[name], values, plots.STYLES[name])


def _ghost(run: Run, name: str) -> render.Curve:
    return render.Curve(str(run.number), plots.percent(run.history, name))
