"""How runs look: pictures as PNG, words and tables as HTML. No Jupyter here.

The HTML is that of all panels, the picture that of :class:`Explorer`.

The picture of a live run is drawn many times a second, so only what moves is drawn again: axes,
legends and ghosts are kept as pixels and the few lines of the current run are put on top.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from math import isnan

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from . import plots
from .state import Goal, Run, State

SIZE = (9.0, 4.1)  # inches; 900 x 410 pixels, the width of a notebook's output
GHOST = "#8a8a8a"
LEFT = ("test_accuracy", "given_accuracy")
SHARES = ("wrong_as_given", "wrong_as_true", "wrong_as_other")
SELECTED = ("wrong_as_given", "wrong_as_true", "label_precision")
MAX_PICTURES = 6  # 1.5 MB each
GHOST_COLUMNS = ("test_accuracy", "wrong_as_given")  # what stays of an earlier try, left and right


class Album:
    """Pictures to draw on, one a kind: how many epochs, which curves, ghosts or none.

    Attributes:
        lock: to be held while drawing: several workers and cells share the pictures.
    """

    def __init__(self) -> None:
        """Hold no picture yet."""
        self.lock = threading.RLock()
        self._pictures: OrderedDict[tuple, Picture] = OrderedDict()

    def draw(self, run: Run | None, ghosts: Iterable[Run] = ()) -> bytes:
        """Return the picture of a run (or of none yet) with earlier runs behind it, as PNG."""
        ghosts = list(ghosts)
        lengths = [run.settings.epochs] if run else []
        last = max([*lengths, *(len(ghost.history) for ghost in ghosts)], default=30)
        return self.picture(last, right_columns(run), bool(ghosts)).draw(run, ghosts)

    def picture(self, last: int, columns: tuple[str, ...], haunted: bool) -> Picture:
        """Return the picture of a kind. Asked for in advance, it saves time at the first point."""
        key = (last, columns, haunted)
        if key not in self._pictures:
            self._pictures[key] = Picture(last, columns, haunted)
        self._pictures.move_to_end(key)
        while len(self._pictures) > MAX_PICTURES:
            self._pictures.popitem(last=False)
        return self._pictures[key]


# One for all panels of a kernel: ipywidgets never forgets a panel, and a student who runs a cell
# all afternoon would gather pictures of 1.5 MB each.
ALBUM = Album()


class Picture:
    """Two charts: accuracies on the left, the wrongly labelled examples on the right.

    Args:
        last: the last epoch on the axes.
        columns: the curves on the right.
        haunted: there will be ghosts.
    """

    def __init__(self, last: int, columns: tuple[str, ...] = SHARES, haunted: bool = False) -> None:
        """Draw what stands still."""
        # A fixed layout: matplotlib's automatic ones are solved anew at every drawing.
        self.figure, (self.left, self.right) = plots.new_figure(
            2, width=SIZE[0], height=SIZE[1], layout=None
        )
        self.figure.subplots_adjust(left=0.07, right=0.985, top=0.92, bottom=0.335, wspace=0.17)
        selects = columns == SELECTED
        heading = (
            "Wrong labels, and the labels selected" if selects else "Wrongly labelled examples"
        )
        self._axes(self.left, last, "Accuracy", "share of the examples (%)")
        self._axes(self.right, last, heading, "share (%)" if selects else "share of them (%)")
        self._lines = {name: self._line(self.left, name) for name in LEFT}
        self._lines |= {name: self._line(self.right, name) for name in columns}
        self._nothing_wrong = self.right.text(
            0.5, 0.5, "no label is wrong", transform=self.right.transAxes, ha="center",
            fontsize=plots.FONT, visible=False, animated=True,
        )  # fmt: skip
        self._legend(self.left, "earlier tries, test" if haunted else "")
        self._legend(self.right, "earlier tries, memorized" if haunted else "")
        self.figure.canvas.draw()
        self._empty = self.figure.canvas.copy_from_bbox(self.figure.bbox)
        self._behind, self._behind_key = self._empty, ()

    def draw(self, run: Run | None, ghosts: Sequence[Run] = ()) -> bytes:
        """Return the picture as PNG; only what moves is drawn."""
        canvas = self.figure.canvas
        self._haunt(ghosts)
        canvas.restore_region(self._behind)
        self._move_lines(run)
        for artist in (*self._lines.values(), self._nothing_wrong):
            artist.axes.draw_artist(artist)
        return plots.encode(canvas.buffer_rgba(), compress_level=3)

    def still(self, run: Run, ghosts: Sequence[Run] = ()) -> Figure:
        """Return the figure with all drawn for good; the picture is not used after that."""
        for axes, name in zip((self.left, self.right), GHOST_COLUMNS, strict=True):
            _ghost_artists(axes, name, ghosts)
        self._move_lines(run)
        for artist in (*self._lines.values(), self._nothing_wrong):
            artist.set_animated(False)
        self.figure.suptitle(run.settings.in_words(), fontsize=plots.FONT)
        self.figure.subplots_adjust(top=0.84)
        self.figure.alt_text = alt_text(run, ghosts)
        return self.figure

    def _axes(self, axes: Axes, last: int, heading: str, label: str) -> None:
        axes.set_title(heading, fontsize=plots.FONT)
        axes.set_xlabel("epoch", fontsize=plots.FONT)
        axes.set_ylabel(label, fontsize=plots.FONT)
        axes.set_xlim(0, last + 0.5)
        axes.set_ylim(0, 102)
        plots.tidy(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    def _line(self, axes: Axes, name: str) -> Line2D:
        colour, dash, marker = plots.STYLES[name]
        (line,) = axes.plot(
            [], [], label=plots.LABELS[name], color=plots.COLOURS[colour], linestyle=dash,
            marker=marker, markersize=5, linewidth=2, animated=True, zorder=3, clip_on=False,
        )  # fmt: skip
        return line

    def _legend(self, axes: Axes, ghosts: str) -> None:
        # Under the axes: inside it would hide some part of some curve.
        handles = [line for line in self._lines.values() if line.axes is axes]
        if ghosts:
            handles.append(Line2D([], [], color=GHOST, linewidth=1, label=ghosts))
        axes.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.0, -0.16),
            fontsize=plots.SMALL_FONT, frameon=False, handlelength=3, labelspacing=0.25,
        )  # fmt: skip

    def _haunt(self, ghosts: Sequence[Run]) -> None:
        """Draw the earlier runs once; they stay behind the lines as long as they are the same."""
        key = tuple((id(ghost), len(ghost.history)) for ghost in ghosts)
        if key == self._behind_key:
            return
        self._kept = list(ghosts)  # as long as they live nobody else gets their ids
        canvas = self.figure.canvas
        canvas.restore_region(self._empty)
        for axes, name in zip((self.left, self.right), GHOST_COLUMNS, strict=True):
            for artist in _ghost_artists(axes, name, ghosts):
                axes.draw_artist(artist)
                artist.remove()
        self._behind, self._behind_key = canvas.copy_from_bbox(self.figure.bbox), key

    def _move_lines(self, run: Run | None) -> None:
        empty = run is None or not len(run.history)
        self._nothing_wrong.set_visible(not empty and isnan(run.history.last["wrong_as_given"]))
        for name, line in self._lines.items():
            values = np.empty(0) if empty else plots.percent(run.history, name)
            line.set_data(np.arange(1, len(values) + 1), values)
            line.set_markevery(max(1, len(values) // 8))


def _ghost_artists(axes: Axes, name: str, ghosts: Sequence[Run]) -> list[Artist]:
    """Put earlier runs on the axes in grey, each with the number of its row in the table."""
    artists: list[Artist] = []
    free = 0.0  # numbers are pushed up until they stand clear of each other
    curves = [(ghost.number, plots.percent(ghost.history, name)) for ghost in ghosts]
    for number, values in sorted(curves, key=lambda curve: curve[1][-1]):
        epochs = np.arange(1, len(values) + 1)
        artists += axes.plot(epochs, values, color=GHOST, linewidth=1, zorder=1)
        if isnan(values[-1]):
            continue
        height = max(values[-1], free)
        free = height + 7
        artists.append(
            axes.text(
                epochs[-1] + 0.2, height, str(number), fontsize=plots.SMALL_FONT, color="#555555"
            )
        )
    return artists


def static_figure(run: Run, ghosts: Sequence[Run] = ()) -> Figure:
    """Return the picture of a run, with earlier ones behind it, as a figure of its own."""
    last = max([run.settings.epochs, *(len(ghost.history) for ghost in ghosts)])
    return Picture(last, right_columns(run), bool(ghosts)).still(run, ghosts)


def alt_text(run: Run | None, ghosts: Sequence[Run] = ()) -> str:
    """Say what the picture shows, from its numbers."""
    if run is None or not len(run.history):
        return "Two empty charts, accuracy and wrongly labelled examples against epoch: no run yet."
    names = (*LEFT, *right_columns(run))
    told = [
        plots.line_in_words(
            plots.LABELS[name], plots.percent(run.history, name), run.history["epoch"], "epoch"
        )
        for name in names
        if not isnan(run.history.last[name])
    ]
    told += [f"In grey, try {g.number}, {g.settings.in_words()}: {g.summary()}." for g in ghosts]
    return f"Curves in percent against epoch for {run.settings.in_words()}. {' '.join(told)}"


def figure_html(png: bytes, run: Run | None, ghosts: int = 0) -> str:
    """Return the picture of a run with its words."""
    busy = run is not None and run.running
    return image_html(png, alt_text(run), caption(run, ghosts), busy=busy)


def picture_html(figure: Figure, caption: str = "", *, busy: bool = False) -> str:
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


def caption(run: Run | None, ghosts: int = 0) -> str:
    """Say how far the run is and where it stands."""
    if run is None:
        return "Choose settings, then press Start."
    if not len(run.history):
        return f"Try {run.number}: training begins.{in_grey(ghosts)}"
    where = f"epoch {len(run.history)} of {run.settings.epochs}"
    return f"Try {run.number}, {where}: {run.summary()}.{in_grey(ghosts)}"


def in_grey(ghosts: int) -> str:
    """Say how many earlier tries stay on the picture, as the end of its caption."""
    return f" In grey: {ghosts} earlier {'try' if ghosts == 1 else 'tries'}." if ghosts else ""


def goal_html(goal: Goal | None) -> str:
    """Return the goal's sentence."""
    return f"<p style='margin:0'><strong>Goal:</strong> {escape(goal.text)}</p>" if goal else ""


def status_html(run: Run | None, note: str = "") -> str:
    """Return how the run is doing: on, done with its verdict, stopped, or ended by an error."""
    if run is None:
        return status_line(note)
    if run.running:
        return status_line(note or "Training … Stop ends it at once.")
    if run.error is not None:
        return status_line(_error_words(run)) + _trace_html(run)
    words = judged(run, run.verdict or "Done.")
    return status_line(f"{note} {words[0].upper()}{words[1:]}".strip())


def status_line(words: str) -> str:
    """Return a sentence that a screen reader speaks when it changes."""
    return f'<p role="status" aria-live="polite" style="margin:0">{escape(words)}</p>'


def judged(run: Run, words: str) -> str:
    """Return words about a run after what became of its goal."""
    return {True: "✓ Goal reached: ", False: "✗ Not yet: ", None: ""}[run.reached] + words


def marked(run: Run, words: str) -> str:
    """Return words about a run after the goal's mark alone, as a table has room for."""
    return {True: "✓ ", False: "✗ ", None: ""}[run.reached] + words


def _error_words(run: Run) -> str:
    told = str(run.error) or "it gave no message"
    kept = f" The {len(run.history)} epochs before it are kept." if len(run.history) else ""
    return (
        f"This run ended early: {type(run.error).__name__}: {told}{kept} "
        "Change the settings and press Start again."
    )


def _trace_html(run: Run) -> str:
    shown = escape(run.trace[-4000:])
    return f"<details><summary>Where it happened</summary><pre>{shown}</pre></details>"


def tries_html(state: State) -> str:
    """Return the table of tries, the latest one last; empty without tries."""
    verdict = state.goal is not None or any(run.verdict for run in state.tries)
    return trace_html(state.tries, state.current, lambda run: _cells(run, verdict))


def _cells(run: Run, verdict: bool) -> dict[str, str]:
    settings = run.settings
    noise = f"{settings.noise_kind} {100 * settings.noise_rate:.0f} %"
    cells = {
        "noise": f"{settings.dataset}, {noise}",
        "learning rate": f"{settings.lr:.3g}",
        "method": settings.method_in_words(),
        **_measured(run),
    }
    if verdict:
        cells["verdict"] = marked(run, run.verdict or ("running" if run.running else ""))
    return cells


def _measured(run: Run) -> dict[str, str]:
    if not len(run.history):
        return dict.fromkeys(("best test", "last test", "memorized"), "–")
    last, (best, epoch) = run.history.last, run.best()
    memorized = last["wrong_as_given"]
    return {
        "best test": f"{100 * best:.1f} % (epoch {epoch})",
        "last test": f"{100 * last['test_accuracy']:.1f} %",
        "memorized": "–" if isnan(memorized) else f"{100 * memorized:.0f} %",
    }


def trace_html(
    runs: Iterable[Run],
    current: Run | None,
    cells: Callable[[Run], Mapping[str, str]],
    caption: str = "Your tries",
) -> str:
    """Return the table of the tries of any panel; empty without tries.

    Args:
        runs: the tries, oldest first.
        current: the one that is marked.
        cells: what a row says of a try, by the heads of the columns.
        caption: what the table is.
    """
    told = [(run, cells(run)) for run in runs]
    if not told:
        return ""
    rows = [_row_html(run.number, words.values(), run is current) for run, words in told]
    return table_html(caption, ("try", *told[0][1]), rows)


def _row_html(number: int, cells: Iterable[str], current: bool) -> str:
    head = f"► {number}" if current else str(number)
    mark = ' aria-current="true"' if current else ""
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr{mark}><th scope="row">{head}</th>{row}</tr>'


def table_html(caption: str, heads: Iterable[str], rows: Iterable[str]) -> str:
    """Return a table of rows that are HTML already."""
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return (
        f'<style>{_STYLE}</style><table class="nlcourse-tries-table"><caption>{caption}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


_STYLE = (
    ".nlcourse-tries-table{border-collapse:collapse;line-height:1.4}"
    ".nlcourse-tries-table caption{text-align:left;font-weight:bold}"
    ".nlcourse-tries-table :is(th,td){padding:1px 8px;text-align:left;"
    "border-bottom:1px solid #8a8a8a}"
)


def right_columns(run: Run | None) -> tuple[str, ...]:
    """Return the curves on the right: three shares, or label precision if examples are selected."""
    if run is not None and len(run.history) and not isnan(run.history.last["label_precision"]):
        return SELECTED
    return SHARES
