"""Figures: drawn without pyplot, described from their data, shown with that description."""

from __future__ import annotations

import math
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from nlcourse.panels import plots
from nlcourse.training.history import COLUMNS, History


def make_history(test=(0.5, 0.9, 0.7), memorized=(0.1, 0.4, 0.8), **columns) -> History:
    """A history with these columns; the rest follows from them or is nan."""
    given = {"test_accuracy": test, "wrong_as_given": memorized, **columns}
    given.setdefault("given_accuracy", [0.3] * len(test))
    given.setdefault("true_accuracy", [0.6] * len(test))
    given.setdefault("wrong_as_true", [1 - m for m in memorized])
    given.setdefault("wrong_as_other", [0.0] * len(memorized))
    rows = []
    for epoch in range(len(test)):
        row = dict.fromkeys(COLUMNS, math.nan) | {"epoch": epoch + 1}
        rows.append(row | {name: values[epoch] for name, values in given.items()})
    return History(rows)


def all_figures() -> dict[str, Figure]:
    history = make_history()
    matrix = torch.full((3, 3), 0.1) + 0.7 * torch.eye(3)
    return {
        "one run": plots.learning_curves(history, title="One"),
        "two runs": plots.learning_curves({"a": history, "b": history}),
        "shares": plots.label_shares(history),
        "images": plots.image_grid(torch.rand(3, 1, 8, 8), ["0", "1", "2"], marked=[0, 1, 0]),
        "colour images": plots.image_grid(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["a", "b"]),
        "matrix": plots.matrix(matrix, ["cat", "dog", "owl"]),
        "heat map": plots.heat_map([[1.0, 99.0]], ["elr"], ["easy\n20%", "hard"], title="All"),
        "lines": plots.lines({"up": [1, 2]}, x=[0.1, 10], xlabel="lr", ylabel="loss", log_x=True),
    }


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return all_figures()


@pytest.mark.parametrize("name", list(all_figures()))
def test_every_figure_is_small_readable_and_described(figures, name):
    figure = figures[name]
    data = plots.png(figure)
    assert len(data) < 60_000
    assert Image.open(BytesIO(data)).size == tuple(figure.get_size_inches() * 100)
    assert len(figure.alt_text) > 20
    assert figure.alt_text.endswith(".")
    sizes = [text.get_fontsize() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        sizes += [axes.title.get_fontsize(), axes.xaxis.label.get_fontsize()]
        sizes += [tick.get_fontsize() for tick in axes.get_xticklabels()]
    assert min(sizes) >= 10


@pytest.mark.parametrize("name", ["one run", "two runs", "shares"])
def test_lines_differ_by_more_than_colour_and_axes_have_units(figures, name):
    for axes in figures[name].axes:
        looks = [(line.get_linestyle(), line.get_marker()) for line in axes.lines]
        assert len(set(looks)) == len(looks) >= 2
        assert axes.get_xlabel() == "epoch"
        assert "(%)" in axes.get_ylabel()


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["a", "b", "c"], 2),
        (["alignment of minus the gradient with v", "wrongly labelled, seen through"], 1),
    ],
)
def test_a_legend_of_long_names_stays_inside_the_figure(names, columns):
    figure = plots.lines({name: [1, 2] for name in names})
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert len({round(text.get_window_extent().x0) for text in legend.texts}) == columns


def test_the_description_follows_the_numbers():
    words = plots.learning_curves(make_history(test=(0.5, 0.875, 0.25))).alt_text
    assert "test starts at 50, is highest with 87.5 at epoch 2, ends at 25." in words


def test_without_wrong_labels_the_right_panel_shows_the_training_accuracy():
    clean = make_history(memorized=(math.nan,) * 3, wrong_as_true=[math.nan] * 3)
    figure = plots.learning_curves({"a": clean, "b": clean})
    assert "accuracy" in figure.axes[1].get_ylabel()
    assert "no values" not in figure.alt_text


def test_line_in_words_without_values():
    assert plots.line_in_words("x", [math.nan], [1], "epoch") == "x: no values."


def test_marked_images_have_frame_and_cross(figures):
    (axes,) = figures["images"].axes
    assert [text.get_text() for text in axes.texts] == ["0", "✗ 1", "2"]
    (frame,) = axes.patches
    assert frame.get_x() == axes.images[1].get_extent()[0]
    assert "1 (marked)" in figures["images"].alt_text


def test_matrix_says_the_largest_changes():
    transition = np.eye(3)
    transition[0] = [0.6, 0.0, 0.4]
    words = plots.matrix(transition, ["cat", "dog", "owl"]).alt_text
    assert "Largest changes: cat to owl 0.40." in words


def test_heat_map_writes_every_number_stars_the_marked_and_leaves_nan_empty():
    values = torch.tensor([[98.04, math.nan], [26.4, 55.0]])
    marked = [[False, False], [True, False]]
    figure = plots.heat_map(values, ["elr", "dmi"], ["a\n40%", "b"], title="All", marked=marked)
    assert figure.alt_text == "All. a 40%: elr 98.0, dmi 26.4*. b: dmi 55.0."
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert set(texts) == {"98.0", "26.4*", "55.0"}
    assert texts["98.0"].get_color() == "black"  # on the bright end
    assert texts["26.4*"].get_color() == "white"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.heat_map([[1.0]], ["a", "b"], ["c"]), r"values of \(2, 1\), got \(1, 1\)"),
        (lambda: plots.image_grid(torch.rand(2, 8, 8), ["a", "b"]), "images"),
        (lambda: plots.image_grid(torch.rand(2, 1, 8, 8), ["a"]), "caption"),
        (lambda: plots.matrix(np.eye(2), ["a", "b", "c"]), "matrix"),
        (lambda: plots.show(Figure()), "alt"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_show_sends_the_picture_once_with_its_description(monkeypatch):
    sent = []
    monkeypatch.setattr(
        "IPython.display.publish_display_data",
        lambda data, metadata=None: sent.append((data, metadata)),
    )
    figure = plots.lines({"<loss>": [3.0, 1.0]}, ylabel="loss")
    plots.show(figure)
    (picture, metadata), (words, _) = sent
    assert picture["image/png"].startswith(b"\x89PNG")
    assert picture["text/plain"] == figure.alt_text
    assert metadata["image/png"] == {"alt": figure.alt_text, "width": 600}
    assert "&lt;loss&gt; starts at 3" in words["text/html"]
    assert "image/png" not in words


def test_pyplot_is_never_imported():
    code = (
        "import nlcourse.panels.plots, nlcourse.panels, sys; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
