"""The explorer: a live panel on which a network learns from noisy labels. Used in every lesson.

It ties the four rooms of this package together: what the panel remembers (``state``), what it
trains (``compute``, in the thread of ``runner``), how that looks (``render``) and the widgets
(``view``). What it shares with the other panels is in ``panel``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from matplotlib.figure import Figure

from . import render
from .compute import (
    Corruption,
    MethodChoice,
    Parameter,
    Trainer,
    check_choice,
    method_choice,
    noise_choices,
    settled,
    warm_up,
)
from .panel import RunPanel
from .runner import Train
from .state import Goal, Run, Settings, State, pairs
from .view import MethodView, control, menu

MENUS = {"dataset": "data", "noise_kind": "noise", "method": "method"}
EMBEDDED = "digits"  # can be made ready without asking: nothing is downloaded
PATIENCE = 3.0  # seconds: the panel appears when it is ready for Start, or after these
FIELDS = {field.name for field in fields(Settings)} - {"parameters", "options"}


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
        noise_rate: share of corrupted examples at the start, 0..0.9.
        lr: learning rate at the start, 0.001..10.
        epochs: at the start.
        max_epochs: the highest that the slider gives.
        parameters: other first values for parameters of the methods, by name.
        options: further controls; each is handed to ``training.fit`` by its name (``weight_decay``,
            say).
        hide: names of controls not to show ("dataset", "noise_kind", "noise_rate", "lr", "method",
            "epochs", or a parameter's name). A menu with one entry is never shown.
        goal: what to reach, or None.
        seed: of noise and training: the same settings always give the same curves.
        fit_options: fixed arguments of ``training.fit``, for example ``{"network": "small-cnn"}``.
        train: another way to train: ``train(settings, stop, on_epoch) -> History``.

    Raises:
        ValueError: an unknown method, kind of noise or control.
    """

    def __init__(
        self,
        dataset="digits",
        *,
        noise_kinds: Iterable[str | Mapping[str, Corruption]] | str = ("symmetric", "pairflip"),
        methods: Iterable[str | MethodChoice] | str | MethodChoice = (
            "cross-entropy",
            "co-teaching",
        ),
        noise_rate: float = 0.4,
        lr: float = 0.05,
        epochs: int = 30,
        max_epochs: int = 120,
        parameters: Mapping[str, object] | None = None,
        options: Sequence[Parameter] = (),
        hide: Iterable[str] = (),
        goal: Goal | None = None,
        seed: int = 0,
        fit_options: Mapping[str, object] | None = None,
        train: Train | None = None,
    ) -> None:
        """Build the panel and get ready for the first Start."""
        data = _named(dataset)
        noise = noise_choices(noise_kinds)
        methods = [methods] if isinstance(methods, (str, MethodChoice)) else methods
        choices = [method_choice(m) if isinstance(m, str) else m for m in methods]
        menus = {"dataset": list(data), "noise_kind": list(noise)}
        menus["method"] = [choice.name for choice in choices]
        self.seed = seed
        self.options = tuple(options)
        self.controls = self._controls(menus, noise_rate, lr, epochs, max_epochs)
        single = {name for name, entries in menus.items() if len(entries) == 1}
        self._check_hidden(hide, choices)
        self.trainer = train or Trainer(data, noise, choices, fit_options)
        view = MethodView(
            self.controls, hidden={*hide, *single}, methods=choices, buttons=self._buttons()
        )
        super().__init__(State(goal), view, self.trainer)
        self._set_first_values(parameters or {})
        self._drawing = render.ALBUM.lock  # the pictures are shared by all panels
        self._show()
        if train is None:
            ready = threading.Thread(target=self._get_ready, name="nlcourse-ready", daemon=True)
            ready.start()
            ready.join(PATIENCE)

    def try_out(self, **changes) -> Run:
        """Train and wait, with the settings of the controls but for some changes.

        The panel follows live. The ■ button ends it cleanly: what was trained is kept and returned.

        Args:
            changes: settings by name (``noise_rate=0.2``, ``lr=0.01``, ``method="co-teaching"``),
                parameters of the method (``ramp_epochs=5``) or options.

        Returns:
            The run, with its ``history`` and a static ``figure`` for ``plots.show``.

        Raises:
            ValueError: a setting that the panel does not have.
            Exception: whatever ended the run; the panel shows it, too.
        """
        return self._try(self._changed(changes))

    def _controls(self, menus, noise_rate, lr, epochs, max_epochs) -> dict:
        controls = {
            name: menu(name.replace("_", "-"), MENUS[name], entries, entries[0])
            for name, entries in menus.items()
        }
        numbers = (
            Parameter("noise_rate", float(noise_rate), 0.0, 0.9, 0.05, percent=True),
            Parameter("lr", float(lr), 1e-3, 10.0, 0.1, log=True, label="learning rate"),
            *self.options,
            Parameter("epochs", int(epochs), 1, max(max_epochs, epochs), 1),
        )
        controls |= {parameter.name: control(parameter) for parameter in numbers}
        order = ("dataset", "noise_kind", "noise_rate", "lr", "method")
        return {name: controls.pop(name) for name in order} | controls

    def _check_hidden(self, hide: Iterable[str], choices: Sequence[MethodChoice]) -> None:
        known = {*self.controls, *(p.name for choice in choices for p in choice.parameters)}
        for name in hide:
            check_choice("`hide`", name, sorted(known))

    def _set_first_values(self, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            owners = [group for group in self.view.parameters.values() if name in group]
            if not owners:
                raise ValueError(f"No method of this panel has a parameter {name!r}")
            for group in owners:
                group[name].value = value

    def _changed(self, changes: Mapping[str, object]) -> Settings:
        method = changes.get("method", self.controls["method"].value)
        check_choice("`method`", method, self.controls["method"].options)
        group = {name: widget.value for name, widget in self.view.parameters[method].items()}
        values = self._values(changes, seed=self.seed, **group)
        for name in MENUS:
            check_choice(f"`{name}`", values[name], self.controls[name].options)
        values |= {name: settled(values[name]) for name in ("noise_rate", "lr")}
        return Settings(
            **{name: values[name] for name in FIELDS},
            parameters=pairs({name: values[name] for name in group}),
            options=pairs({parameter.name: values[parameter.name] for parameter in self.options}),
        )

    def _get_ready(self) -> None:
        warm_up()
        settings = self.settings
        if settings.dataset == EMBEDDED or self.trainer.data[settings.dataset] is not None:
            # What goes wrong here comes up again, and is shown, when Start is pressed.
            with contextlib.suppress(Exception):
                self.trainer.corrupted(settings)
        for haunted in (False, True):
            for columns in (render.SHARES, render.SELECTED):
                with self._drawing:
                    render.ALBUM.picture(self.settings.epochs, columns, haunted)

    def _show_run(self, run: Run) -> None:
        # Many times a second: the words change when a run ends, also one that made way for another.
        if run is self.run:
            self._show_picture()
        if not run.running:
            self._say()

    def _say(self, note: str = "") -> None:
        super()._say(note)
        self.table.value = self._table()  # has a row for the run that is on

    def _draw(self, run: Run, ghosts: Sequence[Run]) -> Figure:
        return render.static_figure(run, ghosts)

    def _picture(self) -> str:
        run, ghosts = self.run, self.state.ghosts
        return render.figure_html(render.ALBUM.draw(run, ghosts), run, len(ghosts))

    def _table(self) -> str:
        return render.tries_html(self.state)


def _named(dataset) -> dict[str, object]:
    """Return the data on offer: name -> data set, None where it is still to be loaded."""
    several = dataset if isinstance(dataset, (list, tuple)) else [dataset]
    return {d: None for d in several if isinstance(d, str)} | {
        d.name: d for d in several if not isinstance(d, str)
    }
