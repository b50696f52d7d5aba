"""Measured tables: one row a run, kept with what made it.

The tables lie in ``results/`` as CSV, each beside the plan that makes it. A row is appended as soon
as its run ends, and a run that the table already holds is not made again, so that a command can be
stopped and called again at will. Lessons load a table where making it would take too long, and say
so.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import functools
import io
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from ..datasets import lock_of
from ..training import DivergedError, History, find_device
from ..training.device import name_of

FOLDER = Path(__file__).parents[2] / "results"
MEASURED = ("best", "last", "mean_of_last_ten", "memorized")  # of a run, see `summary`


def load(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """Return the rows of the table ``name`` (without ``.csv``), as text.

    Raises:
        FileNotFoundError: there is no such table; the message names those that there are.
    """
    path = folder / f"{name}.csv"
    if not path.exists():
        there = ", ".join(sorted(each.stem for each in folder.glob("*.csv"))) or "none"
        raise FileNotFoundError(f"There is no table {path}; there are {there}")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows: Sequence[dict[str, str]], column: str, **which: object) -> list[float]:
    """Return a column of the rows whose other columns have the values of ``which``, in order."""
    return [float(row[column]) for row in rows if all(same(row[k], v) for k, v in which.items())]


def ranking(
    rows: list[dict[str, str]], noise: str, rate: object, column: str = "mean_of_last_ten"
) -> dict[str, float]:
    """Return the mean over the seeds (%) by method, the best first.

    A run that diverged has no last epochs: its mean of the last ten would be one of the epochs
    before. It counts with what it came to, its last accuracy; without any, the method is left out.
    """
    found = collections.defaultdict(list)
    for row in rows:
        if same(row["noise"], noise) and same(row["rate"], rate):
            found[row["method"]].append(100 * float(row["last" if row["ended"] else column]))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    known = [name for name, value in means.items() if not math.isnan(value)]
    return {name: means[name] for name in sorted(known, key=means.__getitem__, reverse=True)}


def same(text: str, value: object) -> bool:
    """Say whether a cell holds a value: numbers are compared as numbers."""
    return float(text) == value if isinstance(value, (int, float)) and text else text == str(value)


class TableInUse(RuntimeError):  # noqa: N818 - says what is so, as FileExistsError does
    """Another process adds rows to this table."""


class Table:
    """A table that is being measured: a CSV file, made with its first row."""

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        """Read what is there; the columns of the `key` tell one run from another."""
        self.path, self.key = Path(path), key
        self._read()

    def _read(self) -> None:
        self.columns, rows = [], []
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if None not in row.values()]  # no half lines
                self.columns = list(reader.fieldnames or ())
        self._done = {self.key_of(row) for row in rows}

    def key_of(self, run: Mapping[str, object]) -> tuple[str, ...]:
        """Return what tells a run or its row from the others, as the file has it."""
        return tuple(str(run[name]) for name in self.key)

    def __contains__(self, run: Mapping[str, object]) -> bool:
        """Say whether the run with these values of the key is in the table."""
        return self.key_of(run) in self._done

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out while rows are added: two would make the same runs twice.

        The operating system lets go when the process ends, however it ends.

        Raises:
            TableInUse: another process adds rows to this table.
        """
        try:
            lock = lock_of(self.path).acquire(timeout=0)
        except Timeout:
            advice = "wait until it has ended, or name another table"
            raise TableInUse(f"Another process adds rows to {self.path}: {advice}") from None
        with lock:
            _end_whole(self.path)
            self._read()  # what was added since
            yield

    def add(self, row: Mapping[str, object]) -> None:
        """Append a row, with what made it; a row from another machine brings its own.

        Raises:
            ValueError: the row has other columns than the table.
        """
        if _end_whole(self.path):
            self._read()
        own = {name: value for name, value in provenance().items() if name not in row}
        row = {name: own[name] for name in own if name in (self.columns or own)} | dict(row)
        if self.columns and set(row) != set(self.columns):
            odd = ", ".join(sorted(set(row) ^ set(self.columns)))
            raise ValueError(f"{self.path} and the new row differ in their columns: {odd}")
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns or list(row), lineterminator="\n")
        if not self.columns:
            self.columns = list(row)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            writer.writeheader()
        writer.writerow(row)
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            file.write(text.getvalue())  # the first row and its header in one piece
        self._done.add(self.key_of(row))


def _end_whole(path: Path) -> bool:
    """Let the file end with a whole line, so that the next row is not glued to half a one.

    Half a line is what a process leaves that is killed (or a disk that is full) while it writes. A
    last line that has all its columns lacks its end only, as some editors leave it, and gets one.
    Returns whether something was to be done.
    """
    written = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    if not written or written.endswith("\n"):
        return False
    *whole, last = written.splitlines(keepends=True)
    cells = [len(row) for row in csv.reader([*whole[:1], last])]
    full = len(cells) == 2 and cells[0] == cells[1] and last.count('"') % 2 == 0
    complete = last + "\n" if full else ""
    path.write_text("".join(whole) + complete, encoding="utf-8", newline="")
    return True


def trained(train: Callable[..., History], *inputs: Any, **options: Any) -> tuple[History, str]:
    """Call ``train``; return its history and how it ended: "diverged in epoch 3", else "".

    A run that diverges is a result too, as far as it came.
    """
    try:
        return train(*inputs, **options), ""
    except DivergedError as error:
        return error.history, f"diverged in epoch {len(error.history) + 1}"


def summary(history: History) -> dict[str, str]:
    """Return what every table says of a run, shares with four digits; nan without an epoch.

    Where `fit` has noted it, "device" says on what it was computed.

    Raises:
        KeyboardInterrupt: the run was stopped; half a run is no row, and whoever stopped it wants
            no other to begin.
    """
    if history.stopped:
        raise KeyboardInterrupt(history.stopped)
    row = {"epochs": str(len(history))} | dict.fromkeys(MEASURED, "nan")
    if len(history):
        last, mean = history.last, history.mean_last("test_accuracy", 10)
        best = history.best("test_accuracy")
        reached = (best, last["test_accuracy"], mean, last["wrong_as_given"])
        row |= {name: f"{value:.4f}" for name, value in zip(MEASURED, reached, strict=True)}
    row["seconds"] = f"{sum(history['seconds']):.1f}"
    if "computed_on" in history.settings:
        row["device"] = str(history.settings["computed_on"])
    return row


def provenance(device: str | None = None) -> dict[str, str]:
    """Return what made a run: device, versions, commit ("+" with uncommitted changes), command."""
    return {
        "device": name_of(device or find_device()),
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "commit": _commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


@functools.cache  # a process runs the code that it began with
def _commit() -> str:
    git = functools.partial(subprocess.run, cwd=FOLDER.parent, capture_output=True, text=True)
    try:
        commit = git(["git", "rev-parse", "--short", "HEAD"], check=True).stdout.strip()
        # The tables that are being written do not count.
        changed = git(["git", "diff", "--quiet", "HEAD", "--", ".", ":!results/*.csv"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed.returncode else "")
