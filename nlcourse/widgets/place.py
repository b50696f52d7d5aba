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
        panels = []
    _IN_CELL[cell] = execution, [*panels, panel]


def running_cell() -> tuple[str, int] | None:
    """Return the running cell's identifier and the number of its execution."""
    ipython = sys.modules.get("IPython")  # not imported: then nobody runs cells
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "get_parent"):  # a plain IPython prompt
        return None
    cell = shell.get_parent().get("metadata", {}).get("cellId")
    return (cell, shell.execution_count) if cell else None
