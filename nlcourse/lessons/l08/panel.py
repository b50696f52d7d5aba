"""The explorer of lesson 08: where to draw the line in a list of suspects.

Nothing is trained here: the rankings are made before, and a slider says how many of the most
suspicious examples to throw out. Precision, recall and the pictures follow at once. A button makes
it a try, with a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from ...base import expect
from ...datasets import Dataset
from ...panels import plots, render
from ...panels.compute import Menu, Parameter
from ...panels.panel import InstantPanel
from ...panels.state import Goal, Run, State
from ...panels.view import button, controls
from . import suspects

TOP, LAST, COLUMNS = 8, 16, 8  # pictures: the most suspicious, the last to go, and how many a row
LOOKS: dict[str, plots.Look] = {"precision": ("blue", "-", ""), "recall": ("vermilion", "--", "")}


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

    def __post_init__(self) -> None:
        """Check the share."""
        expect(0 <= self.share <= 1, "`share` in [0, 1]", self.share)

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


@dataclass(repr=False, eq=False)
class SuspectRun(Run[Choice, Outcome]):
    """One try; ``history`` is an :class:`Outcome`."""

    @property
    def finished(self) -> bool:
        """A try is whole from the start."""
        return not self.running

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


class SuspectExplorer(InstantPanel):
    """A panel with a menu of rankings and a slider for how many suspects go.

    Show it as the last line of a cell. Picture and numbers follow the slider; the button "Throw
    these out" makes a try of it.

    Args:
        data: its true labels are what is measured against.
        rankings: name -> :class:`Ranking`, or scores alone; at least one.
        goal: what to reach, or None; the judge finds precision and recall in ``run.history``.
        first: first values of ``ranking`` and ``share``.

    Raises:
        ValueError: no ranking, scores that do not fit the data, or no wrong label in the data.
    """

    settings_type = Choice
    state_type = SuspectState

    def __init__(
        self,
        data: Dataset,
        rankings: Mapping[str, Ranking | Tensor],
        *,
        goal: Goal | None = None,
        **first: Any,
    ) -> None:
        """Check the rankings, compute their curves, and draw the first picture."""
        expect(len(rankings) > 0, "at least one ranking", "none")
        self.data = data
        self.rankings = {
            name: one if isinstance(one, Ranking) else Ranking(one)
            for name, one in rankings.items()
        }
        self.curves = {name: sweep(one, data.is_wrong) for name, one in self.rankings.items()}
        entries = (
            Menu("ranking", tuple(self.rankings)),
            Parameter("share", 0.2, 0.0, 1.0, 0.01, label="throw out", percent=True),
        )
        keep = button("Throw these out", "trash", "nlcourse-start", style="success")
        super().__init__(controls(entries, first), goal, keep)

    def _compute(self, choice: Choice) -> Outcome:
        return outcome(self.rankings[choice.ranking], self.data.is_wrong, choice.share)

    def _draw(self, run: SuspectRun, ghosts: Sequence[SuspectRun] = ()) -> plots.DescribedFigure:
        """Precision and recall on the left, who goes on the right."""
        figure, (left, right) = plots.new_figure(2, width=9.4, height=4.4, layout=None)
        figure.full_colour = True
        left.set_position((0.065, 0.29, 0.36, 0.6))
        right.set_position((0.47, 0.03, 0.525, 0.86))
        title = run.settings.in_words()
        figure.suptitle(title, fontsize=plots.FONT)
        figure.alt_text = (
            f"{title}. Left, in per cent against the share thrown out: "
            f"{self._draw_curves(left, run)} Right, {self._draw_pictures(right, run)}"
        )
        return figure

    def _draw_curves(self, axes: Axes, run: SuspectRun) -> str:
        choice, out, rate = run.settings, run.history, 100 * self.data.noise_rate
        curves, told = self.curves[choice.ranking], []
        for name, look in LOOKS.items():
            plots.curve(axes, name, curves[name], look, curves["share"])
            told.append(plots.line_in_words(name, curves[name], curves["share"], "share"))
        axes.axvline(100 * choice.share, color=plots.COLOURS["black"], linewidth=2, label="here")
        axes.axvline(rate, color=render.GHOST, linestyle=":", label=f"{rate:.0f} % are wrong")
        told.append(
            f"Here, at {choice.share:.0%}: precision {_percent(out.precision)}, recall "
            f"{_percent(out.recall)}. {rate:.0f} per cent of the labels are wrong."
        )
        flags = self.rankings[choice.ranking].flags
        if flags is not None:
            precision, recall = suspects.precision_and_recall(flags, self.data.is_wrong)
            own = 100 * flags.float().mean().item()
            axes.plot(
                [own, own], [100 * precision, 100 * recall], "D", color="black", markersize=7,
                fillstyle="none", label="its own threshold",
            )  # fmt: skip
            told.append(
                f"The ranking's own threshold throws out {own:.0f} per cent, precision "
                f"{_percent(precision)}, recall {_percent(recall)}."
            )
        plots.label_axes(axes, "thrown out (% of all)", "%")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 103)
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.05, -0.17), ncols=2, frameon=False,
            fontsize=plots.SMALL_FONT, handlelength=2.4, labelspacing=0.25, columnspacing=1.0,
        )  # fmt: skip
        return " ".join(told)

    def _draw_pictures(self, axes: Axes, run: SuspectRun) -> str:
        order, told, top = run.history.order, [], 0.0
        groups = {"The most suspicious": order[:TOP], "The last to go": order[TOP:][-LAST:]}
        for heading, group in groups.items():
            lost = (~self.data.is_wrong[group]).tolist()
            words = [self._caption(example) for example in group.tolist()]
            axes.text(0, top + 0.3, heading if words else f"{heading}: nobody", fontsize=plots.FONT)
            plots.tiles(axes, self.data.images[group], words, lost, columns=COLUMNS, top=top + 0.4)
            marked = [f"✗ {word}" if bad else word for word, bad in zip(words, lost, strict=True)]
            told.append(f"{heading}: {', '.join(marked) or 'nobody'}.")
            top += plots.DOWN + 0.6
        axes.set_ylim(top + plots.DOWN + 0.3, 0)
        note = "3 is 8: given 3, in truth 8.   ✗ and frame: the label was right"
        axes.text(0, top + plots.DOWN + 0.2, note, fontsize=plots.SMALL_FONT)
        return f"{' '.join(told)} A cross marks labels that were right."

    def _caption(self, example: int) -> str:
        names, data = self.data.class_names, self.data
        given, true = names[int(data.labels[example])], names[int(data.true_labels[example])]
        return f"{given} is {true}" if given != true else given

    def _cells(self, run: SuspectRun) -> dict[str, str]:
        return {
            "ranking": run.settings.ranking,
            "thrown out": f"{run.settings.share:.0%}",
            "precision": _percent(run.history.precision),
            "recall": _percent(run.history.recall),
        }


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
    fits = ranking.scores.shape == is_wrong.shape and bool(is_wrong.any())
    got = f"{tuple(ranking.scores.shape)} and {int(is_wrong.sum())} wrong"
    expect(fits, f"scores {tuple(is_wrong.shape)} for data with some wrong labels", got)
    order = ranking.scores.argsort(descending=True, stable=True)
    hits = is_wrong[order].cumsum(0).double()
    count = torch.arange(1, len(hits) + 1, dtype=torch.float64)
    parts = {"share": count / len(hits), "precision": hits / count, "recall": hits / hits[-1]}
    return {name: 100 * part.numpy() for name, part in parts.items()}


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:.0%}"
