"""The committed notebooks: up to date, free of nbval's traps, and run under nbval."""

import ast
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from nlcourse.course import builder as notebooks
from nlcourse.course import paths as course
from nlcourse.lessons.checks.exercise import exercises
from nlcourse.lessons.sources import CHECK_CALL

ROOT = Path(__file__).resolve().parent.parent
LESSONS = course.lessons(ROOT)
NBVAL = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120")

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


@dataclass(frozen=True)
class Result:
    """How one code cell fared: its text, and what nbval said if it failed."""

    source: str
    failure: str


def run_nbval(notebook: Path, scratch: Path, *, strict: bool) -> list[Result]:
    """Run a notebook as `pytest --nbval-lax` does; one result a code cell, in order.

    After a time-out nbval expects the later cells to fail; those that pass are failures too
    (xfail_strict). This project's own options (two workers) are not for this run. nbval interrupts
    a cell that takes too long; `fit` takes that for a Stop and the cell goes on: hence pytest's
    own limit a little later.
    """
    junit = scratch / "junit.xml"
    ours = ("-o", "addopts=", "-o", "xfail_strict=true", "-o", "timeout=150")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *NBVAL, *ours]
        + [f"--junit-xml={junit}", str(notebook)],
        cwd=ROOT,
        env=notebooks.kernel_environment(scratch, strict=strict),
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # else pytest itself stumbled
    cases = list(ElementTree.parse(junit).iter("testcase"))
    sources = [cell.source for cell in code_cells(notebook)]
    assert len(cases) == len(sources), done.stdout
    return [Result(source, _failure(case)) for source, case in zip(sources, cases, strict=True)]


def _failure(case: ElementTree.Element) -> str:
    """What nbval said about a cell that did not pass (a skipped one has not passed either)."""
    bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
    return "\n".join(f"{child.get('message')}\n{child.text}" for child in bad)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    """The code cells of a notebook, the empty ones too."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_lessons():
    assert {"00", "01", "07"} <= {lesson.number for lesson in LESSONS}


# ---- guards --------------------------------------------------------------------------------------


@each_lesson
def test_products_are_the_sources(lesson):
    assert lesson.source.is_file()
    assert notebooks.stale(lesson) == []


def test_no_product_is_left_over():
    assert notebooks.orphans(ROOT) == []
    names = {lesson.name for lesson in LESSONS}
    assert {path.stem for path in ROOT.glob("notebooks/solutions/*.ipynb")} == names


@each_lesson
def test_blank_has_no_outputs(lesson):
    for cell in code_cells(lesson.blank):
        assert cell.outputs == []
        assert cell.execution_count is None


@each_lesson
def test_no_cell_is_excused_from_failing(lesson):
    for path in (lesson.blank, lesson.solution):
        for cell in code_cells(path):
            assert not {"raises-exception", "nbval-skip"} & set(cell.metadata.get("tags", []))
            assert "NBVAL_SKIP" not in cell.source
            assert "NBVAL_RAISES_EXCEPTION" not in cell.source


@each_lesson
def test_compared_cells_have_something_to_compare(lesson):
    """NBVAL_CHECK_OUTPUT on a cell without saved outputs would compare nothing and pass."""
    for cell in code_cells(lesson.solution):
        if "NBVAL_CHECK_OUTPUT" in cell.source:
            assert cell.outputs
            assert cell.execution_count


@each_lesson
def test_solution_is_executed_and_readable(lesson):
    solution = nbformat.read(lesson.solution, as_version=4)
    assert notebooks.problems_of_outputs(solution) == []
    counts = [cell.execution_count for cell in solution.cells if cell.cell_type == "code"]
    executed = [count for count in counts if count is not None]
    assert executed == list(range(1, len(executed) + 1))  # one run, top to bottom


@each_lesson
def test_ticks_of_the_solution_count_what_there_is(lesson):
    """An exercise or a case that came later leaves the stored outputs of other lessons behind."""
    said = [
        line
        for cell in code_cells(lesson.solution)
        for output in cell.outputs
        for line in output.get("text", "").splitlines()
        if line.startswith("✓ ")
    ]
    assert len(said) == sum(one.lesson == lesson.number for one in exercises().values())
    for line in said:
        number, cases = re.match(r"✓ ([\d.]+) \w+: (\d+) cases", line).groups()
        assert int(cases) == len(exercises()[number].cases())
        assert re.search(r"(?:of|All) (\d+) exercises solved", line)[1] == str(len(exercises()))


@each_lesson
def test_no_widget_state_and_no_machine_paths(lesson):
    for path in (lesson.blank, lesson.solution):
        text = path.read_text(encoding="utf-8")
        assert "widgets" not in json.loads(text)["metadata"]
        for place in (str(ROOT), str(Path.home())):
            # at a word's border: /root is no part of /rooted
            assert not re.search(rf"(?<![\w.]){re.escape(place)}(?=[/\\\"'\s])", text)


@each_lesson
def test_cells_fit_a_projector(lesson):
    for cell in code_cells(lesson.blank):
        assert max((len(line) for line in cell.source.splitlines()), default=0) <= 79


@each_lesson
def test_lesson_has_exercises_with_stubs(lesson):
    cells = code_cells(lesson.blank)
    checks = [cell for cell in cells if CHECK_CALL.search(cell.source)]
    stubs = [cell for cell in cells if notebooks.CODE_STUB in cell.source]
    assert checks
    assert len(stubs) >= len(checks)


# ---- under nbval ---------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@each_lesson
def test_solution_passes_strictly(lesson, tmp_path):
    results = run_nbval(lesson.solution, tmp_path, strict=True)
    assert [one for one in results if one.failure] == []


@each_lesson
def test_a_check_is_all_that_its_cell_ends_with(lesson):
    """A check that raises has bound the course's function by then, as one that does not raise.

    So cells after it see the same names either way, and one run of a blank notebook is enough.
    """
    for cell in code_cells(lesson.blank):
        if CHECK_CALL.search(cell.source):
            *_, last = body = ast.parse(cell.source).body
            assert sum(ast.unparse(line).count("check(") for line in body) == 1
            assert CHECK_CALL.match(ast.unparse(last))


@pytest.mark.timeout(600)
@each_lesson
def test_strict_blank_fails_exactly_at_its_exercises(lesson, tmp_path):
    """Each of them because it is blank: without NLCOURSE_STRICT that is no failure."""
    results = run_nbval(lesson.blank, tmp_path, strict=True)
    failed = [one.source for one in results if one.failure]
    assert failed == [one.source for one in results if CHECK_CALL.search(one.source)]
    assert failed
    said = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    own = [one.number for one in exercises().values() if one.lesson == lesson.number]
    assert [(one["number"], one["outcome"]) for one in said] == [(n, "open") for n in own]


@pytest.mark.timeout(600)
def test_blank_runs_through(tmp_path):
    """As a student meets it. One lesson stands for all; `test_browser.py` runs another."""
    (lesson,) = (lesson for lesson in LESSONS if lesson.number == "07")
    results = run_nbval(lesson.blank, tmp_path, strict=False)
    assert [one for one in results if one.failure] == []


# ---- the runner itself ---------------------------------------------------------------------------


def test_runner_sees_failures_and_timeouts(tmp_path):
    """A runner that could not fail would make all of the above worthless."""
    sources = ["1 + 1", "assert 1 == 2", "import time\nwhile True:\n    time.sleep(0.1)", "2"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = tmp_path / "failing.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    short = ("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "NBVAL", short)
        results = run_nbval(path, tmp_path, strict=False)
    assert [bool(one.failure) for one in results] == [False, True, True, True]


def test_runner_gives_kernels_their_own_course_files(tmp_path):
    source = (
        "import os\nprint(os.environ['NLCOURSE_PROGRESS'])\nassert 'NLCOURSE_STRICT' in os.environ"
    )
    cells = [nbformat.v4.new_code_cell(source)]
    path = tmp_path / "environment.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert os.environ["NLCOURSE_PROGRESS"] != str(tmp_path / "progress.json")
    (strict,) = run_nbval(path, tmp_path, strict=True)
    (lax,) = run_nbval(path, tmp_path, strict=False)
    assert not strict.failure
    assert lax.failure
