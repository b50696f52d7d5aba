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
    """Why a result is not right."""

    kind: str  # a few fixed words; results that are wrong in the same way have the same kind
    says: str  # the same as a sentence for the student, with numbers
    got: str | None = None  # what came out, when it is not simply the result
    expected: str | None = None  # what should have, when it is not simply the reference's result
    # What two functions with the same mistake share beside the kind; None takes the result itself.
    # Judges of random results set "", since two right functions may draw different numbers.
    evidence: str | None = None
    student_lines: tuple[str, ...] = ()  # where in the student's code an error arose


NOTHING = Mismatch(
    "nothing", "it returns nothing here: is there a way through it without a `return`?", got="None"
)

Judge = Callable[[Any, Any, Arguments], Mismatch | None]


def ask_once(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Call the function as the course does: arguments by position."""
    return function(*arguments.values())


@dataclass(frozen=True)
class Case:
    """One question to the function."""

    name: str  # what is special about it, for the student
    arguments: Arguments  # in the order of the signature; each call gets its own copy
    ask: Callable[[Callable[..., Any], Arguments], Any] = ask_once  # how to call the function
    judge: Judge | None = None  # in place of the exercise's own judge


@dataclass(frozen=True, eq=False)
class Misconception:
    """A classic mistake, kept as a wrong implementation so that it is recognised by running it."""

    name: str  # what the function does instead, as "it ..." would go on
    hint: str  # a question or a nudge that leads without giving the line away
    wrong: Callable[..., Any] | None = None  # where it is not one change of the solution, said by
    replace: dict[str, str] = field(default_factory=dict)  # pieces of it and what stands there, or
    returns: str = ""  # what stands behind its last ``return``


@dataclass(frozen=True, eq=False)
class Exercise:
    """All that is known of one exercise beside what its lesson says (:mod:`..sources`)."""

    number: str  # lesson and place, "7.2"
    cases: Callable[[], list[Case]]  # trivial ones first
    judge: Judge  # judge(got, expected, arguments) returns None when the result is right
    misconceptions: tuple[Misconception, ...]  # at least four
    hints: tuple[str, str, str]  # a question, a formula, two lines of code
    package: Callable[..., Any] | None = None  # the package's own version, where it has one

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
    """All exercises of the course by number, in the order of the lessons."""
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
    """Return the exercise of a number ("7.2"), a name, or a function; `LookupError` if none is."""
    key = getattr(wanted, "__name__", None) or str(wanted)
    known = exercises() | {exercise.name: exercise for exercise in exercises().values()}
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(exercises())}"
    raise LookupError(f"No exercise is called {key!r}: {advice}")
