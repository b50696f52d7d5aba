"""One process at a time: a lock beside a file. The system gives it back when the process ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


def lock_of(path: Path) -> BaseFileLock:
    """Return the lock of a file or folder, a hidden file beside it; ``with`` waits for it."""
    from filelock import FileLock  # only here: most runs need none

    return FileLock(path.with_name(f".{path.name}.lock"))
