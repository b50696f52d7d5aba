"""Every exercise of the registry: stub, solution, other right answers, and each known mistake."""

from __future__ import annotations

import ast
import math
import random
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nlcourse.checks import hint

from nlcourse.lessons import sources
from nlcourse.lessons.checks import engine
from nlcourse.lessons.checks.engine import examine, known_fingerprints, prepare, undisturbed
from nlcourse.lessons.checks.exercise import exercises
from nlcourse.lessons.checks.hints import LEVELS, text_of
from nlcourse.lessons.sources import INSTALLED, folder, read_tasks, solution, tasks

EXERCISES = exercises()
GRADIENT, MIX = (solution(number) for number in ("4.1", "6.4"))


# Right answers written differently ---------------------------------------------------------------


def share_by_loop(given_labels, true_labels):
    wrong = 0
    for given, true in zip(given_labels.tolist(), true_labels.tolist(), strict=True):
        wrong += given != true
    return wrong / len(given_labels)


def share_by_numpy(given_labels, true_labels):
    return np.mean(given_labels.numpy() != true_labels.numpy())


def share_as_tensor(given_labels, true_labels, dtype=torch.float64):
    return 1 - given_labels.eq(true_labels).to(dtype).mean()


def share_by_count(given_labels, true_labels):
    return np.float32(torch.count_nonzero(given_labels - true_labels) / given_labels.numel())


def randomize_by_loop(labels, share, num_classes, generator):
    new = []
    for label in labels.tolist():
        if torch.rand(1, generator=generator).item() < share:
            label = torch.randint(num_classes, (1,), generator=generator).item()
        new.append(label)
    return new


def randomize_by_numpy(labels, share, num_classes, generator=None):
    seed = torch.randint(2**31, (1,), generator=generator).item()
    rng = np.random.default_rng(seed)
    new = labels.numpy().copy()
    redraw = rng.random(len(new)) < share
    new[redraw] = rng.integers(num_classes, size=redraw.sum())
    return new


def randomize_by_multinomial(labels, share, num_classes, generator):
    if not len(labels):
        return labels
    alike = torch.ones(num_classes)
    drawn = torch.multinomial(alike, len(labels), replacement=True, generator=generator)
    redraw = torch.rand(len(labels), generator=generator) < share
    return torch.arange(num_classes)[torch.where(redraw, drawn, labels)]


def randomize_narrow(labels, share, num_classes, generator):
    new = labels.clone()
    chosen = torch.bernoulli(torch.full(labels.shape, share), generator=generator).bool()
    drawn = torch.rand(int(chosen.sum()), dtype=torch.float64, generator=generator) * num_classes
    new[chosen] = drawn.long()
    return new.to(torch.int32)


def groups_by_loop(predictions, given_labels, true_labels):
    hits = {"clean": [], "wrong_as_given": [], "wrong_as_true": []}
    for p, g, t in zip(predictions, given_labels, true_labels, strict=True):
        if g == t:
            hits["clean"].append(bool(p == t))
        else:
            hits["wrong_as_given"].append(bool(p == g))
            hits["wrong_as_true"].append(bool(p == t))
    return {name: sum(hit) / len(hit) if hit else math.nan for name, hit in hits.items()}


def groups_by_numpy(predictions, given_labels, true_labels):
    p, g, t = (part.numpy() for part in (predictions, given_labels, true_labels))
    with np.errstate(invalid="ignore"):
        return {
            "wrong_as_true": np.sum((p == t) & (g != t)) / np.sum(g != t),
            "clean": np.sum((p == t) & (g == t)) / np.sum(g == t),
            "wrong_as_given": np.sum((p == g) & (g != t)) / np.sum(g != t),
        }


def groups_as_tensors(predictions, given_labels, true_labels):
    right = given_labels == true_labels
    return {
        "clean": (predictions[right] == true_labels[right]).double().mean(),
        "wrong_as_given": (predictions[~right] == given_labels[~right]).double().mean(),
        "wrong_as_true": (predictions[~right] == true_labels[~right]).double().mean(),
        "wrong": (~right).float().mean(),
    }


def shuffle_by_loop(images, generator):
    _, _, height, width = images.shape
    order = torch.randperm(height * width, generator=generator).tolist()
    new = torch.empty_like(images)
    for place, source in enumerate(order):
        new[:, :, place // width, place % width] = images[:, :, source // width, source % width]
    return new


def shuffle_by_gather(images, generator):
    flat = images.reshape(*images.shape[:2], -1)
    order = torch.rand(flat.shape[2], generator=generator).argsort()
    return flat.gather(2, order.expand_as(flat)).view(images.shape)


def shuffle_by_numpy(images, generator=None):
    order = torch.randperm(images[0, 0].numel(), generator=generator).numpy()
    flat = images.numpy().reshape(len(images), images.shape[1], -1)
    return np.take(flat, order, axis=-1).reshape(images.shape)


def rate_by_if(epoch, noise_rate, ramp_epochs, exponent=1.0):
    progress = epoch**exponent
    if progress >= ramp_epochs:
        return noise_rate
    return noise_rate * progress / ramp_epochs


def rate_by_numpy(epoch, noise_rate, ramp_epochs, exponent=1):
    return np.float32(np.clip(np.power(float(epoch), exponent) / ramp_epochs, 0, 1)) * noise_rate


def rate_as_tensor(epoch, noise_rate, ramp_epochs, exponent=1.0, verbose=False):
    return torch.tensor(noise_rate) * min(1, math.pow(epoch, exponent) / ramp_epochs)


def select_by_loop(losses, forget_rate):
    left = list(enumerate(losses.tolist()))
    kept = []
    for _ in range(int(len(left) * (1 - forget_rate))):
        best = min(left, key=lambda pair: pair[1])
        left.remove(best)
        kept.append(best[0])
    return kept


def select_by_numpy(losses, forget_rate):
    order = np.argsort(losses.numpy())
    return order[: int((1 - forget_rate) * len(order))].astype(np.int32)


def select_by_topk(losses, forget_rate):
    count = int((1 - forget_rate) * losses.numel())
    return torch.topk(losses, count, largest=False, sorted=False).indices.flip(0).int()


def select_in_batch_order(losses, forget_rate):
    count = int((1 - forget_rate) * len(losses))
    return losses.argsort(descending=True).flip(0)[:count].sort().values


def cross_by_loop(losses_first, losses_second, kept_by_first, kept_by_second):
    first = sum(losses_first[i] for i in kept_by_second.tolist())
    second = sum(losses_second[i] for i in kept_by_first.tolist())
    return [first / len(kept_by_second), second / len(kept_by_first)]


def cross_by_weights(losses_first, losses_second, kept_by_first, kept_by_second):
    weights = torch.zeros(2, len(losses_first))
    weights[0, kept_by_second] = 1 / len(kept_by_second)
    weights[1, kept_by_first] = 1 / len(kept_by_first)
    return (torch.stack((losses_first, losses_second)) * weights).sum(dim=1)


def cross_by_select(losses_first, losses_second, kept_by_first, kept_by_second):
    one = losses_first.index_select(0, kept_by_second).double().mean()
    return one, losses_second.take(kept_by_first.flip(0)).mean()


ALTERNATIVES = {
    "0.1": [share_by_loop, share_by_numpy, share_as_tensor, share_by_count],
    "1.1": [randomize_by_loop, randomize_by_numpy, randomize_by_multinomial, randomize_narrow],
    "1.2": [groups_by_loop, groups_by_numpy, groups_as_tensors],
    "1.3": [shuffle_by_loop, shuffle_by_gather, shuffle_by_numpy],
    "7.1": [rate_by_if, rate_by_numpy, rate_as_tensor],
    "7.2": [select_by_loop, select_by_numpy, select_by_topk, select_in_batch_order],
    "7.3": [cross_by_loop, cross_by_weights, cross_by_select],
}


# A lesson that brings its own test file keeps its right answers there, under the same name.
for _path in sorted(Path(__file__).parent.glob("test_exercises_*.py")):
    ALTERNATIVES |= import_module(_path.stem).ALTERNATIVES


def test_right_answers_written_differently_pass():
    verdicts = {
        f"{number} {function.__name__}": examine(EXERCISES[number], function)
        for number, functions in ALTERNATIVES.items()
        for function in functions
    }
    wrong = {name: verdict for name, verdict in verdicts.items() if verdict.outcome != "done"}
    assert wrong == {}


def test_every_exercise_has_two_other_right_answers():
    assert [number for number in EXERCISES if len(ALTERNATIVES.get(number, ())) < 2] == []


@pytest.mark.parametrize(
    ("number", "function", "says"),
    [
        ("7.2", lambda losses, forget_rate: losses.topk(len(losses) // 2, largest=False), "a pair"),
        ("7.2", lambda losses, forget_rate: torch.sort(losses)[: len(losses) // 2], "a pair"),
        ("5.1", lambda epoch, lr, milestones, factor: lr if epoch < 60 else None, "a way through"),
        ("4.1", lambda *values, **more: GRADIENT(*values).numpy(), "numpy array: the step takes"),
        ("4.1", lambda *values, **more: GRADIENT(*values).tolist(), "a list: the step takes"),
        ("4.1", lambda *values, **more: GRADIENT(*values).float(), "it is torch.float32"),
        ("6.4", lambda *values, **more: [part.numpy() for part in MIX(*values)], "numpy array"),
        ("6.4", lambda *values, **more: [part.double() for part in MIX(*values)], "torch.float64"),
    ],
)
def test_what_would_break_the_lesson_later_is_said_now(number, function, says):
    verdict = examine(EXERCISES[number], function)
    assert verdict.outcome == "wrong"
    assert says in verdict.reason


# What students type, and the catalogue once did not know -----------------------------------------


def entropy_as_printed(noise_rate, num_classes):
    r, C = noise_rate, num_classes  # noqa: N806 - the formula's
    return -(1 - r) * math.log(1 - r) - r * math.log(r / (C - 1))


def entropy_over_all_classes(noise_rate, num_classes):
    r, C = noise_rate, num_classes  # noqa: N806 - the formula's
    return -(1 - r) * math.log(1 - r) - r * math.log(r / C)


def sce_with_a_mean(logits, labels, alpha, beta, log_clip=-4.0):
    p = logits.softmax(dim=1)[torch.arange(len(labels)), labels]
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
    return alpha * cross_entropy - beta * log_clip * (1 - p)


def sce_without_a_clip(logits, labels, alpha, beta, log_clip=-4.0):
    p = logits.softmax(dim=1)
    y = torch.zeros_like(p)
    y[torch.arange(len(labels)), labels] = 1.0
    return alpha * -(y * p.log()).sum(dim=1) + beta * -(p * y.log()).sum(dim=1)


def rate_by_epoch(epoch, noise_rate, ramp_epochs, exponent=1.0):
    if epoch < ramp_epochs:
        return noise_rate * epoch**exponent / ramp_epochs
    return noise_rate


def rate_by_minimum(epoch, noise_rate, ramp_epochs, exponent=1.0):
    return min(epoch**exponent / ramp_epochs, noise_rate)


@pytest.mark.parametrize(
    ("number", "function", "cause"),
    [
        ("5.2", entropy_as_printed, "stops at the logarithm of 0"),
        ("5.2", entropy_over_all_classes, "counts the true class among the wrong ones in"),
        ("6.2", sce_with_a_mean, "averages the cross entropy over the batch"),
        ("6.2", sce_without_a_clip, "leaves log 0 as it is"),
        ("7.1", rate_by_epoch, "asks the epoch where the ramp ends"),
        ("7.1", rate_by_minimum, "climbs to the noise rate before the ramp ends"),
    ],
)
def test_a_mistake_typed_from_the_formula_has_its_cause(number, function, cause):
    assert examine(EXERCISES[number], function).misconception.startswith(cause)


# The exercise itself -----------------------------------------------------------------------------


def stub(*arguments, **more):
    raise NotImplementedError


def failing(holds, exercises_=EXERCISES.values()) -> list[str]:  # noqa: B008 - a constant
    """The exercises for which a property does not hold, to be compared with none."""
    return [exercise.title for exercise in exercises_ if not holds(exercise)]


def passes(exercise, function) -> bool:
    return examine(exercise, function).outcome == "done"


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=lambda exercise: exercise.title)
def test_each_mistake_is_recognised_with_its_own_hint(exercise):
    for mistake, wrong in zip(exercise.misconceptions, exercise.mistakes, strict=True):
        torch.manual_seed(len(mistake.name))  # the verdict does not depend on the global seed
        verdict = examine(exercise, wrong)
        assert (verdict.outcome, verdict.misconception) == ("wrong", mistake.name)
        assert any(mistake.hint in line for line in verdict.lines)
        assert 3 <= len(verdict.lines) + 2 <= 6
    with undisturbed():
        prints = set(map(tuple, known_fingerprints(exercise)))
    assert len(prints) == len({m.hint for m in exercise.misconceptions}) >= 4
    assert len(prints) == len(exercise.misconceptions)


def test_the_lessons_solution_has_the_signature_of_the_stub_and_passes():
    """What hint 4 shows, what the lesson holds and what the check takes are one text."""
    for exercise in EXERCISES.values():
        shown = ast.parse(exercise.task.text).body[0]
        assert shown.name == exercise.name == exercise.task.function.name
        assert ast.unparse(shown.args) == ast.unparse(exercise.task.function.args)
        assert ast.get_docstring(exercise.task.function)
        assert exercise.package is None or exercise.package.__name__ == exercise.name
        verdict = examine(exercise, exercise.task.solution)
        assert (verdict.outcome, verdict.reason) == ("done", ""), exercise.title
        assert verdict.cases >= 10
        lesson = exercise.task.path.read_text(encoding="utf-8").splitlines()
        assert set(text_of(exercise, len(LEVELS)).splitlines()) <= set(lesson)
        assert '"""' not in exercise.task.text


def test_reference_passes_also_without_gradients_and_on_another_default_device():
    # "meta" tensors have no values: every case made there would break.
    prepare.cache_clear()
    with torch.device("meta"), torch.no_grad():
        assert failing(lambda exercise: passes(exercise, exercise.reference)) == []


def test_stub_is_not_yet():
    assert failing(lambda exercise: examine(exercise, stub).outcome == "open") == []


@pytest.mark.parametrize("junk", [0, "no", object(), [], {}, (1, 2, 3), [[1], [2, 3]], int, None])
def test_junk_is_wrong_whatever_it_is(junk, monkeypatch):
    monkeypatch.setattr(engine, "diagnose", lambda exercise, function: None)  # which is slow

    def is_wrong(exercise):
        verdict = examine(exercise, lambda *arguments, **more: junk)
        return verdict.outcome == "wrong" and ("return" in verdict.reason or junk is not None)

    assert failing(is_wrong) == []


def test_junk_has_no_likely_cause_that_breaks():
    assert failing(lambda e: examine(e, lambda *a, **m: object()).outcome == "wrong") == []


def test_error_in_the_function_is_its_own_line_only():
    def broken(*arguments, **more):
        return torch.zeros(2) @ torch.zeros(3)

    def is_said_once(exercise):
        verdict = examine(exercise, broken)
        shown = sum("torch.zeros(2) @ torch.zeros(3)" in line for line in verdict.lines)
        return "RuntimeError" in verdict.reason and shown == 1 and len(verdict.lines) <= 4

    assert failing(is_said_once) == []


def test_hint_of_a_mistake_does_not_give_the_line_away():
    def leads(exercise):
        lines = [line.strip() for line in text_of(exercise, len(LEVELS)).splitlines()[1:]]
        lines = [line for line in lines if len(line) > 3]
        return lines and not any(line in m.hint for line in lines for m in exercise.misconceptions)

    assert failing(leads) == []


def test_random_state_stays():
    def states():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002

    def stays(exercise):
        def spends(*arguments, **more):
            random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
            return exercise.reference(*arguments, **more)

        before = states()
        right = passes(exercise, spends)
        wrong = not passes(exercise, exercise.mistakes[0])
        return right and wrong and states() == before

    assert failing(stays) == []


def first_tensor(exercise) -> str | None:
    """The first argument that can be changed in place; some exercises take numbers only."""
    arguments = exercise.cases()[0].arguments
    return next((n for n, value in arguments.items() if isinstance(value, torch.Tensor)), None)


def test_changing_an_input_is_said():
    def is_said(exercise):
        name = first_tensor(exercise)
        place = list(exercise.cases()[0].arguments).index(name)

        def spoils(*arguments, **more):
            kept = [part.clone() if isinstance(part, torch.Tensor) else part for part in arguments]
            with torch.no_grad():
                arguments[place].zero_().sub_(1)
            return exercise.reference(*kept)

        verdict = examine(exercise, spoils)
        shown = any("-1" in line or "255" in line for line in verdict.lines)
        return f"`{name}` in place" in verdict.reason and shown

    changeable = list(filter(first_tensor, EXERCISES.values()))
    assert len(changeable) > 30
    assert failing(is_said, changeable) == []


def test_hints_grow_to_the_solution(capsys):
    def grow(exercise):
        for level, name in enumerate(LEVELS, start=1):
            hint(exercise.number, level=level)
            said = capsys.readouterr().out
            if not said.startswith(f"{exercise.title}, hint {level} of 4: {name}"):
                return False
        return f"def {exercise.name}(" in said and len(text_of(exercise, 3).splitlines()) == 2

    assert failing(grow) == []


def test_every_exercise_of_the_lessons_is_checked_and_the_other_way_round():
    assert list(EXERCISES) == sorted(tasks(), key=lambda number: [*map(int, number.split("."))])
    assert failing(lambda e: e.task.path.name.startswith(e.lesson)) == []
    assert failing(lambda e: e.task.difficulty * e.task.importance and e.task.minutes <= 30) == []


# Where the texts are -----------------------------------------------------------------------------


def test_an_alteration_that_meets_nothing_is_said():
    with pytest.raises(ValueError, match=r"Expected 'epochs' in the solution of small_loss_ind"):
        EXERCISES["7.2"].task.altered({"epochs": "epoch"})


def test_an_exercise_without_a_solution_is_said(tmp_path):
    lesson = tmp_path / "99_none.py"
    lesson.write_text("# **Exercise 99.1** · difficulty ●○○○○ · importance ●○○○○ · 3 minutes\n")
    with pytest.raises(ValueError, match=r"99_none.py:1: exercise 99.1 has no solution below it"):
        read_tasks(lesson)


def test_an_installed_package_finds_its_texts_or_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "a" / "b" / "sources.py"))
    monkeypatch.setattr(sources, "files", lambda name: [])
    with pytest.raises(FileNotFoundError, match="Expected the lessons' sources in"):
        folder.__wrapped__()
    record = tmp_path / INSTALLED / "07_co_teaching.py"
    moved = SimpleNamespace(as_posix=record.as_posix, locate=lambda: tmp_path / "gone" / "07.py")
    monkeypatch.setattr(sources, "files", lambda name: [moved])
    with pytest.raises(FileNotFoundError, match="Expected the lessons' sources in"):
        folder.__wrapped__()
    record.parent.mkdir(parents=True)
    assert folder.__wrapped__() == record.parent  # `pip install --target` moves them so
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "lib" / "a" / "b" / "sources.py"))
    found = SimpleNamespace(as_posix=record.as_posix, locate=lambda: record)
    monkeypatch.setattr(sources, "files", lambda name: [found])
    assert folder.__wrapped__() == record.parent
