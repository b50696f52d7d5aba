"""Hints that grow on request: a question, a formula, two lines of code, the solution."""

from __future__ import annotations

import textwrap

from .exercise import Exercise, find

LEVELS = ("a question", "the formula", "two lines of code", "the solution")
_shown: dict[str, int] = {}  # the highest level shown in this session


def hint(exercise: object, level: int | None = None) -> None:
    """Print the next hint to an exercise (its number "7.2", its name, or the function).

    Or that of one level: 1 a question, 2 the formula, 3 two lines of code, 4 the solution.
    """
    try:
        known = find(exercise)
    except LookupError as error:
        raise ValueError(error.args[0]) from None
    if level is None:
        level = min(_shown.get(known.number, 0) + 1, len(LEVELS))
        _shown[known.number] = level
    if level not in range(1, len(LEVELS) + 1):
        raise ValueError(f"Expected `level` from 1 to {len(LEVELS)}, got {level!r}")
    print(f"{known.title}, hint {level} of {len(LEVELS)}: {LEVELS[level - 1]}")
    print(textwrap.indent(text_of(known, level), "    "))


def text_of(exercise: Exercise, level: int) -> str:
    """Return the text of a level, from 1."""
    return (*exercise.hints, exercise.task.text)[level - 1]
