"""``fn = check(fn)``: the line below the student's cell, and what the notebook sees of it.

Three outcomes: not yet, not right, right.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from . import memory
from .engine import Verdict, examine
from .exercise import Exercise, find
from .results import usable


class CheckFailed(AssertionError):
    """The exercise is not right, or in strict mode still blank.

    A notebook shows the few lines of the message and no traceback; the cell fails all the same.
    """

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


def check(function: Callable[..., Any], number: str | None = None) -> Callable[..., Any]:
    """Say whether a student's function is right.

    In a cell: ``small_loss_indices = check(small_loss_indices)``. `number` ("7.2") says which
    exercise it is when the function has another name. Returns the function when it is right (with
    its results turned into tensors where the lesson needs them), the course's own while it is
    blank. Raises `CheckFailed` when it is not right, or blank with ``NLCOURSE_STRICT=1`` or under
    nbgrader; in a notebook the name is bound to the course's own version before: later cells go on.
    """
    exercise = _exercise_of(function, number)
    if function is exercise.reference:
        verdict = Verdict("open", 0)
        state = "is the course's own at the moment: run your cell first"
    else:
        verdict = examine(exercise, function)
        state = "is still blank" if verdict.outcome == "open" else "is not right yet"
        memory.record(exercise, verdict)
    memory.report(exercise, verdict)
    if verdict.outcome == "done":
        function, turned = usable(exercise, function)
        found = f"{verdict.cases} cases" + (f"; {turned}" if turned else "")
        say(f"✓ {exercise.title}: {found}. {memory.standing(exercise)}")
        return function
    help_for = f'Stuck? hint("{exercise.number}")'
    if verdict.outcome == "open" and not _strict():
        say(f"○ {exercise.title} {state}. The course's version goes on. {help_for}")
        return exercise.reference
    head = f"✗ {exercise.title} {state}" + (f": {verdict.reason}" if verdict.reason else "")
    tail = f"  {_go_on(exercise, function)}{help_for}"
    raise CheckFailed("\n".join([head, *verdict.lines, tail]))


def _exercise_of(function: Any, number: str | None) -> Exercise:
    if number is None and not callable(function):
        said = f"✗ Expected the function itself, got a {type(function).__name__}."
        raise CheckFailed(f"{said}\n  Write name = check(name), without calling the function.")
    try:
        return find(number or function)
    except LookupError as error:
        advice = "Write name = check(name), with the name that the exercise gives the function."
        raise CheckFailed(f"✗ {error.args[0]}.\n  {advice}") from None


def _strict() -> bool:
    """Say whether blank exercises fail too: when `nlcourse check` or nbgrader looks at them."""
    grading = os.environ.get("NBGRADER_EXECUTION") == "autograde"  # no error is full marks there
    return grading or os.environ.get("NLCOURSE_STRICT", "") not in ("", "0")


def say(text: str) -> None:
    """Print, also where the console knows no check mark."""
    try:
        print(text)
    except UnicodeEncodeError:
        print(text.encode("ascii", "replace").decode())


def _go_on(exercise: Exercise, function: Callable[..., Any]) -> str:
    """Bind the course's version in the notebook, if there is one, and return what says so."""
    namespace = notebook_namespace()
    if namespace is None:
        return ""
    own = getattr(function, "__name__", "")
    names = [exercise.name, *({own} & namespace.keys() - {exercise.name})]
    namespace.update(dict.fromkeys(names, exercise.reference))
    which = " and ".join(names)
    return f"Later cells go on: {which} is the course's version until yours is right. "


def notebook_namespace() -> dict[str, Any] | None:
    """Return the names of the running notebook; None outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return None if shell is None else shell.user_ns
