"""The checked exercises: ``fn = check(fn)`` in the cell below the student's own.

Where to look: an exercise is data (:mod:`.exercise`), one file a lesson (``l07/exercises.py`` shows
how to write one); its text stands in the lesson alone (:mod:`..sources`); :mod:`.checking` is the
call, :mod:`.engine` runs the cases and names the mistake, :mod:`.judges`, :mod:`.draws` and
:mod:`.gradients` compare results, :mod:`.show` prints values short, :mod:`.memory` remembers,
:mod:`.hints` helps, :mod:`.report` checks a whole notebook under nbval.
"""

from importlib import import_module

__all__ = ["CheckFailed", "check", "hint", "progress"]

_HOMES = {"CheckFailed": "checking", "check": "checking", "hint": "hints", "progress": "memory"}


def __getattr__(name: str) -> object:
    """Import on first use: the command line reads `report` without waiting for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
