"""The explorer: a live panel on which a network learns from noisy labels. Used in every lesson.

It ties the four rooms of this package together: what the panel remembers (``state``), what it
trains (``compute``, in the thread of ``runner``), how that looks (``render``) and the widgets
(``view``).
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
    method_choice,
    noise_choices,
    warm_up,
)
from .runner import Runner, Train
from .state import Goal, Run, Settings, State, pairs
from .view import View, control, menu

MENUS = {"dataset": "data", "noise_kind": "noise", "method": "method"}
EMBEDDED = "digits"  # can be made ready without asking: nothing is downloaded
PATIENCE = 3.0  # seconds: the panel appears when it is ready for Start, or after these
FIELDS = {field.name for field in fields(Settings)} - {"parameters", "options"}


class Explorer:
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
        self.state = State(goal)
        self.controls = self._controls(menus, noise_rate, lr, epochs, max_epochs)
        single = {name for name, entries in menus.items() if len(entries) == 1}
        self._check_hidden(hide, choices)
        self.view = View(
            self.controls,
            hidden={*hide, *single},
            methods=choices,
            on_start=self.start,
            on_stop=self.stop,
            on_clear=self.clear,
        )
        self._set_first_values(parameters or {})
        self.trainer = train or Trainer(data, noise, choices, fit_options)
        self.runner = Runner(self.trainer, self._show_run, self.state.end)
        # The worker and the cell may want to draw at the same time, and there is one figure.
        self._album, self._drawing = render.ALBUM, render.ALBUM.lock
        self._show_all()
        if train is None:
            ready = threading.Thread(target=self._get_ready, name="nlcourse-ready", daemon=True)
            ready.start()
            ready.join(PATIENCE)

    def start(self) -> None:
        """Train with the settings of the controls in the background, or show the stored run.

        A run that is on is stopped.
        """
        settings = self.settings
        if self._recall(settings) is None:
            run = self.state.begin(settings)
            self._show_words()
            self.runner.start(run)

    def stop(self) -> None:
        """End the run at its next step and keep its curve."""
        self.runner.stop()
        if self.runner.running:
            self._show_words("Stopping …")

    def clear(self) -> None:
        """Stop, and forget the tries and their ghosts."""
        self.runner.stop()
        self.state.clear()
        self._show_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the run, at most `timeout` seconds; return whether it has ended."""
        return self.runner.wait(timeout)

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
        settings = self._changed(changes)
        run = self._recall(settings)
        if run is None:
            run = self.state.begin(settings)
            self._show_words()
            self.runner.blocking(run)
        if run.error is not None:
            raise run.error
        return run

    def figure(self) -> Figure:
        """Return what the panel shows as a static figure, with earlier tries in grey.

        Raises:
            ValueError: nothing was tried yet.
        """
        if self.state.current is None:
            raise ValueError("Nothing was tried yet: press Start or call `try_out()` first")
        return render.static_figure(self.state.current, self.state.ghosts)

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        return self._changed({})

    @property
    def run(self) -> Run | None:
        """The run on the figure."""
        return self.state.current

    @property
    def tries(self) -> list[Run]:
        """The latest runs, oldest first."""
        return list(self.state.tries)

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = self.view.box._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        # What a reader sees where no kernel runs (GitHub, nbviewer).
        data["text/plain"] = "A live panel: run the notebook in JupyterLab to use it."
        return data

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
            if name not in known:
                raise ValueError(f"Expected `hide` out of {', '.join(sorted(known))}, got {name!r}")

    def _set_first_values(self, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            owners = [group for group in self.view.parameters.values() if name in group]
            if not owners:
                raise ValueError(f"No method of this panel has a parameter {name!r}")
            for group in owners:
                group[name].value = value

    def _changed(self, changes: Mapping[str, object]) -> Settings:
        """Return the settings of the controls with some changes."""
        values = {name: widget.value for name, widget in self.controls.items()} | dict(changes)
        values.setdefault("seed", self.seed)
        self._check_entries(values)
        group = self.view.parameters[values["method"]]
        options = {parameter.name for parameter in self.options}
        unknown = set(values) - FIELDS - options - set(group)
        if unknown:
            known = ", ".join(sorted({*FIELDS, *options, *group}))
            raise ValueError(f"Expected settings out of {known}, got {sorted(unknown)[0]!r}")
        plain = {name: values[name] for name in FIELDS}
        # Sliders step in floats: 0.15000000000000002 and 0.15 are one setting, and one entry of the
        # cache.
        plain |= {name: float(f"{plain[name]:.6g}") for name in ("noise_rate", "lr")}
        return Settings(
            **plain,
            parameters=pairs({name: values.get(name, w.value) for name, w in group.items()}),
            options=pairs({name: values[name] for name in options}),
        )

    def _check_entries(self, values: Mapping[str, object]) -> None:
        for name in MENUS:
            entries = self.controls[name].options
            if values[name] not in entries:
                raise ValueError(
                    f"Expected `{name}` out of {', '.join(entries)}, got {values[name]!r}"
                )

    def _recall(self, settings: Settings) -> Run | None:
        run = self.state.recall(settings)
        if run is not None:
            self.runner.stop()
            self._show_all("These settings were trained before:")
        return run

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
                    self._album.picture(self.settings.epochs, columns, haunted)

    def _show_run(self, run: Run) -> None:
        if run is self.state.current:
            self._show_picture()
        if not run.running:
            self._show_words()

    def _show_all(self, note: str = "") -> None:
        self._show_picture()
        self._show_words(note)

    def _show_picture(self) -> None:
        with self._drawing:
            run, ghosts = self.state.current, self.state.ghosts
            picture = self._album.draw(run, ghosts)
            self.view.figure.value = render.figure_html(picture, run, len(ghosts))

    def _show_words(self, note: str = "") -> None:
        self.view.goal.value = render.goal_html(self.state.goal)
        self.view.status.value = render.status_html(self.state.current, note)
        self.view.tries.value = render.tries_html(self.state)


def _named(dataset) -> dict[str, object]:
    """Return the data on offer: name -> data set, None where it is still to be loaded."""
    several = dataset if isinstance(dataset, (list, tuple)) else [dataset]
    return {d: None for d in several if isinstance(d, str)} | {
        d.name: d for d in several if not isinstance(d, str)
    }
