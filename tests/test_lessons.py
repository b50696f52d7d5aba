"""Every assert of a lesson holds for five seeds: all its code cells run as they stand.

Found by itself: each lesson whose source says `SEED = 0`. What is tested of one lesson alone stands
in its own file.
"""

from __future__ import annotations

import re
import tempfile

import pytest
from lesson_cells import LESSONS, run_cells
from test_lesson_08 import two_rankings_cannot_reach_the_goal

SEEDED = [
    path
    for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))
    if re.search(r"(?m)^SEED = 0$", path.read_text(encoding="utf-8"))
]
ALSO = {"08_finding_wrong_labels": two_rankings_cannot_reach_the_goal}


@pytest.fixture
def _one_thread(set_threads):
    """The same numbers whatever the number of cores; some lessons change it themselves."""
    set_threads(1)


def test_there_are_lessons_with_a_seed():
    assert len(SEEDED) >= 8


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lesson", SEEDED, ids=lambda path: path.stem)
def test_every_assert_of_a_lesson_holds(lesson, seed, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "mkdtemp", lambda: str(tmp_path))
    names = run_cells(lesson, seed=seed)
    assert len(names["alt_texts"]) >= 5
    assert all(len(words) > 60 for words in names["alt_texts"])
    ALSO.get(lesson.stem, lambda names: None)(names)
