"""Lessons as text, notebooks as products: `nlcourse notebooks` builds both variants of a lesson.

From a source come notebooks/NN_name.ipynb (blank, no outputs) and notebooks/solutions/NN_name.ipynb
(solved and executed, an nbgrader source notebook as it stands). jupytext reads
(`lessons/sources.py`), nbgrader's preprocessors clear, nbclient executes, nbformat writes; this
file makes it repeatable and compares. Needs the extra `teach`.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions
from traitlets.config import Config

from ..lessons.sources import CHECK_CALL, LessonError, read_source, split_cells
from .paths import Lesson, lessons, repository_url

BUILDER = 1  # raise it when the same source would give another notebook
CODE_STUB = "raise NotImplementedError"
CELL_TIMEOUT = 120  # seconds, as under nbval
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

COLAB_CELL = """\
# On Google Colab this fetches the course; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    import os
    import subprocess

    here = "/content/nlcourse"
    address = "{address}"
    clone = ["git", "clone", "--quiet", "--depth", "1", address, here]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "-e", here]
    if not os.path.isdir(here):
        subprocess.run(clone, check=True)
    subprocess.run(install, check=True)
    if here not in sys.path:
        sys.path.insert(0, here)
    os.chdir(here + "/notebooks")"""


def student_variant(lesson: Lesson) -> NotebookNode:
    """The blank notebook: stubs for solutions, no hidden tests, no outputs, one Colab cell."""
    notebook = read_source(lesson.source)
    config = Config()
    config.ClearSolutions.code_stub = {"python": CODE_STUB}
    for preprocessor in (ClearSolutions, ClearHiddenTests):
        notebook, _ = preprocessor(config=config, enforce_metadata=False).preprocess(notebook, {})
    _validate_syntax(notebook, lesson)
    # After the title, so that the first thing one sees is the lesson's name.
    place = 1 if notebook.cells and notebook.cells[0].cell_type == "markdown" else 0
    colab = COLAB_CELL.format(address=repository_url(lesson.root))
    notebook.cells.insert(place, nbformat.v4.new_code_cell(colab, id="colab"))
    return _with_metadata(notebook, lesson, "blank")


def _validate_syntax(notebook: NotebookNode, lesson: Lesson) -> None:
    """A stub at the wrong depth is a SyntaxError in the class: find it at the desk."""
    starts = [cell.line for cell in split_cells(lesson.source.read_text(encoding="utf-8"))]
    for cell, line in zip(notebook.cells, starts, strict=True):
        if cell.cell_type != "code" or re.search(r"^\s*[%!]", cell.source, re.M):
            continue  # magics are IPython's business
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            message = f"without its solution this cell is no Python ({error.msg})"
            raise LessonError(lesson.source, line, message) from None


def solution_variant(lesson: Lesson) -> NotebookNode:
    """The solved notebook before it is executed: the source with nbgrader's cell metadata."""
    notebook = read_source(lesson.source)
    used: Counter[str] = Counter()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _mark_for_nbgrader(cell, used)
    return _with_metadata(notebook, lesson, "solution")


def _mark_for_nbgrader(cell: NotebookNode, used: Counter[str]) -> None:
    """A solution region makes a solution cell; a check or hidden tests make a graded one."""
    checks = CHECK_CALL.search(cell.source)
    if "### BEGIN SOLUTION" in cell.source:
        defines = re.search(r"^(?:def|class) (\w+)", cell.source, re.M)
        name, grade = f"solution-{defines[1] if defines else 'cell'}", False
    elif checks or "### BEGIN HIDDEN TESTS" in cell.source:
        name, grade = f"check-{checks[1] if checks else 'hidden'}", True
    else:
        return
    used[name] += 1
    grade_id = name if used[name] == 1 else f"{name}-{used[name]}"
    about = {"grade_id": grade_id, "grade": grade, "locked": grade, "solution": not grade}
    about |= {"schema_version": 3, "task": False} | ({"points": 1} if grade else {})
    cell.metadata["nbgrader"] = about


def _with_metadata(notebook: NotebookNode, lesson: Lesson, variant: str) -> NotebookNode:
    """Metadata that say where a notebook comes from and nothing about who built it."""
    # Hash of the text, so that Windows line ends make no other lesson of it.
    digest = hashlib.sha256(lesson.source.read_text(encoding="utf-8").encode()).hexdigest()
    source = {"lesson": lesson.name, "source_sha256": digest}
    about = {"builder": BUILDER, "variant": variant} | source
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "nlcourse": about}
    notebook.metadata = nbformat.from_dict(metadata)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run all cells in a fresh kernel in `folder`, strictly; nothing of the run's noise stays.

    The kernel's progress file lies in a temporary folder, so that building never counts as
    solving. Raises nbclient's `CellExecutionError` when a cell fails.
    """
    executed = deepcopy(notebook)
    with tempfile.TemporaryDirectory() as scratch:
        client = NotebookClient(
            executed,
            timeout=CELL_TIMEOUT,
            kernel_name=KERNEL["name"],
            resources={"metadata": {"path": str(folder)}},
            store_widget_state=False,
            record_timing=False,
            extra_arguments=["--IPKernelApp.log_level=40"],  # an author wants our lines only
        )
        client.execute(env=kernel_environment(Path(scratch)))
    executed.metadata = deepcopy(notebook.metadata)  # the kernel wrote its version into it
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_noise(output)]
    return executed


def kernel_environment(scratch: Path, *, strict: bool = True) -> dict[str, str]:
    """This process's environment for a kernel whose progress and report files lie in `scratch`.

    Without MPLBACKEND: the kernel shall choose its inline figures, whatever the shell says.
    """
    dropped = ("NLCOURSE_STRICT", "MPLBACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment["NLCOURSE_PROGRESS"] = str(scratch / "progress.json")
    environment["NLCOURSE_REPORT"] = str(scratch / "report.jsonl")
    return environment | ({"NLCOURSE_STRICT": "1"} if strict else {})


def _is_noise(output: NotebookNode) -> bool:
    """Whether an output is random, or means nothing to a reader.

    stderr is warnings and progress bars; a widget view is an id that no other page can resolve.
    """
    warning = output.output_type == "stream" and output.name == "stderr"
    return warning or WIDGET_VIEW in output.get("data", {})


def problems_of_outputs(notebook: NotebookNode) -> list[str]:
    """What a committed solved notebook must not have: one line each, with the cell's first line."""
    found = ["widget state in the metadata"] if "widgets" in notebook.metadata else []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            first = cell.source.partition("\n")[0]
            found += [f"cell `{first}` {problem}" for problem in _problems_of_cell(cell)]
    return found


def _problems_of_cell(cell: NotebookNode) -> Iterator[str]:
    if cell.source.strip() and cell.execution_count is None:
        yield "was not executed"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"ended in {output.ename}"
        elif _is_noise(output):
            yield "has stderr or a widget view in its outputs"
        elif _lacks_alt(output):
            yield "shows an image without alt text"


def _lacks_alt(output: NotebookNode) -> bool:
    """Whether an output shows an image that says nothing to a reader who cannot see it."""
    data, metadata = output.get("data", {}), output.get("metadata", {})
    page = BeautifulSoup("".join(data.get("text/html", "")), "html.parser")
    alts = [str(image.get("alt", "")) for image in page.find_all("img")]
    if not alts:  # pages prefer HTML to a picture when an output has both
        kinds = [kind for kind in data if kind.startswith("image/")]
        alts = [metadata.get(kind, {}).get("alt") or metadata.get("alt") or "" for kind in kinds]
    return not all(alt.strip() for alt in alts)


def build(lesson: Lesson, *, force: bool = False) -> list[Path]:
    """Write the products of a lesson that are not up to date; return those written.

    The blank one is written first, the solved one after it ran without an error: a lesson that
    fails leaves the old solved notebook as it was. `force` executes even what seems up to date,
    for when the package has changed and the lesson has not.
    """
    blank, solution = student_variant(lesson), solution_variant(lesson)
    written = []
    if _stale_blank(lesson.blank, blank):
        written.append(_write(blank, lesson.blank))
    if force or _stale_solution(lesson.solution, solution):
        lesson.solution.parent.mkdir(parents=True, exist_ok=True)
        executed = execute(solution, lesson.solution.parent)
        if problems := problems_of_outputs(executed):
            raise LessonError(lesson.source, 1, "; ".join(problems))
        written.append(_write(executed, lesson.solution))
    return written


def _write(notebook: NotebookNode, path: Path) -> Path:
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_as_text(notebook), encoding="utf-8", newline="\n")
    return path


def _as_text(notebook: NotebookNode) -> str:
    return str(nbformat.writes(notebook, indent=1, sort_keys=True)) + "\n"


def stale(lesson: Lesson) -> list[str]:
    """Why the products of a lesson are not its source's, one line each; empty when they are.

    A blank one is compared to the byte. Of a solved one the outputs are not compared (times and
    pictures differ from machine to machine), but every cell must have run, without an error, and
    all must be fit to be read.
    """
    reasons = {
        lesson.blank: _stale_blank(lesson.blank, student_variant(lesson)),
        lesson.solution: _stale_solution(lesson.solution, solution_variant(lesson)),
    }
    return [f"{path.relative_to(lesson.root)}: {why}" for path, why in reasons.items() if why]


def _stale_blank(path: Path, expected: NotebookNode) -> str:
    if not path.is_file():
        return "is missing"
    same = path.read_text(encoding="utf-8") == _as_text(expected)
    return "" if same else "is not what the source gives"


def _stale_solution(path: Path, expected: NotebookNode) -> str:
    if not path.is_file():
        return "is missing"
    try:
        found = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, AttributeError, KeyError):
        return "is no notebook"
    problems = problems_of_outputs(found)
    if _as_text(_without_outputs(found)) != _as_text(_without_outputs(expected)):
        problems.insert(0, "is not what the source gives")
    return "; ".join(problems)


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    bare = deepcopy(notebook)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def orphans(root: Path) -> list[str]:
    """Products whose source is gone (a renamed lesson leaves them), one line each."""
    without = [one for one in lessons(root) if not one.source.is_file()]
    return [f"{one.blank.relative_to(root)}: no source in notebooks/lessons/" for one in without]
