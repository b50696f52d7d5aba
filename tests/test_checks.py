"""The engine around the exercises: outcomes, messages, memory, hints, and what a notebook sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nlcourse.checks
import pytest
import torch
from nlcourse.checks import CheckFailed, check, hint, progress

from nlcourse.lessons.checks import checking, exercise, hints, memory
from nlcourse.lessons.checks.exercise import exercises, find
from nlcourse.lessons.checks.show import canonical, describe, describe_call, fresh

REFERENCE = find("7.2").reference
ALL = len(exercises())


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("NLCOURSE_PROGRESS", str(path))
    monkeypatch.setattr(memory, "_session", {})
    monkeypatch.setattr(hints, "_shown", {})
    return path


@pytest.fixture
def notebook(monkeypatch):
    """The names of a notebook, as IPython would hold them."""
    names = {}
    monkeypatch.setattr(checking, "notebook_namespace", lambda: names)
    return names


def right():
    def small_loss_indices(losses, forget_rate):
        return losses.argsort()[: int((1 - forget_rate) * len(losses))]

    return small_loss_indices


def blank():
    def small_loss_indices(losses, forget_rate):
        raise NotImplementedError("write me")

    return small_loss_indices


def largest():
    def small_loss_indices(losses, forget_rate):
        # Beside the catalogued mistake this one returns everything for k = 0.
        return losses.argsort()[-int((1 - forget_rate) * len(losses)) :]

    return small_loss_indices


def failure(function, number=None) -> str:
    with pytest.raises(CheckFailed) as caught:
        check(function, number)
    return str(caught.value)


# Three outcomes ----------------------------------------------------------------------------------


def test_right_returns_the_function_with_one_line(capsys):
    function = right()
    assert check(function) is function
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert said.startswith("✓ 7.2 small_loss_indices: 24 cases. ")
    assert f"1 of {ALL} exercises solved; next: 7.3, about 8 minutes" in said


def test_blank_is_calm_and_returns_the_courses_own(capsys):
    assert check(blank()) is REFERENCE
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "still blank" in said


def test_wrong_says_case_result_expected_cause_and_help():
    lines = failure(largest()).splitlines()
    assert lines[0].startswith("✗ 7.2 small_loss_indices is not right yet")
    assert "losses=tensor([0.9, 0.1, 2.5, 0.4]), forget_rate=0.5" in lines[1]
    assert lines[2] == "  came out: tensor([0, 2])"
    assert lines[3] == "  expected: tensor([1, 3])"
    assert "keeps the largest losses" in lines[4]
    assert 'hint("7.2")' in lines[5]
    assert len(lines) == 6


def test_strict_blank_fails_and_later_cells_go_on(monkeypatch, notebook):
    monkeypatch.setenv("NLCOURSE_STRICT", "1")
    function = blank()
    notebook["small_loss_indices"] = function
    assert "still blank" in failure(function)
    assert notebook["small_loss_indices"] is REFERENCE


def test_nbgrader_gives_no_points_for_a_blank(monkeypatch):
    """It counts a cell without an error as solved."""
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert "still blank" in failure(blank())
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")  # a student's look at their own
    monkeypatch.setenv("NLCOURSE_STRICT", "0")  # is not strict
    assert check(blank()) is REFERENCE


def test_wrong_binds_the_courses_own_and_says_so(notebook):
    notebook["small_loss_indices"] = largest()
    said = failure(notebook["small_loss_indices"])
    assert notebook["small_loss_indices"] is REFERENCE
    assert "Later cells go on: small_loss_indices is the course's version" in said


def test_own_name_is_bound_too(notebook):
    def mine(losses, forget_rate):
        return losses

    notebook["mine"] = mine
    said = failure(mine, "7.2")
    assert notebook == {"mine": REFERENCE, "small_loss_indices": REFERENCE}
    assert "small_loss_indices and mine" in said


def test_outside_a_notebook_the_callers_names_stay():
    small_loss_indices = largest()
    before = small_loss_indices
    said = failure(small_loss_indices)
    assert small_loss_indices is before
    assert "Later cells" not in said


def test_courses_own_version_is_not_the_students_success(capsys, progress_file, monkeypatch):
    assert check(REFERENCE) is REFERENCE
    assert "run your cell first" in capsys.readouterr().out
    assert not progress_file.exists()
    monkeypatch.setenv("NLCOURSE_STRICT", "1")
    assert "run your cell first" in failure(REFERENCE)


def test_exception_shows_its_lines_in_a_notebook():
    error = CheckFailed("one\ntwo")
    assert error._render_traceback_() == ["one", "two"]


# What can be handed to check ---------------------------------------------------------------------


def test_number_finds_a_function_of_any_name():
    function = right()
    function.__name__ = "anything"
    assert check(function, "7.2") is function
    assert check(function, number="7.2") is function


def test_what_is_no_exercise_is_said():
    def small_los_indices(losses, forget_rate):
        return losses

    assert "Expected the function itself, got a Tensor" in failure(torch.arange(3))
    assert "No exercise is called '<lambda>'" in failure(lambda losses, forget_rate: losses)
    assert "did you mean 'small_loss_indices'?" in failure(small_los_indices)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (torch.arange(3), "without calling it"),
        (lambda losses: losses, "called as small_loss_indices(losses, forget_rate)"),
        (lambda loss, forget_rate: loss, "called as"),
        (lambda losses, forget_rate, more: losses, "called as"),
        (lambda forget_rate, losses: losses, "another order than (losses, forget_rate)"),
    ],
)
def test_signature_is_checked_first(function, said):
    assert said in failure(function, "7.2")


def test_further_optional_parameters_are_welcome():
    def function(losses, forget_rate=0.2, *, largest=False, **more):
        return REFERENCE(losses, forget_rate)

    assert check(function, "7.2") is function


# Messages ----------------------------------------------------------------------------------------


def test_students_own_error_is_cut_at_the_library():
    def helper(losses):
        return torch.stack(losses)

    def small_loss_indices(losses, forget_rate):
        return helper({"a": losses})

    lines = failure(small_loss_indices).splitlines()
    assert "it stops with TypeError" in lines[0]
    assert "return helper(" in lines[2]
    assert "return torch.stack(losses)" in lines[3]
    assert len(lines) <= 6


def test_error_inside_a_library_still_shows_the_students_line():
    def small_loss_indices(losses, forget_rate):
        return torch.nn.functional.cross_entropy(losses, "label")

    lines = failure(small_loss_indices).splitlines()
    assert [line for line in lines if "in small_loss_indices: return torch.nn" in line]
    assert not [line for line in lines if "functional.py" in line]


def test_torchs_own_not_implemented_is_no_stub():
    def small_loss_indices(losses, forget_rate):
        return torch.empty(3, device="meta").item()  # torch raises here, whatever the type

    def unfinished(losses, forget_rate):
        return torch.ones(2, dtype=torch.complex64).sort()

    assert "not right yet" in failure(small_loss_indices)
    assert "not right yet" in failure(unfinished, "7.2")


def test_printing_instead_of_returning_is_shown():
    def small_loss_indices(losses, forget_rate):
        print("kept", 2)

    said = failure(small_loss_indices)
    assert "is there a way through it without a `return`?" in said
    assert "It printed: 'kept 2'" in said


def test_unknown_mistake_gets_no_name():
    def small_loss_indices(losses, forget_rate):
        kept = REFERENCE(losses, forget_rate)
        return kept[:-1] if len(losses) == 16 else kept

    assert "Likely cause" not in failure(small_loss_indices)


def test_numbers_that_differ_late_are_shown_with_more_digits():
    def forget_rate(epoch, noise_rate, ramp_epochs, exponent=1.0):
        return find("7.1").reference(epoch, noise_rate, ramp_epochs, exponent) * 1.00004

    said = failure(forget_rate)
    assert "came out: 0.300012" in said
    assert "expected: 0.3" in said


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.tensor([1.0, 0.25]), "tensor([1.0, 0.25])"),
        (torch.tensor([1, 2]).numpy(), "array([1, 2])"),
        (torch.zeros(100), "<float32 of shape (100,), 0.0 to 0.0>"),
        (torch.Generator().manual_seed(5), "generator(5)"),
        ({"a": 1 / 3}, "{'a': 0.3333}"),
        (list(range(30)), "[" + ", ".join(map(str, range(24))) + ", ...]"),
    ],
)
def test_describe_is_short(value, text):
    assert describe(value) == text


def test_describe_call_reads_like_code():
    assert describe_call("f", {"a": 1, "b": (2.5,)}) == "f(a=1, b=(2.5))"


def test_canonical_forgets_the_carrier():
    values = [torch.tensor([1, 2]), [1.0, 2.0], torch.tensor([1.0, 2.0]).numpy(), (1, 2)]
    assert {canonical(value) for value in values} == {"[1, 2]"}


def test_fresh_generator_repeats_the_draws():
    generator = torch.Generator().manual_seed(3)
    twin = fresh(generator)
    assert torch.equal(torch.rand(3, generator=twin), torch.rand(3, generator=generator))


# Memory ------------------------------------------------------------------------------------------


def test_progress_is_remembered_and_solved_stays_solved(progress_file, capsys):
    failure(largest())
    check(right())
    failure(largest())
    assert json.loads(progress_file.read_text()) == {"7.2": {"tries": 3, "solved": True}}
    capsys.readouterr()
    progress()
    table = capsys.readouterr().out
    assert "✓ 7.2 small_loss_indices" in table
    assert "○ 7.1 forget_rate" in table
    assert f"1 of {ALL} solved" in table


def test_blank_is_no_try(progress_file):
    check(blank())
    assert json.loads(progress_file.read_text())["7.2"] == {"tries": 0, "solved": False}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"7.2": 3}',
        b'{"7.2": {"tries": "x", "solved": 9}}',
        b"\xff\xfe\x80",
    ],
)
def test_damaged_file_is_no_obstacle(progress_file, content):
    progress_file.write_bytes(content)
    check(right())
    assert memory.solved() == {"7.2"}
    progress()


def test_where_nothing_can_be_written_the_session_remembers(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NLCOURSE_PROGRESS", str(tmp_path / "missing" / "progress.json"))
    check(right())
    assert f"1 of {ALL} exercises solved" in capsys.readouterr().out
    assert memory.solved() == {"7.2"}


def test_folder_in_its_place_is_no_obstacle(progress_file, tmp_path):
    progress_file.mkdir()
    check(right())
    assert memory.solved() == {"7.2"}
    assert os.listdir(tmp_path) == ["progress.json"]  # nothing half written stays behind


def test_without_setting_the_file_lies_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("NLCOURSE_PROGRESS")
    monkeypatch.chdir(tmp_path)
    check(right())
    assert (tmp_path / ".nlcourse-progress.json").exists()


def test_next_is_what_follows_then_what_was_left_out(progress_file):
    numbers = list(exercises())
    progress_file.write_text(json.dumps({n: {"solved": True} for n in numbers if n != "1.1"}))
    assert "next: 1.1, " in memory.standing(find("7.3"))
    progress_file.write_text(json.dumps({n: {"solved": True} for n in numbers}))
    assert memory.standing(find("7.3")) == f"All {ALL} exercises solved!"


def test_report_gets_a_line_an_outcome(tmp_path, monkeypatch):
    path = tmp_path / "report.jsonl"
    monkeypatch.setenv("NLCOURSE_REPORT", str(path))
    check(blank())
    failure(largest())
    check(right())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["open", "wrong", "done"]
    assert lines[1]["misconception"] == "keeps the largest losses"
    assert {line["number"] for line in lines} == {"7.2"}


# Hints -------------------------------------------------------------------------------------------


def test_hints_grow_at_each_call_and_stay_at_the_solution(capsys):
    for _ in range(5):
        hint("7.2")
    heads = [line for line in capsys.readouterr().out.splitlines() if ", hint " in line]
    assert [head.partition("hint ")[2][0] for head in heads] == ["1", "2", "3", "4", "4"]


def test_hint_by_name_function_and_level(capsys):
    hint("small_loss_indices", level=2)
    hint(right(), level=2)
    hint(7.2, level=2)
    texts = capsys.readouterr().out.split("7.2 small_loss_indices")[1:]
    assert len(texts) == 3
    assert len(set(texts)) == 1


@pytest.mark.parametrize(("number", "level"), [("7.9", None), ("7.2", 5), ("7.2", 0)])
def test_hint_that_is_none_is_said(number, level):
    with pytest.raises(ValueError, match=r"No exercise is called|Expected `level` from 1 to 4"):
        hint(number, level)


# The registry and the package --------------------------------------------------------------------


def test_contract_names_are_there():
    there = [exercise.title for exercise in exercises().values()]
    wanted = [
        "0.1 share_of_wrong_labels",
        "1.1 randomize_labels",
        "1.2 group_accuracies",
        "1.3 shuffle_pixels",
        "7.1 forget_rate",
        "7.2 small_loss_indices",
        "7.3 crossed_losses",
    ]
    assert [title for title in there if title in wanted] == wanted


def test_two_exercises_of_one_name_are_refused(monkeypatch):
    double = find("7.2")
    monkeypatch.setattr("nlcourse.lessons.l00.exercises.EXERCISES", (double,))
    with pytest.raises(ValueError, match="its own number"):
        exercise.exercises.__wrapped__()


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nlcourse.checks.nothing


def test_report_loads_without_torch_and_check_without_jupyter():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['IPython', 'ipywidgets', 'matplotlib', 'nbformat']))\n"
        "import nlcourse.lessons.checks.report\n"
        "assert 'torch' not in sys.modules\n"
        "from nlcourse.checks import check\n"
        "def share_of_wrong_labels(given_labels, true_labels):\n"
        "    return (given_labels != true_labels).double().mean()\n"
        "check(share_of_wrong_labels)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0.1 share_of_wrong_labels: 11 cases" in done.stdout


def test_message_survives_a_console_without_check_marks():
    code = "from nlcourse.lessons.checks.checking import say; say('✓ fine')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "? fine\n"
