"""The explorer of lesson 04: the linear model of early learning, answering as a slider moves.

A run takes a tenth of a second, so there is no Start button.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
import numpy as np
import torch

from ...base import expect_one_of
from ...panels import plots, render
from ...panels.compute import OnEpoch, Parameter
from ...panels.panel import RunPanel
from ...panels.state import Goal, Run, State
from ...panels.view import View, button, controls
from . import linear

SETTLE = 0.12  # seconds a slider has to rest before its value is computed
CONTROLS = (
    Parameter("sigma", 0.1, 0.02, 0.6, 0.02, label="spread sigma"),
    Parameter("flip", 0.4, 0.05, 0.6, 0.05, label="flip probability"),
    Parameter("ratio", 0.85, 0.2, 1.5, 0.05, label="p / n"),
    Parameter("lr", 0.5, 1e-3, 10.0, 0.1, log=True, label="step size"),
    Parameter("lambda_", 0.0, 0.0, 5.0, 0.5, label="ELR, lambda"),
)
LEFT = {
    "clean_as_true": ("rightly labelled, as their class", ("blue", "-", "o")),
    "wrong_as_true": ("wrongly labelled, as their true class", ("green", "-.", "^")),
    "wrong_as_given": ("wrongly labelled, memorized", ("vermilion", "--", "s")),
}
RIGHT = {
    "clean_coefficient": ("size of the coefficient, rightly labelled", ("blue", "-", "o")),
    "wrong_coefficient": ("size of the coefficient, wrongly labelled", ("vermilion", "--", "s")),
    "alignment": ("alignment of minus the gradient with v", ("black", ":", "D")),
}


@dataclass(frozen=True)
class LinearSettings:
    """Everything that decides a run; equal settings give equal curves.

    Attributes:
        sigma: spread of the two Gaussians.
        flip: probability of a wrong label.
        ratio: p / n; p stays and n follows.
        lr: step size.
        lambda_: weight of ELR; 0 is cross entropy.
        p: number of features.
        steps: of gradient descent.
        seed: of data and first weights.
    """

    sigma: float = 0.1
    flip: float = 0.4
    ratio: float = 0.85
    lr: float = 0.5
    lambda_: float = 0.0
    p: int = 100
    steps: int = 10_000
    seed: int = 0

    @property
    def n(self) -> int:
        """Number of examples."""
        return max(1, round(self.p / self.ratio))

    @property
    def inside(self) -> bool:
        """Whether p / n lies where the theorem speaks."""
        low, high = linear.region(self.flip)
        return low < self.p / self.n < high

    def in_words(self) -> str:
        """Return one line with all settings."""
        loss = f"ELR lambda {self.lambda_:g}" if self.lambda_ else "cross entropy"
        where = "inside" if self.inside else "outside"
        return (
            f"sigma {self.sigma:g}, flip {self.flip:g}, p/n {self.ratio:g} ({where} the region), "
            f"step size {self.lr:.3g}, {loss}"
        )


def _nothing() -> linear.Descent:
    return linear.Descent([], torch.zeros(2, 1, dtype=torch.float64))


@dataclass(repr=False, eq=False)
class LinearRun(Run[LinearSettings, linear.Descent]):
    """One try; ``history`` is a :class:`nlcourse.lessons.l04.linear.Descent`."""

    history: linear.Descent = field(default_factory=_nothing)

    @property
    def finished(self) -> bool:
        """All steps were taken."""
        whole = len(self.history) > 0 and not self.history.stopped
        return not self.running and self.error is None and whole

    def heading(self) -> str:
        """Return what the caption calls this run."""
        return f"Try {self.number}"

    def summary(self) -> str:
        """Say in a sentence where the curves stand."""
        if not len(self.history):
            return "nothing computed yet"
        best, step = self.history.peak("wrong_as_true")
        return (
            f"wrongly labelled seen through: {best:.0%} at step {step}, "
            f"{self.history['wrong_as_true'][-1]:.0%} at the end; rightly labelled right at the "
            f"end: {self.history['clean_as_true'][-1]:.0%}"
        )


class LinearState(State):
    """Tries of this panel; values that a slider only passed leave no trace."""

    run_type = LinearRun

    def end(self, run: Run) -> None:
        """Judge a run that has ended; forget it when a later one took its place."""
        super().end(run)
        if run.error is None and not run.finished and run in self.tries:
            self.tries.remove(run)


class LinearExplorer(RunPanel):
    """A panel with sliders for sigma, flip probability, p/n, step size and ELR's lambda.

    Show it as the last line of a cell. Moving a slider computes in the background and draws when
    done; earlier tries stay in grey, known settings come from memory.

    Args:
        goal: what to reach, or None.
        first: first values of the settings (see :class:`LinearSettings`) by name.

    Raises:
        ValueError: an unknown setting.
    """

    settings_type = LinearSettings
    state_type = LinearState
    first = "Move a slider."
    recalled = "These settings were computed before:"
    busy = "Computing …"
    again = "Move a slider."
    size = (4.8, 0.4)
    caption = "Your tries; best and end: wrongly labelled predicted as their true class"

    def __init__(self, *, goal: Goal | None = None, **first: Any) -> None:
        """Build the panel; the first picture comes with the first value."""
        self.fixed = {"p": 100, "steps": 10_000, "seed": 0}
        for name in first:
            expect_one_of("settings", name, (*(entry.name for entry in CONTROLS), *self.fixed))
        self.fixed |= {name: value for name, value in first.items() if name in self.fixed}
        self.controls = controls(CONTROLS, first)
        view = View(self.controls.values(), buttons=self._buttons())
        super().__init__(view, goal, self._compute)
        self._settle = 0.0
        for widget in self.controls.values():
            widget.continuous_update = True
            widget.observe(lambda change: self.start(), "value")
        self._show()

    def start(self) -> None:
        """Compute for the controls' values in the background; what is on stops."""
        self._settle = SETTLE
        super().start()

    def _try(self, settings: LinearSettings) -> Run:
        self.wait()  # what a slider asked for may be this very run
        self._settle = 0.0
        return super()._try(settings)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        if self.run is None:
            self.start()
        return super()._repr_mimebundle_(**kwargs)

    def _buttons(self) -> list[W.Button]:
        return [button("Clear tries", "eraser", "nlcourse-clear", self.clear)]

    def _compute(
        self, settings: LinearSettings, stop: threading.Event, on_epoch: OnEpoch
    ) -> linear.Descent:
        if stop.wait(self._settle):  # the slider has moved on
            return _nothing()
        return compute(settings, stop)

    def _charts(self, run: LinearRun | None, ghosts: Sequence[LinearRun]) -> list[render.Chart]:
        history = run.history if run else _nothing()
        grey = [
            render.Curve(str(g.number), 100 * g.history["wrong_as_true"], x=g.history["step"])
            for g in ghosts
        ]
        return [
            render.Chart(
                heading,
                [
                    render.Curve(label, _shown(history, name), look, history["step"])
                    for name, (label, look) in (curves.items() if len(history) else ())
                ],
                ghosts,
                "earlier tries, wrongly labelled as their true class",
                xlabel="step",
                ylabel="",
                ylim=ylim,
                xscale="symlog",
            )
            for heading, curves, ghosts, ylim in (
                ("Predictions (%)", LEFT, grey, (-2, 102)),
                ("Coefficients and alignment", RIGHT, (), (-1.05, 1.05)),
            )
        ]

    def _draw(
        self, run: LinearRun | None, ghosts: Sequence[LinearRun] = ()
    ) -> plots.DescribedFigure:
        """Add a strip: the region of p/n in which the theorem speaks, and where the run stands."""
        figure = super()._draw(run, ghosts)
        settings = run.settings if run else LinearSettings()
        low, high = linear.region(settings.flip)
        axes = figure.add_axes((0.07, 0.095, 0.91, 0.04))
        axes.axvspan(low, high, color=plots.COLOURS["sky"], alpha=0.5)
        axes.plot([settings.ratio], [0.5], "D", color=plots.COLOURS["black"], markersize=8)
        axes.set_xlim(0.15, 1.55)
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        words = "p / n: the theorem speaks in the shaded region, the diamond is this run"
        axes.set_xlabel(words, fontsize=plots.SMALL_FONT, labelpad=1)
        figure.alt_text += f" Below, the theorem's region of p/n, {low:g} to {high:g}."
        return figure

    def _cells(self, run: LinearRun) -> dict[str, str]:
        s, best, end = run.settings, "–", "–"
        if len(run.history):
            top, step = run.history.peak("wrong_as_true")
            best, end = f"{top:.0%} (step {step})", f"{run.history['wrong_as_true'][-1]:.0%}"
        return {
            "sigma": f"{s.sigma:g}",
            "flip": f"{s.flip:g}",
            "p/n": f"{s.ratio:g}",
            "step size": f"{s.lr:.3g}",
            "lambda": f"{s.lambda_:g}",
            "best": best,
            "end": end,
        }


def compute(settings: LinearSettings, stop: threading.Event | None = None) -> linear.Descent:
    """Draw the data and the first weights from the seed and descend."""
    generator = torch.Generator().manual_seed(settings.seed)
    data = linear.sample(settings.n, settings.p, settings.sigma, settings.flip, generator)
    return linear.gradient_descent(
        data,
        lr=settings.lr,
        steps=settings.steps,
        lambda_=settings.lambda_,
        stop=stop,
        generator=generator,
    )


def _shown(history: linear.Descent, name: str) -> np.ndarray:
    values = np.asarray(history[name])
    if name in LEFT:
        return 100 * values
    return abs(values) if name.endswith("coefficient") else values
