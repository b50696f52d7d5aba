"""Check a whole notebook: run it under nbval in a clean kernel and say how each exercise stands.

The notebook is run where it lies and never written to. A notebook is code: run those of people you
do not know in a container.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from .exercise import exercises, find

_MARKS = {"done": "✓", "open": "○", "wrong": "✗", "not reached": "–"}
_SLACK = 60  # seconds for starting pytest and the kernel, on top of what the cells may take
# What a cell hands to `check`, and the number given beside it.
_CHECK = re.compile(
    r"""^[^#\n]*?\bcheck\(\s*([\w.]+)\s*(?:,\s*(?:number\s*=\s*)?["']([\d.]+)["'])?""", re.M
)


class ReportError(RuntimeError):
    """The notebook cannot be checked at all: it is missing, it is none, or nbval is."""


class Row(NamedTuple):
    """How one exercise stands: number, name, "done" / "open" / "wrong" / "not reached", and why."""

    number: str
    name: str
    status: str
    why: str = ""


class FailedCell(NamedTuple):
    """A code cell that failed for another reason than its exercise; counted from 1."""

    cell: int
    first_line: str
    error: str


@dataclass(frozen=True)
class Report:
    """What `nlcourse check` prints of a notebook."""

    path: Path
    rows: tuple[Row, ...]  # one an exercise
    failed: tuple[FailedCell, ...]  # cells that failed elsewhere
    problem: str  # why the run itself did not end as it should; "" when it did
    seconds: float

    @property
    def ok(self) -> bool:
        """Every exercise is done and every cell ran."""
        return not self.failed and not self.problem and all(r.status == "done" for r in self.rows)

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """Yield (what, status, why) for a table of a whole class: exercises, then what failed."""
        yield from ((f"{row.number} {row.name}", row.status, row.why) for row in self.rows)
        yield from ((f"code cell {cell.cell}", "failed", cell.error) for cell in self.failed)
        if self.problem:
            yield "notebook", "failed", self.problem

    def __str__(self) -> str:
        """Return the table."""
        titles = [f"{row.number} {row.name}" for row in self.rows]
        width = max(map(len, titles), default=0)
        lines = [f"{self.path.name}, run in a clean kernel ({self.seconds:.0f} s)"]
        for title, (_, _, status, why) in zip(titles, self.rows, strict=True):
            lines.append(f"  {_MARKS[status]} {title:<{width}}  {status:<11}  {why}".rstrip())
        for cell, first, error in self.failed:
            lines.append(f"  ✗ code cell {cell} (`{first}`): {error}")
        lines += [f"  ✗ {self.problem}"] if self.problem else []
        done = sum(row.status == "done" for row in self.rows)
        verdict = "all in order" if self.ok else "not all in order yet"
        return "\n".join([*lines, f"{done} of {len(self.rows)} exercises done; {verdict}"])


def check_notebook(path: str | Path, *, timeout: int = 120) -> Report:
    """Run a notebook under nbval with ``NLCOURSE_STRICT=1`` and report on its exercises.

    `timeout` is the seconds that one cell may take. `ReportError` says that there is no such file,
    that it is no notebook, or that nbval is not installed.
    """
    path = Path(path).resolve()
    sources, lesson = _read(path)
    if find_spec("nbval") is None:
        raise ReportError("nbval is not installed: pip install 'nlcourse[dev]' brings it")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nlcourse-check-") as folder:
        problem = _run(path, Path(folder), timeout, len(sources))
        cells = _read_lines(Path(folder) / "cells.jsonl")
        outcomes = {line["number"]: line for line in _read_lines(Path(folder) / "report.jsonl")}
    rows = tuple(_rows(lesson, sources, outcomes))
    if not problem and len(cells) < len(sources):
        problem = f"only {len(cells)} of {len(sources)} code cells were run"
    if not problem and not rows:
        problem = "no exercise of the course was found in it"
    failed = tuple(_failed(sources, cells, rows))
    return Report(path, rows, failed, problem, time.monotonic() - started)


def _read(path: Path) -> tuple[list[str], str]:
    """Return the sources of the code cells, and the lesson's number.

    A lesson carries its name in its metadata, so that a renamed file is still that lesson.
    """
    if not path.is_file():
        says = f"There is no notebook {path}: `nlcourse lab` copies the lessons to work/"
        raise ReportError(says)
    if path.suffix != ".ipynb":
        raise ReportError(f"Expected a file that ends in .ipynb, got {path.name}")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        sources = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
        lesson = notebook.get("metadata", {}).get("nlcourse", {}).get("lesson", path.name)
    except (ValueError, KeyError, TypeError, AttributeError):
        says = f"{path} is not a notebook (version 4, JSON): was it saved in Jupyter?"
        raise ReportError(says) from None
    return [source for kind, source in sources if kind == "code"], lesson[:2]


def _run(path: Path, folder: Path, timeout: int, num_cells: int) -> str:
    """Run pytest in its own process, and return what was wrong with the run itself."""
    # An own configuration: whatever lies around the notebook must not decide what "checked" means.
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pytest", str(path), "--color=no", "-q", "--noconftest"),
        *("--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={timeout}"),
        *("-p", __name__, "-p", "no:cacheprovider"),
        *("-c", str(folder / "pytest.ini"), "--rootdir", str(folder)),
    ]
    environment = os.environ | {
        "NLCOURSE_STRICT": "1",
        "NLCOURSE_PROGRESS": str(folder / "progress.json"),
        "NLCOURSE_REPORT": str(folder / "report.jsonl"),
        "NLCOURSE_CELLS": str(folder / "cells.jsonl"),
        "PYTEST_ADDOPTS": "",
    }
    run = partial(subprocess.run, capture_output=True, encoding="utf-8", errors="replace")
    try:
        done = run(command, env=environment, timeout=timeout * (num_cells + 1) + _SLACK)
    except subprocess.TimeoutExpired:
        return "the notebook came to no end, and was stopped"
    if done.returncode in (0, 1):  # 1: some cell failed, which the cells tell
        return ""
    last = (done.stdout + done.stderr).strip().splitlines()[-3:]
    return f"pytest ended with code {done.returncode}: {' / '.join(last)}"


def pytest_runtest_logreport(report: Any) -> None:
    """Write a line of JSON for each cell: in that process this module is pytest's plugin.

    Plain text would not tell a cell that passed after a time-out (xpassed: its kernel was no longer
    in order) from one that passed.
    """
    if report.when == "call" or report.outcome == "failed":
        cell = int(report.nodeid.rpartition("Cell ")[2])
        outcome = "xpassed" if hasattr(report, "wasxfail") else report.outcome
        line = {"cell": cell, "outcome": outcome, "text": report.longreprtext}
        with open(os.environ["NLCOURSE_CELLS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _checked(source: str) -> set[str]:
    """Return the numbers of the exercises that a cell checks."""
    found = set()
    for name, number in _CHECK.findall(source):
        with suppress(LookupError):  # the cell itself fails and says so
            found.add(find(number or name).number)
    return found


def _rows(lesson: str, sources: list[str], outcomes: dict[str, dict[str, Any]]) -> Iterator[Row]:
    here = set().union(*map(_checked, sources))
    for number, exercise in exercises().items():
        if outcome := outcomes.get(number):
            why = outcome["reason"]
            why += f" (likely: it {outcome['misconception']})" if outcome["misconception"] else ""
            yield Row(number, exercise.name, outcome["outcome"], why)
        elif number in here:
            yield Row(number, exercise.name, "not reached", "its check was not run")
        elif exercise.lesson == lesson:
            yield Row(number, exercise.name, "not reached", "the notebook has no check of it")


def _failed(
    sources: list[str], cells: list[dict[str, Any]], rows: tuple[Row, ...]
) -> Iterator[FailedCell]:
    told = {row.number for row in rows if row.status in ("open", "wrong")}
    for line in cells:
        source = sources[line["cell"]]
        # An exercise that was skipped was not reached; of one that is wrong the table says it.
        said = "✗" in line["text"] and told & _checked(source)
        if line["outcome"] not in ("passed", "skipped") and not said:
            yield FailedCell(line["cell"] + 1, source.strip().partition("\n")[0], _error(line))


def _error(line: dict[str, Any]) -> str:
    if line["outcome"] == "xpassed":
        return "came after a time-out, so that it proves nothing"
    lines = re.sub(r"\x1b\[[0-9;]*m", "", line["text"]).split("\n")
    last = next((text.strip() for text in reversed(lines) if text.strip()), line["outcome"])
    # nbval interrupts a cell whose time is up.
    interrupted = last.startswith("KeyboardInterrupt") or "timeout" in last.lower()
    return "took longer than a cell may, and was stopped" if interrupted else str(last)
