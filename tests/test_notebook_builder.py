"""The builder, on a tiny lesson of its own: what it refuses, what it builds, what it notices."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.nbgraderformat.v3 import MetadataValidatorV3
from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, ClearSolutions

from nlcourse.course import builder as notebooks
from nlcourse.course.paths import Lesson
from nlcourse.lessons import sources
from nlcourse.lessons.sources import LessonError

ADDRESS = "https://example.org/somewhere/else.git"
LESSON = '''\
# %% [markdown]
# # A tiny lesson

# %%
def check(function):
    print("checked", function.__name__)
    return function


# %%
def double(number):
    """Return twice the number."""
    if number:
        ### BEGIN SOLUTION
        twice = number + number
        return twice
        ### END SOLUTION
    return number


# %%
double = check(double)
### BEGIN HIDDEN TESTS
assert double(21) == 42
### END HIDDEN TESTS

# %%
import os
import sys

import ipywidgets
from IPython.display import HTML, Image, display

print("strict" if os.environ.get("NLCOURSE_STRICT") else "lax")
print(os.path.basename(os.getcwd()))
print("a warning", file=sys.stderr)
display(ipywidgets.IntSlider())

# %%
import base64

ONE_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+M8AAAMBAQDJ/pLv"
    "AAAAAElFTkSuQmCC"
)
pixel = Image(base64.b64decode(ONE_PIXEL))
display(pixel, metadata={"image/png": {"alt": "One pixel."}})

# %%
print("again")

# %%
print("again")
'''


def make_course(root: Path, text: str = LESSON) -> Lesson:
    """A course folder with one lesson in it."""
    (root / "notebooks" / "lessons").mkdir(parents=True)
    (root / "pyproject.toml").write_text(f'[project.urls]\nSource = "{ADDRESS}"\n')
    lesson = Lesson(root, "03_tiny")
    lesson.source.write_text(text, encoding="utf-8")
    return lesson


@pytest.fixture
def lesson(tmp_path):
    return make_course(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A lesson with both products; tests that change it put it back."""
    lesson = make_course(tmp_path_factory.mktemp("course"))
    assert notebooks.build(lesson) == [lesson.blank, lesson.solution]
    return lesson


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cell_with(notebook, text):
    (cell,) = [cell for cell in notebook.cells if text in cell.source]
    return cell


# ---- markers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("# %%\n### BEGIN SOLUTION\na = 1", 2, "has no `### END SOLUTION`"),
        ("# %%\na = 1\n### END SOLUTION", 3, "without its `### BEGIN SOLUTION`"),
        ("# %%\n### BEGIN SOLUTION\n# %%\n### END SOLUTION", 2, "in its cell"),
        ("# %%\n### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", 3, "of line 4"),
        (
            "# %%\n### BEGIN SOLUTION\n### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS"
            "\n### END SOLUTION",
            3,
            "inside the SOLUTION region",
        ),
        ("# %%\n### BEGIN HIDDEN TESTS\n### END SOLUTION", 3, "without its"),
        ("# %%\n### BEGIN HIDDEN TESTS\nassert 1", 2, "has no `### END HIDDEN TESTS`"),
        ("# %% [markdown]\n# text\n# ### BEGIN SOLUTION", 3, "markdown cell"),
        ('# %% [markdown]\n"""\n### begin solution\n"""', 3, "markdown cell"),
        ("# %%\n### Begin Solution\na = 1\n### End Solution", 2, "'### Begin Solution'"),
        ("# %%\n    ## BEGIN SOLUTION\na = 1", 2, "'## BEGIN SOLUTION'"),
        ("# %%\n###BEGIN SOLUTION\na = 1", 2, "'###BEGIN SOLUTION'"),
        ("# %%\na = 1  ### BEGIN SOLUTION", 2, "expected `### BEGIN SOLUTION`"),
        ("# %%\n### BEGIN HIDDEN TEST\nassert 1", 2, "'### BEGIN HIDDEN TEST'"),
        ("# %%\n# ### END SOLUTION", 2, "'# ### END SOLUTION'"),
    ],
)
def test_malformed_markers_stop_with_file_and_line(tmp_path, body, line, says):
    lesson = make_course(tmp_path, f"# %% [markdown]\n# Title\n{body}\n")
    with pytest.raises(LessonError) as caught:
        notebooks.build(lesson)
    assert str(caught.value).startswith(f"{lesson.source}:{line + 2}: ")
    assert says in str(caught.value)
    assert not lesson.blank.exists()
    assert not lesson.solution.exists()


@pytest.mark.parametrize(
    "harmless",
    [
        "# %% [markdown]\n# We begin solution by solution, and end SOLUTION-free.",
        "# %%\nbegin_solution = 1  # the end of hidden tests in life",
        "# %%\n    # Begin with the solution of the equation",
        "# %%\n### BEGIN SOLUTION\na = 1\n### END SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
        "# %%\n### BEGIN SOLUTION  \na = 1\n### END SOLUTION",
    ],
)
def test_prose_about_solutions_is_no_marker(harmless):
    sources.validate_markers(harmless, Path("lesson.py"))


@pytest.mark.parametrize(
    "cell",
    ['# %% tags=["raises-exception"]\n1 / 0', "# %%\n# NBVAL_SKIP\n1", "# %%\n#NBVAL_SKIP\n1"],
)
def test_cells_that_could_never_fail_are_refused(tmp_path, cell):
    lesson = make_course(tmp_path, f"# %% [markdown]\n# Title\n\n{cell}\n")
    with pytest.raises(LessonError, match=r"03_tiny\.py:4: .*could never fail"):
        sources.read_source(lesson.source)


def test_check_shares_no_cell_with_its_solution(tmp_path):
    text = "# %%\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION\nx = check(x)\n"
    with pytest.raises(LessonError, match=":1: .*cell of its own"):
        sources.read_source(make_course(tmp_path, text).source)


@pytest.mark.parametrize("hint", ['# hint("1.1")', 'hint("1.1")', '#hint("1.1")  # stuck?'])
def test_hint_stands_above_the_check_that_stops_the_cell(tmp_path, hint):
    """A wrong answer ends the cell at its check: a hint below it could never be had."""
    lesson = make_course(tmp_path, f"# %%\nimport a\nx = check(x)\n\n{hint}\n")
    with pytest.raises(LessonError, match=r"03_tiny\.py:1: the hint belongs above the check"):
        sources.read_source(lesson.source)
    for allowed in (f"# %%\n{hint}\nx = check(x)\n", f"# %%\nx = check(x)\n\n# %%\n{hint}\n"):
        lesson.source.write_text(allowed)
        assert sources.read_source(lesson.source)


def test_stub_at_the_wrong_depth_is_refused(tmp_path):
    text = "# %%\ndef f():\n### BEGIN SOLUTION\n    return 1\n### END SOLUTION\n"
    with pytest.raises(LessonError, match=r"03_tiny\.py:1: without its solution .* no Python"):
        notebooks.student_variant(make_course(tmp_path, text))


def test_magics_are_not_taken_for_syntax_errors(tmp_path):
    notebooks.student_variant(make_course(tmp_path, "# %%\n# %pip --version\n!ls\n"))


# ---- the variants --------------------------------------------------------------------------------


def test_cell_ids_come_from_the_content(lesson):
    first, second = (sources.read_source(lesson.source) for _ in range(2))
    ids = [cell.id for cell in first.cells]
    assert ids == [cell.id for cell in second.cells]
    assert len(set(ids)) == len(ids)
    assert ids[-1] == f"{ids[-2]}-2"  # two equal cells
    lesson.source.write_text(LESSON.replace("# # A tiny lesson", "# # A small lesson"))
    changed = [cell.id for cell in sources.read_source(lesson.source).cells]
    assert changed[0] != ids[0]
    assert changed[1:] == ids[1:]


def test_blank_has_a_stub_at_its_depth_and_no_hidden_tests(lesson):
    blank = notebooks.student_variant(lesson)
    nbformat.validate(blank)
    assert cell_with(blank, "def double").source == (
        'def double(number):\n    """Return twice the number."""\n    if number:\n'
        "        raise NotImplementedError\n    return number"
    )
    assert cell_with(blank, "= check(").source == "double = check(double)"
    text = nbformat.writes(blank)
    assert "SOLUTION" not in text
    assert "HIDDEN" not in text
    assert "twice = number" not in text
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(blank))


def test_colab_cell_follows_the_title_and_has_the_address(lesson):
    blank = notebooks.student_variant(lesson)
    assert [cell.cell_type for cell in blank.cells[:2]] == ["markdown", "code"]
    assert f'"{ADDRESS}"' in blank.cells[1].source
    assert max(len(line) for line in blank.cells[1].source.splitlines()) <= 79


def test_colab_cell_does_nothing_elsewhere(lesson):
    source = notebooks.student_variant(lesson).cells[1].source
    here = os.getcwd()
    namespace = {}
    exec(source, namespace)
    assert set(namespace) == {"__builtins__", "sys"}
    assert os.getcwd() == here


def test_colab_cell_fetches_once_and_runs_twice(lesson, tmp_path, monkeypatch):
    source = notebooks.student_variant(lesson).cells[1].source
    folder = tmp_path / "content"
    source = source.replace("/content/nlcourse", str(folder))
    calls = []

    def fake_run(command, *, check):
        assert check
        calls.append(command)
        if command[0] == "git":
            (folder / "notebooks").mkdir(parents=True)

    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr(subprocess, "run", fake_run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        exec(source, {})
    assert [command[0] for command in calls].count("git") == 1
    assert calls[0] == ["git", "clone", "--quiet", "--depth", "1", ADDRESS, str(folder)]
    assert sys.path.count(str(folder)) == 1
    assert os.getcwd() == str(folder / "notebooks")


def test_solution_is_an_nbgrader_source_notebook(built):
    """The steps of nbgrader take it as it stands, with their metadata rules enforced."""
    solution = nbformat.read(built.solution, as_version=4)
    MetadataValidatorV3().validate_nb(solution)
    solved, checked = cell_with(solution, "def double"), cell_with(solution, "= check(")
    assert solved.metadata.nbgrader.solution
    assert not solved.metadata.nbgrader.grade
    assert checked.metadata.nbgrader.grade
    assert checked.metadata.nbgrader.locked
    assert checked.metadata.nbgrader.points == 1
    for step in (CheckCellMetadata, ClearSolutions, ClearHiddenTests):
        solution, _ = step().preprocess(solution, {})
    assert "twice = number" not in cell_with(solution, "def double").source
    assert cell_with(solution, "= check(").source == "double = check(double)"


@pytest.mark.slow
def test_nbgrader_generates_its_assignment_from_the_solution(built, tmp_path):
    folder = tmp_path / "source" / "week3"
    folder.mkdir(parents=True)
    (folder / "tiny.ipynb").write_bytes(built.solution.read_bytes())
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "week3", "--create"]
    place = [f"--CourseDirectory.root={tmp_path}", "--CourseDirectory.course_id=nl"]
    # nbgrader calls `alembic` by its name
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*command, *place],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    released = nbformat.read(tmp_path / "release" / "week3" / "tiny.ipynb", as_version=4)
    assert "raise NotImplementedError" in cell_with(released, "def double").source
    assert "assert double(21)" not in nbformat.writes(released)


def test_solution_is_executed_and_tidy(built):
    solution = nbformat.read(built.solution, as_version=4)
    assert [cell.execution_count for cell in code_cells(solution)] == list(range(1, 8))
    assert notebooks.problems_of_outputs(solution) == []
    talk = cell_with(solution, "IntSlider")
    assert [output.output_type for output in talk.outputs] == ["stream"]
    # strictly, in the folder where the notebook lives
    assert talk.outputs[0].text == "strict\nsolutions\n"
    image = cell_with(solution, "ONE_PIXEL =").outputs[0]
    assert image.metadata == {"image/png": {"alt": "One pixel."}}
    assert all("execution" not in cell.metadata for cell in solution.cells)
    assert solution.metadata.language_info == {"name": "python"}
    assert "widgets" not in solution.metadata


def test_progress_of_the_author_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setenv("NLCOURSE_PROGRESS", "mine")
    monkeypatch.setenv("NLCOURSE_STRICT", "1")
    environment = notebooks.kernel_environment(tmp_path, strict=False)
    assert Path(environment["NLCOURSE_PROGRESS"]).parent == tmp_path
    assert "NLCOURSE_STRICT" not in environment
    assert notebooks.kernel_environment(tmp_path)["NLCOURSE_STRICT"] == "1"


# ---- up to date or not ---------------------------------------------------------------------------


def test_nothing_is_built_twice(built):
    before = [path.stat().st_mtime_ns for path in (built.blank, built.solution)]
    assert notebooks.stale(built) == []
    assert notebooks.build(built) == []
    assert [path.stat().st_mtime_ns for path in (built.blank, built.solution)] == before


def change(path, edit):
    """Edit a notebook in place; return the old bytes."""
    before = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return before


def forget_a_run(notebook):
    code_cells(notebook)[2].execution_count = None


def add_error(notebook):
    error = nbformat.v4.new_output("error", ename="KeyError", evalue="x", traceback=[])
    code_cells(notebook)[0].outputs.append(error)


def add_widget_state(notebook):
    notebook.metadata["widgets"] = {}


def add_widget_view(notebook):
    view = nbformat.v4.new_output("display_data", {notebooks.WIDGET_VIEW: {"model_id": "1"}})
    code_cells(notebook)[0].outputs.append(view)


def drop_alt(notebook):
    cell_with(notebook, "ONE_PIXEL =").outputs[0].metadata = {}


def add_html_image(notebook):
    page = '<img src="a.png" alt="good &gt; bad"><p><img src="b.png" alt=" ">'
    output = nbformat.v4.new_output("display_data", {"text/html": page})
    code_cells(notebook)[0].outputs.append(output)


def edit_source(notebook):
    code_cells(notebook)[0].source += "\n# edited by hand"


def new_ids(notebook):
    notebook.cells[0]["id"] = "0123abcd"


def drop_grading(notebook):
    del cell_with(notebook, "= check(").metadata["nbgrader"]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (forget_a_run, "was not executed"),
        (add_error, "ended in KeyError"),
        (add_widget_state, "widget state"),
        (add_widget_view, "widget view"),
        (drop_alt, "without alt text"),
        (add_html_image, "without alt text"),
        (edit_source, "not what the source gives"),
        (new_ids, "not what the source gives"),
        (drop_grading, "not what the source gives"),
    ],
)
def test_check_notices_a_changed_solution(built, edit, says):
    before = change(built.solution, edit)
    try:
        (problem,) = notebooks.stale(built)
    finally:
        built.solution.write_bytes(before)
    assert problem.startswith(str(Path("notebooks", "solutions", "03_tiny.ipynb")))
    assert says in problem


def add_output(notebook):
    code_cells(notebook)[1].outputs.append(nbformat.v4.new_output("stream", text="42"))


@pytest.mark.parametrize("edit", [edit_source, new_ids, add_output])
def test_check_notices_a_changed_blank(built, edit):
    before = change(built.blank, edit)
    try:
        (problem,) = notebooks.stale(built)
    finally:
        built.blank.write_bytes(before)
    assert problem == f"{Path('notebooks', '03_tiny.ipynb')}: is not what the source gives"


def test_check_notices_a_changed_lesson_and_missing_products(built):
    built.source.write_text(LESSON + '\n\n# %%\nprint("new")\n')
    try:
        assert len(notebooks.stale(built)) == 2
    finally:
        built.source.write_text(LESSON)
    assert notebooks.stale(built) == []
    before = built.solution.read_bytes()
    built.solution.unlink()
    try:
        (problem,) = notebooks.stale(built)
    finally:
        built.solution.write_bytes(before)
    assert problem.endswith("is missing")


def test_failing_lesson_leaves_the_old_solution(tmp_path):
    from nbclient.exceptions import CellExecutionError

    lesson = make_course(tmp_path, "# %%\nassert 1 + 1 == 3\n")
    lesson.solution.parent.mkdir()
    lesson.solution.write_text("old")
    with pytest.raises(CellExecutionError):
        notebooks.build(lesson)
    assert lesson.solution.read_text() == "old"


def test_products_without_a_source_are_named(built):
    stray = Lesson(built.root, "04_gone").blank
    stray.write_bytes(built.blank.read_bytes())
    try:
        (problem,) = notebooks.orphans(built.root)
    finally:
        stray.unlink()
    assert problem.startswith(str(Path("notebooks", "04_gone.ipynb")))
    assert notebooks.orphans(built.root) == []
