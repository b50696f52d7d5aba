"""Who passes the checks gets through the lesson: right answers written differently, in its cells.

A check is generous in form (numpy, lists, 0 and 1), and what it hands on fits the cells after it.
"""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from lesson_cells import LESSONS, run_cells

from nlcourse.lessons.checks.exercise import find


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch and numpy in one expression
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("lesson", ["08", "09", "10", "11"])
def test_other_right_answers_go_through_the_lesson(lesson, place, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    others = import_module(f"test_exercises_{lesson}").ALTERNATIVES
    answers = {
        find(number).name: (functions[place], number) for number, functions in others.items()
    }

    def handed_in(source: str) -> str:
        return re.sub(r"(?m)^(\w+) = check\(\1\)$", r"\1 = check(*ANSWERS['\1'])", source)

    (path,) = LESSONS.glob(f"{lesson}_*.py")
    names = run_cells(path, edit=handed_in, names={"SEED": 0, "ANSWERS": answers})
    for name, (function, _) in answers.items():  # itself, or with its results made tensors
        assert function in (names[name], getattr(names[name], "__wrapped__", None))
