"""The explorer of lesson 04: the linear model of early learning, answering as a slider moves.

A run takes a tenth of a second, so there is no Start button. Runner, state and controls are those
of :class:`Explorer`; settings, picture and table are of its own, since a step is no epoch and the
theorem has other quantities.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
import torch
from matplotlib.figure import Figure

from ...panels import plots, render
from ...panels.compute import Parameter, check_choice, settled
from ...panels.panel import RunPanel
from ...panels.state import Goal, Run, State
from ...panels.view import View, button, control
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
    "clean_as_true": ("rightly labelled, as their class", "blue", "-", "o"),
    "wrong_as_true": ("wrongly labelled, as their true class", "green", "-.", "^"),
    "wrong_as_given": ("wrongly labelled, memorized", "vermilion", "--", "s"),
}
RIGHT = {
    "clean_coefficient": ("size of the coefficient, rightly labelled", "blue", "-", "o"),
    "wrong_coefficient": ("size of the coefficient, wrongly labelled", "vermilion", "--", "s"),
    "alignment": ("alignment of minus the gradient with v", "black", ":", "D"),
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


@dataclass(repr=False)
class LinearRun(Run):
    """One try; ``history`` is a :class:`nlcourse.lessons.l04.linear.Descent`."""

    settings: LinearSettings
    history: linear.Descent = field(default_factory=_nothing)

    @property
    def finished(self) -> bool:
        """All steps were taken."""
        whole = len(self.history) > 0 and not self.history.stopped
        return not self.running and self.error is None and whole

    @property
    def figure(self) -> Figure:
        """A fresh static figure of this run."""
        return draw(self)

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

    def end(self, run: LinearRun) -> None:
        """Judge a run that has ended; forget it when a later one took its place."""
        super().end(run)
        if run.error is None and not run.finished and run in self.tries:
            self.tries.remove(run)


class LinearExplorer(RunPanel):
    """A panel with sliders for sigma, flip probability, p/n, step size and ELR's lambda.

    Show it as the last line of a cell. Moving a slider computes in the background and draws when
    done; earlier tries stay in grey, known settings come from memory. :meth:`try_out` does the same
    from code, and waits.

    Args:
        goal: what to reach, or None.
        p: number of features; n follows from p / n.
        steps: of gradient descent.
        seed: of data and first weights.
        first: first values of controls by name ("sigma", "flip", "ratio", "lr", "lambda_").

    Raises:
        ValueError: an unknown control in `first`.
    """

    RECALLED = "These settings were computed before:"
    FIRST = "move a slider"

    def __init__(
        self, *, goal: Goal | None = None, p: int = 100, steps: int = 10_000, seed: int = 0, **first
    ) -> None:
        """Build the panel; the first picture comes with the first value."""
        self.fixed = {"p": p, "steps": steps, "seed": seed}
        self.controls = {parameter.name: control(parameter) for parameter in CONTROLS}
        for name, value in first.items():
            check_choice("settings", name, self.controls)
            self.controls[name].value = value
        view = View(self.controls.values(), buttons=self._buttons())
        super().__init__(LinearState(goal), view, self._compute)
        self._settle = 0.0
        for widget in self.controls.values():
            widget.continuous_update = True
            widget.observe(lambda change: self.start(), "value")
        self._show()

    def start(self) -> None:
        """Compute for the controls' values in the background; what is on stops."""
        self._settle = SETTLE
        super().start()

    def try_out(self, **changes: float) -> LinearRun:
        """Compute and wait, with the controls' values but for some changes.

        Args:
            changes: ``sigma``, ``flip``, ``ratio``, ``lr``, ``lambda_``.

        Returns:
            The run, with its ``history`` (a ``linear.Descent``) and a static ``figure``.

        Raises:
            ValueError: a setting that the panel does not have, or a value that is out of range.
            DivergedError: the step size is too large.
        """
        settings = self._changed(changes)
        self.wait()  # what a slider asked for may be this very run
        self._settle = 0.0
        return self._try(settings)

    def _repr_mimebundle_(self, **kwargs) -> dict:
        if self.run is None:
            self.start()
        return super()._repr_mimebundle_(**kwargs)

    def _buttons(self) -> list[W.Button]:
        return [button("Clear tries", "eraser", "nlcourse-clear", self.clear)]

    def _changed(self, changes: Mapping[str, float]) -> LinearSettings:
        values = {name: settled(value) for name, value in self._values(changes).items()}
        return LinearSettings(**values, **self.fixed)

    def _compute(
        self, settings: LinearSettings, stop: threading.Event, on_epoch: object
    ) -> linear.Descent:
        if stop.wait(self._settle):  # the slider has moved on
            return _nothing()
        return compute(settings, stop)

    def _draw(self, run: LinearRun | None, ghosts: Sequence[LinearRun]) -> Figure:
        return draw(run, ghosts)

    def _caption(self, run: LinearRun | None, ghosts: int) -> str:
        if run is None:
            return "Move a slider."
        return f"Try {run.number}: {run.summary()}.{render.in_grey(ghosts)}"

    def _status(self, note: str) -> str:
        return render.status_line(status(self.run, note))

    def _table(self) -> str:
        return tries_html(self.state)


# ---- compute -------------------------------------------------------------------------------------


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


# ---- render --------------------------------------------------------------------------------------


def draw(run: LinearRun | None, ghosts: Sequence[LinearRun] = ()) -> Figure:
    """Return the figure of a run: shares, coefficients, and where p/n lies in the region."""
    figure, (left, right) = plots.new_figure(2, height=4.8, layout=None)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.86, bottom=0.40, wspace=0.18)
    figure.suptitle(run.settings.in_words() if run else "No run yet", fontsize=plots.FONT)
    for axes, heading, columns in (
        (left, "Predictions (%)", LEFT),
        (right, "Coefficients and alignment", RIGHT),
    ):
        _prepare(axes, heading)
        if run is not None and len(run.history):
            _curves(axes, run.history, columns)
    left.set_ylim(-2, 102)
    right.set_ylim(-1.05, 1.05)
    for ghost in ghosts:
        _haunt(left, ghost)
    for axes in (left, right):
        if not axes.lines:
            continue
        axes.legend(
            loc="upper left", bbox_to_anchor=(0.0, -0.15), fontsize=plots.SMALL_FONT,
            frameon=False, handlelength=3, labelspacing=0.2,
        )  # fmt: skip
    _region_strip(figure.add_axes((0.07, 0.095, 0.91, 0.04)), run)
    figure.alt_text = alt_text(run, ghosts)
    return figure


def _prepare(axes, heading: str) -> None:
    axes.set_title(heading, fontsize=plots.FONT)
    axes.set_xlabel("step", fontsize=plots.FONT, labelpad=1)
    axes.set_xscale("symlog", linthresh=1)  # step 0 has its place, too
    plots.tidy(axes)


def _curves(axes, history: linear.Descent, columns: dict[str, tuple[str, str, str, str]]) -> None:
    for name, (label, colour, dash, marker) in columns.items():
        axes.plot(
            history["step"], _shown(history, name), label=label, color=plots.COLOURS[colour],
            linestyle=dash, marker=marker, markevery=5, markersize=5, linewidth=2, clip_on=True,
        )  # fmt: skip


def _shown(history: linear.Descent, name: str):
    values = history[name]
    if name in LEFT:
        return 100 * values
    return abs(values) if name.endswith("coefficient") else values


def _haunt(axes, ghost: LinearRun) -> None:
    steps, values = ghost.history["step"], 100 * ghost.history["wrong_as_true"]
    label = "earlier tries, wrongly labelled as their true class"
    known = label in axes.get_legend_handles_labels()[1]
    axes.plot(
        steps, values, color=render.GHOST, linewidth=1, zorder=1, label=None if known else label
    )
    axes.annotate(
        str(ghost.number), (steps[-1], values[-1]), textcoords="offset points", xytext=(2, 2),
        fontsize=plots.SMALL_FONT, color="#555555", annotation_clip=False,
    )  # fmt: skip


def _region_strip(axes, run: LinearRun | None) -> None:
    """Mark the region of p/n in which the theorem speaks, and where the run stands."""
    settings = run.settings if run else LinearSettings()
    low, high = linear.region(settings.flip)
    axes.axvspan(low, high, color=plots.COLOURS["sky"], alpha=0.5)
    axes.plot([settings.ratio], [0.5], "D", color=plots.COLOURS["black"], markersize=8)
    axes.set_xlim(0.15, 1.55)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(labelsize=plots.SMALL_FONT)
    words = "p / n: the theorem speaks in the shaded region, the diamond is this run"
    axes.set_xlabel(words, fontsize=plots.SMALL_FONT, labelpad=1)


def alt_text(run: LinearRun | None, ghosts: Sequence[LinearRun] = ()) -> str:
    """Say what the figure shows, from its numbers."""
    if run is None or not len(run.history):
        return "Two empty charts against the step, and the region of p/n: nothing computed yet."
    told = [
        plots.line_in_words(label, _shown(run.history, name), run.history["step"], "step")
        for group in (LEFT, RIGHT)
        for name, (label, *_) in group.items()
    ]
    low, high = linear.region(run.settings.flip)
    grey = f" In grey: {len(ghosts)} earlier tries." if ghosts else ""
    return (
        f"Curves against the step for {run.settings.in_words()}. Predictions in percent, then "
        f"coefficients and alignment. {' '.join(told)} Below, the theorem's region of p/n, "
        f"{low:g} to {high:g}.{grey}"
    )


def status(run: LinearRun | None, note: str = "") -> str:
    """Say how the current run is doing, with its verdict or its error."""
    if run is None:
        return note
    if run.running:
        return note or "Computing …"
    if run.error is not None:
        return f"{type(run.error).__name__}: {run.error}. Move a slider."
    return f"{note} {render.judged(run, run.verdict)}".strip()


def tries_html(state: LinearState) -> str:
    """Return the table of tries; empty without any."""
    runs = [run for run in state.tries if not run.running]
    title = "Your tries; best and end: wrongly labelled predicted as their true class"
    return render.trace_html(runs, state.current, _cells, title)


def _cells(run: LinearRun) -> dict[str, str]:
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
        "verdict": render.marked(run, run.verdict),
    }
