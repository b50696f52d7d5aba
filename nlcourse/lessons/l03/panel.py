"""The explorer of lesson 03: a transition matrix that follows the sliders, and what it does.

Drawing labels takes a millisecond, so the picture follows a slider while it moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ... import noise
from ...base import expect, expect_one_of
from ...datasets import Dataset
from ...noise import human as human_noise
from ...panels import plots, render
from ...panels.compute import Menu, Parameter, load
from ...panels.panel import InstantPanel
from ...panels.state import Goal, Run, State
from ...panels.view import button, controls

HUMAN = "human-shaped"  # CIFAR-10N's "worse" matrix, rescaled: the pattern, not the pictures
KINDS = (*noise.KINDS, HUMAN)
PICTURES, COLUMNS = 40, 8  # sample images, in rows of so many


@dataclass(frozen=True)
class NoiseSettings:
    """What decides the labels; equal settings give equal labels.

    Attributes:
        kind: one of :data:`KINDS`.
        rate: what the kind means by it, in [0, 1].
        draw: seed of the labels.
    """

    kind: str = "symmetric"
    rate: float = 0.4
    draw: int = 0

    def in_words(self) -> str:
        """Return one line with all settings."""
        return f"{self.kind}, rate {self.rate:g}, draw {self.draw}"


@dataclass(frozen=True, eq=False)
class NoisyLabels:
    """Labels that were drawn.

    Attributes:
        data: the data set with its given labels.
        matrix: float64 ``(C, C)``, row = true class: the one that the labels were drawn from, or
            for noise that depends on the image the observed one.
    """

    data: Dataset
    matrix: Tensor

    def __len__(self) -> int:
        """Return 1: there are no epochs, and the labels are complete."""
        return 1

    @property
    def wrong(self) -> float:
        """Share of wrong labels in this draw."""
        return self.data.noise_rate

    @property
    def margins(self) -> Tensor:
        """For each class: share of right labels minus that of its most frequent wrong label."""
        off = self.matrix.clone().fill_diagonal_(-1)
        return self.matrix.diagonal() - off.max(dim=1).values

    @property
    def margin(self) -> float:
        """The smallest margin of all classes: above 0, every class keeps its majority."""
        return self.margins.min().item()


@dataclass(repr=False, eq=False)
class NoiseTry(Run[NoiseSettings, NoisyLabels]):
    """One try; ``history`` holds the :class:`NoisyLabels`."""

    data = property(lambda self: self.history.data)
    matrix = property(lambda self: self.history.matrix)
    wrong = property(lambda self: self.history.wrong)
    margin = property(lambda self: self.history.margin)

    @property
    def finished(self) -> bool:
        """A try is whole from the start."""
        return not self.running

    def summary(self) -> str:
        """Say in a sentence how many labels are wrong and what is left of the majority."""
        lost = int((self.history.margins <= 0).sum())
        majority = {0: "every class keeps its majority", 1: "1 class loses its majority"}
        words = majority.get(lost, f"{lost} classes lose theirs")
        return f"{self.wrong:.1%} wrong labels, smallest margin {self.margin:+.2f}: {words}"


class NoiseState(State):
    """Tries of this panel; all of them stand on the plot."""

    run_type = NoiseTry

    @property
    def ghosts(self) -> list[Run]:
        """All that were kept, this one too."""
        return list(self.tries)


def compute(data: Dataset, settings: NoiseSettings) -> NoisyLabels:
    """Draw the labels of a data set.

    Args:
        data: its given labels do not matter.
        settings: what to draw.

    Raises:
        ValueError: for a kind or rate that the data set cannot have.
    """
    kind, rate, seed = settings.kind, settings.rate, settings.draw
    if kind == HUMAN:
        fits = data.num_classes == human_noise.NUM_CLASSES
        why = "its matrix is that of CIFAR-10N"
        expect(fits, "ten classes for human-shaped noise", data.num_classes, why)
        matrix = human_noise.rescale(human_noise.human_matrix("worse"), rate)
        generator = torch.Generator().manual_seed(seed)
        labels = noise.corrupt(data.true_labels, matrix, generator)
        return NoisyLabels(data.with_labels(labels), matrix)
    noisy = noise.inject(data, kind, rate, seed=seed)
    if kind == "instance":  # no one matrix lies behind it: count what came out
        matrix = noise.observed_matrix(noisy.labels, noisy.true_labels, noisy.num_classes)
    else:
        matrix = noise.transition_matrix(noisy, kind, rate)
    return NoisyLabels(noisy, matrix)


class NoiseExplorer(InstantPanel):
    """A panel with a menu of noise kinds, a rate and a draw; the picture follows while they move.

    Show it as the last line of a cell. "Keep this try" puts the try on the plot and into the table
    and asks the goal.

    Args:
        dataset: a :class:`~nlcourse.datasets.Dataset` or a name of ``datasets.NAMES``.
        kinds: out of :data:`KINDS`; the first is chosen at the start.
        goal: what to reach, or None; its judge gets a :class:`NoiseTry`.
        first: first values of ``rate`` and ``draw``.

    Raises:
        ValueError: an unknown kind, or a rate outside 0..1.
    """

    settings_type = NoiseSettings
    state_type = NoiseState

    def __init__(
        self,
        dataset: str | Dataset = "digits",
        *,
        kinds: Iterable[str] = KINDS,
        goal: Goal | None = None,
        **first: Any,
    ) -> None:
        """Build the panel and draw the first picture."""
        kinds = tuple(kinds)
        for kind in kinds:
            expect_one_of("kinds", kind, KINDS)
        self.data = load(dataset)
        each = max(1, PICTURES // self.data.num_classes)
        true = self.data.true_labels
        places = [(true == c).nonzero().flatten()[:each] for c in range(self.data.num_classes)]
        self.samples = torch.cat(places)[:PICTURES].tolist()  # the first few of each class
        entries = (
            Menu("kind", kinds, "noise"),
            Parameter("rate", 0.4, 0.0, 1.0, 0.01),
            Parameter("draw", 0, 0, 20, 1, label="draw (seed)"),
        )
        keep = button("Keep this try", "map-pin", "nlcourse-keep")
        super().__init__(controls(entries, first), goal, keep)

    def _compute(self, settings: NoiseSettings) -> NoisyLabels:
        return compute(self.data, settings)

    def _draw(self, run: NoiseTry, ghosts: Sequence[NoiseTry] = ()) -> plots.DescribedFigure:
        """Heat map, sample images, and where the try stands among the others."""
        # A fixed layout: matplotlib's automatic ones cost more than the drawing.
        figure, (heat,) = plots.new_figure(width=9.6, height=6.4, layout=None)
        figure.suptitle(run.settings.in_words(), fontsize=plots.FONT + 1, y=0.985)
        figure.full_colour = run.data.image_shape[0] == 3  # 64 colours spoil photographs
        heat.set_position((0.065, 0.41, 0.345, 0.50))
        short = [name[:4] for name in run.data.class_names]
        plots.draw_matrix(heat, run.matrix.numpy(), short, size=8)
        counted = " (as counted)" if run.settings.kind == "instance" else ""
        heat.set_title(f"Transition matrix{counted}", fontsize=plots.FONT)
        self._draw_samples(figure.add_axes((0.45, 0.375, 0.54, 0.525)), run.data)
        _standing(figure.add_axes((0.085, 0.085, 0.90, 0.21)), run, ghosts)
        figure.alt_text = self._in_words(run, ghosts)
        return figure

    def _draw_samples(self, axes: Axes, data: Dataset) -> None:
        wrong = data.is_wrong[self.samples].tolist()
        names = [data.class_names[label][:8] for label in data.labels[self.samples].tolist()]
        plots.tiles(axes, data.images[self.samples], names, wrong, columns=COLUMNS)
        heading = f"{len(wrong)} images and their given labels; framed: {sum(wrong)} wrong"
        axes.set_title(heading, fontsize=plots.FONT)

    def _in_words(self, run: NoiseTry, ghosts: Sequence[NoiseTry]) -> str:
        data, names = run.data, run.data.class_names
        stays, off = run.matrix.diagonal(), run.matrix.clone().fill_diagonal_(0)
        true, given = divmod(int(off.argmax()), len(names))
        wrong = [
            f"{names[data.true_labels[i]]} labelled {names[data.labels[i]]}"
            for i in self.samples
            if data.is_wrong[i]
        ]
        listed = f": {', '.join(wrong[:8])}{' and others' * (len(wrong) > 8)}" if wrong else ""
        kept = [f"try {one.number} ({one.settings.in_words()}): {one.summary()}" for one in ghosts]
        return (
            f"Label noise, {run.settings.in_words()}: {run.summary()}. "
            f"Heat map of the transition matrix: a label stays right with probability "
            f"{stays.min():.2f} to {stays.max():.2f}; the largest change is {names[true]} to "
            f"{names[given]}, {off.max():.2f}. "
            f"Of {len(self.samples)} sample images {len(wrong)} have a wrong label{listed}."
        ) + (f" Kept: {'; '.join(kept)}." if kept else "")

    def _cells(self, run: NoiseTry) -> dict[str, str]:
        return {
            "noise": run.settings.kind,
            "rate": f"{run.settings.rate:g}",
            "draw": str(run.settings.draw),
            "wrong labels": f"{run.wrong:.1%}",
            "smallest margin": f"{run.margin:+.2f}",
        }


def _standing(axes: Axes, run: NoiseTry, kept: Sequence[NoiseTry]) -> None:
    """Draw where the try stands: wrong labels against the margin of the majority."""
    plots.label_axes(
        axes, "wrong labels (%); diamond: now, grey: tries that you kept", "smallest\nmargin"
    )
    axes.axhline(0, color=plots.COLOURS["black"], linewidth=1)
    axes.axhspan(0, 1.05, color=plots.COLOURS["sky"], alpha=0.25)
    words = "above 0: the true class is every class's most frequent label"
    axes.text(0.995, 0.92, words, transform=axes.transAxes, ha="right", va="top", fontsize=8)
    for one in kept:
        place = (100 * one.wrong, one.margin)
        axes.plot(*place, "o", color=render.GHOST, markersize=7)
        axes.annotate(str(one.number), place, xytext=(5, 4), textcoords="offset points", fontsize=9)
    axes.plot(100 * run.wrong, run.margin, "D", color=plots.COLOURS["vermilion"], markersize=8)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-1.05, 1.05)
