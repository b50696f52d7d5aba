"""What is solved: a small JSON file beside the student's notebooks, and the table of progress.

The file is a convenience. Damaged, read-only or missing, it never stands in the way of a check.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exercise import Exercise, exercises

if TYPE_CHECKING:
    from .engine import Verdict

FILE = ".nlcourse-progress.json"
_session: dict[Path, dict[str, Any]] = {}  # goes on where the file cannot be written


def _path() -> Path:
    """Return the file: ``NLCOURSE_PROGRESS``, else a hidden one in the working directory."""
    return Path(os.environ.get("NLCOURSE_PROGRESS") or FILE).absolute()


def load() -> dict[str, dict[str, Any]]:
    """Return what is remembered of each exercise, as far as the file makes sense."""
    stored: Any = {}
    with suppress(OSError, ValueError, RecursionError):
        stored = json.loads(_path().read_text(encoding="utf-8"))
    entries = stored.items() if isinstance(stored, dict) else ()
    kept = {number: entry for number, entry in entries if isinstance(entry, dict)}
    return kept | _session.get(_path(), {})


def record(exercise: Exercise, verdict: Verdict) -> None:
    """Remember the outcome. Once solved stays solved; blank is no try."""
    everything = load()
    entry = everything.setdefault(exercise.number, {})
    tries = entry.get("tries", 0)
    entry["tries"] = (tries if isinstance(tries, int) else 0) + (verdict.outcome != "open")
    entry["solved"] = entry.get("solved") is True or verdict.outcome == "done"
    try:
        _write(everything, _path())
    except OSError:
        _session[_path()] = everything


def _write(everything: dict[str, Any], path: Path) -> None:
    # First beside, then over: a kernel killed in between leaves the old file whole.
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(everything, file, indent=1)
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


def solved() -> set[str]:
    """Return the numbers of the solved exercises."""
    return {number for number, entry in load().items() if entry.get("solved") is True}


def standing(after: Exercise) -> str:
    """Return in a few words how far the student is, and what comes next."""
    numbers = list(exercises())
    done = solved() & set(numbers)
    if len(done) == len(numbers):
        return f"All {len(numbers)} exercises solved!"
    # What follows comes first; then whatever was left out before.
    place = numbers.index(after.number)
    following = exercises()[next(n for n in numbers[place:] + numbers if n not in done)]
    return (
        f"{len(done)} of {len(numbers)} exercises solved; "
        f"next: {following.number}, about {following.task.minutes} minutes"
    )


def progress() -> None:
    """Print the table of all exercises: solved or not, tries, difficulty, importance, minutes."""
    known, done = load(), solved() & set(exercises())
    print(f"{'exercise':<37} {'tries':>5}  {'difficulty':<10}  {'importance':<10}  minutes")
    for number, exercise in exercises().items():
        tries, task = known.get(number, {}).get("tries", 0), exercise.task
        dots = [("●" * level).ljust(5, "·") for level in (task.difficulty, task.importance)]
        print(
            f"{'✓' if number in done else '○'} {exercise.title:<35} {tries!s:>5}  "
            f"{dots[0]:<10}  {dots[1]:<10}  {task.minutes:>7}"
        )
    print(f"{len(done)} of {len(exercises())} solved")


def report(exercise: Exercise, verdict: Verdict) -> None:
    """Append the outcome as a line of JSON to ``NLCOURSE_REPORT``, which `nlcourse check` reads."""
    path = os.environ.get("NLCOURSE_REPORT")
    if path:
        keys = ("outcome", "cases", "reason", "misconception")
        said = {key: getattr(verdict, key) for key in keys}
        line = json.dumps({"number": exercise.number, "name": exercise.name} | said)
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
