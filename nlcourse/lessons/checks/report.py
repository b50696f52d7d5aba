"""Check a whole notebook: run it under nbval in a clean kernel and say how each exercise stands.

The notebook is run where it lies and never written to. A notebook is code: run those of people you
do not know in a container.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DONE, OPEN, WRONG, NOT_REACHED = "done", "open", "wrong", "not reached"
_MARKS = {DONE: "✓", OPEN: "○", WRONG: "✗", NOT_REACHED: "–"}
_SLACK = 60  # seconds for starting pytest and the kernel, on top of what the cells may take

# Handed to pytest as a plugin: one line of JSON for each cell. Plain text would not tell a cell
# that passed after a time-out (xpassed: its kernel was no longer in order) from one that passed.
_PLUGIN = """
import json, os

def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome == "failed":
        line = {
            "cell": report.nodeid.rpartition("Cell ")[2],
            "outcome": "xpassed" if hasattr(report, "wasxfail") else report.outcome,
            "text": report.longreprtext,
        }
        with open(os.environ["NLCOURSE_CELLS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\\n")
"""


class ReportError(RuntimeError):
    """The notebook cannot be checked at all: it is missing, it is none, or nbval is."""


@dataclass(frozen=True)
class Row:
    """How one exercise stands: number, name, "done" / "open" / "wrong" / "not reached", and why."""

    number: str
    name: str
    status: str
    why: str = ""


@dataclass(frozen=True)
class FailedCell:
    """A code cell that failed for another reason than its exercise; counted from 1."""

    cell: int
    first_line: str
    error: str


@dataclass(frozen=True)
class Report:
    """What `nlcourse check` prints.

    Attributes:
        path: the notebook.
        rows: one an exercise.
        failed: cells that failed elsewhere.
        problem: why the run itself did not end as it should; "" when it did.
        seconds: how long it took.
    """

    path: Path
    rows: tuple[Row, ...]
    failed: tuple[FailedCell, ...] = ()
    problem: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Every exercise is done and every cell ran."""
        return not self.failed and not self.problem and all(r.status == DONE for r in self.rows)

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """Yield (what, status, why) for a table of a whole class: exercises, then what failed."""
        yield from ((f"{row.number} {row.name}", row.status, row.why) for row in self.rows)
        yield from ((f"code cell {cell.cell}", "failed", cell.error) for cell in self.failed)
        if self.problem:
            yield "notebook", "failed", self.problem

    def __str__(self) -> str:
        """Return the table."""
        width = max((len(f"{row.number} {row.name}") for row in self.rows), default=0)
        lines = [f"{self.path.name}, run in a clean kernel ({self.seconds:.0f} s)"]
        for row in self.rows:
            title = f"{row.number} {row.name}".ljust(width)
            lines.append(f"  {_MARKS[row.status]} {title}  {row.status:<11}  {row.why}".rstrip())
        lines += [
            f"  ✗ code cell {cell.cell} (`{cell.first_line}`): {cell.error}" for cell in self.failed
        ]
        lines += [f"  ✗ {self.problem}"] if self.problem else []
        done = sum(row.status == DONE for row in self.rows)
        verdict = "all in order" if self.ok else "not all in order yet"
        return "\n".join([*lines, f"{done} of {len(self.rows)} exercises done; {verdict}"])


def check_notebook(path: str | Path, *, timeout: int = 120) -> Report:
    """Run a notebook under nbval with ``NLCOURSE_STRICT=1`` and report on its exercises.

    Args:
        path: the notebook; it is not changed.
        timeout: seconds that one cell may take.

    Raises:
        ReportError: no such file, no notebook, or nbval is not installed.
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
    failed = tuple(_failed(sources, cells, rows))
    if not problem and len(cells) < len(sources):
        problem = f"only {len(cells)} of {len(sources)} code cells were run"
    if not problem and not rows:
        problem = "no exercise of the course was found in it"
    return Report(path, rows, failed, problem, time.monotonic() - started)


def _read(path: Path) -> tuple[list[str], str]:
    """Return the sources of the code cells, and the lesson's number.

    A lesson carries its name in its metadata, so that a renamed file is still that lesson.
    """
    if not path.is_file():
        raise ReportError(
            f"There is no notebook {path}: `nlcourse lab` copies the lessons to work/"
        )
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        sources = [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]
        lesson = notebook.get("metadata", {}).get("nlcourse", {}).get("lesson", path.name)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ReportError(
            f"{path} is not a notebook (version 4, JSON): was it saved in Jupyter?"
        ) from None
    if not path.name.endswith(".ipynb"):
        raise ReportError(f"Expected a file that ends in .ipynb, got {path.name}")
    return ["".join(source) for kind, source in sources if kind == "code"], lesson[:2]


def _run(path: Path, folder: Path, timeout: int, num_cells: int) -> str:
    """Run pytest in its own process, and return what was wrong with the run itself."""
    (folder / "nlcourse_cells.py").write_text(_PLUGIN, encoding="utf-8")
    # An own configuration: whatever lies around the notebook must not decide what "checked" means.
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        f"--nbval-cell-timeout={timeout}",
        *("-p", "nlcourse_cells", "-p", "no:cacheprovider", "--noconftest"),
        *("-c", str(folder / "pytest.ini"), "--rootdir", str(folder), "--color=no", "-q"),
    ]
    environment = os.environ | {
        "NLCOURSE_STRICT": "1",
        "NLCOURSE_PROGRESS": str(folder / "progress.json"),
        "NLCOURSE_REPORT": str(folder / "report.jsonl"),
        "NLCOURSE_CELLS": str(folder / "cells.jsonl"),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(folder), os.environ.get("PYTHONPATH", "")])
        ),
        "PYTEST_ADDOPTS": "",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout * (num_cells + 1) + _SLACK,
        )
    except subprocess.TimeoutExpired:
        return "the notebook came to no end, and was stopped"
    if done.returncode in (0, 1):  # 1: some cell failed, which the cells tell
        return ""
    last = (done.stdout + done.stderr).strip().splitlines()[-3:]
    return f"pytest ended with code {done.returncode}: {' / '.join(last)}"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _checked_names(source: str) -> Iterator[str]:
    """Yield what a cell hands to `check`: a name, or the number given beside it."""
    plain = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source)  # magics are no Python
    try:
        tree = ast.parse(plain)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check" and node.args:
            number = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "number")]
            if number and isinstance(number[0], ast.Constant):
                yield str(number[0].value)
            elif isinstance(node.args[0], ast.Name):
                yield node.args[0].id


def _checked(source: str) -> list[Any]:
    """Return the exercises that a cell checks."""
    from .exercise import find

    found = []
    for name in _checked_names(source):
        try:
            found.append(find(name))
        except LookupError:  # the cell itself fails and says so
            continue
    return found


def _rows(lesson: str, sources: list[str], outcomes: dict[str, dict[str, Any]]) -> Iterator[Row]:
    from .exercise import exercises

    here = {exercise.number for source in sources for exercise in _checked(source)}
    for number, exercise in exercises().items():
        if number not in here and number not in outcomes and exercise.lesson != lesson:
            continue
        outcome = outcomes.get(number)
        if outcome is not None:
            why = outcome["reason"]
            why += f" (likely: it {outcome['misconception']})" if outcome["misconception"] else ""
            yield Row(number, exercise.name, outcome["outcome"], why)
        else:
            why = "its check was not run" if number in here else "the notebook has no check of it"
            yield Row(number, exercise.name, NOT_REACHED, why)


def _failed(
    sources: list[str], cells: list[dict[str, Any]], rows: tuple[Row, ...]
) -> Iterator[FailedCell]:
    told = {row.number for row in rows if row.status in (OPEN, WRONG)}
    for line in cells:
        if line["outcome"] in ("passed", "skipped"):  # an exercise that was skipped was not reached
            continue
        source = sources[int(line["cell"])]
        if "✗" in line["text"] and told & {exercise.number for exercise in _checked(source)}:
            continue  # the table says it already
        first = source.strip().partition("\n")[0]
        yield FailedCell(int(line["cell"]) + 1, first, _error(line))


def _error(line: dict[str, Any]) -> str:
    if line["outcome"] == "xpassed":
        return "came after a time-out, so that it proves nothing"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", line["text"])
    lines = [text.strip() for text in plain.strip().splitlines() if text.strip()]
    last = lines[-1] if lines else line["outcome"]
    # nbval interrupts a cell whose time is up.
    interrupted = last.startswith("KeyboardInterrupt") or "timeout" in last.lower()
    return "took longer than a cell may, and was stopped" if interrupted else last
