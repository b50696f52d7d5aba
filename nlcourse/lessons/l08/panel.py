"""The explorer of lesson 08: where to draw the line in a list of suspects.

Nothing is trained here: the rankings are made before, and a slider says how many of the most
suspicious examples to throw out. Precision, recall and the pictures follow at once. A button makes
it a try, with a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ...panels import plots, render
from ...panels.compute import Parameter, check_choice, settled
from ...panels.panel import Panel
from ...panels.state import Goal, Run, State
from ...panels.view import View, button, control, menu
from . import suspects

SHARE = Parameter("share", 0.2, 0.0, 1.0, 0.01, label="throw out", percent=True)
TOP, LAST, COLUMNS = 8, 16, 8  # pictures: the most suspicious, the last to go, and how many a row
LOOKS = {"precision": ("blue", "-"), "recall": ("vermilion", "--")}


@dataclass(frozen=True, eq=False)
class Ranking:
    """A ranking on offer.

    Attributes:
        scores: float ``(n,)``, higher is more suspicious.
        flags: bool ``(n,)``, whom the ranking's own threshold would throw out; None without one.
    """

    scores: Tensor
    flags: Tensor | None = None


@dataclass(frozen=True)
class Choice:
    """What the panel is set to.

    Attributes:
        ranking: its name.
        share: of the examples that go, 0..1.
    """

    ranking: str
    share: float

    def in_words(self) -> str:
        """Return one line such as ``AUM, the first 20 % go``."""
        return f"{self.ranking}, the first {self.share:.0%} go"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a choice throws out.

    Attributes:
        flags: bool ``(n,)``, who goes.
        precision: the share of wrong labels among those; nan when nobody goes.
        recall: the share of the wrong labels that go.
        order: int64 ``(k,)``, who goes, the most suspicious first.
    """

    flags: Tensor
    precision: float
    recall: float
    order: Tensor

    def __len__(self) -> int:
        """Return 1: there are no epochs, and the outcome is complete."""
        return 1


@dataclass(repr=False)
class SuspectRun(Run):
    """One try; ``history`` is an :class:`Outcome`."""

    settings: Choice
    history: Outcome = field(default=None)

    @property
    def finished(self) -> bool:
        """A try is whole from the start."""
        return self.error is None

    def summary(self) -> str:
        """Say in a sentence what went."""
        out = self.history
        return (
            f"{len(out.order)} thrown out, {_percent(out.precision)} of them wrong (precision); "
            f"{_percent(out.recall)} of the wrong labels are gone (recall)"
        )


class SuspectState(State):
    """Tries of this panel."""

    run_type = SuspectRun


class SuspectExplorer(Panel):
    """A panel with a menu of rankings and a slider for how many suspects go.

    Show it as the last line of a cell. Picture and numbers follow the slider; the button "Throw
    these out" makes a try of it. :meth:`try_out` does the same from code.

    Args:
        data: a :class:`~nlcourse.datasets.Dataset`; its true labels are what is measured against.
        rankings: name -> :class:`Ranking`, or scores alone; at least one.
        goal: what to reach, or None; the judge finds precision and recall in ``run.history``.
        first: name of the ranking shown at first, when it is not the first.

    Raises:
        ValueError: no ranking, scores that do not fit the data, or no wrong label in the data.
    """

    def __init__(
        self,
        data,
        rankings: Mapping[str, Ranking | Tensor],
        *,
        goal: Goal | None = None,
        first: str = "",
    ) -> None:
        """Check the rankings, compute their curves, and draw the first picture."""
        if not rankings:
            raise ValueError("Expected at least one ranking, got none")
        self.data = data
        self.rankings = {
            name: one if isinstance(one, Ranking) else Ranking(one)
            for name, one in rankings.items()
        }
        self.curves = {name: sweep(one, data.is_wrong) for name, one in self.rankings.items()}
        first = first or next(iter(self.rankings))
        check_choice("a ranking", first, self.rankings)
        self.controls: dict[str, W.Widget] = {
            "ranking": menu("ranking", "ranking", list(self.rankings), first),
            "share": control(SHARE),
        }
        self.controls["share"].continuous_update = True  # drawing takes no training
        self.button = button(
            "Throw these out", "trash", "nlcourse-start", self.throw_out, "success"
        )
        self.clear_button = button("Clear tries", "eraser", "nlcourse-clear", self.clear)
        buttons = (self.button, self.clear_button)
        super().__init__(SuspectState(goal), View(self.controls.values(), buttons=buttons))
        for widget in self.controls.values():
            widget.observe(lambda change: self._show(), "value")
        self._show()

    def throw_out(self) -> SuspectRun:
        """Make a try of what the controls say, and judge it."""
        choice = self.settings
        if self.state.recall(choice) is None:
            run = self.state.begin(choice)
            run.history = self._outcome(choice)
            self.state.end(run)
        self._show()
        return self.run

    def try_out(self, *, ranking: str | None = None, share: float | None = None) -> SuspectRun:
        """Set the controls, throw out, and return the try.

        Raises:
            ValueError: an unknown ranking, or a share outside [0, 1].
        """
        if ranking is not None:
            check_choice("a ranking", ranking, self.rankings)
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"Expected `share` in [0, 1], got {share}")
        for name, value in (("ranking", ranking), ("share", share)):
            if value is not None:
                self.controls[name].value = value
        return self.throw_out()

    def figure(self) -> Figure:
        """Return the panel's figure as a static one."""
        choice = self.settings
        ranking, curve = self.rankings[choice.ranking], self.curves[choice.ranking]
        return draw(self.data, choice, self._outcome(choice), curve, ranking.flags)

    def _changed(self, changes: Mapping[str, object]) -> Choice:
        values = self._values(changes)
        return Choice(values["ranking"], settled(values["share"]))

    def _outcome(self, choice: Choice) -> Outcome:
        return outcome(self.rankings[choice.ranking], self.data.is_wrong, choice.share)

    def _picture(self) -> str:
        choice = self.settings
        now = SuspectRun(choice, history=self._outcome(choice))
        return render.picture_html(self.figure(), f"{now.summary()}.")

    def _status(self, note: str) -> str:
        return render.status_line(note or status(self.run, self.settings))

    def _table(self) -> str:
        return render.trace_html(self.tries, self.run, _cells)


# ---- compute -------------------------------------------------------------------------------------


def outcome(ranking: Ranking, is_wrong: Tensor, share: float) -> Outcome:
    """Throw out a share of the examples and measure it."""
    flags = suspects.most_suspicious(ranking.scores, share)
    precision, recall = suspects.precision_and_recall(flags, is_wrong)
    order = ranking.scores.argsort(descending=True, stable=True)
    return Outcome(flags, precision, recall, order[flags[order]])


def sweep(ranking: Ranking, is_wrong: Tensor) -> dict[str, np.ndarray]:
    """Return share, precision and recall, in per cent, for 1, 2, ..., n examples thrown out.

    Raises:
        ValueError: scores that do not fit, or no wrong label to look for.
    """
    if ranking.scores.shape != is_wrong.shape or not bool(is_wrong.any()):
        raise ValueError(
            f"Expected scores {tuple(is_wrong.shape)} for data with some wrong labels, got "
            f"{tuple(ranking.scores.shape)} and {int(is_wrong.sum())} wrong"
        )
    order = ranking.scores.argsort(descending=True, stable=True)
    hits = is_wrong[order].cumsum(0).double()
    count = torch.arange(1, len(hits) + 1, dtype=torch.float64)
    parts = {"share": count / len(hits), "precision": hits / count, "recall": hits / hits[-1]}
    return {name: 100 * part.numpy() for name, part in parts.items()}


# ---- render --------------------------------------------------------------------------------------


def draw(
    data, choice: Choice, out: Outcome, curve: Mapping[str, np.ndarray], flags: Tensor | None
) -> Figure:
    """Return the figure: precision and recall on the left, who goes on the right."""
    figure, (left, right) = plots.new_figure(2, width=9.4, height=4.4, layout=None)
    figure.full_colour = True
    left.set_position((0.065, 0.29, 0.36, 0.6))
    right.set_position((0.47, 0.03, 0.525, 0.86))
    told = _curves(left, curve, choice, out, data, flags)
    shown = _chosen(out.order)
    _mosaic(right, data, shown)
    figure.suptitle(choice.in_words(), fontsize=plots.FONT)
    figure.alt_text = (
        f"{choice.in_words()}. Left, in per cent against the share thrown out: {told} "
        f"Right, {_pictures_in_words(data, shown)}"
    )
    return figure


def _curves(axes: Axes, curve, choice: Choice, out: Outcome, data, flags: Tensor | None) -> str:
    told = []
    for name, (colour, dash) in LOOKS.items():
        axes.plot(
            curve["share"], curve[name], dash, color=plots.COLOURS[colour], linewidth=2, label=name
        )
        told.append(plots.line_in_words(name, curve[name], curve["share"], "share"))
    axes.axvline(100 * choice.share, color=plots.COLOURS["black"], linewidth=2, label="here")
    rate = 100 * data.noise_rate
    axes.axvline(rate, color=render.GHOST, linestyle=":", label=f"{rate:.0f} % are wrong")
    told.append(
        f"Here, at {choice.share:.0%}: precision {_percent(out.precision)}, recall "
        f"{_percent(out.recall)}. {rate:.0f} per cent of the labels are wrong."
    )
    if flags is not None:
        precision, recall = suspects.precision_and_recall(flags, data.is_wrong)
        own = 100 * flags.float().mean().item()
        axes.plot(
            [own, own], [100 * precision, 100 * recall], "D", color=plots.COLOURS["black"],
            markersize=7, fillstyle="none", label="its own threshold",
        )  # fmt: skip
        told.append(
            f"The ranking's own threshold throws out {own:.0f} per cent, precision "
            f"{_percent(precision)}, recall {_percent(recall)}."
        )
    _finish(axes)
    return " ".join(told)


def _finish(axes: Axes) -> None:
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 103)
    axes.set_xlabel("thrown out (% of all)", fontsize=plots.FONT, labelpad=1)
    axes.set_ylabel("%", fontsize=plots.FONT)
    plots.tidy(axes)
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.05, -0.17), ncols=2, frameon=False,
        fontsize=plots.SMALL_FONT, handlelength=2.4, labelspacing=0.25, columnspacing=1.0,
    )  # fmt: skip


def _chosen(order: Tensor) -> tuple[list[int], list[int]]:
    """Return whom to show: the most suspicious, and the last that go."""
    first = order[:TOP].tolist()
    return first, order[TOP:][-LAST:].tolist()


def _mosaic(axes: Axes, data, shown: tuple[list[int], list[int]]) -> None:
    """Draw all pictures as one: two dozen axes would take a third of a second."""
    axes.axis("off")
    height, width = data.image_shape[1:]
    across, down = 1.25 * width, 1.75 * height
    axes.set_xlim(0, COLUMNS * across)
    axes.set_ylim(4.7 * down, 0)
    axes.set_aspect("equal")
    for heading, row, group in zip(("The most suspicious", "The last to go"), (0, 1.6), shown,
                                   strict=True):  # fmt: skip
        words = heading if group else f"{heading}: nobody"
        axes.text(0, (row + 0.2) * down, words, fontsize=plots.FONT)
        for place, example in enumerate(group):
            x = place % COLUMNS * across
            y = (row + 0.62 + place // COLUMNS) * down
            _tile(axes, data, example, (x, y, width, height))
    note = "3 is 8: given 3, in truth 8.   ✗ and frame: the label was right"
    axes.text(0, 4.62 * down, note, fontsize=plots.SMALL_FONT)


def _tile(axes: Axes, data, example: int, place: tuple[float, ...]) -> None:
    x, y, width, height = place
    pixels = np.moveaxis(data.images[example].numpy(), 0, -1)
    top = 255 if pixels.dtype == np.uint8 else 1.0
    axes.imshow(
        pixels.squeeze(), cmap="gray", vmin=0, vmax=top, extent=(x, x + width, y + height, y),
        interpolation="nearest",
    )  # fmt: skip
    lost = not bool(data.is_wrong[example])
    colour = plots.COLOURS["vermilion" if lost else "black"]
    axes.text(
        x + width / 2, y - 0.06 * height, _caption(data, example), ha="center", va="bottom",
        fontsize=plots.SMALL_FONT, color=colour, clip_on=False,
    )  # fmt: skip
    if lost:
        frame = Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=3)
        axes.add_patch(frame)


def _caption(data, example: int) -> str:
    given, true = (data.class_names[int(y[example])] for y in (data.labels, data.true_labels))
    return f"{given} is {true}" if bool(data.is_wrong[example]) else f"✗ {given}"


def _pictures_in_words(data, shown: tuple[list[int], list[int]]) -> str:
    first, last = (", ".join(_caption(data, i) for i in group) or "nobody" for group in shown)
    return (
        f"the most suspicious: {first}. The last to go: {last}. "
        "A cross marks labels that were right."
    )


def status(run: SuspectRun | None, choice: Choice) -> str:
    """Say the verdict while the controls still say what was tried."""
    if run is None or run.settings != choice:
        return 'Move the slider, then press "Throw these out".'
    return f"Try {run.number}. {render.judged(run, run.verdict or run.summary())}"


def _cells(run: SuspectRun) -> dict[str, str]:
    out, choice = run.history, run.settings
    return {
        "ranking": choice.ranking,
        "thrown out": f"{choice.share:.0%}",
        "precision": _percent(out.precision),
        "recall": _percent(out.recall),
        "verdict": render.marked(run, run.verdict),
    }


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:.0%}"
