"""The papers' numbers: what the table holds, and that names and settings lead somewhere."""

from __future__ import annotations

import pytest

from nlcourse import papers, recipes
from nlcourse.methods import METHODS


@pytest.fixture(scope="module")
def rows():
    return papers.load()


def test_every_row_has_a_number_and_says_where_it_is_from(rows):
    assert len(rows) > 300
    for row in rows:
        assert 0 < float(row["accuracy"]) < 100
        assert row["metric"] in ("best", "last", "mean")
        assert row["source"]
        assert row["network"]
        assert row["paper"]


def test_no_number_is_there_twice(rows):
    keys = ("paper", "table", "dataset", "noise_type", "noise_rate", "method", "metric")
    told = [tuple(row[key] for key in keys) for row in rows]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize(
    ("which", "accuracy"),
    [({"paper": "Co-teaching", "dataset": "CIFAR-10", "noise_type": "pairflip",
       "method": "Co-teaching"}, 72.62),
     ({"paper": "CDR", "dataset": "CIFAR-10", "noise_type": "asymmetric", "method": "CDR"}, 92.00),
     ({"paper": "ELR", "table": "Table 1", "noise_type": "symmetric_inclusive", "noise_rate": 0.4,
       "method": "ELR"}, 89.15),
     ({"paper": "Joint", "noise_type": "asymmetric", "noise_rate": 0.4, "method": "CNN-CRF",
       "metric": "last"}, 79.7)],
)  # fmt: skip
def test_numbers_that_the_seeds_print(which, accuracy):
    (row,) = papers.load(**which)
    assert float(row["accuracy"]) == accuracy


def test_every_name_in_the_table_is_ours_or_known_to_be_missing(rows):
    missing = {row["method"] for row in rows if papers.ours(row["method"]) is None}
    assert missing == {
        "CNN-CRF", "ELR (cosine)", "ELR+ (cosine)", "M-correction", "Meta-Learning", "PENCIL",
        "S-model", "S2E", "S2E (paper)", "S2E (user run)", "mixup alpha=8",
    }  # fmt: skip


def test_names_lead_to_what_the_course_can_train():
    assert set(papers.NAMES) <= set(recipes.names("classroom")) | set(METHODS)
    names = [name for known in papers.NAMES.values() for name in known]
    assert len(set(names)) == len(names)


def test_what_is_not_there_is_an_empty_list():
    assert papers.load(paper="nobody", noise_type="symmetric") == []


def test_an_unknown_column_is_said():
    with pytest.raises(KeyError, match="'kind' is no column"):
        papers.load(kind="symmetric")
