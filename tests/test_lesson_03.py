"""Lesson 03's claims: each stands in an assert, and what it says of a stored run."""

from __future__ import annotations

import ast
import csv

import pytest
from lesson_cells import LESSONS

LESSON = LESSONS / "03_how_labels_go_wrong.py"
CLAIMS = (
    "what counts is how often the same lie is told",
    "memorization ruins the estimate",
    "the rank is the better witness",
    "a rough answer",
)


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_claim_is_the_message_of_an_assert(claim):
    asserts = [
        node for node in ast.walk(ast.parse(LESSON.read_text("utf-8"))) if type(node) is ast.Assert
    ]
    assert any(claim in ast.unparse(node) for node in asserts)


def test_stored_run_shows_what_the_lesson_says():
    path = LESSON.parent.parent.parent / "results/human_noise_cifar10.csv"
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    kinds = ("human", "human matrix", "symmetric")
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
    assert [len(by_kind[kind]) for kind in kinds] == [5, 5, 5]
    taken = {k: [float(row["memorized_first_5"]) for row in by_kind[k]] for k in kinds}
    assert min(taken["human"]) > max(taken["symmetric"])
    assert min(taken["human matrix"]) > max(taken["symmetric"])
    # "in the first epochs the ranges overlap"
    assert min(taken["human"]) < max(taken["human matrix"])
    seen = {k: [float(row["seen_through_best"]) for row in by_kind[k]] for k in kinds}
    assert all(h < s for h, s in zip(seen["human"], seen["symmetric"], strict=True))
    # "with most seeds, not with all"
    fewer = sum(h < m for h, m in zip(seen["human"], seen["human matrix"], strict=True))
    assert 3 <= fewer <= 4
