"""A panel's place in a notebook: the cell that shows it.

When a cell runs again, its new panel takes the place of the old one, which nobody can see any more.
ipywidgets never forgets a widget, and a run in the background does not end because its panel is
gone; so the old panel is closed here.
"""

from __future__ import annotations

import sys
from typing import Protocol


class _Closable(Protocol):
    def close(self) -> None: ...


_IN_CELL: dict[str, tuple[int, list[_Closable]]] = {}  # which execution of the cell, its panels


def take(panel: _Closable) -> None:
    """Give a panel the place of the running cell, and close those of its earlier executions.

    Outside of a notebook, and in one whose front end does not name its cells, nothing happens.
    """
    here = running_cell()
    if here is None:
        return
    cell, execution = here
    before, panels = _IN_CELL.get(cell, (execution, []))
    if before != execution:
        for old in panels:
            old.close()
            _forget_output(old)
        panels = []
    _IN_CELL[cell] = execution, [*panels, panel]


def running_cell() -> tuple[str, int] | None:
    """Return the running cell's identifier and the number of its execution."""
    shell = _shell()
    if not hasattr(shell, "get_parent"):  # no IPython, or its plain prompt
        return None
    cell = shell.get_parent().get("metadata", {}).get("cellId")
    return (cell, shell.execution_count) if cell else None


def _shell():
    ipython = sys.modules.get("IPython")  # not imported: then nobody runs cells
    return ipython.get_ipython() if ipython is not None else None


def _forget_output(panel: _Closable) -> None:
    """Take a panel out of ``Out``, where a notebook keeps all that its cells have shown."""
    names = getattr(_shell(), "user_ns", {})
    outputs = names.get("Out", {})
    for number in [number for number, shown in outputs.items() if shown is panel]:
        del outputs[number]
        names.pop(f"_{number}", None)
