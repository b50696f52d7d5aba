"""Where the course is: its folder, its lessons, and the students' own copies.

Nothing heavy is imported here, so that `nlcourse lab` starts at once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START = "00_start_here"
LESSON_NAME = re.compile(r"\d\d_\w+")


class CourseError(RuntimeError):
    """The course, a lesson or a student's copy is not where it should be."""


@dataclass(frozen=True)
class Lesson:
    """One lesson of the course in `root`, by its name, for example ``07_co_teaching``."""

    root: Path
    name: str

    @property
    def number(self) -> str:
        """The two digits in front, for example ``07``."""
        return self.name[:2]

    @property
    def source(self) -> Path:
        """The text that an author edits."""
        return self.root / "notebooks" / "lessons" / f"{self.name}.py"

    @property
    def blank(self) -> Path:
        """The notebook that a class opens."""
        return self.root / "notebooks" / f"{self.name}.ipynb"

    @property
    def solution(self) -> Path:
        """The solved and executed notebook."""
        return self.root / "notebooks" / "solutions" / f"{self.name}.ipynb"

    @property
    def work(self) -> Path:
        """The student's own copy."""
        return self.root / "work" / f"{self.name}.ipynb"


@dataclass(frozen=True)
class Copies:
    """What `copy_into_work` did, by names of files."""

    added: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()  # those kept of which the course has a newer one

    def __str__(self) -> str:
        """Say it in a line or three."""
        mend = "Yours stay as they are; rename yours and start again to get the new one beside it."
        lines = {
            f"added to work/: {', '.join(self.added)}": self.added,
            f"kept as they are in work/: {len(self.kept)} file(s)": self.kept,
            f"newer in the course: {', '.join(self.outdated)}. {mend}": self.outdated,
        }
        said = [line for line, names in lines.items() if names]
        return "\n".join(said) or "nothing to copy into work/"


def find_root(start: Path | None = None) -> Path:
    """The course's folder: the one around `start` (default: here), else the package's own.

    Raises `CourseError` when there is none, as after an install without the repository.
    """
    start = Path.cwd() if start is None else Path(start).resolve()
    package = Path(__file__).resolve().parents[2]
    for folder in (start, *start.parents, package):
        if (folder / "notebooks").is_dir() and (folder / "nlcourse" / "course").is_dir():
            return folder
    raise CourseError(
        f"Found no course in {start} or above it: expected a folder that holds notebooks/ and"
        " nlcourse/. Clone the repository and call nlcourse inside it."
    )


def lessons(root: Path) -> list[Lesson]:
    """All lessons, in order: those with a source, and those that came as notebooks only."""
    found = [*root.glob("notebooks/lessons/*.py"), *root.glob("notebooks/*.ipynb")]
    names = {path.stem for path in found if LESSON_NAME.fullmatch(path.stem)}
    return [Lesson(root, name) for name in sorted(names)]


def find_lesson(which: str, root: Path) -> Lesson:
    """The lesson meant by a number (``7``, ``07``), a name (``co_teaching``) or a path to it.

    Raises `CourseError` with the lessons that there are when none or several are meant.
    """
    wanted = Path(which).stem
    wanted = wanted.zfill(2) if wanted.isdigit() else wanted
    known = lessons(root)
    matches = [one for one in known if wanted in (one.name, one.number, one.name[3:])]
    if len(matches) != 1:
        names = ", ".join(one.name for one in known) or "none"
        raise CourseError(f"Expected one of the lessons, got {which!r}. There are: {names}")
    return matches[0]


def find_notebook(which: str, root: Path) -> Path:
    """The notebook to check: the path itself, or the student's copy of a lesson in work/."""
    path = Path(which)
    if path.suffix == ".ipynb":
        if not path.is_file():
            raise CourseError(f"There is no notebook {path}")
        return path
    lesson = find_lesson(which, root)
    if not lesson.work.is_file():
        raise CourseError(
            f"There is no {lesson.work.relative_to(root)} yet: `nlcourse lab` makes your copy of"
            " the lessons. To check another notebook give its path."
        )
    return lesson.work


def repository_url(root: Path) -> str:
    """The repository's address from pyproject.toml, the one place where it stands."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    try:
        return str(settings["project"]["urls"]["Source"])
    except KeyError:
        raise CourseError(
            "Expected `Source` under [project.urls] in pyproject.toml: the repository's address"
        ) from None


def copy_into_work(root: Path) -> Copies:
    """Copy the blank lessons and what lies beside them into work/; overwrite nothing there.

    Everything directly under notebooks/ belongs to the students but the sources and solutions.
    """
    added, kept, outdated = [], [], []
    for source in _student_files(root / "notebooks"):
        name = source.relative_to(root / "notebooks").as_posix()
        target = root / "work" / name
        if _copy_once(source, target):
            added.append(name)
            continue
        kept.append(name)
        new, old = _source_hash(source), _source_hash(target)
        if new and old and new != old:
            outdated.append(name)
    return Copies(tuple(added), tuple(kept), tuple(outdated))


def _student_files(folder: Path) -> Iterator[Path]:
    """Files under notebooks/ that a student needs, without caches and hidden ones."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith((".", "_")) for part in parts)
        if path.is_file() and not hidden and parts[0] not in ("lessons", "solutions"):
            yield path


def _copy_once(source: Path, target: Path) -> bool:
    """Copy unless `target` exists in any form (a dangling link too); say whether it was copied.

    The last step is one rename: a copy that is cut off never passes for a lesson.
    """
    if os.path.lexists(target):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(source, partial)
        if os.path.lexists(target):  # a second `nlcourse lab` was faster
            return False
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _source_hash(notebook: Path) -> str:
    """The hash of the lesson's source that the builder wrote into a notebook; "" without one."""
    try:
        text = json.loads(notebook.read_text(encoding="utf-8"))
        return str(text["metadata"]["nlcourse"]["source_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
