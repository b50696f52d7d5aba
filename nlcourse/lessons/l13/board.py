"""A class's board: one CSV file that everybody adds a row to, and a page that shows it.

    board.add(history, "Ada", noisy, noise="symmetric 40 %", path="/shared/board.csv")
    board.write_page("/shared/board.csv")  # board.html beside it

Many students may add at once, from as many processes: each waits for the lock of the operating
system, which a process that dies gives back by itself. A class without a shared folder lets
everybody fill a file of their own and puts them together with :func:`merge`.

Rows can be compared only where everybody learned from the same given labels, so each row carries a
short checksum of them, and the page has one table for each. The board believes what it is told: it
is for a class, not for a contest with prizes. Explained in lesson 13.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import math
import os
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import IO

from ...datasets.locks import lock_of
from ...training.history import History

PATH = Path("board.csv")  # in the folder of the notebook
COLUMNS = (
    "name",
    "method",
    "data",
    "noise",
    "wrong_labels",
    "labels",
    "seed",
    "epochs",
    "best",
    "last",
    "mean_of_last_ten",
    "seconds",
    "settings",
    "at",
)
NUMBERS = ("wrong_labels", "best", "last", "mean_of_last_ten", "seconds")
LONGEST_NAME = 60
DRAWN = 20  # rows of a table that the chart shows; more could not be read


# The file -----------------------------------------------------------------------------------------


def add(
    history: History,
    name: str,
    data,
    *,
    noise: str = "",
    method: str | None = None,
    path: str | Path = PATH,
) -> dict[str, str]:
    """Append a run to the board.

    Args:
        history: of a run with at least one epoch.
        name: whose it is: up to 60 characters, the first a letter or a digit.
        data: the data set with the given labels of that run.
        noise: in words, for the table: "symmetric 40 %".
        method: what to call it; taken from the history when left out.
        path: the file; made with its first row.

    Returns:
        The row.

    Raises:
        ValueError: a name that is none, a history without epochs, or a file that is no board.
    """
    row = _row(history, _checked_name(name), data, noise, method)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _append([row], path)
    return row


def read(path: str | Path = PATH) -> list[dict[str, str]]:
    """Return the rows of a board, as text, in the order in which they came.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no board, or a line of it is damaged.
    """
    path = Path(path)
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        heads = next(reader, [])
        if tuple(heads) != COLUMNS:
            raise ValueError(f"{path} is no board: expected the columns {', '.join(COLUMNS)}")
        return [_read_row(cells, path, reader.line_num) for cells in reader if cells]


def merge(paths: Iterable[str | Path], into: str | Path) -> int:
    """Put several boards together; a row that is there already is not added again.

    Args:
        paths: of the boards of single students, say.
        into: the board that takes them up; made when it is not there.

    Returns:
        How many rows were added.
    """
    found = [row for path in paths for row in read(path)]
    into = Path(into)
    with _locked(into) as file:
        _check_heads(file, into)
        known = {tuple(row.values()) for row in read(into)} if file.tell() else set()
        new = [row for row in _unique(found) if tuple(row.values()) not in known]
        file.write(_csv(new, heads=file.tell() == 0).encode())
    return len(new)


def _append(rows: Sequence[dict[str, str]], path: Path) -> None:
    with _locked(path) as file:
        _check_heads(file, path)
        file.write(_csv(rows, heads=file.tell() == 0).encode())


def _unique(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return list({tuple(row.values()): row for row in rows}.values())


def _row(history: History, name: str, data, noise: str, method: str | None) -> dict[str, str]:
    if not len(history):
        raise ValueError("Expected a `history` with at least one epoch: train first")
    told = history.settings
    measured = {
        "wrong_labels": data.noise_rate,
        "best": history.best("test_accuracy"),
        "last": history.last["test_accuracy"],
        "mean_of_last_ten": history.mean_last("test_accuracy", 10),
        "seconds": sum(history["seconds"]),
    }
    row = {
        "name": name,
        "method": method or str(told.get("method", "")),
        "data": data.name,
        "noise": noise,
        "labels": fingerprint(data),
        "seed": told.get("seed", ""),
        "epochs": len(history),
        "settings": "; ".join(f"{key} {told[key]}" for key in ("network", "optimizer", "augment")
                              if told.get(key) not in (None, "None")),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    row |= {key: f"{value:.4f}" for key, value in measured.items()}
    return {column: _one_line(str(row[column])) for column in COLUMNS}


def fingerprint(data) -> str:
    """Return eight letters that say which given labels these are: equal for equal labels."""
    labels = data.labels.cpu().contiguous().numpy().astype("<i8")
    return hashlib.sha256(labels.tobytes()).hexdigest()[:8]


def _checked_name(name: str) -> str:
    # A spreadsheet takes a cell that begins with = + - or @ for a formula and runs it.
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name[0].isalnum() or not name.isprintable():
        raise ValueError(
            f"Expected a name of 1 to {LONGEST_NAME} characters that begins with a letter or a "
            f"digit, got {name!r}"
        )
    return name


def _one_line(text: str) -> str:
    """Keep a cell to one line, and from being a formula."""
    text = " ".join(text.split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _csv(rows: Sequence[dict[str, str]], heads: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if heads:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_row(cells: list[str], path: Path, line: int) -> dict[str, str]:
    row = dict(zip(COLUMNS, cells, strict=False))
    if len(cells) != len(COLUMNS) or not all(_is_number(row[name]) for name in NUMBERS):
        raise ValueError(
            f"Line {line} of {path} is damaged: expected {len(COLUMNS)} cells with numbers under "
            f"{', '.join(NUMBERS)}. Take that line out."
        )
    return row


def _check_heads(file: IO[bytes], path: Path) -> None:
    """Refuse a file that is no board, and go to its end; a last line cut short gets its end."""
    file.seek(0)
    heads = file.readline()
    if heads and heads.decode(errors="replace").strip() != ",".join(COLUMNS):
        raise ValueError(f"{path} is no board: expected the columns {', '.join(COLUMNS)}")
    if heads:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    file.seek(0, os.SEEK_END)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read and append, and wait until nobody else has it."""
    # Unbuffered: what is written is in the file before the lock is given back.
    with lock_of(path), open(path, "a+b", buffering=0) as file:
        yield file


# The page -----------------------------------------------------------------------------------------


def write_page(
    path: str | Path = PATH, to: str | Path | None = None, *, title: str = "The board"
) -> Path:
    """Write a page that shows a board: a chart and a table for each set of given labels.

    The page is one file without scripts or pictures from elsewhere. A click on a column's head
    sorts by it.

    Args:
        path: the board.
        to: the page; beside the board, with the ending .html, when left out.
        title: of the page.

    Returns:
        Where the page is.
    """
    to = Path(path).with_suffix(".html") if to is None else Path(to)
    unfinished = to.with_name(to.name + ".unfinished")
    unfinished.write_text(page(read(path), title=title), encoding="utf-8")
    os.replace(unfinished, to)  # who has the page open never sees half of it
    return to


def page(rows: Sequence[dict[str, str]], *, title: str = "The board") -> str:
    """Return the page as HTML.

    Args:
        rows: of a board.
        title: of the page.
    """
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["labels"]), []).append(row)
    parts = [_section(group) for group in groups.values()] or ["<p>No run yet.</p>"]
    return _PAGE.format(
        title=escape(title), style=_STYLE, script=_SCRIPT, sections="\n".join(parts)
    )


def ranked(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return rows by the mean of their last ten test accuracies, the highest first."""
    return sorted(rows, key=lambda row: -_number(row["mean_of_last_ten"]))


def _number(text: str) -> float:
    value = float(text)
    return -math.inf if math.isnan(value) else value


def _section(rows: Sequence[dict[str, str]]) -> str:
    first, rows = rows[0], ranked(rows)
    noises = ", ".join(sorted({row["noise"] for row in rows if row["noise"]})) or "noise not named"
    heading = (
        f"{first['data']}, {noises}: {100 * float(first['wrong_labels']):.1f} % of the labels wrong"
    )
    heads = "".join(
        f'<th scope="col"><button type="button">{escape(head)}</button></th>' for head in _HEADS
    )
    body = "\n".join(_table_row(row) for row in rows)
    return (
        f"<section><h2>{escape(heading)}</h2>\n{_chart_html(rows, heading)}\n"
        f"<table><caption>Given labels {escape(first['labels'])}. Ranked by the mean of the last "
        "ten epochs; the best epoch was chosen with the test labels.</caption>"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></section>"
    )


_HEADS = ("name", "method", "last ten", "last", "best", "epochs", "seed", "seconds", "when")


def _table_row(row: dict[str, str]) -> str:
    numbers = [_percent(row[key]) for key in ("mean_of_last_ten", "last", "best")]
    cells = [row["method"], *numbers, row["epochs"], row["seed"]]
    cells += [f"{float(row['seconds']):.1f}", row["at"].replace("T", " ").removesuffix("+00:00")]
    filled = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(row["name"])}</th>{filled}</tr>'


def _percent(text: str) -> str:
    value = float(text)
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _chart_html(rows: Sequence[dict[str, str]], heading: str) -> str:
    from ...panels import plots

    figure = chart(rows[:DRAWN])
    alt = f"Test accuracy in percent, {heading}. " + " ".join(
        f"{row['name']}, {row['method']}: last ten {_percent(row['mean_of_last_ten'])}, best "
        f"{_percent(row['best'])}."
        for row in rows[:DRAWN]
    )
    source = b64encode(plots.png(figure)).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{source}">'


def chart(rows: Sequence[dict[str, str]]):
    """Return a figure with a line a row: from the mean of the last ten epochs to the best one.

    Args:
        rows: of a board, in the order from top to bottom.
    """
    from ...panels import plots

    figure, (axes,) = plots.new_figure(1, width=9, height=1.2 + 0.32 * len(rows))
    ends = [[100 * float(row[key]) for row in rows] for key in ("mean_of_last_ten", "best")]
    places = range(len(rows))
    axes.hlines(places, *ends, color="#8a8a8a", linewidth=1)
    for values, marker, label in zip(
        ends, "o|", ("mean of the last ten", "best epoch"), strict=True
    ):
        axes.plot(values, places, marker, color="black", markersize=9, label=label)
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
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    known = font.get_charmap()
    shown = "".join(letter if ord(letter) in known else "?" for letter in text)
    return shown.replace("$", r"\$")  # $...$ would be read as a formula


_STYLE = """
body{font-family:system-ui,sans-serif;line-height:1.4;margin:2rem auto;max-width:62rem;
padding:0 1rem}
img{max-width:100%}
table{border-collapse:collapse;margin:1rem 0}
caption{text-align:left;padding-bottom:.4rem}
th,td{padding:2px 10px;text-align:left;border-bottom:1px solid #8a8a8a}
thead button{font:inherit;font-weight:bold;background:none;border:0;padding:0;cursor:pointer}
th[aria-sort=ascending] button::after{content:" ▲"}
th[aria-sort=descending] button::after{content:" ▼"}
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const text = (row) => row.cells[place].textContent;
    const compare = (a, b) => {
      const numbers = [Number(text(a)), Number(text(b))];
      return numbers.some(Number.isNaN) ? text(a).localeCompare(text(b)) : numbers[0] - numbers[1];
    };
    const rows = [...body.rows].sort(compare);
    body.append(...(down ? rows.reverse() : rows));
  }));
}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style></head>
<body>
<h1>{title}</h1>
{sections}
<script>{script}</script>
</body>
</html>
"""
