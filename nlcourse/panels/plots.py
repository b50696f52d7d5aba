"""The figures of the course, from a ``History``, from images or from a matrix.

Figures are plain ``matplotlib.figure.Figure`` objects, never pyplot's: pyplot keeps one global
figure, which the threads of a live panel would spoil for each other. Each figure carries its
description in words, computed from the data, as ``figure.alt_text``; :func:`show` hands both to the
notebook. Colour is never the only carrier of a meaning: lines also differ by dash and marker,
marked images also by their frame and caption. Used in every lesson.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from math import isfinite
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from ..base import expect
from ..training.history import History

Values = Sequence[float] | np.ndarray
Look = tuple[str, Any, str]  # colour, dash, marker

# Okabe and Ito's palette, told apart with every common colour blindness. Its yellow is left out:
# too faint on white.
COLOURS = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "black": "#000000",
    "sky": "#56B4E9",
    "orange": "#E69F00",
}
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 100
FONT = 11  # points; 15 pixels at 100 dpi: readable from the back row when projected
SMALL_FONT = 10
ACROSS, DOWN, MARGIN = 1.25, 1.6, 0.1  # from one image to the next, in images; around them

# What a column of a History is called in a figure.
LABELS = {
    "test_accuracy": "test",
    "given_accuracy": "training, given labels",
    "true_accuracy": "training, true labels",
    "clean_accuracy": "rightly labelled",
    "wrong_as_true": "predicted as the true class",
    "wrong_as_given": "memorized (as the wrong label)",
    "wrong_as_other": "predicted as a third class",
    "label_precision": "label precision",
    "label_recall": "label recall",
    "label_recovery": "label recovery",
}
SHARES = ("wrong_as_true", "wrong_as_given", "wrong_as_other")
# What is measured against a kind of label has one look in every figure and panel of the course:
# colour, dash, marker.
STYLES = {
    "test_accuracy": ("blue", "-", "o"),
    "given_accuracy": ("vermilion", "--", "s"),
    "true_accuracy": ("green", "-.", "^"),
    "wrong_as_given": ("vermilion", "--", "s"),
    "wrong_as_true": ("green", "-.", "^"),
    "wrong_as_other": ("purple", ":", "v"),
    "label_precision": ("black", "-", "D"),
    "label_recall": ("sky", ":", "P"),
    "label_recovery": ("black", "-", "D"),
}
_LOOKS = {LABELS[column]: style for column, style in STYLES.items()}


class DescribedFigure(Figure):
    """A figure that says in words what it shows.

    Attributes:
        alt_text: the words.
        full_colour: it holds photographs, which 64 colours would spoil.
    """

    alt_text = ""
    full_colour = False


def new_figure(
    panels: int = 1,
    *,
    width: float = 0.0,
    height: float = 3.4,
    title: str | None = None,
    layout: Literal["constrained"] | None = "constrained",
) -> tuple[DescribedFigure, list[Axes]]:
    """Return an empty figure without pyplot, and its panels from left to right.

    Args:
        panels: number of axes side by side, from 1.
        width: in inches; 0 takes 6 for one panel and 9 for more.
        height: in inches.
        title: above all panels.
        layout: matplotlib's layout engine; None leaves the margins to the caller.
    """
    size = (width or (6 if panels == 1 else 9), height)
    figure = DescribedFigure(figsize=size, dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, place + 1) for place in range(panels)]
    if title:
        figure.suptitle(title, fontsize=FONT + 1)
    figure.alt_text = title or ""
    return figure, axes


def learning_curves(
    histories: History | Mapping[str, History], *, title: str | None = None
) -> DescribedFigure:
    """Draw accuracy against epoch.

    One history: test accuracy and accuracy on the given and the true training labels, in one panel.
    Several: test accuracy on the left; on the right the memorized share of the wrong labels or,
    when no label is wrong, the accuracy on the given labels.

    Args:
        histories: a ``History``, or a dict from the name of each run to its ``History``.
        title: above the figure.
    """
    if not isinstance(histories, Mapping):
        columns = ("test_accuracy", "given_accuracy", "true_accuracy")
        series = {LABELS[name]: percent(histories, name) for name in columns}
        if np.array_equal(series["training, given labels"], series["training, true labels"]):
            del series["training, true labels"]  # no label is wrong: the two are one
        return lines(series, title=title, ylabel="accuracy (%)", ylim=(0, 100))

    def column(name: str) -> dict[str, np.ndarray]:
        return {run: percent(history, name) for run, history in histories.items()}

    sides = {"Test": ("accuracy (%)", column("test_accuracy"))}
    if any(np.isfinite(values).any() for values in column("wrong_as_given").values()):
        words = "wrong labels memorized (%)"
        sides["Wrong training labels"] = (words, column("wrong_as_given"))
    else:
        sides["Training, given labels"] = ("accuracy (%)", column("given_accuracy"))
    figure, panels = new_figure(2, title=title)
    parts = [title or "Learning curves"]
    for axes, (heading, (words, series)) in zip(panels, sides.items(), strict=True):
        parts += [f"{heading}, {words}:", _draw(axes, series)]
        _finish(axes, heading=heading, ylabel=words, ylim=(0, 100))
    _legend(figure, panels[0])
    figure.alt_text = _sentences(parts)
    return figure


def label_shares(history: History, *, title: str | None = None) -> DescribedFigure:
    """Draw what the network makes of the wrongly labelled training examples, epoch by epoch.

    Three shares that sum to 100 %: predicted as the true class, as the given wrong class
    (memorized), as a third class (after figure 1 of Liu et al. 2020, arXiv 2007.00151).

    Args:
        history: a ``History`` of a run with wrong labels.
        title: above the figure.
    """
    series = {LABELS[name]: percent(history, name) for name in SHARES}
    return lines(
        series,
        title=title or "Wrongly labelled training examples",
        ylabel="share of them (%)",
        ylim=(0, 100),
    )


def lines(
    series: Mapping[str, Values],
    *,
    x: Values | None = None,
    title: str | None = None,
    xlabel: str = "epoch",
    ylabel: str = "",
    ylim: tuple[float, float] | None = None,
    log_x: bool = False,
) -> DescribedFigure:
    """Draw some lines with a legend.

    Args:
        series: the name of each line and its values, all as long as `x`. A value of nan leaves a
            gap.
        x: where the values stand; 1, 2, 3, ... when left out.
        title: above the figure.
        xlabel: what `x` is, with its unit.
        ylabel: what the values are, with their unit.
        ylim: lowest and highest value shown.
        log_x: a logarithmic axis below.
    """
    figure, (axes,) = new_figure(title=title)
    told = _draw(axes, series, x, xlabel)
    if log_x:
        axes.set_xscale("log")
    _finish(axes, xlabel=xlabel, ylabel=ylabel, ylim=ylim, whole=x is None)
    _legend(figure, axes)
    subject = f"{ylabel} against {xlabel}" if ylabel else f"Lines against {xlabel}"
    figure.alt_text = _sentences([title, f"Line chart of {subject}.", told])
    return figure


def image_grid(
    images: Tensor,
    captions: Sequence[str],
    *,
    columns: int = 10,
    title: str | None = None,
    marked: Sequence[bool] | None = None,
) -> DescribedFigure:
    """Draw images in rows; marked ones get a thick frame and a cross in their caption.

    Args:
        images: tensor ``(n, channels, height, width)`` with 1 or 3 channels, uint8 in 0..255 or
            float in 0..1.
        captions: n short texts.
        columns: images in a row.
        title: above the figure.
        marked: n flags, for example which labels are wrong.

    Raises:
        ValueError: captions or flags that are not as many as the images, or images of another
            shape.
    """
    fits = images.ndim == 4 and images.shape[1] in (1, 3)
    expect(fits, "`images` of shape (n, 1 or 3, height, width)", tuple(images.shape))
    marked = [False] * len(images) if marked is None else [bool(flag) for flag in marked]
    got = f"{len(images)} images, {len(captions)} captions and {len(marked)} marks"
    as_many = len(images) == len(captions) == len(marked)
    expect(as_many, "one caption and one mark an image", got)
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    figure, (axes,) = new_figure(
        width=0.9 * columns, height=1.2 * rows + (0.4 if title else 0), title=title
    )
    figure.full_colour = True
    tiles(axes, images, captions, marked, columns=columns)
    figure.alt_text = _grid_in_words(captions, marked, rows, columns, title)
    return figure


def matrix(
    transition: Any, class_names: Sequence[str], *, title: str | None = None
) -> DescribedFigure:
    """Draw a transition matrix as a heat map with its numbers.

    Args:
        transition: ``(C, C)``; row = true class, column = given class, entries are probabilities.
        class_names: C names.
        title: above the figure.

    Raises:
        ValueError: a matrix that does not fit the names.
    """
    values = np.asarray(transition, dtype=float)
    count = len(class_names)
    what = f"a matrix of shape ({count}, {count}) for {count} classes"
    expect(values.shape == (count, count), what, values.shape)
    side = min(7.0, 2.0 + 0.42 * count)
    figure, (axes,) = new_figure(width=side + 0.6, height=side, title=title)
    draw_matrix(axes, values, class_names)
    figure.alt_text = _matrix_in_words(values, class_names, title)
    return figure


def draw_matrix(
    axes: Axes, values: np.ndarray, names: Sequence[str], size: float = SMALL_FONT
) -> None:
    """Draw a transition matrix ``(C, C)`` on axes, with names and numbers of that size."""
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("given class", fontsize=FONT)
    axes.set_ylabel("true class", fontsize=FONT)
    if len(names) > 20:  # beyond that neither names nor numbers can be read
        return
    slant = 45 if max(map(len, names)) > 2 and size == SMALL_FONT else 0
    axes.set_xticks(range(len(names)), names, fontsize=size, rotation=slant)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    for row, column in np.argwhere(values > 0.005):
        value = values[row, column]
        colour = "white" if value > 0.55 else "black"
        _number(axes, row, column, f"{value:.2f}".lstrip("0"), color=colour, fontsize=size)


def heat_map(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str | None = None,
    limits: tuple[float, float] = (20, 100),
    marked: Any = None,
) -> DescribedFigure:
    """Draw a table of numbers as a heat map with its numbers; nan stays empty.

    Args:
        values: float ``(len(rows), len(columns))``, as one would print them with one decimal.
        rows: names on the left, from above.
        columns: names below; may have several lines.
        title: above the figure.
        limits: the numbers of the darkest and the brightest colour.
        marked: bool, of the shape of `values`: numbers that get a star.

    Raises:
        ValueError: values that do not fit the names.
    """
    values = np.asarray(values, dtype=float)
    shape = (len(rows), len(columns))
    expect(values.shape == shape, f"values of {shape}", values.shape)
    stars = np.zeros(values.shape, bool) if marked is None else np.asarray(marked, dtype=bool)
    figure, (axes,) = new_figure(width=9, height=0.9 + 0.27 * len(rows), title=title)
    axes.imshow(values, cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=SMALL_FONT)
    axes.set_yticks(range(len(rows)), rows, fontsize=SMALL_FONT)
    told: dict[str, list[str]] = {name: [] for name in columns}
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        text = f"{value:.1f}" + ("*" if stars[row, column] else "")
        _number(axes, row, column, text, color="white" if value < sum(limits) / 2 else "black")
        told[columns[column]].append(f"{rows[row]} {text}")
    parts = [f"{name}: {', '.join(each)}." for name, each in told.items()]
    figure.alt_text = _sentences([title, *(part.replace("\n", " ") for part in parts)])
    return figure


def _number(axes: Axes, row: int, column: int, text: str, **style: Any) -> None:
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL_FONT}
    axes.text(column, row, text, **look | style)


def tiles(
    axes: Axes,
    images: Tensor,
    captions: Sequence[str],
    marked: Sequence[bool],
    *,
    columns: int,
    top: float = 0.0,
) -> None:
    """Draw images in rows, each below its caption: one axes for all is drawn ten times as fast.

    An image is 1 wide and 1 high; the next is ``ACROSS`` to the right, the next row ``DOWN`` below.

    Args:
        axes: what to draw on; the y axis grows downward.
        images: ``(n, 1 or 3, height, width)``, uint8 in 0..255 or float in 0..1.
        captions: n short texts.
        marked: n flags: a frame and a cross.
        columns: images in a row.
        top: where the first row begins.
    """
    for place, (image, caption, mark) in enumerate(zip(images, captions, marked, strict=True)):
        x, y = place % columns * ACROSS + MARGIN, top + place // columns * DOWN + DOWN - 1
        colour = COLOURS["vermilion" if mark else "black"]
        pixels = np.moveaxis(image.numpy(), 0, -1).squeeze()
        bright = 255 if pixels.dtype == np.uint8 else 1.0
        look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": bright}
        axes.imshow(pixels, extent=(x, x + 1, y + 1, y), interpolation="nearest", **look)
        text = f"✗ {caption}" if mark else caption
        axes.text(x + 0.5, y - 0.08, text, ha="center", color=colour, fontsize=SMALL_FONT)
        if mark:
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=colour, linewidth=3))
    axes.set_axis_off()
    axes.set_aspect("equal")
    rows = -(-len(images) // columns)
    axes.set_xlim(0, columns * ACROSS)
    axes.set_ylim(top + rows * DOWN + MARGIN, 0)


def percent(history: History, column: str) -> np.ndarray:
    """Return a column of shares as percentages, float ``(epochs,)``."""
    return 100 * np.asarray(history[column], dtype=float)


def tidy(axes: Axes) -> None:
    """Give axes the look of the course: small numbers, a faint grid, no frame above and right."""
    axes.tick_params(labelsize=SMALL_FONT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG of 100 dots an inch."""
    figure.canvas.draw()
    few_colours = not getattr(figure, "full_colour", False)
    return encode(figure.canvas.buffer_rgba(), few_colours=few_colours)  # type: ignore[attr-defined]


def encode(pixels: Any, *, few_colours: bool = True, compress_level: int = 6) -> bytes:
    """Return pixels as PNG.

    Args:
        pixels: uint8 ``(height, width, 4)``, as a canvas holds them.
        few_colours: use a palette of 64 colours. A chart needs no more, and the file is a third as
            large.
        compress_level: zlib's, from 0 (fast) to 9 (small).
    """
    image = Image.fromarray(np.asarray(pixels)[..., :3])
    if few_colours:
        image = image.quantize(64, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    buffer = BytesIO()
    image.save(buffer, format="png", compress_level=compress_level)
    return buffer.getvalue()


def show(figure: Figure, alt: str | None = None) -> None:
    """Display a figure in a notebook, with its description.

    JupyterLab (4.6) draws ``image/png`` without any alt attribute and ignores the output's
    metadata; nbconvert writes the metadata's ``alt`` into the page; GitHub shows the PNG. One HTML
    output with its own ``<img alt>`` would serve JupyterLab, but then the picture is stored twice,
    or hangs on a viewer that keeps ``data:`` images in HTML. So the picture goes out once, as PNG
    with the description in its metadata and as its plain text, and below it the same description as
    text that opens on request: everyone can read that, with a screen reader or without.

    Args:
        figure: one of this module's, or any other with `alt` given.
        alt: what the figure shows; ``figure.alt_text`` when left out.

    Raises:
        ValueError: there is no description.
    """
    from IPython.display import publish_display_data

    alt = alt or getattr(figure, "alt_text", "")
    if not alt:
        raise ValueError("Expected `alt`, a sentence that says what the figure shows, got none")
    width = round(figure.get_size_inches()[0] * DPI)
    publish_display_data(
        {"image/png": png(figure), "text/plain": alt},
        metadata={"image/png": {"alt": alt, "width": width}},
    )
    words = f"<details><summary>This figure in words</summary><p>{escape(alt)}</p></details>"
    publish_display_data({"text/html": words, "text/plain": "(the figure in words: see above)"})


def line_in_words(name: str, values: Values, x: Values, xlabel: str) -> str:
    """Say where a line starts, peaks and ends: what an eye takes from it.

    >>> line_in_words("test", [80.0, 94.0, 70.0], [1, 2, 3], "epoch")
    'test starts at 80, is highest with 94 at epoch 2, ends at 70.'
    """
    points = [(float(a), float(b)) for a, b in zip(x, values, strict=True) if isfinite(b)]
    if not points:
        return f"{name}: no values."
    (begin, first), (end, last) = points[0], points[-1]
    if len(points) == 1:
        return f"{name} is {first:.3g} at {xlabel} {begin:g}."
    for word, choose in (("highest", max), ("lowest", min)):
        where, value = choose(points, key=lambda point: point[1])
        if where not in (begin, end):
            turn = f" is {word} with {value:.3g} at {xlabel} {where:g},"
            return f"{name} starts at {first:.3g},{turn} ends at {last:.3g}."
    return f"{name} starts at {first:.3g}, ends at {last:.3g}."


def curve(
    axes: Axes, name: str | None, values: Values, look: Look, x: Values | None = None, **style: Any
) -> Line2D:
    """Draw one line of a chart in its look; x is 1, 2, 3, ... when left out."""
    colour, dash, marker = look
    where = range(1, len(values) + 1) if x is None else x
    common: dict[str, Any] = {"markevery": max(1, len(values) // 7), "markersize": 5}
    common |= {"color": COLOURS.get(colour, colour), "linestyle": dash, "marker": marker}
    (line,) = axes.plot(where, values, label=name, **common | {"linewidth": 2} | style)
    return line


def label_axes(axes: Axes, xlabel: str, ylabel: str = "", heading: str = "") -> None:
    """Write what stands on axes, and give them the look of the course."""
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.set_title(heading, fontsize=FONT)
    tidy(axes)


def looks() -> list[Look]:
    """Return as many looks as can be told apart, for lines that have none of their own."""
    return list(zip(COLOURS, DASHES, MARKERS, strict=True))


def _draw(
    axes: Axes, series: Mapping[str, Values], x: Values | None = None, xlabel: str = "epoch"
) -> str:
    words = []
    for place, (name, values) in enumerate(series.items()):
        look = _LOOKS.get(name, looks()[place % len(COLOURS)])
        line = curve(axes, name, np.asarray(values, dtype=float), look, x)
        words.append(line_in_words(str(name), values, np.asarray(line.get_xdata()), xlabel))
    return " ".join(words)


def _finish(
    axes: Axes,
    *,
    xlabel: str = "epoch",
    ylabel: str = "",
    ylim: tuple[float, float] | None = None,
    heading: str = "",
    whole: bool = True,
) -> None:
    label_axes(axes, xlabel, ylabel, heading)
    if ylim:
        axes.set_ylim(ylim[0], ylim[1] + 0.02 * (ylim[1] - ylim[0]))
    if whole:  # there is no epoch 2.5
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: Figure, axes: Axes) -> None:
    # Below the panel, where no curve can run behind it; long names each in a row of their own.
    style: dict[str, Any] = {"fontsize": SMALL_FONT, "frameon": False, "handlelength": 3}
    for columns in (2, 1) if axes.lines else ():
        legend = figure.legend(
            handles=axes.lines, loc="outside lower center", ncols=columns, **style
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _grid_in_words(
    captions: Sequence[str], marked: Sequence[bool], rows: int, columns: int, title: str | None
) -> str:
    shape = f"{len(captions)} images in {rows} row{'s' * (rows > 1)} of up to {columns}"
    pairs = zip(captions, marked, strict=True)
    listed = [f"{text} (marked)" if mark else str(text) for text, mark in pairs]
    more = f" and {len(listed) - 40} more" if len(listed) > 40 else ""
    return _sentences([title, f"{shape}: {', '.join(listed[:40])}{more}."])


def _matrix_in_words(values: np.ndarray, class_names: Sequence[str], title: str | None) -> str:
    off = values - np.diag(np.diag(values))
    stay = np.diag(values)
    largest = np.column_stack(np.unravel_index(np.argsort(-off, axis=None), off.shape))
    told = [
        f"{class_names[row]} to {class_names[column]} {off[row, column]:.2f}"
        for row, column in largest[:5]
        if off[row, column] > 0.005
    ]
    kept = f"A label stays right with probability {stay.min():.2f} to {stay.max():.2f}."
    most = f"Largest changes: {', '.join(told)}." if told else "No label changes."
    return _sentences(
        [title, "Transition matrix, rows are true and columns given classes.", kept, most]
    )


def _sentences(parts: Sequence[str | None]) -> str:
    ended = [part if part.endswith((".", ":")) else f"{part}." for part in parts if part]
    return " ".join(ended)
