"""The code cells of a lesson, run as they stand in its source, with another `SEED`.

So what the students see and what is tested here cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nlcourse.panels import plots

LESSONS = Path(__file__).resolve().parent.parent / "notebooks" / "lessons"

Edit = Callable[[str], str]  # what to run of a cell; "" leaves it out


def code_cells(lesson: Path) -> list[str]:
    """Return the sources of a lesson's code cells."""
    parts = re.split(r"(?m)^# %%(.*)\n", lesson.read_text(encoding="utf-8"))[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [source for header, source in pairs if "[markdown]" not in header]


def run_cells(
    lesson: Path, *, seed: int = 0, edit: Edit = str, names: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Run the code cells of a lesson.

    Args:
        lesson: its source.
        seed: takes the place of 0 in the lesson's own `SEED = 0`.
        edit: returns what to run of a cell.
        names: what a cell may need that `edit` leaves out.

    Returns:
        What the cells defined, and under "alt_texts" a description of each figure they showed.
    """
    names = {"__name__": f"lesson_{lesson.name[:2]}", **(names or {})}
    alt_texts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            plots, "show", lambda figure, alt=None: alt_texts.append(alt or figure.alt_text)
        )
        for source in code_cells(lesson):
            source = re.sub(r"(?m)^SEED = 0$", f"SEED = {seed}", edit(source))
            exec(compile(source, lesson.name, "exec"), names)
    assert names["SEED"] == seed
    return names | {"alt_texts": alt_texts}


def only(*words: str) -> Edit:
    """Run the cells that hold one of these words."""
    return lambda source: source if any(word in source for word in words) else ""


def ended(panel: Any) -> Iterator[Any]:
    """Yield a lesson's panel to a test and stop it afterwards."""
    yield panel
    panel.stop()
    panel.wait(10)
