"""Measured tables: one row a run, kept with what made it.

The tables lie in ``results/`` as CSV, each beside the script that writes it. A row is appended as
soon as its run ends, and a run that the table already holds is not made again, so that a script can
be stopped and called again at will. Lessons load a table where making it would take too long, and
say so.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import math
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from .history import History
from .locks import lock_of

FOLDER = Path(__file__).parents[1] / "results"
MEASURED = ("best", "last", "mean_of_last_ten", "memorized")  # of a run, see `summary`


def load(name: str, folder: Path = FOLDER) -> list[dict[str, str]]:
    """Return the rows of a stored table, as text.

    Args:
        name: of the table, without ``.csv``.
        folder: where the tables lie.

    Raises:
        FileNotFoundError: there is no such table; the message names those that there are.
    """
    path = folder / f"{name}.csv"
    if not path.exists():
        there = ", ".join(sorted(each.stem for each in folder.glob("*.csv"))) or "none"
        raise FileNotFoundError(f"There is no table {path}; there are {there}")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows: list[dict[str, str]], column: str, **which: object) -> list[float]:
    """Return a column of the rows whose other columns have the given values, in their order.

    Args:
        rows: of a table.
        column: the one to return.
        which: value by column; compared as text, numbers as numbers.
    """
    return [float(row[column]) for row in rows if all(_same(row[k], v) for k, v in which.items())]


def _same(text: str, value: object) -> bool:
    return float(text) == value if isinstance(value, (int, float)) and text else text == str(value)


class Table:
    """A table that is being measured.

    Args:
        path: the CSV file; made with its first row.
        key: the columns that tell one run from another.
    """

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        """Read what is already there; a last line that was cut off is taken away."""
        self.path, self.key = Path(path), key
        self._read()

    def _read(self) -> None:
        _cut_off_half_line(self.path)
        rows = load(self.path.stem, self.path.parent) if self.path.exists() else []
        self._done = {tuple(row[name] for name in self.key) for row in rows}
        self._columns = list(rows[0]) if rows else []

    def __contains__(self, run: tuple) -> bool:
        """Say whether the run with these values of the key is in the table."""
        return tuple(str(value) for value in run) in self._done

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out while rows are added: two would make the same runs twice.

        The operating system lets go when the process ends, however it ends.

        Raises:
            RuntimeError: another process adds rows to this table.
        """
        from filelock import Timeout

        lock = lock_of(self.path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"Another process adds rows to {self.path}: wait until it has ended, or name "
                "another table"
            ) from None
        try:
            self._read()  # what was added since
            yield
        finally:
            lock.release()

    def add(self, row: dict[str, object]) -> None:
        """Append a row, with device, versions and commit.

        A row that was made on another machine brings its own.

        Raises:
            ValueError: the row has other columns than the table.
        """
        own = provenance()
        row = row | {name: row.get(name, value) for name, value in own.items()}
        if not self._columns:
            self._columns = list(row)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(dict(zip(row, row, strict=True)))  # the header
        if set(row) != set(self._columns):
            odd = ", ".join(sorted(set(row) ^ set(self._columns)))
            raise ValueError(f"{self.path} and the new row differ in their columns: {odd}")
        self._write(row)
        self._done.add(tuple(str(row[name]) for name in self.key))

    def _write(self, row: dict[str, object]) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)


def _cut_off_half_line(path: Path) -> None:
    """Leave whole lines only, and no file at all when nothing but the header is whole.

    A process that is killed (or a disk that is full) while it writes leaves half a line, and the
    next row would be glued to it.
    """
    if not path.exists():
        return
    written = path.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if whole.count(b"\n") < 2:
        path.unlink()
    elif whole != written:
        with open(path, "r+b") as file:
            file.truncate(len(whole))


def trained(train: Callable[..., History], *inputs, **options) -> tuple[History, str]:
    """Call ``train(*inputs, **options)``; a run that diverges is a result too, as far as it came.

    Returns:
        The history, and what a table says of its end: "diverged in epoch 3", else "".
    """
    from .training import DivergedError

    try:
        return train(*inputs, **options), ""
    except DivergedError as error:
        return error.history, f"diverged in epoch {len(error.history) + 1}"


def summary(history: History) -> dict[str, str]:
    """Return what every table says of a run, shares with four digits; nan without an epoch."""
    measured = dict.fromkeys(MEASURED, math.nan)
    if len(history):
        measured = {
            "best": history.best("test_accuracy"),
            "last": history.last["test_accuracy"],
            "mean_of_last_ten": history.mean_last("test_accuracy", 10),
            "memorized": history.last["wrong_as_given"],
        }
    row = {"epochs": str(len(history))}
    row |= {name: f"{value:.4f}" for name, value in measured.items()}
    return row | {"seconds": f"{sum(history['seconds']):.1f}"}


def provenance() -> dict[str, str]:
    """Return on what a run was made: device, versions, commit ("+" with uncommitted changes)."""
    import torch

    threads = torch.get_num_threads()
    device = f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return {
        "device": device,
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "commit": _commit(),
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
