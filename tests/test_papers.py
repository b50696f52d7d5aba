"""The papers' numbers: what the table holds, and that names and settings lead somewhere."""

from __future__ import annotations

import pytest

from nlcourse.experiments import papers, recipes
from nlcourse.methods import METHODS


@pytest.fixture(scope="module")
def rows():
    return papers.load()


def test_every_row_has_a_number_and_says_where_it_is_from(rows):
    assert len(rows) > 300
    for row in rows:
        assert 0 < float(row["accuracy"]) < 100
        assert row["metric"] in ("best", "last", "last ten", "chosen")
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


def of_ours(method, late, best, noise="pairflip"):
    row = {"method": method, "noise": noise, "rate": "0.45"}
    return row | {"mean_of_last_ten": str(late), "best": str(best)}


def test_gains_stand_beside_ours():
    rows = [of_ours("cross-entropy", 0.5, 0.7), of_ours("cross-entropy", 0.6, 0.7)]
    rows += [of_ours("co-teaching", 0.75, 0.8), of_ours("decoupling", 0.5, 0.5, "symmetric")]
    which = {"paper": "Co-teaching", "dataset": "CIFAR-10", "noise_type": "pairflip"}
    plain, found = papers.gains(rows, ("pairflip", 0.45), **which)
    assert plain == 49.50
    decoupling, co_teaching = found  # in the table's order; the others are not among ours
    assert decoupling.method == "Decoupling"
    assert all(value != value for value in decoupling.ours)  # measured for another noise only
    assert co_teaching.method == "Co-teaching"
    assert co_teaching.paper == pytest.approx(72.62 - 49.50)
    assert co_teaching.ours == pytest.approx((20.0, 10.0))
    _, (_, again) = papers.gains(rows, ("pairflip", "0.45"), ("best",), **which)
    assert again.ours == pytest.approx((10.0,))


def test_gains_want_one_cross_entropy():
    which = {"paper": "Joint", "noise_type": "asymmetric", "noise_rate": 0.4}
    with pytest.raises(ValueError, match="one cross entropy in the rows of .*, got 2"):
        papers.gains([], ("asymmetric", 0.4), **which)  # its best and its last epoch


@pytest.mark.parametrize(
    ("paper", "table", "metric"),
    [
        ("Co-teaching", "Table 5", "last ten"),
        ("ELR", "Table 1", "chosen"),
        ("CDR", "Table 1", "chosen"),
    ],
)
def test_the_kind_of_accuracy_is_named(paper, table, metric):
    assert {row["metric"] for row in papers.load(paper=paper, table=table)} == {metric}


def test_what_is_not_there_is_an_empty_list():
    assert papers.load(paper="nobody", noise_type="symmetric") == []


def test_an_unknown_column_is_said():
    with pytest.raises(KeyError, match="'kind' is no column"):
        papers.load(kind="symmetric")
