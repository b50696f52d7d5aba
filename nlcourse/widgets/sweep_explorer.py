"""A panel that draws a whole sweep at once: test accuracy against the noise rate, over seeds.

Every point is a network of its own. They are small and train as one (``stacked.py``), so that the
sweep takes about as long as a few single runs and its curves can be watched as they change from
epoch to epoch. Runner, state and controls are those of :class:`Explorer`.
"""

from __future__ import annotations

import functools
import threading
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
import numpy as np
from matplotlib.figure import Figure

from .. import plots
from ..history import History
from ..models import mlp
from ..stacked import fit_stacked
from . import render
from .compute import Corruption, Parameter, noise_choices
from .runner import Runner
from .state import Goal, Run, State
from .view import button, control, html, menu

RATES = tuple(rate / 10 for rate in range(9))
CURVES = {
    "best": ("highest over the epochs (chosen with the test labels)", "blue", "-", "o"),
    "last": ("after the last epoch", "vermilion", "--", "s"),
}


@dataclass(frozen=True)
class SweepSettings:
    """Everything that decides a sweep; equal settings give equal curves.

    Attributes:
        noise_kind: how the labels are corrupted.
        lr: learning rate of all networks.
        width: units in each of the two hidden layers.
        seeds: networks at each noise rate; of labels and training.
        epochs: passes through the data.
        rates: the noise rates.
    """

    noise_kind: str
    lr: float
    width: int
    seeds: int
    epochs: int
    rates: tuple[float, ...]

    def in_words(self) -> str:
        """Return one line with all settings."""
        return (
            f"{self.noise_kind} noise, lr {self.lr:.3g}, two layers of {self.width}, "
            f"{self.seeds} {'seed' if self.seeds == 1 else 'seeds'}, {self.epochs} epochs"
        )


class Sweep:
    """The histories of a sweep, one a noise rate and seed.

    Attributes:
        rates: the noise rates.
        histories: those of the first rate first, a history a seed.
    """

    def __init__(self, rates: Sequence[float] = (), histories: Sequence[History] = ()) -> None:
        """Keep both."""
        self.rates, self.histories = tuple(rates), list(histories)

    def __len__(self) -> int:
        """Return the number of finished epochs (a run that diverged has fewer)."""
        return max((len(history) for history in self.histories), default=0)

    @property
    def stopped(self) -> str:
        """Why the sweep ended early, or ""."""
        return next((h.stopped for h in self.histories if "diverged" not in h.stopped), "")

    @property
    def diverged(self) -> int:
        """Number of runs that ended because their loss was no number any more."""
        return sum("diverged" in history.stopped for history in self.histories)

    def test_accuracy(self, which: str) -> np.ndarray:
        """Return percentages ``(rates, seeds)``; nan where a run has no epoch.

        Args:
            which: "best" or "last".
        """
        values = [_test_accuracy(history, which) for history in self.histories]
        return 100 * np.array(values, dtype=float).reshape(len(self.rates), -1)


def _test_accuracy(history: History, which: str) -> float:
    if not len(history):
        return float("nan")
    return history.best() if which == "best" else history.last["test_accuracy"]


@dataclass(repr=False)
class SweepTry(Run):
    """One try; ``history`` is a :class:`Sweep`."""

    settings: SweepSettings
    history: Sweep = field(default_factory=Sweep)

    @property
    def figure(self) -> Figure:
        """A fresh static figure of this sweep."""
        return draw(self)

    def summary(self) -> str:
        """Say in a sentence where the curves begin and end."""
        if not len(self.history):
            return "no epoch finished yet"
        low, high = self.history.rates[0], self.history.rates[-1]
        ends = {name: self.history.test_accuracy(name).mean(axis=1) for name in CURVES}
        words = (
            f"test accuracy in the last epoch {ends['last'][0]:.1f} % at noise rate {low:.0%}, "
            f"{ends['last'][-1]:.1f} % at {high:.0%}; highest {ends['best'][0]:.1f} % and "
            f"{ends['best'][-1]:.1f} %"
        )
        lost = self.history.diverged
        return words + (f"; {lost} of {len(self.history.histories)} runs diverged" if lost else "")


class SweepState(State):
    """Tries of this panel."""

    def begin(self, settings: SweepSettings) -> SweepTry:
        """Make the next try the current one."""
        self._count += 1
        self.current = SweepTry(settings, number=self._count, running=True)
        self.tries.append(self.current)
        return self.current


class NoiseSweep:
    """A panel: choose noise, learning rate, width and seeds; Start draws the sweep as it trains.

    The same settings again show the stored sweep. :meth:`try_out` does the same from code, and
    waits. The method is cross entropy; the networks are MLPs with two hidden layers.

    Args:
        dataset: a name of ``datasets.NAMES`` or a :class:`~nlcourse.datasets.Dataset`.
        noise_kinds: as in :class:`Explorer`; corruptions that change labels alone.
        rates: the noise rates, growing, at least two.
        lr: learning rate at the start.
        width: of the hidden layers at the start.
        seeds: networks at each rate at the start.
        epochs: at the start.
        max_epochs: the highest that the slider gives.
        goal: what to reach, or None; its judge gets a :class:`SweepTry`.

    Raises:
        ValueError: an unknown kind of noise, or rates that do not grow.
    """

    def __init__(
        self,
        dataset="digits",
        *,
        noise_kinds: Iterable[str | Mapping[str, Corruption]] | str = ("symmetric", "pairflip"),
        rates: Sequence[float] = RATES,
        lr: float = 0.05,
        width: int = 64,
        seeds: int = 3,
        epochs: int = 30,
        max_epochs: int = 60,
        goal: Goal | None = None,
    ) -> None:
        """Build the panel; nothing is trained yet."""
        self.rates = tuple(float(rate) for rate in rates)
        if len(self.rates) < 2 or list(self.rates) != sorted(set(self.rates)):
            raise ValueError(f"Expected at least two growing noise `rates`, got {rates}")
        self.dataset = dataset
        self.noise = noise_choices(noise_kinds)
        self.state = SweepState(goal)
        self.controls = self._controls(lr, width, seeds, epochs, max_epochs)
        self.goal, self.status, self.picture = (
            html(f"nlcourse-{name}") for name in ("goal", "status", "figure")
        )
        self.box = self._lay_out()
        self.runner = Runner(self._train, self._show_run, self.state.end)
        self._drawing = threading.RLock()
        self._show()

    @property
    def settings(self) -> SweepSettings:
        """What the controls say now."""
        return self._changed({})

    @property
    def run(self) -> SweepTry | None:
        """The sweep on the figure."""
        return self.state.current

    @property
    def tries(self) -> list[SweepTry]:
        """The latest sweeps, oldest first."""
        return list(self.state.tries)

    def start(self) -> None:
        """Train in the background, or show the stored sweep; what is on stops."""
        settings = self.settings
        if not self._recall(settings):
            run = self.state.begin(settings)
            self._say()
            self.runner.start(run)

    def stop(self) -> None:
        """End the sweep at its next step and keep its curves."""
        self.runner.stop()
        if self.runner.running:
            self._say("Stopping …")

    def clear(self) -> None:
        """Stop, and forget the tries."""
        self.runner.stop()
        self.state.clear()
        self._show()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the background, at most `timeout` seconds; return whether it has ended."""
        return self.runner.wait(timeout)

    def try_out(self, **changes) -> SweepTry:
        """Train and wait, with the controls' values but for some changes.

        Args:
            changes: ``noise_kind``, ``lr``, ``width``, ``seeds``, ``epochs``.

        Returns:
            The try, with its ``history`` (a :class:`Sweep`) and a static ``figure``.

        Raises:
            ValueError: a setting that the panel does not have.
            Exception: whatever ended the sweep.
        """
        settings = self._changed(changes)
        if not self._recall(settings):
            self.runner.blocking(self.state.begin(settings))
        if self.run.error is not None:
            raise self.run.error
        return self.run

    def figure(self) -> Figure:
        """Return the panel's figure as a static one, earlier tries in grey.

        Raises:
            ValueError: nothing was tried yet.
        """
        if self.run is None:
            raise ValueError("Nothing was tried yet: press Start or call `try_out()` first")
        return draw(self.run, self.state.ghosts)

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = self.box._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        # What a reader sees where no kernel runs (GitHub, nbviewer).
        data["text/plain"] = "A live panel: run the notebook in JupyterLab to use it."
        return data

    def _controls(self, lr: float, width: int, seeds: int, epochs: int, max_epochs: int) -> dict:
        kinds = list(self.noise)
        numbers = (
            Parameter("lr", float(lr), 1e-3, 10.0, 0.1, log=True, label="learning rate"),
            Parameter("width", int(width), 8, 256, 8, label="width"),
            Parameter("seeds", int(seeds), 1, 5, 1, label="seeds at each rate"),
            Parameter("epochs", int(epochs), 1, max(max_epochs, epochs), 1),
        )
        controls = {"noise_kind": menu("noise-kind", "noise", kinds, kinds[0])}
        return controls | {parameter.name: control(parameter) for parameter in numbers}

    def _lay_out(self) -> W.VBox:
        wrap = W.Layout(display="flex", flex_flow="row wrap")
        buttons = W.HBox(
            [
                button("Start", "play", "nlcourse-start", self.start, "success"),
                button("Stop", "stop", "nlcourse-stop", self.stop),
                button("Clear tries", "eraser", "nlcourse-clear", self.clear),
            ]
        )
        controls = W.Box(list(self.controls.values()), layout=wrap)
        box = W.VBox([self.goal, controls, buttons, self.status, self.picture])
        box.add_class("nlcourse-explorer")
        return box

    def _changed(self, changes: Mapping[str, object]) -> SweepSettings:
        for name in changes:
            if name not in self.controls:
                known = ", ".join(self.controls)
                raise ValueError(f"Expected settings out of {known}, got {name!r}")
        values = {name: widget.value for name, widget in self.controls.items()} | dict(changes)
        if values["noise_kind"] not in self.noise:
            known = ", ".join(self.noise)
            raise ValueError(f"Expected `noise_kind` out of {known}, got {values['noise_kind']!r}")
        # Sliders step in floats: 0.15000000000000002 and 0.15 are one setting.
        values["lr"] = float(f"{values['lr']:.6g}")
        return SweepSettings(rates=self.rates, **values)

    def _recall(self, settings: SweepSettings) -> bool:
        known = self.state.recall(settings) is not None
        if known:
            self.runner.stop()
            self._show("These settings were trained before:")
        return known

    def _train(self, settings: SweepSettings, stop: threading.Event, on_epoch) -> Sweep:
        clean = self._data()
        corrupt = self.noise[settings.noise_kind]
        grid = [(rate, seed) for rate in settings.rates for seed in range(settings.seeds)]
        histories = fit_stacked(
            [corrupt(clean, rate, seed) for rate, seed in grid],
            seeds=[seed for _, seed in grid],
            network=functools.partial(mlp, hidden=(settings.width, settings.width)),
            epochs=settings.epochs,
            lr=settings.lr,
            progress=False,
            stop=stop,
            on_epoch=lambda histories: on_epoch(Sweep(settings.rates, histories)),
        )
        return Sweep(settings.rates, histories)

    def _data(self):
        if isinstance(self.dataset, str):
            from .. import datasets

            self.dataset = datasets.load(self.dataset)
        return self.dataset

    def _show_run(self, run: SweepTry) -> None:
        if run is self.state.current:
            self._show()

    def _show(self, note: str = "") -> None:
        with self._drawing:
            run, ghosts = self.run, self.state.ghosts
            self.picture.value = figure_html(draw(run, ghosts), run, len(ghosts))
        self._say(note)

    def _say(self, note: str = "") -> None:
        self.goal.value = render.goal_html(self.state.goal)
        self.status.value = render.status_html(self.run, note)


# ---- render --------------------------------------------------------------------------------------


def draw(run: SweepTry | None, ghosts: Sequence[SweepTry] = ()) -> Figure:
    """Return the figure of a sweep: two curves with the spread over the seeds behind them."""
    figure, (axes,) = plots.new_figure(width=9, height=4.2, layout=None)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.9, bottom=0.3)
    axes.set_title(run.settings.in_words() if run else "No sweep yet", fontsize=plots.FONT)
    rates = 100 * np.array(run.settings.rates if run else RATES)
    for ghost in ghosts:
        _haunt(axes, ghost)
    for name, (label, colour, dash, marker) in CURVES.items():
        if run is None or not len(run.history):
            continue
        values, colour = run.history.test_accuracy(name), plots.COLOURS[colour]
        axes.plot(rates, values.mean(axis=1), label=label, color=colour, linestyle=dash,
                  marker=marker, linewidth=2, zorder=3, clip_on=False)  # fmt: skip
        axes.fill_between(rates, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.18,
                          linewidth=0)  # fmt: skip
    _finish(axes, rates)
    figure.alt_text = alt_text(run, ghosts)
    return figure


def _haunt(axes, ghost: SweepTry) -> None:
    values = ghost.history.test_accuracy("last").mean(axis=1)
    rates = 100 * np.array(ghost.settings.rates)
    label = "earlier tries, after the last epoch"
    known = label in axes.get_legend_handles_labels()[1]
    axes.plot(rates, values, color=render.GHOST, linewidth=1, label=None if known else label)
    axes.annotate(
        str(ghost.number), (rates[-1], values[-1]), textcoords="offset points", xytext=(4, -3),
        fontsize=plots.SMALL_FONT, color="#555555", annotation_clip=False,
    )  # fmt: skip


def _finish(axes, rates: np.ndarray) -> None:
    axes.set_xlabel("noise rate (%)", fontsize=plots.FONT)
    axes.set_ylabel("test accuracy (%)", fontsize=plots.FONT)
    axes.set_xlim(rates[0], rates[-1])
    axes.set_ylim(0, 102)
    axes.set_xticks(rates)
    axes.tick_params(labelsize=plots.SMALL_FONT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), fontsize=plots.SMALL_FONT,
                    frameon=False, handlelength=3, labelspacing=0.25)  # fmt: skip


def alt_text(run: SweepTry | None, ghosts: Sequence[SweepTry] = ()) -> str:
    """Say what the figure shows, from its numbers."""
    if run is None or not len(run.history):
        return "An empty chart, test accuracy against noise rate: no sweep yet."
    rates = [100 * rate for rate in run.settings.rates]
    told = [
        plots.line_in_words(
            label, run.history.test_accuracy(name).mean(axis=1), rates, "noise rate"
        )
        for name, (label, *_) in CURVES.items()
    ]
    grey = [f"In grey, try {g.number}, {g.settings.in_words()}: {g.summary()}." for g in ghosts]
    return (
        f"Test accuracy in percent against the noise rate in percent, {run.settings.in_words()}, "
        f"means over the seeds. {' '.join([*told, *grey])}"
    )


def figure_html(figure: Figure, run: SweepTry | None, ghosts: int = 0) -> str:
    """Return picture, alternative text and caption as one piece of HTML.

    The caption is a polite live region, busy while the sweep is on.
    """
    words = "Choose settings, then press Start."
    if run is not None:
        where = f"epoch {len(run.history)} of {run.settings.epochs}"
        words = f"Try {run.number}, {where}: {run.summary()}."
    if ghosts:
        words += f" In grey: {ghosts} earlier {'try' if ghosts == 1 else 'tries'}."
    busy = "true" if run is not None and run.running else "false"
    source = b64encode(plots.png(figure)).decode()
    return (
        f'<figure style="margin:0" aria-busy="{busy}">'
        f'<img alt="{escape(figure.alt_text)}" style="max-width:100%" '
        f'src="data:image/png;base64,{source}">'
        f'<figcaption aria-live="polite">{escape(words)}</figcaption></figure>'
    )
