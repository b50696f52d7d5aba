"""How tries look: charts as PNG, words and tables as HTML. No Jupyter here.

A panel says what its charts show (:class:`Chart`, :class:`Curve`); how they are drawn and told in
words is the same for all of them.
"""

from __future__ import annotations

import functools
import threading
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from . import plots
from .state import Goal, Run

GHOST = "#8a8a8a"
MAX_PICTURES = 6  # 1.5 MB each


@dataclass(frozen=True, eq=False)
class Curve:
    """A line of a chart.

    Attributes:
        label: what it is; of a curve in grey the number at its end.
        y: its values.
        look: colour, dash and marker.
        x: where they stand; 1, 2, 3, ... when left out.
        spread: lowest and highest values around it.
    """

    label: str
    y: np.ndarray
    look: plots.Look = (GHOST, "-", "")
    x: Sequence[float] | np.ndarray | None = None
    spread: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def where(self) -> np.ndarray:
        """Where the values stand."""
        return np.arange(1, len(self.y) + 1) if self.x is None else np.asarray(self.x)

    def in_words(self, xlabel: str) -> str:
        """Say where the curve starts, turns and ends."""
        return plots.line_in_words(self.label, self.y, self.where, xlabel)


@dataclass(frozen=True, eq=False)
class Chart:
    """Curves on common axes.

    Attributes:
        heading: above it.
        curves: those of the run.
        ghosts: those of earlier runs, in grey.
        ghosts_are: what the grey curves are, for the legend.
        xlabel: what stands below, with its unit.
        ylabel: what stands on the left, with its unit.
        xlim: lowest and highest x; as the curves have it when left out.
        ylim: lowest and highest y.
        xscale: "linear", or "symlog", which has a place for 0.
        note: written across the middle.
        named: it has a legend.
    """

    heading: str
    curves: Sequence[Curve] = ()
    ghosts: Sequence[Curve] = ()
    ghosts_are: str = ""
    xlabel: str = "epoch"
    ylabel: str = "share (%)"
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] = (0, 102)
    xscale: str = "linear"
    note: str = ""
    named: bool = True

    @property
    def still(self) -> tuple[object, ...]:
        """What does not move while a run is on."""
        grey = tuple((ghost.label, ghost.y.tobytes()) for ghost in self.ghosts)
        return self.heading, self.xlim, tuple(curve.label for curve in self.curves), grey


def draw(
    charts: Sequence[Chart], *, title: str = "", height: float = 4.3, bottom: float = 0.32
) -> plots.DescribedFigure:
    """Return the figure of some charts beside each other.

    Args:
        charts: from left to right.
        title: above all of them.
        height: in inches.
        bottom: share of the height below the axes, where the legends are.
    """
    # A fixed layout: matplotlib's automatic ones are solved anew at every drawing.
    figure, panels = plots.new_figure(len(charts), width=9, height=height, layout=None)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.86, bottom=bottom, wspace=0.17)
    figure.suptitle(title, fontsize=plots.FONT)
    for axes, chart in zip(panels, charts, strict=True):
        _fill(axes, chart)
    return figure


def _fill(axes: Axes, chart: Chart) -> None:
    plots.label_axes(axes, chart.xlabel, chart.ylabel, chart.heading)
    axes.set_xscale(chart.xscale)
    if chart.xlabel == "epoch":  # there is no epoch 2.5
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if chart.xlim:
        axes.set_xlim(chart.xlim)
    axes.set_ylim(chart.ylim)
    for curve in chart.curves:
        line = plots.curve(axes, curve.label, curve.y, curve.look, curve.where, zorder=3)
        if curve.spread:
            axes.fill_between(curve.where, *curve.spread, color=line.get_color(), alpha=0.18, lw=0)
    style: dict[str, Any] = {"ha": "center", "fontsize": plots.FONT}
    axes.text(0.5, 0.5, chart.note, transform=axes.transAxes, **style)
    handles = list(axes.lines)
    if chart.ghosts:
        _haunt(axes, chart)
        handles.append(Line2D([], [], color=GHOST, linewidth=1, label=chart.ghosts_are))
    if handles and chart.named:
        # Under the axes: inside it would hide some part of some curve.
        columns = 2 if len(handles) > 4 else 1
        axes.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=columns,
            fontsize=plots.SMALL_FONT, frameon=False, handlelength=3, labelspacing=0.25,
        )  # fmt: skip


def _haunt(axes: Axes, chart: Chart) -> None:
    """Put earlier runs on the axes in grey, each with the number of its row in the table."""
    free, step = chart.ylim[0], 0.07 * (chart.ylim[1] - chart.ylim[0])
    for ghost in sorted(chart.ghosts, key=lambda ghost: ghost.y[-1]):
        plots.curve(axes, None, ghost.y, ghost.look, ghost.where, linewidth=1, zorder=1)
        if np.isnan(ghost.y[-1]):
            continue
        height = max(float(ghost.y[-1]), free)  # pushed up until they stand clear of each other
        free = height + step
        axes.annotate(
            ghost.label, (ghost.where[-1], height), xytext=(3, 0), textcoords="offset points",
            fontsize=plots.SMALL_FONT, color="#555555", annotation_clip=False,
        )  # fmt: skip


class Picture:
    """Charts of a run that is on, drawn many times a second.

    Only what moves is drawn again: axes, legends and ghosts are kept as pixels, and the few curves
    of the run are put on top.
    """

    def __init__(self, charts: Sequence[Chart]) -> None:
        """Draw what stands still."""
        self.charts = charts  # kept: nothing else may get their numbers
        self.figure = draw(charts)
        self.canvas = cast(Any, self.figure.canvas)
        counts = [len(chart.curves) for chart in charts]
        axes = self.figure.axes
        self.lines = [a.lines[:count] for a, count in zip(axes, counts, strict=True)]
        self.notes = [a.texts[0] for a in axes]
        for artist in (*self.notes, *(line for group in self.lines for line in group)):
            artist.set_animated(True)
        self.canvas.draw()
        self.behind = self.canvas.copy_from_bbox(self.figure.bbox)

    def png(self, charts: Sequence[Chart]) -> bytes:
        """Return the picture of charts that differ from the first ones in what moves."""
        self.canvas.restore_region(self.behind)
        for axes, chart, lines, note in zip(
            self.figure.axes, charts, self.lines, self.notes, strict=True
        ):
            for line, curve in zip(lines, chart.curves, strict=True):
                line.set_data(curve.where, curve.y)
                line.set_markevery(max(1, len(curve.y) // 7))
                axes.draw_artist(line)
            note.set_text(chart.note)
            axes.draw_artist(note)
        return plots.encode(self.canvas.buffer_rgba(), compress_level=3)


class Album:
    """The latest pictures, one a kind.

    One for all panels of a kernel: ipywidgets never forgets a panel, and a student who runs a cell
    all afternoon would gather pictures of 1.5 MB each.

    Attributes:
        lock: to be held while drawing: several workers and cells share the pictures.
    """

    def __init__(self) -> None:
        """Hold no picture yet."""
        self.lock = threading.RLock()
        self._picture = functools.lru_cache(MAX_PICTURES)(lambda still: Picture(self._charts))

    def png(self, charts: Sequence[Chart]) -> bytes:
        """Return charts as PNG, on a picture that was drawn before if there is any."""
        with self.lock:
            self._charts = charts
            return self._picture(tuple(chart.still for chart in charts)).png(charts)


ALBUM = Album()


def alt_text(run: Run | None, ghosts: Sequence[Run], charts: Sequence[Chart]) -> str:
    """Say what the charts of a run show, from their numbers."""
    if run is None or not len(run.history):
        headings = "; ".join(f"{chart.heading} against {chart.xlabel}" for chart in charts)
        return f"Empty charts, {headings}: {run.summary() if run else 'no try yet'}."
    told = [f"{run.settings.in_words()}."]
    for chart in charts:
        told.append(f"{chart.heading}, {chart.ylabel}, against {chart.xlabel}:")
        told += [c.in_words(chart.xlabel) for c in chart.curves if not np.isnan(c.y).all()]
    told += [
        f"In grey, {g.noun.lower()} {g.number}, {g.settings.in_words()}: {g.summary()}."
        for g in ghosts
    ]
    return " ".join(told)


def picture_html(figure: plots.DescribedFigure, caption: str = "", *, busy: bool = False) -> str:
    """Return a figure that describes itself, with a live caption below it, as HTML."""
    return image_html(plots.png(figure), figure.alt_text, caption, busy=busy)


def image_html(png: bytes, alt: str, caption: str = "", *, busy: bool = False) -> str:
    """Return picture, alternative text and caption as one piece of HTML.

    The caption is a polite live region, busy while the run is on: a screen reader then speaks when
    it has ended, and not ten times a second.
    """
    words = f'<figcaption aria-live="polite">{escape(caption)}</figcaption>' if caption else ""
    return (
        f'<figure style="margin:0" aria-busy="{str(busy).lower()}">'
        f'<img alt="{escape(alt)}" style="max-width:100%" '
        f'src="data:image/png;base64,{b64encode(png).decode()}">{words}</figure>'
    )


def in_grey(ghosts: int) -> str:
    """Say how many earlier tries stay on the picture, as the end of its caption."""
    return f" In grey: {ghosts} earlier {'try' if ghosts == 1 else 'tries'}." if ghosts else ""


def goal_html(goal: Goal | None) -> str:
    """Return the goal's sentence."""
    return f"<p style='margin:0'><strong>Goal:</strong> {escape(goal.text)}</p>" if goal else ""


def status_html(words: str, trace: str = "") -> str:
    """Return a sentence that a screen reader speaks when it changes, and an error's traceback."""
    spoken = f'<p role="status" aria-live="polite" style="margin:0">{escape(words)}</p>'
    if not trace:
        return spoken
    shown = escape(trace[-4000:])
    return f"{spoken}<details><summary>Where it happened</summary><pre>{shown}</pre></details>"


def error_words(run: Run) -> str:
    """Say what ended a run, and what is left of it."""
    told = str(run.error) or "it gave no message"
    kept = f" The {len(run.history)} epochs before it are kept." if len(run.history) else ""
    return f"This run ended early: {type(run.error).__name__}: {told}{kept}"


def marked(run: Run, words: str, *, long: bool = False) -> str:
    """Return words about a run after what became of its goal: in full, or its mark alone."""
    full = {True: "✓ Goal reached: ", False: "✗ Not yet: ", None: ""}[run.reached]
    return (full if long else full[:2]) + words


def table_html(
    caption: str, rows: Sequence[Mapping[str, str]], head: str, current: int = -1
) -> str:
    """Return a table, or nothing without rows.

    Args:
        caption: what it is.
        rows: the text of each cell by the head of its column.
        head: the column that names the rows.
        current: the row that is marked.
    """
    if not rows:
        return ""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0])
    body = ""
    for place, row in enumerate(rows):
        cells = "".join(
            f'<th scope="row">{escape(cell)}</th>' if name == head else f"<td>{escape(cell)}</td>"
            for name, cell in row.items()
        )
        mark = ' aria-current="true"' if place == current else ""
        body += f"<tr{mark}>{cells}</tr>"
    return (
        f'<style>{_STYLE}</style><table class="nlcourse-tries-table"><caption>{caption}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
    )


_STYLE = (
    ".nlcourse-tries-table{border-collapse:collapse;line-height:1.4}"
    ".nlcourse-tries-table caption{text-align:left;font-weight:bold}"
    ".nlcourse-tries-table :is(th,td){padding:1px 8px;text-align:left;"
    "border-bottom:1px solid #8a8a8a}"
)
