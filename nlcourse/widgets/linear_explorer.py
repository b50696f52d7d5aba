"""The explorer of lesson 04: the linear model of early learning, answering as a slider moves.

A run takes a tenth of a second, so there is no Start button. Runner, state and controls are those
of :class:`Explorer`; settings, picture and table are of its own, since a step is no epoch and the
theorem has other quantities.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
import torch
from matplotlib.figure import Figure

from .. import linear, plots
from . import render
from .compute import Parameter
from .runner import Runner
from .state import Goal, Run, State
from .view import control, html

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
    """One try; ``history`` is a :class:`nlcourse.linear.Descent`."""

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

    def begin(self, settings: LinearSettings) -> LinearRun:
        """Make the next try the current one."""
        self._count += 1
        self.current = LinearRun(settings, number=self._count, running=True)
        self.tries.append(self.current)
        return self.current

    def end(self, run: LinearRun) -> None:
        """Judge a run that has ended; forget it when a later one took its place."""
        super().end(run)
        if run.error is None and not run.finished and run in self.tries:
            self.tries.remove(run)


class LinearExplorer:
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

    def __init__(
        self, *, goal: Goal | None = None, p: int = 100, steps: int = 10_000, seed: int = 0, **first
    ) -> None:
        """Build the panel; the first picture comes with the first value."""
        self.fixed = {"p": p, "steps": steps, "seed": seed}
        self.state = LinearState(goal)
        self.controls = {parameter.name: control(parameter) for parameter in CONTROLS}
        for name, value in first.items():
            self._known(name)
            self.controls[name].value = value
        self.goal, self.status, self.picture, self.table = (
            html(f"nlcourse-{name}") for name in ("goal", "status", "figure", "tries")
        )
        self.box = self._lay_out()
        self.runner = Runner(self._compute, self._show_run, self.state.end)
        self._settle = 0.0
        self._drawing = threading.RLock()
        for widget in self.controls.values():
            widget.continuous_update = True
            widget.observe(lambda change: self.start(), "value")
        self._show()

    @property
    def settings(self) -> LinearSettings:
        """What the controls say now."""
        return self._changed({})

    @property
    def run(self) -> LinearRun | None:
        """The run on the figure."""
        return self.state.current

    @property
    def tries(self) -> list[LinearRun]:
        """The latest runs, oldest first."""
        return list(self.state.tries)

    def start(self) -> None:
        """Compute for the controls' values in the background; what is on stops."""
        settings = self.settings
        if not self._recall(settings):
            run = self.state.begin(settings)
            self._say("Computing …")
            self._settle = SETTLE
            self.runner.start(run)

    def clear(self) -> None:
        """Stop, and forget the tries."""
        self.runner.stop()
        self.state.clear()
        self._show()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the background, at most `timeout` seconds; return whether it has ended."""
        return self.runner.wait(timeout)

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
        if not self._recall(settings):
            run = self.state.begin(settings)
            self._settle = 0.0
            self.runner.blocking(run)
            if run.error is not None:
                raise run.error
        return self.state.current

    def figure(self) -> Figure:
        """Return the panel's figure as a static one, earlier tries in grey.

        Raises:
            ValueError: nothing was tried yet.
        """
        if self.run is None:
            raise ValueError("Nothing was tried yet: move a slider or call `try_out()` first")
        return draw(self.run, self.state.ghosts)

    def _repr_mimebundle_(self, **kwargs) -> dict:
        if self.run is None:
            self.start()
        bundle = self.box._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        # What a reader sees where no kernel runs (GitHub, nbviewer).
        data["text/plain"] = "A live panel: run the notebook in JupyterLab to use it."
        return data

    def _lay_out(self) -> W.VBox:
        wrap = W.Layout(display="flex", flex_flow="row wrap")
        clear = W.Button(description="Clear tries", icon="eraser")
        clear.add_class("nlcourse-clear")
        clear.on_click(lambda _: self.clear())
        sliders = W.Box(list(self.controls.values()), layout=wrap)
        box = W.VBox([self.goal, sliders, clear, self.status, self.picture, self.table])
        box.add_class("nlcourse-explorer")
        return box

    def _known(self, name: str) -> None:
        if name not in self.controls:
            known = ", ".join(self.controls)
            raise ValueError(f"Expected settings out of {known}, got {name!r}")

    def _changed(self, changes: dict[str, float]) -> LinearSettings:
        for name in changes:
            self._known(name)
        values = {name: widget.value for name, widget in self.controls.items()} | changes
        # Sliders step in floats: 0.15000000000000002 and 0.15 are one setting.
        return LinearSettings(**{k: float(f"{v:.6g}") for k, v in values.items()}, **self.fixed)

    def _recall(self, settings: LinearSettings) -> bool:
        known = self.state.recall(settings) is not None
        if known:
            self.runner.stop()
            self._show("These settings were computed before:")
        return known

    def _compute(
        self, settings: LinearSettings, stop: threading.Event, on_epoch: object
    ) -> linear.Descent:
        if stop.wait(self._settle):  # the slider has moved on
            return _nothing()
        return compute(settings, stop)

    def _show_run(self, run: LinearRun) -> None:
        if run is self.state.current:
            self._show()

    def _show(self, note: str = "") -> None:
        with self._drawing:
            run, ghosts = self.run, self.state.ghosts
            figure = draw(run, ghosts)
            self.picture.value = figure_html(figure, run, len(ghosts))
        self.table.value = tries_html(self.state)
        self._say(note)

    def _say(self, note: str = "") -> None:
        self.goal.value = render.goal_html(self.state.goal)
        self.status.value = status_html(self.run, note)


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
    axes.tick_params(labelsize=plots.SMALL_FONT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


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


def figure_html(figure: Figure, run: LinearRun | None, ghosts: int) -> str:
    """Return picture, alternative text and live caption as one piece of HTML."""
    words = "Move a slider." if run is None else f"Try {run.number}: {run.summary()}."
    if ghosts:
        words += f" In grey: {ghosts} earlier {'try' if ghosts == 1 else 'tries'}."
    source = b64encode(plots.png(figure)).decode()
    return (
        f'<figure style="margin:0"><img alt="{escape(figure.alt_text)}" style="max-width:100%" '
        f'src="data:image/png;base64,{source}">'
        f'<figcaption aria-live="polite">{escape(words)}</figcaption></figure>'
    )


def status_html(run: LinearRun | None, note: str = "") -> str:
    """Return how the current run is doing, with its verdict or its error."""
    words = note
    if run is not None and not run.running:
        mark = {True: "✓ Goal reached: ", False: "✗ Not yet: ", None: ""}[run.reached]
        words = f"{note} {mark}{run.verdict}".strip()
    if run is not None and run.error is not None:
        words = f"{type(run.error).__name__}: {run.error}. Move a slider."
    return f'<p role="status" aria-live="polite" style="margin:0">{escape(words)}</p>'


def tries_html(state: LinearState) -> str:
    """Return the table of tries; empty without any."""
    runs = [run for run in state.tries if not run.running]
    if not runs:
        return ""
    heads = ("try", "sigma", "flip", "p/n", "step size", "lambda", "best", "end", "verdict")
    row = "".join(f'<th scope="col" style="{_CELL}">{head}</th>' for head in heads)
    body = "".join(_try_html(run, run is state.current) for run in runs)
    title = "Your tries; best and end: wrongly labelled predicted as their true class"
    return (
        f'<table style="border-collapse:collapse"><caption style="text-align:left">{title}'
        f"</caption><thead><tr>{row}</tr></thead><tbody>{body}</tbody></table>"
    )


_CELL = "padding:1px 8px;text-align:left;border-bottom:1px solid #8a8a8a"


def _try_html(run: LinearRun, current: bool) -> str:
    s = run.settings
    cells = [f"{s.sigma:g}", f"{s.flip:g}", f"{s.ratio:g}", f"{s.lr:.3g}", f"{s.lambda_:g}"]
    cells += _measured(run.history)
    mark = {True: "✓ ", False: "✗ ", None: ""}[run.reached]
    cells.append(escape(mark + run.verdict))
    row = "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)
    head = f"► {run.number}" if current else str(run.number)
    aria = ' aria-current="true"' if current else ""
    return f'<tr{aria}><th scope="row" style="{_CELL}">{head}</th>{row}</tr>'


def _measured(history: linear.Descent) -> list[str]:
    if not len(history):
        return ["–", "–"]
    best, step = history.peak("wrong_as_true")
    return [f"{best:.0%} (step {step})", f"{history['wrong_as_true'][-1]:.0%}"]
