"""A lesson's source: read with jupytext, markers validated, cells numbered from their content.

Sources are notebooks/lessons/NN_name.py in py:percent with nbgrader's markers. Whatever is wrong
with one is said with file and line before anything is built. Needs the extra `teach`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode

# Under nbval a cell with one of these can never fail, so none of them gets into a lesson.
FORBIDDEN_TAGS = {"raises-exception", "nbval-raises-exception", "nbval-skip"}
FORBIDDEN_COMMENTS = re.compile(r"^\s*#+\s*(NBVAL_RAISES_EXCEPTION|NBVAL_SKIP)\s*$", re.M)

HEADER = re.compile(r"# ?%%(\s|$)")
TEXT_HEADER = re.compile(r"# ?%%.*\[(markdown|md|raw)\]")
MARKER = re.compile(r"\s*### (BEGIN|END) (SOLUTION|HIDDEN TESTS)\s*")
# What nbgrader itself would act on, wherever it stands in a line.
NBGRADER_TEXT = re.compile(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS)")
# A comment that was surely meant as a marker.
NEAR_MARKER = re.compile(r"\s*#[#\s]*(begin|end)[\s_-]*(solutions?|hidden[\s_-]*tests?)\W*", re.I)
CHECK_CALL = re.compile(r"^(\w+)\s*=\s*check\(", re.M)
HINT_CALL = re.compile(r"^#*\s*hint\(", re.M)


class LessonError(ValueError):
    """A lesson's source cannot be built; the message starts with file and line."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        """Say what is wrong in which line (1, 2, ...) of which file."""
        super().__init__(f"{path}:{line}: {message}")


@dataclass(frozen=True)
class Cell:
    """A cell of a source as its lines stand there: first line number (1, 2, ...), kind, lines."""

    line: int
    is_code: bool
    lines: tuple[str, ...]

    def numbered(self) -> Iterator[tuple[int, str]]:
        """The lines with their numbers in the file."""
        return enumerate(self.lines, self.line)


def split_cells(text: str) -> list[Cell]:
    """Cut a py:percent source at its ``# %%`` lines; what stands before the first is no cell."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if HEADER.match(line)]
    ends = [*starts[1:], len(lines)]
    return [
        Cell(start + 1, not TEXT_HEADER.match(lines[start]), tuple(lines[start:end]))
        for start, end in zip(starts, ends, strict=True)
    ]


def validate_markers(text: str, path: Path) -> None:
    """Raise `LessonError` with file and line at the first marker that is out of order.

    Unmatched, nested, in a markdown cell, and written so that nbgrader would not see it.
    """
    for cell in split_cells(text):
        (_validate_code if cell.is_code else _validate_text)(cell, path)


def _validate_text(cell: Cell, path: Path) -> None:
    for number, line in cell.numbered():
        if NBGRADER_TEXT.search(line) or NEAR_MARKER.fullmatch(line):
            raise LessonError(path, number, "a marker in a markdown cell: markers are for code")


def _validate_code(cell: Cell, path: Path) -> None:
    opened: tuple[str, int] | None = None
    for number, line in cell.numbered():
        marker = MARKER.fullmatch(line)
        if not marker:
            if NBGRADER_TEXT.search(line) or NEAR_MARKER.fullmatch(line):
                raise LessonError(
                    path, number, f"expected `### BEGIN SOLUTION` or the like, got {line.strip()!r}"
                )
            continue
        opened = _next_state(opened, marker, number, path)
    if opened:
        kind, number = opened
        raise LessonError(path, number, f"`### BEGIN {kind}` has no `### END {kind}` in its cell")


def _next_state(
    opened: tuple[str, int] | None, marker: re.Match[str], number: int, path: Path
) -> tuple[str, int] | None:
    """The region open after a marker (its kind and line), or `LessonError`."""
    which, kind = marker.groups()
    if which == "BEGIN":
        if opened:
            message = f"`### BEGIN {kind}` inside the {opened[0]} region of line {opened[1]}"
            raise LessonError(path, number, message)
        return kind, number
    if not opened or opened[0] != kind:
        raise LessonError(path, number, f"`### END {kind}` without its `### BEGIN {kind}`")
    return None


def read_source(path: Path) -> NotebookNode:
    """The notebook that a source means: validated, with cell ids from the content.

    Markers stay. Raises `LessonError` with file and line.
    """
    text = path.read_text(encoding="utf-8")
    validate_markers(text, path)
    notebook = jupytext.reads(text, fmt="py:percent")
    starts = [cell.line for cell in split_cells(text)]
    if len(starts) != len(notebook.cells):
        raise LessonError(path, 1, "expected every cell to start with `# %%`, also the first")
    for cell, line in zip(notebook.cells, starts, strict=True):
        _validate_cell(cell, path, line)
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's note to itself on blank lines
    number_cells(notebook)
    return notebook


def _validate_cell(cell: NotebookNode, path: Path, line: int) -> None:
    tagged = FORBIDDEN_TAGS.intersection(cell.metadata.get("tags", []))
    if tagged or FORBIDDEN_COMMENTS.search(cell.source):
        raise LessonError(path, line, "under nbval this cell could never fail: take the tag away")
    if cell.cell_type != "code":
        return
    check = CHECK_CALL.search(cell.source)
    if check and "### BEGIN SOLUTION" in cell.source:
        raise LessonError(path, line, "the check belongs into a cell of its own, after this one")
    # A wrong answer stops the cell at its check: whatever stands below is never run.
    if check and HINT_CALL.search(cell.source, check.end()):
        raise LessonError(path, line, "the hint belongs above the check, or into the next cell")


def number_cells(notebook: NotebookNode) -> None:
    """Give every cell the id that its type and text make; a counter tells equal cells apart.

    jupytext draws new random ids at every reading: with them no product would ever be up to date.
    """
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
