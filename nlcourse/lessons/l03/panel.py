"""The explorer of lesson 03: a transition matrix that follows the sliders, and what it does.

Drawing labels takes a millisecond, so the picture follows a slider while it moves. State, compute,
render and view are apart as in :class:`Explorer`, in one file; only the view needs Jupyter. A try
is kept when the student presses "Keep this try": a slider on its way would fill any trace.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ... import noise
from ...noise import human as human_noise
from ...panels import plots, render
from ...panels.compute import Parameter, check_choice, load, settled
from ...panels.panel import Panel
from ...panels.state import Goal, State
from ...panels.view import View, button, control, menu

HUMAN = "human-shaped"  # CIFAR-10N's "worse" matrix, rescaled: the pattern, not the pictures
KINDS = (*noise.KINDS, HUMAN)
PICTURES = 40  # sample images
COLUMNS = 8
GAP = 3  # pixels between two sample images, before they are enlarged
CAPTION = 6  # pixels below each, for its label


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
class NoiseTry:
    """What came of some settings.

    Attributes:
        settings: what was set.
        data: the data set with its given labels.
        matrix: float64 ``(C, C)``, row = true class: the one that the labels were drawn from, or
            for noise that depends on the image the observed one.
        number: 1, 2, ... when it was kept; 0 before.
        reached: whether the goal is reached; None without a goal.
        verdict: the goal's sentence.
    """

    settings: NoiseSettings
    data: object
    matrix: Tensor
    number: int = 0
    reached: bool | None = None
    verdict: str = ""

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

    @property
    def figure(self) -> Figure:
        """A fresh static figure of this try."""
        return draw(self)

    def summary(self) -> str:
        """Say in a sentence how many labels are wrong and what is left of the majority."""
        lost = int((self.margins <= 0).sum())
        majority = "every class keeps its majority" if not lost else f"{lost} classes lose theirs"
        majority = majority.replace("1 classes lose theirs", "1 class loses its majority")
        return f"{self.wrong:.1%} wrong labels, smallest margin {self.margin:+.2f}: {majority}"


class NoiseState(State):
    """The tries that were kept, and the one on the picture."""

    def look_at(self, made: NoiseTry) -> None:
        """Make a try the current one, or the kept one that has its settings."""
        kept = (one for one in self.tries if one.settings == made.settings)
        self.current = next(kept, made)

    def keep(self, made: NoiseTry) -> None:
        """Make a try the current one; number it and judge it when it is new."""
        self.look_at(made)
        if self.current not in self.tries:
            self._count += 1
            made = replace(made, number=self._count)
            reached, verdict = self.judge(made)
            self.current = replace(made, reached=reached, verdict=verdict)
            self.tries.append(self.current)


# ---- compute -------------------------------------------------------------------------------------


def compute(data, settings: NoiseSettings) -> NoiseTry:
    """Draw the labels of a data set.

    Args:
        data: a :class:`nlcourse.datasets.Dataset`; its given labels do not matter.
        settings: what to draw.

    Raises:
        ValueError: for a kind or rate that the data set cannot have.
    """
    kind, rate, seed = settings.kind, settings.rate, settings.draw
    if kind == HUMAN:
        if data.num_classes != human_noise.NUM_CLASSES:
            raise ValueError(
                f"Expected ten classes for human-shaped noise, got {data.num_classes}: its matrix "
                "is that of CIFAR-10N"
            )
        matrix = human_noise.rescale(human_noise.human_matrix("worse"), rate)
        generator = torch.Generator().manual_seed(seed)
        return NoiseTry(
            settings, data.with_labels(noise.corrupt(data.true_labels, matrix, generator)), matrix
        )
    noisy = noise.inject(data, kind, rate, seed=seed)
    return NoiseTry(settings, noisy, _matrix(noisy, kind, rate))


def _matrix(noisy, kind: str, rate: float) -> Tensor:
    if kind == "instance":  # no one matrix lies behind it: count what came out
        return noise.observed_matrix(noisy.labels, noisy.true_labels, noisy.num_classes)
    return noise.transition_matrix(noisy, kind, rate)


# ---- the panel -----------------------------------------------------------------------------------


class NoiseExplorer(Panel):
    """A panel with a menu of noise kinds, a rate and a draw; the picture follows while they move.

    Show it as the last line of a cell. "Keep this try" puts the try on the plot and into the table
    and asks the goal. :meth:`try_out` does the same from code.

    Args:
        dataset: a :class:`~nlcourse.datasets.Dataset` or a name of ``datasets.NAMES``.
        kinds: out of :data:`KINDS`; the first is chosen at the start.
        rate: at the start.
        goal: what to reach, or None; its judge gets a :class:`NoiseTry`.

    Raises:
        ValueError: an unknown kind, or a rate outside 0..1.
    """

    def __init__(
        self,
        dataset="digits",
        *,
        kinds: Iterable[str] = KINDS,
        rate: float = 0.4,
        goal: Goal | None = None,
    ) -> None:
        """Build the panel and draw the first picture."""
        kinds = tuple(kinds)
        for kind in kinds:
            check_choice("kinds", kind, KINDS)
        if not 0 <= rate <= 1:
            raise ValueError(f"Expected `rate` in [0, 1], got {rate:g}: the share to change")
        self.data = load(dataset)
        self.samples = _samples(self.data)
        self.controls = self._controls(kinds, rate)
        self.keep_button = button("Keep this try", "map-pin", "nlcourse-keep", self.keep)
        self.clear_button = button("Clear tries", "eraser", "nlcourse-clear", self.clear)
        buttons = (self.keep_button, self.clear_button)
        super().__init__(NoiseState(goal), View(self.controls.values(), buttons=buttons))
        self._worker = LatestOnly(self._refresh)
        for widget in self.controls.values():
            widget.continuous_update = True
            widget.observe(lambda change: self._worker.ask(), "value")
        self._refresh()

    @property
    def current(self) -> NoiseTry | None:
        """The try on the picture; None when the controls' settings are not possible."""
        return self.state.current

    def keep(self) -> NoiseTry | None:
        """Put the try of the controls on the plot and into the table; None if it cannot be."""
        self._worker.wait()
        with self._drawing:
            self._refresh()
            if self.current is not None:
                self._keep(self.current)
            return self.current

    def clear(self) -> None:
        """Forget the tries that were kept."""
        with self._drawing:
            self.state.clear()
            self._refresh()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the picture has caught up, at most `timeout` seconds; return whether."""
        return self._worker.wait(timeout)

    def try_out(self, **changes) -> NoiseTry:
        """Draw labels with the controls' values but for some changes, and keep the try.

        Args:
            changes: ``kind``, ``rate``, ``draw``.

        Raises:
            ValueError: a setting that the panel does not have, or that the data cannot have.
        """
        made = compute(self.data, self._changed(changes))
        with self._drawing:
            self._keep(made)
            return self.current

    def figure(self) -> Figure:
        """Return what the panel shows as a static figure, with the tries that were kept.

        Raises:
            ValueError: the controls' settings are not possible.
        """
        if self.current is None:
            raise ValueError("These settings are not possible: see the panel's status line")
        return draw(self.current, self.tries, self.samples)

    def _controls(self, kinds: tuple[str, ...], rate: float) -> dict[str, W.Widget]:
        numbers = (
            Parameter("rate", float(rate), 0.0, 1.0, 0.01, label="rate"),
            Parameter("draw", 0, 0, 20, 1, label="draw (seed)"),
        )
        choice = {"kind": menu("noise-kind", "noise", kinds, kinds[0])}
        return choice | {parameter.name: control(parameter) for parameter in numbers}

    def _changed(self, changes: Mapping[str, object]) -> NoiseSettings:
        values = self._values(changes)
        check_choice("`kind`", values["kind"], KINDS)
        return NoiseSettings(str(values["kind"]), settled(values["rate"]), int(values["draw"]))

    def _keep(self, made: NoiseTry) -> None:
        self.state.keep(made)
        self._show()

    def _refresh(self) -> None:
        with self._drawing:
            try:
                self.state.look_at(compute(self.data, self.settings))
            except ValueError as error:  # human-shaped noise has a highest rate, for one
                self.state.current = None
                self._say(f"Not possible: {error}. Move a slider.")
                return
            self._show()

    def _picture(self) -> str:
        words = f"{self.current.settings.in_words()}: {self.current.summary()}."
        return render.picture_html(self.figure(), words)

    def _status(self, note: str) -> str:
        return render.status_line(note or status(self.current))

    def _table(self) -> str:
        return render.trace_html(self.tries, self.current, _cells)


class LatestOnly:
    """Does one thing in the background, again whenever it was asked for in the meantime.

    A moving slider asks faster than a picture is drawn. What it asked for in between is skipped;
    what it asked for last is always done.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        """Start nothing yet."""
        self.action = action
        self._lock = threading.Lock()
        self._asked = False
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Have it done soon, and return at once."""
        with self._lock:
            self._asked = True
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="nlcourse-draw", daemon=True
                )
                self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was asked for is done; return whether it is."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return self._thread is None

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._asked:
                    self._thread = None
                    return
                self._asked = False
            try:
                self.action()
            except BaseException:
                with self._lock:
                    self._thread = None  # the next question starts afresh
                raise


def _samples(data) -> list[int]:
    """Return the positions of the sample images: the first few of each class, class by class."""
    each = max(1, PICTURES // data.num_classes)
    places = [(data.true_labels == c).nonzero().flatten()[:each] for c in range(data.num_classes)]
    return torch.cat(places)[:PICTURES].tolist()


# ---- render --------------------------------------------------------------------------------------


def draw(made: NoiseTry, kept: Iterable[NoiseTry] = (), samples: list[int] | None = None) -> Figure:
    """Return the figure of a try: heat map, sample images, and where it stands among the others."""
    samples = _samples(made.data) if samples is None else samples
    # A fixed layout: matplotlib's automatic ones cost more than the drawing.
    figure, (axes,) = plots.new_figure(width=9.6, height=6.4, layout=None)
    axes.set_position((0.065, 0.41, 0.345, 0.50))
    figure.suptitle(made.settings.in_words(), fontsize=plots.FONT + 1, y=0.985)
    _heat_map(axes, made)
    _sample_images(figure.add_axes((0.45, 0.375, 0.54, 0.525)), made, samples)
    kept = list(kept)
    _standing(figure.add_axes((0.085, 0.085, 0.90, 0.21)), made, kept)
    figure.alt_text = alt_text(made, kept, samples)
    figure.full_colour = made.data.image_shape[0] == 3  # 64 colours spoil photographs
    return figure


def _heat_map(axes: Axes, made: NoiseTry) -> None:
    values, names = made.matrix.numpy(), made.data.class_names
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    seen = " (as counted)" if made.settings.kind == "instance" else ""
    axes.set_title(f"Transition matrix{seen}", fontsize=plots.FONT)
    axes.set_xlabel("given class", fontsize=plots.SMALL_FONT, labelpad=1)
    axes.set_ylabel("true class", fontsize=plots.SMALL_FONT, labelpad=1)
    if len(names) > 20:
        return
    axes.set_xticks(range(len(names)), [name[:4] for name in names], fontsize=8)
    axes.set_yticks(range(len(names)), [name[:4] for name in names], fontsize=8)
    for row, column in zip(*np.nonzero(values > 0.005), strict=True):
        value = values[row, column]
        axes.text(
            column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=8,
            color="white" if value > 0.55 else "black",
        )  # fmt: skip


def _sample_images(axes: Axes, made: NoiseTry, samples: list[int]) -> None:
    """Draw the samples as one mosaic: forty axes would take ten times as long."""
    images = made.data.images[samples].numpy()
    mosaic, step = _mosaic(images)
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    axes.set_axis_off()
    wrong = made.data.is_wrong[samples].tolist()
    axes.set_title(
        f"{len(samples)} images and their given labels; framed: {sum(wrong)} wrong",
        fontsize=plots.FONT,
    )
    height, width = images.shape[2:]
    size = 9 if max(map(len, made.data.class_names)) <= 4 else 8
    labels = made.data.labels[samples].tolist()
    for place, (label, bad) in enumerate(zip(labels, wrong, strict=True)):
        row, column = divmod(place, COLUMNS)
        x, y = column * step[1] - 0.5, row * step[0] - 0.5
        colour = plots.COLOURS["vermilion" if bad else "black"]
        name = made.data.class_names[label][:8]
        axes.text(
            x + width / 2, y + height + step[2] * 0.45, f"✗ {name}" if bad else name,
            ha="center", va="center", fontsize=size, color=colour,
        )  # fmt: skip
        if bad:
            axes.add_patch(
                Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=2.5)
            )


def _mosaic(images: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return all images in one, ``(h, w)`` or ``(h, w, 3)`` in 0..1, and the steps between them."""
    if images.dtype == np.uint8:
        images = images / 255.0
    count, channels, height, width = images.shape
    scale = height / 8  # gaps grow with the images
    down, right = round(height + (GAP + CAPTION) * scale / 2), round(width + GAP * scale)
    rows = -(-count // COLUMNS)
    mosaic = np.ones((rows * down, COLUMNS * right, channels))
    for place, image in enumerate(images):
        row, column = divmod(place, COLUMNS)
        top, left = row * down, column * right
        mosaic[top : top + height, left : left + width] = np.moveaxis(image, 0, -1)
    return mosaic[..., 0] if channels == 1 else mosaic, (down, right, down - height)


def _standing(axes: Axes, made: NoiseTry, kept: list[NoiseTry]) -> None:
    """Draw where the try stands: wrong labels against the margin of the majority."""
    axes.axhline(0, color=plots.COLOURS["black"], linewidth=1)
    axes.axhspan(0, 1.05, color=plots.COLOURS["sky"], alpha=0.25)
    axes.text(0.995, 0.92, "above 0: the true class is every class's most frequent label",
              transform=axes.transAxes, ha="right", va="top", fontsize=8)  # fmt: skip
    for one in kept:
        axes.plot([100 * one.wrong], [one.margin], "o", color=render.GHOST, markersize=7)
        axes.annotate(
            str(one.number), (100 * one.wrong, one.margin), textcoords="offset points",
            xytext=(5, 4), fontsize=9, color="#333333",
        )  # fmt: skip
    axes.plot(
        [100 * made.wrong], [made.margin], "D", color=plots.COLOURS["vermilion"], markersize=8
    )
    axes.set_xlim(-2, 102)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel(
        "wrong labels (%); diamond: now, grey: tries that you kept", fontsize=plots.SMALL_FONT
    )
    axes.set_ylabel("smallest\nmargin", fontsize=plots.SMALL_FONT)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)


def alt_text(made: NoiseTry, kept: list[NoiseTry], samples: list[int]) -> str:
    """Say what the figure shows, from its numbers."""
    data = made.data
    names = data.class_names
    stays, off = made.matrix.diagonal(), made.matrix.clone().fill_diagonal_(0)
    true, given = divmod(int(off.argmax()), len(names))
    heat = (
        f"Heat map of the transition matrix: a label stays right with probability "
        f"{stays.min():.2f} to {stays.max():.2f}; the largest change is "
        f"{names[true]} to {names[given]}, {off.max():.2f}."
    )
    told = [
        f"{names[true]} labelled {names[given]}"
        for true, given in zip(
            data.true_labels[samples].tolist(), data.labels[samples].tolist(), strict=True
        )
        if true != given
    ]
    wrong = f"Of {len(samples)} sample images {len(told)} have a wrong label"
    wrong += f": {', '.join(told[:8])}{' and others' if len(told) > 8 else ''}." if told else "."
    trace = [f"try {one.number} ({one.settings.in_words()}): {one.summary()}" for one in kept]
    return " ".join(
        part
        for part in (
            f"Label noise, {made.settings.in_words()}: {made.summary()}.",
            heat,
            wrong,
            f"Kept: {'; '.join(trace)}." if trace else "",
        )
        if part
    )


def status(made: NoiseTry) -> str:
    """Say the verdict of a kept try, or how to keep this one."""
    if not made.number:
        return "Move the sliders; press Keep this try to have it judged."
    kept = "Kept. " if made.reached is None else ""
    return kept + render.judged(made, made.verdict)


def _cells(made: NoiseTry) -> dict[str, str]:
    return {
        "noise": made.settings.kind,
        "rate": f"{made.settings.rate:g}",
        "draw": str(made.settings.draw),
        "wrong labels": f"{made.wrong:.1%}",
        "smallest margin": f"{made.margin:+.2f}",
        "verdict": render.marked(made, made.verdict),
    }
