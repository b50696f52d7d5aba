"""Lesson 00: one warm-up exercise, to meet the check."""

from __future__ import annotations

import torch

from ..checks.engine import SEED
from ..checks.exercise import Case, Exercise, Misconception
from ..checks.inputs import case_of
from ..checks.judges import number


def _cases() -> list[Case]:
    case = case_of(given_labels=torch.tensor, true_labels=torch.tensor)
    cases = [
        case("one of four is wrong", [0, 1, 2, 9], [0, 1, 2, 3]),
        case("no label is wrong", [5, 5], [5, 5]),
        case("every label is wrong", [1, 2, 0], [0, 1, 2]),
        case("a single wrong label", [3], [8]),
        case("two labels have changed places", [1, 0, 2, 2], [0, 1, 2, 2]),
        case("wrong by one class and by nine", [1, 9, 0], [0, 0, 0]),
    ]
    generator = torch.Generator().manual_seed(SEED)
    for n in (10, 30, 100, 300, 1000):
        given = torch.randint(10, (n,), generator=generator)
        true = torch.where(torch.rand(n, generator=generator) < 0.6, given, given.flip(0))
        cases.append(Case(f"{n} labels at random", {"given_labels": given, "true_labels": true}))
    return cases


EXERCISES = (
    Exercise(
        number="0.1",
        cases=_cases,
        judge=number,
        hints=(
            "For one example: which comparison is True exactly when its label is wrong?",
            "share = (1/n) · Σ [given_i ≠ true_i], where [ ] is 1 for true and 0 for false.",
            "wrong = given_labels != true_labels   # True or False for each example\n"
            "...   # the mean of wrong, once it is made of numbers: wrong.float()",
        ),
        misconceptions=(
            Misconception(
                "gives the share of right labels",
                "Try it on labels that are all right: which share should come out?",
                replace={" != true_labels": " == true_labels"},
            ),
            Misconception(
                "counts the wrong labels",
                "A share lies between 0 and 1: what has the count to be divided by?",
                returns="(given_labels != true_labels).sum()",
            ),
            Misconception(
                "gives a percentage",
                "Throughout the course 1 means all of them, not 100.",
                replace={".item()": " * 100"},
            ),
            Misconception(
                "rounds down to a whole number",
                "Which kind of division, or which dtype, drops what follows the decimal point?",
                returns="(given_labels != true_labels).sum() // len(true_labels)",
            ),
            Misconception(
                "compares how often each class occurs",
                "If two examples exchange their labels, how many labels are wrong?",
                returns=(
                    "sum((given_labels == c).sum().sub((true_labels == "
                    "c).sum()).clamp(min=0).item() for c in range(10)) / len(true_labels)"
                ),
            ),
            Misconception(
                "measures how far apart the class numbers are",
                "Classes are names: is a 9 for a 0 more wrong than a 1 for a 0?",
                returns="(given_labels - true_labels).abs().float().mean()",
            ),
            Misconception(
                "answers for each example",
                "One number for all of them is asked for: what turns many answers into a share?",
                returns="(given_labels != true_labels).float()",
            ),
        ),
    ),
)
