"""Whole notebooks under nbval: what the table says, and what counts as failed."""

from __future__ import annotations

import nbformat
import pytest

from nlcourse.lessons.checks import report
from nlcourse.lessons.checks.report import ReportError, check_notebook

FORGET_RATE = """\
def forget_rate(epoch, noise_rate, ramp_epochs, exponent=1.0):
    return noise_rate * min(epoch**exponent / ramp_epochs, 1)"""
SELECT = """\
def small_loss_indices(losses, forget_rate):
    return losses.argsort()[: int((1 - forget_rate) * len(losses))]"""
CROSS = """\
def crossed_losses(losses_first, losses_second, kept_by_first, kept_by_second):
    return losses_first[kept_by_second].mean(), losses_second[kept_by_first].mean()"""
IMPORT = "from nlcourse.checks import check"


def checked(name):
    return f"{name} = check({name})"


def write(path, *sources):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# A lesson")]
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    path = write(
        folder / "07_co_teaching.ipynb",
        IMPORT + "\nimport torch",
        "def forget_rate(epoch, noise_rate, ramp_epochs, exponent=1.0):\n"
        "    raise NotImplementedError",
        checked("forget_rate"),
        SELECT.replace("argsort()", "argsort(descending=True)"),
        "%time 1\n" + checked("small_loss_indices"),
        # Later cells go on with the course's versions, in a real kernel.
        "assert forget_rate(4, 0.4, 4) == 0.4\n"
        "assert small_loss_indices(torch.tensor([2.0, 1.0]), 0.5).tolist() == [1]",
        "1 / 0",
        checked("share_of_wrong_labels") + "  # never defined",
    )
    before = path.read_bytes()
    result = check_notebook(path, timeout=100)
    return result, path, before


def test_table_tells_done_open_wrong_and_not_reached(mixed):
    result, _, _ = mixed
    assert [(row.number, row.status) for row in result.rows] == [
        ("0.1", "not reached"),
        ("7.1", "open"),
        ("7.2", "wrong"),
        ("7.3", "not reached"),
    ]
    assert "keeps the largest losses" in result.rows[2].why
    assert "was not run" in result.rows[0].why
    assert "no check" in result.rows[3].why
    assert not result.ok


def test_cells_that_failed_elsewhere_are_named(mixed):
    result, _, _ = mixed
    assert [cell.cell for cell in result.failed] == [7, 8]
    assert result.failed[0].first_line == "1 / 0"
    assert result.failed[0].error == "ZeroDivisionError: division by zero"
    assert "NameError" in result.failed[1].error
    assert result.problem == ""


def test_text_shows_rows_and_cells(mixed):
    text = str(mixed[0])
    assert "○ 7.1 forget_rate" in text
    assert "✗ code cell 7 (`1 / 0`): ZeroDivisionError" in text
    assert text.endswith("0 of 4 exercises done; not all in order yet")


def test_students_notebook_and_folder_are_untouched(mixed):
    _, path, before = mixed
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_all_right_is_ok_whatever_settings_lie_around(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not yours')\n")
    functions = (FORGET_RATE, SELECT, CROSS)
    names = ("forget_rate", "small_loss_indices", "crossed_losses")
    cells = [f"{f}\n{checked(n)}" for f, n in zip(functions, names, strict=True)]
    result = check_notebook(write(tmp_path / "07_mine.ipynb", IMPORT, *cells))
    assert result.ok, str(result)
    assert [row.status for row in result.rows] == ["done"] * 3
    assert str(result).endswith("3 of 3 exercises done; all in order")


def test_a_renamed_lesson_without_its_checks_is_not_in_order(tmp_path):
    path = write(tmp_path / "emmy.ipynb", "x = 1")
    notebook = nbformat.read(path, 4)
    notebook.metadata["nlcourse"] = {"lesson": "07_co_teaching"}
    nbformat.write(notebook, path)
    result = check_notebook(path)
    assert not result.ok
    assert [(what, status) for what, status, _ in result.lines()] == [
        ("7.1 forget_rate", "not reached"),
        ("7.2 small_loss_indices", "not reached"),
        ("7.3 crossed_losses", "not reached"),
    ]


def test_a_notebook_without_an_exercise_is_not_in_order(tmp_path):
    result = check_notebook(write(tmp_path / "emmy.ipynb", "x = 1"))
    assert not result.ok
    assert list(result.lines()) == [
        ("notebook", "failed", "no exercise of the course was found in it")
    ]
    assert "no exercise of the course" in str(result)


def test_after_a_time_out_nothing_counts(tmp_path):
    path = write(tmp_path / "mine.ipynb", "import time\ntime.sleep(60)", "x = 1")
    result = check_notebook(path, timeout=2)
    assert not result.ok
    assert [cell.cell for cell in result.failed] == [1, 2]
    assert "longer than" in result.failed[0].error
    assert "time-out" in result.failed[1].error
    assert result.rows == ()


def test_cell_that_may_raise_hides_no_wrong_exercise(tmp_path):
    wrong = "def share_of_wrong_labels(given_labels, true_labels):\n    return 0.5\n"
    path = write(tmp_path / "x.ipynb", IMPORT, wrong + checked("share_of_wrong_labels"))
    notebook = nbformat.read(path, 4)
    notebook.cells[2].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    result = check_notebook(path)
    assert result.failed == ()  # nbval lets the cell pass
    assert result.rows[0].status == "wrong"
    assert not result.ok


@pytest.mark.parametrize("content", ["", "hello", "[]", "{}", '{"cells": 3}', '{"cells": [1]}'])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    path = tmp_path / "07_x.ipynb"
    path.write_text(content)
    with pytest.raises(ReportError, match="not a notebook"):
        check_notebook(path)


def test_missing_file_and_other_ending_are_refused(tmp_path):
    with pytest.raises(ReportError, match="There is no notebook"):
        check_notebook(tmp_path / "07_none.ipynb")
    with pytest.raises(ReportError, match=r"ends in \.ipynb"):
        check_notebook(write(tmp_path / "07_x.json", "1"))


def test_missing_nbval_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(ReportError, match="nbval is not installed"):
        check_notebook(write(tmp_path / "07_x.ipynb", "1"))


def test_checked_exercises_are_read_from_code():
    source = "!ls\nx = check(forget_rate)\ny = check(f, '7.2')\nz = check(\n    x, number='7.3')"
    others = "other(y)\n# a = check(small_loss_indices)\nb = check(nothing_known)\ndef ("
    assert report._checked(source) == {"7.1", "7.2", "7.3"}
    assert report._checked(others) == set()
