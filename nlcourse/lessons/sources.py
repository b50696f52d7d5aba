"""The one reader of a lesson's source, `notebooks/lessons/NN_name.py`.

A source is py:percent with nbgrader's markers. An exercise in it is a line ``**Exercise 7.2** ·
difficulty ●●○○○ · importance ●●●●● · 8 minutes`` and the next function with ``### BEGIN SOLUTION``:
the check, the last hint and the notebook show that text. :func:`read_source` makes a notebook of a
source, for the builder; whatever is wrong with one is said with file and line before.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from nbformat import NotebookNode

HEADING = re.compile(
    r"\*\*Exercise (\d+\.\d+)\*\* · difficulty ([●○]{5}) · importance ([●○]{5}) · (\d+) minutes"
)
MARKER = re.compile(r"\s*### (BEGIN|END) (SOLUTION|HIDDEN TESTS)\s*")
# What nbgrader itself would act on, wherever it stands in a line, and a comment that was surely
# meant as a marker.
NEAR_MARKER = re.compile(
    r".*(BEGIN|END) (SOLUTION|HIDDEN TESTS).*"
    r"|(?i:\s*#[#\s]*(begin|end)[\s_-]*(solutions?|hidden[\s_-]*tests?)\W*)"
)
CELL = re.compile(r"# ?%%(\s|$)")
TEXT_CELL = re.compile(r"# ?%%.*\[(markdown|md|raw)\]")
CHECK_CALL = re.compile(r"^(\w+)\s*=\s*check\(", re.M)
HINT_CALL = re.compile(r"^#*\s*hint\(", re.M)
# Under nbval a cell with one of these can never fail, so none of them gets into a lesson.
FORBIDDEN_TAGS = {"raises-exception", "nbval-raises-exception", "nbval-skip"}
FORBIDDEN_COMMENTS = re.compile(r"^\s*#+\s*(NBVAL_RAISES_EXCEPTION|NBVAL_SKIP)\s*$", re.M)
INSTALLED = "share/nlcourse/lessons"  # where a wheel puts the sources (pyproject.toml)


# ---- exercises -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Task:
    """An exercise as it stands in its lesson."""

    path: Path  # the lesson's source
    function: ast.FunctionDef  # what the student writes, solved
    imports: tuple[ast.Import | ast.ImportFrom, ...]  # the lesson's
    text: str  # the solved function as students see it, without docstring and markers
    difficulty: int  # 1 to 5
    importance: int  # 1 to 5
    minutes: int  # what a student needs

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.name

    @cached_property
    def solution(self) -> Callable[..., Any]:
        """The solved function itself."""
        return self._executed(self.function, str(self.path))

    def altered(self, replace: dict[str, str], returns: str = "") -> Callable[..., Any]:
        """Return the function of another text.

        `replace` says what takes the place of pieces of the solution, wherever they stand;
        `returns` what stands behind its last ``return``.
        """
        text = self.text
        for old, new in replace.items():
            if old not in text:
                raise ValueError(f"Expected {old!r} in the solution of {self.name}, got:\n{text}")
            text = text.replace(old, new)
        function = cast(ast.FunctionDef, ast.parse(text).body[0])
        if returns:
            function.body[-1] = ast.parse(f"return {returns}").body[0]
        return self._executed(function, f"<{self.name}, altered>")

    def _executed(self, function: ast.FunctionDef, filename: str) -> Callable[..., Any]:
        # With the imports that it uses only: the lesson's own may bring matplotlib and widgets.
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        imports = [node for node in self.imports if used & _bound(node)]
        names: dict[str, Any] = {"__name__": f"lesson_{self.path.name[:2]}"}
        exec(compile(ast.Module([*imports, function], []), filename, "exec"), names)
        return cast(Callable[..., Any], names[self.name])


def _bound(statement: ast.Import | ast.ImportFrom) -> set[str]:
    return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}


@cache
def folder() -> Path:
    """Return where the lessons' sources are: in the clone, or beside an installed package."""
    clone, beside = (Path(__file__).parents[2] / one for one in ("notebooks/lessons", INSTALLED))
    try:
        named = [file for file in files("nlcourse") or () if INSTALLED in file.as_posix()]
    except PackageNotFoundError:
        named = []
    # `pip install --target` lays them beside the package, and writes down another place.
    for place in (clone, beside, *(Path(str(file.locate())).parent for file in named[:1])):
        if place.is_dir():
            return place.resolve()
    raise FileNotFoundError(
        f"Expected the lessons' sources in {clone} or under {INSTALLED} of the installed package, "
        "found none: the exercises are read from them. Clone the course or install its wheel again"
    )


@cache
def tasks() -> dict[str, Task]:
    """Return all exercises of the lessons by number."""
    paths = sorted(folder().glob("[0-9][0-9]_*.py"))
    return {number: task for path in paths for number, task in read_tasks(path).items()}


def solution(number: str) -> Callable[..., Any]:
    """Return the lesson's own solution of an exercise ("7.2")."""
    return tasks()[number].solution


def read_tasks(path: Path) -> dict[str, Task]:
    """Return the exercises of one lesson by number."""
    text = path.read_text(encoding="utf-8")
    body, lines = ast.parse(text, str(path)).body, text.splitlines()
    imports = tuple(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    solved = [one for one in functions if any(map(MARKER.fullmatch, _lines_of(one, lines)))]
    found = {}
    for heading in HEADING.finditer(text):
        number, difficulty, importance, minutes = heading.groups()
        line = text.count("\n", 0, heading.start()) + 1
        function = next((node for node in solved if node.lineno > line), None)
        if function is None:
            raise ValueError(f"{path}:{line}: exercise {number} has no solution below it")
        levels = difficulty.count("●"), importance.count("●")
        shown = _shown(function, lines)
        found[number] = Task(path, function, imports, shown, *levels, int(minutes))
    return found


def _lines_of(node: ast.stmt, lines: list[str]) -> list[str]:
    return lines[node.lineno - 1 : node.end_lineno]


def _shown(function: ast.FunctionDef, lines: list[str]) -> str:
    shown = _lines_of(function, lines)
    if ast.get_docstring(function) is not None:
        start = function.body[0].lineno - function.lineno
        del shown[start : start + len(_lines_of(function.body[0], lines))]
    return "\n".join(line for line in shown if not MARKER.fullmatch(line)).rstrip()


# ---- cells ---------------------------------------------------------------------------------------


class LessonError(ValueError):
    """A lesson's source cannot be built; the message starts with file and line."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        """Say what is wrong in which line (1, 2, ...) of which file."""
        super().__init__(f"{path}:{line}: {message}")


class Cell(NamedTuple):
    """A cell of a source as it stands there: number of its first line (1, 2, ...), kind, lines."""

    line: int
    is_code: bool
    lines: list[str]


def split_cells(text: str) -> list[Cell]:
    """Cut a py:percent source at its ``# %%`` lines; what stands before the first is no cell."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if CELL.match(line)]
    return [
        Cell(start + 1, not TEXT_CELL.match(lines[start]), lines[start:end])
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)
    ]


def validate_markers(text: str, path: Path) -> None:
    """Raise `LessonError` with file and line at the first marker that is out of order.

    Unmatched, nested, in a markdown cell, and written so that nbgrader would not see it.
    """
    for cell in split_cells(text):
        opened, opened_at = "", 0
        for number, line in enumerate(cell.lines, cell.line):
            if problem := _problem_of_line(line, cell.is_code, opened, opened_at):
                raise LessonError(path, number, problem)
            if marker := MARKER.fullmatch(line):
                opened, opened_at = marker[2] if marker[1] == "BEGIN" else "", number
        if opened:
            message = f"`### BEGIN {opened}` has no `### END {opened}` in its cell"
            raise LessonError(path, opened_at, message)


def _problem_of_line(line: str, is_code: bool, opened: str, opened_at: int) -> str:
    """Return what is wrong with a line inside of an open region, if there is one."""
    if not NEAR_MARKER.fullmatch(line):
        return ""
    if not is_code:
        return "a marker in a markdown cell: markers are for code"
    marker = MARKER.fullmatch(line)
    if not marker:
        return f"expected `### BEGIN SOLUTION` or the like, got {line.strip()!r}"
    which, kind = marker.groups()
    if which == "BEGIN" and opened:
        return f"`### BEGIN {kind}` inside the {opened} region of line {opened_at}"
    if which == "END" and opened != kind:
        return f"`### END {kind}` without its `### BEGIN {kind}`"
    return ""


def read_source(path: Path) -> NotebookNode:
    """Return the notebook that a source means: validated, with cell ids from the content.

    Markers stay. Raises `LessonError` with file and line. Needs the extra `teach`.
    """
    import jupytext  # the checks read sources too, and come without it

    text = path.read_text(encoding="utf-8")
    validate_markers(text, path)
    notebook = jupytext.reads(text, fmt="py:percent")
    starts = [cell.line for cell in split_cells(text)]
    if len(starts) != len(notebook.cells):
        raise LessonError(path, 1, "expected every cell to start with `# %%`, also the first")
    for cell, line in zip(notebook.cells, starts, strict=True):
        if problem := _problem_of_cell(cell):
            raise LessonError(path, line, problem)
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's note to itself on blank lines
    _number_cells(notebook)
    return notebook


def _problem_of_cell(cell: NotebookNode) -> str:
    tagged = FORBIDDEN_TAGS.intersection(cell.metadata.get("tags", []))
    if tagged or FORBIDDEN_COMMENTS.search(cell.source):
        return "under nbval this cell could never fail: take the tag away"
    check = CHECK_CALL.search(cell.source) if cell.cell_type == "code" else None
    if check and "### BEGIN SOLUTION" in cell.source:
        return "the check belongs into a cell of its own, after this one"
    # A wrong answer stops the cell at its check: whatever stands below is never run.
    if check and HINT_CALL.search(cell.source, check.end()):
        return "the hint belongs above the check, or into the next cell"
    return ""


def _number_cells(notebook: NotebookNode) -> None:
    """Give every cell the id that its type and text make; a counter tells equal cells apart.

    jupytext draws new random ids at every reading: with them no product would ever be up to date.
    """
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
