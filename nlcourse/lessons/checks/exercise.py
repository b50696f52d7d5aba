"""What an exercise is, and where all exercises are found.

To add one, write its heading, stub and solution into the lesson's source, and an :class:`Exercise`
into the ``EXERCISES`` of ``lNN/exercises.py``. Nothing else is needed: the check, the hints, the
progress table, the notebook report and the tests all go over :func:`exercises`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from ..sources import Task, tasks

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Mismatch:
    """Why a result is not right.

    Attributes:
        kind: a few fixed words; results that are wrong in the same way have the same kind.
        says: the same as a sentence for the student, with numbers.
        got: what came out, when it is not simply the result.
        expected: what should have come out, when it is not simply the reference's result.
        evidence: what two functions with the same mistake share beside the kind; None takes the
            result itself. Judges of random results set "", since two right functions may draw
            different numbers.
        student_lines: where in the student's code an error arose.
    """

    kind: str
    says: str
    got: str | None = None
    expected: str | None = None
    evidence: str | None = None
    student_lines: tuple[str, ...] = ()


NOTHING = Mismatch(
    "nothing", "it returns nothing here: is there a way through it without a `return`?", got="None"
)

Judge = Callable[[Any, Any, Arguments], Mismatch | None]


def ask_once(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Call the function as the course does: arguments by position."""
    return function(*arguments.values())


@dataclass(frozen=True)
class Case:
    """One question to the function.

    Attributes:
        name: what is special about it, for the student.
        arguments: by parameter name, in the order of the signature; each call gets its own copy.
        ask: how to call the function; the default calls it once.
        judge: in place of the exercise's own judge.
    """

    name: str
    arguments: Arguments
    ask: Callable[[Callable[..., Any], Arguments], Any] = ask_once
    judge: Judge | None = None


@dataclass(frozen=True, eq=False)
class Misconception:
    """A classic mistake, kept as a wrong implementation so that it is recognised by running it.

    Attributes:
        name: what the function does instead, as "it ..." would go on.
        hint: a question or a nudge that leads without giving the line away.
        wrong: the mistake itself, where it is not one change of the solution, which is said by
        replace: pieces of the solution's text and what stands there instead, or by
        returns: what stands behind its last ``return``.
    """

    name: str
    hint: str
    wrong: Callable[..., Any] | None = None
    replace: dict[str, str] = field(default_factory=dict)
    returns: str = ""


@dataclass(frozen=True, eq=False)
class Exercise:
    """All that is known of one exercise beside what its lesson says (:mod:`..sources`).

    Attributes:
        number: lesson and place, "7.2".
        cases: makes the cases, trivial ones first.
        judge: ``judge(got, expected, arguments)`` returns None when the result is right.
        misconceptions: at least four.
        hints: a question, a formula, two lines of code; the fourth level is the solution.
        package: the package's own version, where it has one.
    """

    number: str
    cases: Callable[[], list[Case]]
    judge: Judge
    misconceptions: tuple[Misconception, ...]
    hints: tuple[str, str, str]
    package: Callable[..., Any] | None = None

    @cached_property
    def task(self) -> Task:
        """What the lesson says of it: difficulty, minutes, the solution."""
        return tasks()[self.number]

    @property
    def reference(self) -> Callable[..., Any]:
        """What answers are compared with, and what goes on while the exercise is blank."""
        return self.package or self.task.solution

    @cached_property
    def mistakes(self) -> tuple[Callable[..., Any], ...]:
        """The wrong functions, one a misconception."""
        return tuple(
            one.wrong or self.task.altered(one.replace, one.returns) for one in self.misconceptions
        )

    @property
    def name(self) -> str:
        """The name of the function that the student writes."""
        return self.task.name

    @property
    def title(self) -> str:
        """Number and name, as every message begins."""
        return f"{self.number} {self.name}"

    @property
    def lesson(self) -> str:
        """The lesson in two digits, as its file name begins."""
        return f"{int(self.number.split('.')[0]):02d}"


@cache
def exercises() -> dict[str, Exercise]:
    """All exercises of the course by number, in the order of the lessons.

    Raises:
        ValueError: two exercises share a number or a name.
    """
    rooms = [room.name for room in Path(__file__).parents[1].glob("l[0-9][0-9]")]
    modules = [import_module(f"nlcourse.lessons.{room}.exercises") for room in sorted(rooms)]
    found = [exercise for module in modules for exercise in module.EXERCISES]
    found.sort(key=lambda exercise: [int(part) for part in exercise.number.split(".")])
    for key in ("number", "name"):
        values = [getattr(exercise, key) for exercise in found]
        if len(set(values)) < len(values):
            raise ValueError(f"Expected every exercise to have its own {key}, got {values}")
    return {exercise.number: exercise for exercise in found}


def find(wanted: object) -> Exercise:
    """Return the exercise of a number ("7.2"), a name, or a function with that name.

    Raises:
        LookupError: there is none; the message names the nearest.
    """
    key = getattr(wanted, "__name__", None) or str(wanted)
    known = exercises() | {exercise.name: exercise for exercise in exercises().values()}
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(exercises())}"
    raise LookupError(f"No exercise is called {key!r}: {advice}")
