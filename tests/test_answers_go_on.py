"""Right answers that return lists, arrays or other integers: the lesson goes on with them, too."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lesson_cells import LESSONS, only, run_cells
from nlcourse.checks import check
from test_exercises import ALTERNATIVES

from nlcourse.lessons.checks import memory
from nlcourse.lessons.checks.exercise import exercises
from nlcourse.methods import CoTeaching, CrossEntropy, DivideMix
from nlcourse.panels.state import Settings
from nlcourse.training import fit

# Words of the cells to run after the check, for each exercise.
CELLS = {
    "1.1": ("share redrawn   right", "def with_random("),
    "1.3": ("def change_images(", "shuffled = change_images("),
    "3.1": ("1 - symmetric_matrix(", "def show_matrices(", '"symmetric, 20 %"'),
    "3.2": ("def show_matrices(", '"pair flip, 20 %"'),
    "3.3": ("def show_matrices(", "asymmetric = noise", "observed_matrix(given", "cascade = "),
    "3.4": ("def probabilities_of(", "def watch(", "def error("),
    "7.2": ("class OneNetwork(",),
    "11.2": (),
}
ANSWERS = [
    pytest.param(number, function, id=f"{number}-{function.__name__}")
    for number in CELLS
    for function in ALTERNATIVES[number]
]


@pytest.fixture(autouse=True)
def _progress(tmp_path, monkeypatch):
    monkeypatch.setenv("NLCOURSE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(memory, "_session", {})


def lesson_after(number: str, function) -> dict:
    """Run a lesson's first cell, the check of this answer, and the cells that use it."""
    exercise = exercises()[number]
    (lesson,) = LESSONS.glob(f"{exercise.lesson}_*.py")
    line = f"{exercise.name} = check({exercise.name})"
    chosen = only("data = datasets.load", line, *CELLS[number])

    def edit(source: str) -> str:
        source = chosen(source).replace(line, f"{exercise.name} = check(answer, {number!r})")
        return source.replace("epochs=60", "epochs=2")

    others = {one.name: one.reference for one in exercises().values()}
    names = {"check": check, "answer": function, "SEED": 0, "torch": torch, "fit": fit}
    names |= {"CrossEntropy": CrossEntropy}
    return run_cells(lesson, edit=edit, names=others | names)


@pytest.mark.parametrize(("number", "function"), ANSWERS)
def test_the_cells_after_the_check_take_every_right_answer(number, function):
    names = lesson_after(number, function)
    quick = {"epochs": 2, "progress": False, "device": "cpu"}
    if number == "7.2":
        fit(names["OneNetwork"](0.4), names["noisy"], **quick)
        fit(CoTeaching(0.4, select=names["small_loss_indices"]), names["noisy"], **quick)
    if number == "11.2":
        own = DivideMix(warm_up=1, views=1, divide=names["co_divide"])
        fit(own, names["noisy"], **quick)


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    [
        ("1.1", "randomize_by_loop", "; your list is turned into a tensor. "),
        ("1.1", "randomize_narrow", "; your int32 tensor is turned into int64. "),
        ("3.1", "symmetric_by_numpy", "; your numpy array is turned into a tensor. "),
        ("12.2", "mask_by_places", "tensor is turned into bool. "),
    ],
)
def test_the_tick_says_what_is_turned(number, answer, words, capsys):
    function = next(f for f in ALTERNATIVES[number] if f.__name__ == answer)
    turned = check(function, number)
    assert turned is not function
    assert turned.__wrapped__ is function
    assert words in capsys.readouterr().out
    assert check(turned, number) is turned  # there is nothing left to turn


def test_what_comes_out_is_of_the_kind_of_the_reference():
    generator = torch.Generator().manual_seed(0)

    def answer(name: str, number: str):
        return check(next(f for f in ALTERNATIVES[number] if f.__name__ == name), number)

    labels = torch.arange(6) % 3
    assert answer("randomize_narrow", "1.1")(labels, 0.5, 3, generator).dtype == torch.int64
    assert answer("symmetric_by_loop", "3.1")(3, 0.2).dtype == torch.float64
    first, second = answer("divide_by_numpy", "11.2")(torch.rand(5), torch.rand(5), 0.5)
    assert first.dtype == second.dtype == torch.bool
    masks = answer("mask_by_numpy", "12.2")([torch.rand(2, 3), torch.rand(4)], 0.5)
    assert isinstance(masks, list)
    assert [mask.dtype for mask in masks] == [torch.bool] * 2
    images = torch.rand(2, 1, 3, 3)
    assert answer("shuffle_by_numpy", "1.3")(images, generator).dtype == images.dtype


def test_an_answer_with_tensors_comes_back_itself():
    for exercise in exercises().values():
        function = exercise.task.solution
        if function is not exercise.reference:
            assert check(function, exercise.number) is function
    alternatives = {f.__name__: f for number in ("1.1", "3.2", "7.2") for f in ALTERNATIVES[number]}
    assert check(alternatives["pairflip_by_loop"], "3.2") is alternatives["pairflip_by_loop"]


def test_numbers_stay_numbers():
    answer = ALTERNATIVES["0.1"][1]
    assert check(answer, "0.1") is answer
    assert isinstance(answer(torch.tensor([1, 2]), torch.tensor([1, 1])), np.floating)


# The explorers' goals ----------------------------------------------------------------------------


def tried(**settings) -> SimpleNamespace:
    """A try that memorizes nothing and reads everything."""
    asked = {"noise_kind": "symmetric", "noise_rate": 0.4, "epochs": 30} | settings
    return SimpleNamespace(
        settings=Settings(dataset="digits", lr=0.1, method="cross-entropy", **asked),
        history=SimpleNamespace(last={"wrong_as_given": 0.0, "test_accuracy": 1.0}),
    )


@pytest.mark.parametrize("lesson", ["00_start_here", "02_closer_look"])
def test_a_goal_is_reached_only_under_its_own_conditions(lesson):
    edit = only("def judge(run)")
    judge = run_cells(
        LESSONS / f"{lesson}.py",
        edit=lambda source: edit(source).partition("\nexplorer = ")[0],
        names={"SEED": 0, "Goal": lambda *parts: parts},
    )["judge"]
    assert judge(tried())[0]
    for unfair in ({"noise_rate": 0.0}, {"noise_rate": 0.35}, {"epochs": 5}):
        assert judge(tried(**unfair)) == (False, judge(tried(epochs=1))[1])
    if lesson == "00_start_here":
        assert not judge(tried(noise_kind="pairflip"))[0]
