"""Lesson 03's exercises: right answers written differently, and what is the lesson's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlcourse import noise
from nlcourse.lessons.checks.engine import examine
from nlcourse.lessons.checks.exercise import exercises
from nlcourse.lessons.l03 import exercises as lesson_03


def symmetric_by_loop(num_classes, rate, include_true=False):
    rows = []
    for i in range(num_classes):
        if include_true:
            row = [rate / num_classes + (1 - rate) * (i == j) for j in range(num_classes)]
        else:
            row = [1 - rate if i == j else rate / (num_classes - 1) for j in range(num_classes)]
        rows.append(row)
    return rows


def symmetric_by_numpy(num_classes, rate, include_true=False):
    others = num_classes if include_true else num_classes - 1
    eye = np.eye(num_classes)
    redrawn = np.ones_like(eye) / others if include_true else (1 - eye) / others
    return (1 - rate) * eye + rate * redrawn


def symmetric_by_conversion(num_classes, rate, include_true=False):
    if not include_true:
        rate = rate * num_classes / (num_classes - 1)
    return torch.eye(num_classes).lerp(torch.full((num_classes,) * 2, 1 / num_classes), rate)


def pairflip_by_loop(num_classes, rate):
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for i in range(num_classes):
        matrix[i, i] += 1 - rate
        matrix[i, (i + 1) % num_classes] += rate
    return matrix


def pairflip_by_numpy(num_classes, rate):
    eye = np.eye(num_classes)
    return (1 - rate) * eye + rate * np.roll(eye, 1, axis=1)


def corrupt_by_loop(labels, matrix, generator=None):
    drawn = []
    for label in labels.tolist():
        u, total, given = torch.rand(1, generator=generator).item(), 0.0, 0
        for given, p in enumerate(matrix[label].tolist()):  # noqa: B007 - the last one is used
            total += p
            if u < total:
                break
        drawn.append(given)
    return drawn


def corrupt_by_cumulated_rows(labels, matrix, generator):
    edges = matrix.double().cumsum(dim=1)[labels]
    edges[:, -1] = 1.0
    u = torch.rand(len(labels), 1, generator=generator, dtype=torch.float64)
    return (u >= edges).sum(dim=1)


def corrupt_class_by_class(labels, matrix, generator):
    new = labels.clone()
    for c in range(len(matrix)):
        members = labels == c  # of the true labels: no cascade
        if members.any():
            count = int(members.sum())
            new[members] = torch.multinomial(
                matrix[c], count, replacement=True, generator=generator
            )
    return new.to(torch.int32)


def corrupt_by_numpy(labels, matrix, generator):
    seed = int(torch.randint(2**31, (1,), generator=generator))
    rng = np.random.default_rng(seed)
    table = matrix.double().numpy()
    return np.array([rng.choice(len(table), p=row / row.sum()) for row in table[labels.numpy()]])


def estimate_by_loop(probabilities):
    rows = []
    for c in range(probabilities.shape[1]):
        rows.append(max(probabilities, key=lambda row, c=c: row[c].item()))
    return torch.stack(rows)


def estimate_by_numpy(probabilities):
    table = probabilities.numpy()
    return table[np.argmax(table, axis=0)]


def estimate_by_sorting(probabilities):
    best = probabilities.sort(dim=0, descending=True).indices[0]
    return probabilities.double().index_select(0, best)


ALTERNATIVES = {
    "3.1": [symmetric_by_loop, symmetric_by_numpy, symmetric_by_conversion],
    "3.2": [pairflip_by_loop, pairflip_by_numpy],
    "3.3": [
        corrupt_by_loop,
        corrupt_by_cumulated_rows,
        corrupt_class_by_class,
        corrupt_by_numpy,
    ],
    "3.4": [estimate_by_loop, estimate_by_numpy, estimate_by_sorting],
}


@pytest.mark.parametrize("seed", range(200))
def test_a_right_draw_is_never_called_wrong(seed, monkeypatch):
    """The bands are wide enough: 200 other draws pass, too."""
    exercise = exercises()["3.3"]
    for case in exercise.cases():
        if case.judge is None:
            arguments = case.arguments | {"generator": torch.Generator().manual_seed(seed)}
            got = noise.corrupt(*arguments.values())
            assert lesson_03._drawn_from_the_rows(got, None, arguments) is None


def corrupt_by_coin(labels, matrix, generator):
    new = labels.clone()
    goes = torch.rand(len(labels), generator=generator) > matrix.diagonal()[labels]
    new[goes] = torch.randint(len(matrix), (int(goes.sum()),), generator=generator)
    return new


def corrupt_by_loop_of_coins(labels, matrix, generator):
    new = []
    for label in labels.tolist():
        if torch.rand(1, generator=generator).item() >= matrix[label, label]:
            label = torch.randint(len(matrix), (1,), generator=generator).item()
        new.append(label)
    return torch.tensor(new)


@pytest.mark.parametrize("function", [corrupt_by_coin, corrupt_by_loop_of_coins])
def test_the_coin_of_the_diagonal_is_named(function):
    verdict = examine(exercises()["3.3"], function)
    assert verdict.misconception.startswith("uses the diagonal only, and draws")


def test_cascade_shows_in_the_smallest_case():
    verdict = examine(exercises()["3.3"], lesson_03._cascade)
    assert "class after class" in verdict.misconception
    assert "everybody moves one on" in verdict.lines[0]
