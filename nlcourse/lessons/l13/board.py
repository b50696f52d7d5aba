"""A class's board: one CSV file that everybody adds a row to, and a page that shows it.

    board.add(history, "Ada", noisy, noise="symmetric 40 %", path="/shared/board.csv")
    board.write_page("/shared/board.csv")  # board.html beside it

Many may add at once: each waits for a lock, which a process that dies gives back by itself. Rows
can be compared only where everybody learned from the same given labels, so each row carries a short
checksum of them, and the page has one table for each. Explained in lesson 13.
"""

from __future__ import annotations

import csv
import hashlib
import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from matplotlib import font_manager
from matplotlib.figure import Figure

from ...base import expect
from ...datasets import Dataset, lock_of
from ...panels import plots
from ...training import History

PATH = Path("board.csv")  # in the folder of the notebook
PAGE = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
ABOUT = ("name", "method", "data", "noise", "wrong_labels", "labels", "seed", "epochs")
ACCURACIES = ("best", "last", "mean_of_last_ten")
COLUMNS = (*ABOUT, *ACCURACIES, "seconds", "settings", "at")
NUMBERS = ("wrong_labels", *ACCURACIES, "seconds")
HEADS = ("name", "method", "last ten", "last", "best", "epochs", "seed", "seconds", "when")
LONGEST_NAME = 60
DRAWN = 20  # rows of a table that the chart shows; more could not be read

Row = dict[str, str]

# The file -----------------------------------------------------------------------------------------


def add(
    history: History,
    name: str,
    data: Dataset,
    *,
    noise: str = "",
    method: str | None = None,
    path: str | Path = PATH,
) -> Row:
    """Append a run on `data` to the board, which is made with its first row; return its row.

    `noise` is told in words, "symmetric 40 %"; `method` is taken from the history when left out.
    """
    name = name.strip()
    # A spreadsheet takes a cell that begins with = + - or @ for a formula and runs it.
    good = name[:1].isalnum() and name.isprintable() and len(name) <= LONGEST_NAME
    wanted = f"a name of 1 to {LONGEST_NAME} characters that begins with a letter or a digit"
    expect(good, wanted, repr(name))
    expect(len(history) > 0, "a `history` with at least one epoch", "none", "train first")
    told = {key: value for key, value in history.settings.items() if value not in (None, "None")}
    shown = [key for key in ("network", "optimizer", "augment") if key in told]
    row = {
        "name": name,
        "method": method or told.get("method", ""),
        "data": data.name,
        "noise": noise,
        "wrong_labels": f"{data.noise_rate:.4f}",
        "labels": fingerprint(data),
        "seed": told.get("seed", ""),
        "epochs": len(history),
        "best": f"{history.best():.4f}",
        "last": f"{history.last['test_accuracy']:.4f}",
        "mean_of_last_ten": f"{history.mean_last():.4f}",
        "seconds": f"{sum(history['seconds']):.4f}",
        "settings": "; ".join(f"{key} {told[key]}" for key in shown),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    cells = {column: _one_line(str(row[column])) for column in COLUMNS}
    _append([cells], Path(path))
    return cells


def read(path: str | Path = PATH) -> list[Row]:
    """Return the rows of a board, as text, in the order in which they came."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        _expect_board(",".join(next(reader, [])), path)
        return [_read_row(cells, f"Line {reader.line_num} of {path}") for cells in reader if cells]


def merge(paths: Iterable[str | Path], into: str | Path) -> int:
    """Put boards together `into` one, each row once; return how many rows were new to it."""
    return _append([row for path in paths for row in read(path)], Path(into), once=True)


def fingerprint(data: Dataset) -> str:
    """Return eight letters that say which given labels these are: equal for equal labels."""
    labels = data.labels.cpu().contiguous().numpy().astype("<i8")
    return hashlib.sha256(labels.tobytes()).hexdigest()[:8]


def _append(rows: Sequence[Row], path: Path, *, once: bool = False) -> int:
    """Write rows while nobody else does (`once`: only those that are not there); count them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(path), path.open("a+", newline="", encoding="utf-8", errors="replace") as file:
        file.seek(0)
        before = file.read()
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not before:
            writer.writeheader()
        else:
            _expect_board(before.partition("\n")[0], path)
            file.write("" if before.endswith("\n") else "\n")  # a last line that was cut short
        if once:
            known = read(path) if before else []
            rows = list({tuple(row.values()): row for row in rows if row not in known}.values())
        writer.writerows(rows)
    return len(rows)


def _expect_board(heads: str, path: str | Path) -> None:
    if heads.strip() != ",".join(COLUMNS):
        raise ValueError(f"{path} is no board: expected the columns {', '.join(COLUMNS)}")


def _read_row(cells: list[str], where: str) -> Row:
    try:
        row = dict(zip(COLUMNS, cells, strict=True))
        _ = [float(row[name]) for name in NUMBERS]
    except ValueError:
        wanted = f"{len(COLUMNS)} cells with numbers under {', '.join(NUMBERS)}"
        raise ValueError(f"{where} is damaged: expected {wanted}. Take that line out.") from None
    return row


def _one_line(text: str) -> str:
    """Keep a cell to one line, and from being a formula."""
    text = " ".join(text.split())
    is_formula = text.startswith(("=", "+", "-", "@")) and not text.lstrip("+-").isdigit()
    return f"'{text}" if is_formula else text


# The page -----------------------------------------------------------------------------------------


def write_page(path: str | Path = PATH, *, title: str = "The board") -> Path:
    """Write a page beside the board, with a chart and a table for each set of given labels.

    It is one file without scripts or pictures from elsewhere; a click on a column's head sorts.
    """
    to = Path(path).with_suffix(".html")
    unfinished = to.with_name(to.name + ".unfinished")
    unfinished.write_text(page(read(path), title=title), encoding="utf-8")
    unfinished.replace(to)  # who has the page open never sees half of it
    return to


def page(rows: Sequence[Row], *, title: str = "The board") -> str:
    """Return the page of a board's rows as HTML."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["labels"]), []).append(row)
    sections = [_section(ranked(group)) for group in groups.values()] or ["<p>No run yet.</p>"]
    return PAGE.substitute(title=escape(title), sections="\n".join(sections))


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Return rows by the mean of their last ten test accuracies, the highest first, nan last."""
    # max(-1, nan) is -1.
    return sorted(rows, key=lambda row: max(-1.0, float(row["mean_of_last_ten"])), reverse=True)


def _section(rows: list[Row]) -> str:
    first, shown = rows[0], rows[:DRAWN]
    noises = ", ".join(sorted({row["noise"] for row in rows} - {""})) or "noise not named"
    wrong = _percent(first["wrong_labels"])
    heading = f"{first['data']}, {noises}: {wrong} % of the labels wrong"
    alt = f"Test accuracy in percent, {heading}."
    for row in shown:
        mean, best = _percent(row["mean_of_last_ten"]), _percent(row["best"])
        alt += f" {row['name']}, {row['method']}: last ten {mean}, best {best}."
    image = b64encode(plots.png(chart(shown))).decode()
    heads = [f'<th scope="col"><button type="button">{head}</button></th>' for head in HEADS]
    body = "\n".join(_table_row(row) for row in rows)
    return (
        f"<section><h2>{escape(heading)}</h2>\n"
        f'<img alt="{escape(alt)}" src="data:image/png;base64,{image}">\n'
        f"<table><caption>Given labels {escape(first['labels'])}. Ranked by the mean of the last "
        "ten epochs; the best epoch was chosen with the test labels.</caption>"
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></section>"
    )


def _table_row(row: Row) -> str:
    numbers = [_percent(row[key]) for key in ("mean_of_last_ten", "last", "best")]
    seconds, at = f"{float(row['seconds']):.1f}", row["at"].replace("T", " ").removesuffix("+00:00")
    cells = [row["method"], *numbers, row["epochs"], row["seed"], seconds, at]
    data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(row["name"])}</th>{data}</tr>'


def _percent(text: str) -> str:
    value = float(text)
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def chart(rows: Sequence[Row]) -> Figure:
    """Draw a line a row: from the mean of the last ten epochs to the best one."""
    figure, (axes,) = plots.new_figure(1, width=9, height=1.2 + 0.32 * len(rows))
    last, best = ([100 * float(row[key]) for row in rows] for key in ("mean_of_last_ten", "best"))
    places = range(len(rows))
    axes.hlines(places, last, best, color="#8a8a8a", linewidth=1)
    axes.plot(last, places, "o", color="black", markersize=9, label="mean of the last ten")
    axes.plot(best, places, "|", color="black", markersize=9, label="best epoch")
    names = [_drawable(f"{row['name']}: {row['method']}"[:48]) for row in rows]
    axes.set_yticks(list(places), names, fontsize=plots.SMALL_FONT)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
    axes.set_xlabel("test accuracy (%)", fontsize=plots.FONT)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=plots.SMALL_FONT)
    return figure


def _drawable(text: str) -> str:
    """Return what the figure's font can show, "?" for the rest; the table has every letter."""
    known = font_manager.get_font(font_manager.findfont("")).get_charmap()
    shown = "".join(letter if ord(letter) in known else "?" for letter in text)
    return shown.replace("$", r"\$")  # $...$ would be read as a formula
