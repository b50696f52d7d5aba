"""Lesson 03's claims hold for five seeds: all its cells run, with all their assertions."""

from __future__ import annotations

import csv

import pytest
import torch
from lesson_cells import LESSONS, run_cells

LESSON = LESSONS / "03_how_labels_go_wrong.py"
CLAIMS = (
    "what counts is how often the same lie is told",
    "memorization ruins the estimate",
    "the rank is the better witness",
    "a rough answer",
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_every_assertion_holds(seed):
    text = LESSON.read_text(encoding="utf-8")
    assert all(claim in text for claim in CLAIMS)  # each is the message of an assertion
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        shown = run_cells(LESSON, seed=seed)["alt_texts"]
    finally:
        torch.set_num_threads(threads)
    assert len(shown) >= 8
    assert all(len(words) > 60 for words in shown)


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
