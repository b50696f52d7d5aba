"""What a lesson's own text says of its exercises: this is the one place where they stand.

An exercise is a line ``**Exercise 7.2** · difficulty ●●○○○ · importance ●●●●● · 8 minutes`` and
the next function with ``### BEGIN SOLUTION`` in `notebooks/lessons/NN_name.py`. The check, the last
hint and the notebook show that text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, cast

HEADING = re.compile(
    r"\*\*Exercise (\d+\.\d+)\*\* · difficulty ([●○]{5}) · importance ([●○]{5}) · (\d+) minutes"
)
MARKER = re.compile(r"\s*### (BEGIN|END) SOLUTION\s*")
INSTALLED = "share/nlcourse/lessons"  # where a wheel puts the sources (pyproject.toml)


@dataclass(frozen=True, eq=False)
class Task:
    """An exercise as it stands in its lesson.

    Attributes:
        path: the lesson's source.
        function: the definition that the student writes, solved.
        imports: those of the lesson.
        text: the solved function as students see it, without docstring and markers.
        difficulty: 1 to 5.
        importance: 1 to 5.
        minutes: what a student needs.
    """

    path: Path
    function: ast.FunctionDef
    imports: tuple[ast.Import | ast.ImportFrom, ...]
    text: str
    difficulty: int
    importance: int
    minutes: int

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

        Args:
            replace: pieces of the solution and what takes their place, wherever they stand.
            returns: what takes the place of the last line's ``return ...``.

        Raises:
            ValueError: the solution does not hold a piece.
        """
        text = self.text
        for old, new in replace.items():
            if old not in text:
                raise ValueError(f"Expected {old!r} in the solution of {self.name}, got:\n{text}")
            text = text.replace(old, new)
        function = ast.parse(text).body[0]
        assert isinstance(function, ast.FunctionDef)
        if returns:
            function.body[-1] = ast.parse(f"return {returns}").body[0]
        return self._executed(function, f"<{self.name}, altered>")

    def _executed(self, function: ast.FunctionDef, filename: str) -> Callable[..., Any]:
        names: dict[str, Any] = {"__name__": f"lesson_{self.path.name[:2]}"}
        imports = [node for node in self.imports if _bound(node) & _used(function)]
        module = ast.Module([*imports, function], type_ignores=[])
        exec(compile(module, filename, "exec"), names)
        return cast(Callable[..., Any], names[self.name])


@cache
def folder() -> Path:
    """Return where the lessons' sources are: in the clone, or beside an installed package.

    Raises:
        FileNotFoundError: there are none.
    """
    clone = Path(__file__).parents[2] / "notebooks" / "lessons"
    if clone.is_dir():
        return clone
    try:
        installed = [file for file in files("nlcourse") or () if INSTALLED in file.as_posix()]
    except PackageNotFoundError:
        installed = []
    if not installed:
        raise FileNotFoundError(
            f"Expected the lessons' sources in {clone} or under {INSTALLED} of the installed "
            "package, found none: the exercises are read from them. Clone the course or install "
            "its wheel again"
        )
    return Path(str(installed[0].locate())).resolve().parent


@cache
def tasks() -> dict[str, Task]:
    """Return all exercises of the lessons by number.

    Raises:
        FileNotFoundError: the sources are missing.
        ValueError: an exercise has no solution.
    """
    found: dict[str, Task] = {}
    for path in sorted(folder().glob("[0-9][0-9]_*.py")):
        found |= read_tasks(path)
    return found


def solution(number: str) -> Callable[..., Any]:
    """Return the lesson's own solution of an exercise ("7.2")."""
    return tasks()[number].solution


def read_tasks(path: Path) -> dict[str, Task]:
    """Return the exercises of one lesson by number."""
    text = path.read_text(encoding="utf-8")
    body, lines = ast.parse(text, str(path)).body, text.splitlines()
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    solved = [
        node
        for node in functions
        if any(map(MARKER.fullmatch, lines[node.lineno - 1 : node.end_lineno]))
    ]
    imports = tuple(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    found = {}
    for heading in HEADING.finditer(text):
        line = text.count("\n", 0, heading.start()) + 1
        function = next((node for node in solved if node.lineno > line), None)
        if function is None:
            raise ValueError(f"{path}:{line}: exercise {heading[1]} has no solution below it")
        found[heading[1]] = Task(
            path,
            function,
            imports,
            _shown(function, lines),
            heading[2].count("●"),
            heading[3].count("●"),
            int(heading[4]),
        )
    return found


def _used(function: ast.FunctionDef) -> set[str]:
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    return {node.id for node in names} - {n.id for n in names if isinstance(n.ctx, ast.Store)}


def _bound(statement: ast.Import | ast.ImportFrom) -> set[str]:
    return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}


def _shown(function: ast.FunctionDef, lines: list[str]) -> str:
    first = function.body[0]
    docstring = range(0)
    if ast.get_docstring(function) is not None:
        docstring = range(first.lineno, (first.end_lineno or first.lineno) + 1)
    kept = range(function.lineno, (function.end_lineno or function.lineno) + 1)
    shown = [
        lines[number - 1]
        for number in kept
        if number not in docstring and not MARKER.fullmatch(lines[number - 1])
    ]
    return "\n".join(shown).rstrip()
