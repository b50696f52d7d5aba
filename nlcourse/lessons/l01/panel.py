"""A panel that draws a whole sweep at once: test accuracy against the noise rate, over seeds.

Every point is a network of its own. They are small and train as one (``stacked.py``), so that the
sweep takes about as long as a few single runs and its curves can be watched as they change from
epoch to epoch. Runner, state and controls are those of :class:`Explorer`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from ...panels import plots, render
from ...panels.compute import Corruption, Parameter, check_choice, load, noise_choices, settled
from ...panels.panel import RunPanel
from ...panels.state import Goal, Run, State
from ...panels.view import View, control, menu
from ...training import Options
from ...training.history import History
from ...training.networks import mlp
from ...training.stacked import StackedRun, fit_stacked

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
        stopped: why the sweep ended early, or "".
    """

    def __init__(self, rates: Sequence[float] = (), histories: Sequence[History] = ()) -> None:
        """Keep both."""
        self.rates, self.histories = tuple(rates), list(histories)
        ends = (history.stopped for history in self.histories)
        self.stopped = next((end for end in ends if "diverged" not in end), "")

    def __len__(self) -> int:
        """Return the number of finished epochs (a run that diverged has fewer)."""
        return max((len(history) for history in self.histories), default=0)

    @property
    def diverged(self) -> int:
        """Number of runs that ended because their loss was no number any more."""
        return sum("diverged" in history.stopped for history in self.histories)

    @property
    def all_diverged(self) -> bool:
        """No run is left."""
        return 0 < self.diverged == len(self.histories)

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
    def finished(self) -> bool:
        """All epochs were trained, or no run is left to train."""
        ended = not self.running and self.error is None
        return super().finished or (ended and self.history.all_diverged)

    @property
    def figure(self) -> Figure:
        """A fresh static figure of this sweep."""
        return draw(self)

    def summary(self) -> str:
        """Say in a sentence where the curves begin and end."""
        if self.history.all_diverged:
            lost = len(self.history.histories)
            return f"all {lost} runs diverged: take a smaller learning rate"
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

    run_type = SweepTry

    def judge(self, run: SweepTry) -> tuple[bool | None, str]:
        """Return whether a sweep reaches the goal, or None, and a sentence."""
        if run.history.all_diverged:  # nothing for a goal's judge to look at
            return None if self.goal is None else False, run.summary()
        return super().judge(run)


class NoiseSweep(RunPanel):
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
        self.controls = self._controls(lr, width, seeds, epochs, max_epochs)
        view = View(self.controls.values(), buttons=self._buttons())
        super().__init__(SweepState(goal), view, self._train)
        self._show()

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
        return self._try(self._changed(changes))

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

    def _changed(self, changes: Mapping[str, object]) -> SweepSettings:
        values = self._values(changes)
        check_choice("`noise_kind`", values["noise_kind"], self.noise)
        values["lr"] = settled(values["lr"])
        return SweepSettings(rates=self.rates, **values)

    def _train(self, settings: SweepSettings, stop: threading.Event, on_epoch) -> Sweep:
        # Kept, so that the next sweep does not read it anew.
        clean = self.dataset = load(self.dataset)
        corrupt = self.noise[settings.noise_kind]
        grid = [(rate, seed) for rate in settings.rates for seed in range(settings.seeds)]
        histories = fit_stacked(
            [StackedRun(corrupt(clean, rate, seed), seed, settings.lr) for rate, seed in grid],
            network=functools.partial(mlp, hidden=(settings.width, settings.width)),
            epochs=settings.epochs,
            progress=False,
            options=Options(stop=stop),
            on_epoch=lambda histories: on_epoch(Sweep(settings.rates, histories)),
        )
        return Sweep(settings.rates, histories)

    def _draw(self, run: SweepTry | None, ghosts: Sequence[SweepTry]) -> Figure:
        return draw(run, ghosts)

    def _caption(self, run: SweepTry | None, ghosts: int) -> str:
        if run is None:
            return "Choose settings, then press Start."
        where = f"epoch {len(run.history)} of {run.settings.epochs}"
        return f"Try {run.number}, {where}: {run.summary()}.{render.in_grey(ghosts)}"


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
    plots.tidy(axes)
    if axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), fontsize=plots.SMALL_FONT,
                    frameon=False, handlelength=3, labelspacing=0.25)  # fmt: skip


def alt_text(run: SweepTry | None, ghosts: Sequence[SweepTry] = ()) -> str:
    """Say what the figure shows, from its numbers."""
    if run is None or not len(run.history):
        why = "no sweep yet" if run is None else run.summary()
        return f"An empty chart, test accuracy against noise rate: {why}."
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
