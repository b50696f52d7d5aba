"""A panel that draws a whole sweep at once: test accuracy against the noise rate, over seeds.

Every point is a network of its own. They are small and train as one (``stacked.py``), so that the
sweep takes about as long as a few single runs and its curves can be watched as they change from
epoch to epoch.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...base import expect
from ...datasets import Dataset
from ...panels import render
from ...panels.compute import Menu, NoiseKinds, OnEpoch, Parameter, load, noise_choices
from ...panels.panel import RunPanel
from ...panels.state import Goal, Run, State
from ...panels.view import View, controls
from ...training import Options
from ...training.history import History
from ...training.networks import mlp
from ...training.stacked import StackedRun, fit_stacked

RATES = tuple(rate / 10 for rate in range(9))
CURVES = {
    "best": ("highest over the epochs (chosen with the test labels)", ("blue", "-", "o")),
    "last": ("after the last epoch", ("vermilion", "--", "s")),
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
        diverged: number of runs that ended because their loss was no number any more.
        all_diverged: no run is left.
    """

    def __init__(self, rates: Sequence[float] = (), histories: Sequence[History] = ()) -> None:
        """Keep both."""
        self.rates, self.histories = tuple(rates), list(histories)
        ends = [history.stopped for history in self.histories]
        self.stopped = next((end for end in ends if "diverged" not in end), "")
        self.diverged = sum("diverged" in end for end in ends)
        self.all_diverged = 0 < self.diverged == len(ends)

    def __len__(self) -> int:
        """Return the number of finished epochs (a run that diverged has fewer)."""
        return max((len(history) for history in self.histories), default=0)

    def test_accuracy(self, which: str) -> np.ndarray:
        """Return percentages ``(rates, seeds)``, "best" or "last"; nan where a run has no epoch."""
        values = [
            (history.best() if which == "best" else history.last["test_accuracy"])
            if len(history)
            else float("nan")
            for history in self.histories
        ]
        return 100 * np.array(values, dtype=float).reshape(len(self.rates), -1)


@dataclass(repr=False, eq=False)
class SweepTry(Run[SweepSettings, Sweep]):
    """One try; ``history`` is a :class:`Sweep`."""

    history: Sweep = field(default_factory=Sweep)

    @property
    def finished(self) -> bool:
        """All epochs were trained, or no run is left to train."""
        ended = not self.running and self.error is None
        return super().finished or (ended and self.history.all_diverged)

    def summary(self) -> str:
        """Say in a sentence where the curves begin and end."""
        runs = len(self.history.histories)
        if self.history.all_diverged:
            return f"all {runs} runs diverged: take a smaller learning rate"
        if not len(self.history):
            return "no epoch finished yet"
        low, high = self.history.rates[0], self.history.rates[-1]
        last, best = (self.history.test_accuracy(name).mean(axis=1) for name in ("last", "best"))
        lost = self.history.diverged
        return (
            f"test accuracy in the last epoch {last[0]:.1f} % at noise rate {low:.0%}, "
            f"{last[-1]:.1f} % at {high:.0%}; highest {best[0]:.1f} % and {best[-1]:.1f} %"
        ) + (f"; {lost} of {runs} runs diverged" if lost else "")


class SweepState(State):
    """Tries of this panel."""

    run_type = SweepTry

    def judge(self, run: Run) -> tuple[bool | None, str]:
        """Return whether a sweep reaches the goal, or None, and a sentence."""
        if run.history.all_diverged:  # nothing for a goal's judge to look at
            return None if self.goal is None else False, run.summary()
        return super().judge(run)


class NoiseSweep(RunPanel):
    """A panel: choose noise, learning rate, width and seeds; Start draws the sweep as it trains.

    The method is cross entropy; the networks are MLPs with two hidden layers.

    Args:
        dataset: a name of ``datasets.NAMES`` or a :class:`~nlcourse.datasets.Dataset`.
        noise_kinds: as in :class:`Explorer`; corruptions that change labels alone.
        rates: the noise rates, growing, at least two.
        goal: what to reach, or None; its judge gets a :class:`SweepTry`.
        first: first values of ``lr``, ``width``, ``seeds`` (networks at each rate) and ``epochs``.

    Raises:
        ValueError: an unknown kind of noise, or rates that do not grow.
    """

    settings_type = SweepSettings
    state_type = SweepState

    def __init__(
        self,
        dataset: str | Dataset = "digits",
        *,
        noise_kinds: NoiseKinds = ("symmetric", "pairflip"),
        rates: Sequence[float] = RATES,
        goal: Goal | None = None,
        **first: Any,
    ) -> None:
        """Build the panel; nothing is trained yet."""
        grow = len(rates) >= 2 and list(rates) == sorted(set(rates))
        expect(grow, "at least two growing noise `rates`", rates)
        self.fixed = {"rates": tuple(float(rate) for rate in rates)}
        self.dataset, self.noise = dataset, noise_choices(noise_kinds)
        entries = (
            Menu("noise_kind", tuple(self.noise), "noise"),
            Parameter("lr", 0.05, 1e-3, 10.0, 0.1, log=True, label="learning rate"),
            Parameter("width", 64, 8, 256, 8),
            Parameter("seeds", 3, 1, 5, 1, label="seeds at each rate"),
            Parameter("epochs", 30, 1, max(60, first.get("epochs", 0)), 1),
        )
        self.controls = controls(entries, first)
        view = View(self.controls.values(), buttons=self._buttons())
        super().__init__(view, goal, self._train)
        self._show()

    def _train(self, settings: SweepSettings, stop: threading.Event, on_epoch: OnEpoch) -> Sweep:
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

    def _charts(self, run: SweepTry | None, ghosts: Sequence[SweepTry]) -> list[render.Chart]:
        curves, rates = [], _percentages(run or self)
        for name, (label, look) in CURVES.items() if run and len(run.history) else ():
            values = run.history.test_accuracy(name) if run else np.empty((0, 0))
            spread = values.min(axis=1), values.max(axis=1)
            curves.append(render.Curve(label, values.mean(axis=1), look, rates, spread))
        grey = [
            render.Curve(
                str(one.number), one.history.test_accuracy("last").mean(axis=1), x=_percentages(one)
            )
            for one in ghosts
        ]
        return [
            render.Chart(
                "Means and spread over the seeds",
                curves,
                grey,
                "earlier tries, after the last epoch",
                xlabel="noise rate (%)",
                ylabel="test accuracy (%)",
                xlim=(rates[0], rates[-1]),
            )
        ]


def _percentages(of: SweepTry | NoiseSweep) -> np.ndarray:
    """Return the noise rates of a try, or of the panel, in percent."""
    return 100 * np.array(of.settings.rates)
