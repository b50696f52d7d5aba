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

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

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


def new_figure(
    panels: int = 1,
    *,
    width: float = 0.0,
    height: float = 3.4,
    title: str | None = None,
    layout: str | None = "constrained",
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure without pyplot, and its panels from left to right.

    Args:
        panels: number of axes side by side, from 1.
        width: in inches; 0 takes 6 for one panel and 9 for more.
        height: in inches.
        title: above all panels.
        layout: matplotlib's layout engine; None leaves the margins to the caller.
    """
    size = (width or (6 if panels == 1 else 9), height)
    figure = Figure(figsize=size, dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, place + 1) for place in range(panels)]
    if title:
        figure.suptitle(title, fontsize=FONT + 1)
    figure.alt_text = title or ""
    return figure, axes


def learning_curves(histories, *, title: str | None = None) -> Figure:
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
    right = "wrong_as_given"
    if not any(np.isfinite(percent(history, right)).any() for history in histories.values()):
        right = "given_accuracy"
    words = "wrong labels memorized (%)" if right == "wrong_as_given" else "accuracy (%)"
    heading = "Wrong training labels" if right == "wrong_as_given" else "Training, given labels"
    figure, (first, second) = new_figure(2, title=title)
    parts = [title or "Learning curves", "Left, test accuracy (%):"]
    parts.append(_draw(first, {k: percent(h, "test_accuracy") for k, h in histories.items()}))
    parts.append(f"Right, {words}:")
    parts.append(_draw(second, {k: percent(h, right) for k, h in histories.items()}))
    _finish(first, heading="Test", ylabel="accuracy (%)", ylim=(0, 100))
    _finish(second, heading=heading, ylabel=words, ylim=(0, 100))
    _legend(first)
    figure.alt_text = _sentences(parts)
    return figure


def label_shares(history, *, title: str | None = None) -> Figure:
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
    series: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    title: str | None = None,
    xlabel: str = "epoch",
    ylabel: str = "",
    ylim: tuple[float, float] | None = None,
    log_x: bool = False,
) -> Figure:
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
    _legend(axes)
    subject = f"{ylabel} against {xlabel}" if ylabel else f"Lines against {xlabel}"
    figure.alt_text = _sentences([title, f"Line chart of {subject}.", told])
    return figure


def image_grid(
    images,
    captions: Sequence[str],
    *,
    columns: int = 10,
    title: str | None = None,
    marked: Sequence[bool] | None = None,
) -> Figure:
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
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"Expected `images` of shape (n, 1 or 3, height, width), got {tuple(images.shape)}"
        )
    marked = [False] * len(images) if marked is None else [bool(flag) for flag in marked]
    if not len(images) == len(captions) == len(marked):
        raise ValueError(
            f"Expected one caption and one mark an image, got {len(images)} images, "
            f"{len(captions)} captions and {len(marked)} marks"
        )
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(0.9 * columns, 1.2 * rows + (0.4 if title else 0)), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    figure.full_colour = True
    if title:
        figure.suptitle(title, fontsize=FONT + 1)
    for place, (image, caption, mark) in enumerate(zip(images, captions, marked, strict=True)):
        axes = figure.add_subplot(rows, columns, place + 1)
        _picture(axes, image, str(caption), mark)
    figure.alt_text = _grid_in_words(captions, marked, rows, columns, title)
    return figure


def matrix(transition, class_names: Sequence[str], *, title: str | None = None) -> Figure:
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
    if values.shape != (count, count):
        raise ValueError(
            f"Expected a matrix of shape ({count}, {count}) for {count} classes, got {values.shape}"
        )
    side = min(7.0, 2.0 + 0.42 * count)
    figure, (axes,) = new_figure(width=side + 0.6, height=side, title=title)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("given class", fontsize=FONT)
    axes.set_ylabel("true class", fontsize=FONT)
    if count <= 20:  # beyond that neither names nor numbers can be read
        slant = 45 if max(map(len, class_names)) > 2 else 0
        axes.set_xticks(range(count), class_names, fontsize=SMALL_FONT, rotation=slant)
        axes.set_yticks(range(count), class_names, fontsize=SMALL_FONT)
        _write_numbers(axes, values)
    figure.alt_text = _matrix_in_words(values, class_names, title)
    return figure


def heat_map(
    values,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str | None = None,
    limits: tuple[float, float] = (20, 100),
    marked=None,
) -> Figure:
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
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"Expected values of {(len(rows), len(columns))}, got {values.shape}")
    stars = np.zeros(values.shape, bool) if marked is None else np.asarray(marked, dtype=bool)
    figure, (axes,) = new_figure(width=9, height=0.9 + 0.27 * len(rows), title=title)
    axes.imshow(values, cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=SMALL_FONT)
    axes.set_yticks(range(len(rows)), rows, fontsize=SMALL_FONT)
    told = {name: [] for name in columns}
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        text = f"{value:.1f}" + ("*" if stars[row, column] else "")
        colour = "white" if value < sum(limits) / 2 else "black"
        style = {"ha": "center", "va": "center", "fontsize": SMALL_FONT, "color": colour}
        axes.text(column, row, text, **style)
        told[columns[column]].append(f"{rows[row]} {text}")
    parts = [f"{name}: {', '.join(each)}." for name, each in told.items()]
    figure.alt_text = _sentences([title, *(part.replace("\n", " ") for part in parts)])
    return figure


def percent(history, column: str) -> np.ndarray:
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
    return encode(
        figure.canvas.buffer_rgba(), few_colours=not getattr(figure, "full_colour", False)
    )


def encode(pixels, *, few_colours: bool = True, compress_level: int = 6) -> bytes:
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


def line_in_words(name: str, values: Sequence[float], x: Sequence[float], xlabel: str) -> str:
    """Say where a line starts, peaks and ends: what an eye takes from it.

    >>> line_in_words("test", [80.0, 94.0, 70.0], [1, 2, 3], "epoch")
    'test starts at 80, is highest with 94 at epoch 2, ends at 70.'
    """
    points = [(float(a), float(b)) for a, b in zip(x, values, strict=True) if isfinite(b)]
    if not points:
        return f"{name}: no values."
    if len(points) == 1:
        return f"{name} is {_short(points[0][1])} at {xlabel} {points[0][0]:g}."
    top = max(points, key=lambda point: point[1])
    low = min(points, key=lambda point: point[1])
    inner = [("highest", top), ("lowest", low)]
    inner = [(word, p) for word, p in inner if p not in (points[0], points[-1])]
    turns = "".join(
        f" is {word} with {_short(p[1])} at {xlabel} {p[0]:g}," for word, p in inner[:1]
    )
    return f"{name} starts at {_short(points[0][1])},{turns} ends at {_short(points[-1][1])}."


def _short(value: float) -> str:
    return f"{value:.3g}"


def _draw(axes: Axes, series, x=None, xlabel: str = "epoch") -> str:
    words = []
    colours = list(COLOURS)
    for place, (name, values) in enumerate(series.items()):
        by_place = (colours[place % len(colours)], DASHES[place % len(DASHES)])
        by_place += (MARKERS[place % len(MARKERS)],)
        colour, dash, marker = _LOOKS.get(name, by_place)
        values = np.asarray(values, dtype=float)
        where = np.arange(1, len(values) + 1) if x is None else np.asarray(x, dtype=float)
        axes.plot(
            where,
            values,
            label=name,
            color=COLOURS[colour],
            linestyle=dash,
            marker=marker,
            markevery=max(1, len(values) // 6),
            markersize=5,
            linewidth=2,
        )
        words.append(line_in_words(str(name), values, where, xlabel))
    return " ".join(words)


def _finish(axes: Axes, *, xlabel="epoch", ylabel="", ylim=None, heading="", whole=True) -> None:
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.set_title(heading, fontsize=FONT)
    tidy(axes)
    if ylim:
        axes.set_ylim(ylim[0], ylim[1] + 0.02 * (ylim[1] - ylim[0]))
    if whole:  # there is no epoch 2.5
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(axes: Axes) -> None:
    # Below the panel, where no curve can run behind it; long names each in a row of their own.
    for columns in (2, 1) if axes.lines else ():
        legend = axes.figure.legend(
            handles=axes.lines,
            loc="outside lower center",
            ncols=columns,
            fontsize=SMALL_FONT,
            frameon=False,
            handlelength=3,
        )
        if columns == 1 or legend.get_window_extent().width <= axes.figure.bbox.width:
            return
        legend.remove()


def _picture(axes: Axes, image, caption: str, mark: bool) -> None:
    pixels = np.asarray(image)
    shown = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    top = 255 if shown.dtype == np.uint8 else 1.0
    axes.imshow(shown, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(
        f"✗ {caption}" if mark else caption,
        fontsize=SMALL_FONT,
        pad=3,
        color=COLOURS["vermilion"] if mark else COLOURS["black"],
    )
    for spine in axes.spines.values():
        spine.set_linewidth(3 if mark else 0.5)
        spine.set_color(COLOURS["vermilion"] if mark else "#888888")


def _grid_in_words(captions, marked, rows: int, columns: int, title: str | None) -> str:
    shape = f"{len(captions)} images in {rows} row{'s' * (rows > 1)} of up to {columns}"
    listed = [
        f"{text} (marked)" if mark else f"{text}"
        for text, mark in zip(captions, marked, strict=True)
    ]
    more = f" and {len(listed) - 40} more" if len(listed) > 40 else ""
    return _sentences([title, f"{shape}: {', '.join(listed[:40])}{more}."])


def _write_numbers(axes: Axes, values: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(values > 0.005), strict=True):
        value = values[row, column]
        axes.text(
            column,
            row,
            f"{value:.2f}".lstrip("0"),
            ha="center",
            va="center",
            fontsize=SMALL_FONT,
            color="white" if value > 0.55 else "black",
        )


def _matrix_in_words(values: np.ndarray, class_names, title: str | None) -> str:
    off = values - np.diag(np.diag(values))
    stay = np.diag(values)
    told = [
        f"{class_names[row]} to {class_names[column]} {off[row, column]:.2f}"
        for row, column in zip(
            *np.unravel_index(np.argsort(-off, axis=None), off.shape), strict=True
        )
        if off[row, column] > 0.005
    ]
    kept = f"A label stays right with probability {stay.min():.2f} to {stay.max():.2f}."
    most = f"Largest changes: {', '.join(told[:5])}." if told else "No label changes."
    return _sentences(
        [title, "Transition matrix, rows are true and columns given classes.", kept, most]
    )


def _sentences(parts) -> str:
    ended = [part if part.endswith((".", ":")) else f"{part}." for part in parts if part]
    return " ".join(ended)
