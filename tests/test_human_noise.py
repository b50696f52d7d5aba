"""The table of human noise that ships with the package."""

from __future__ import annotations

import json
import os
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from nlcourse import noise
from nlcourse.datasets import files
from nlcourse.noise import human as human_noise

ROOT = Path(__file__).resolve().parent.parent
# Shares of wrong labels as counted in the released label files (the README there says 9.03 %).
RATES = {"worse": 0.4021, "aggre": 0.0901, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764}


@pytest.mark.parametrize("kind", human_noise.KINDS)
def test_every_kind_is_a_matrix_of_all_training_images(kind):
    counts = human_noise.human_counts(kind)
    assert counts.shape == (10, 10)
    assert counts.sum(1).tolist() == [5000] * 10
    matrix = noise.check_transition(human_noise.human_matrix(kind))
    assert 1 - matrix.diagonal().mean().item() == pytest.approx(RATES[kind], abs=6e-5)


def test_classes_have_cifars_names_in_order():
    names = human_noise.class_names()
    assert names[0] == "airplane"
    assert names[9] == "truck"
    assert list(names) == sorted(names)  # CIFAR's ids are alphabetical
    matrix = human_noise.human_matrix("worse")
    off = matrix - matrix.diag().diag()
    top = divmod(int(off.argmax()), 10)
    assert (names[top[0]], names[top[1]]) == ("truck", "automobile")
    assert off.max().item() == pytest.approx(0.282, abs=5e-4)


@pytest.mark.parametrize("pair", human_noise.PAIRS)
def test_people_are_wrong_together_more_often_than_a_matrix_allows(pair):
    both = human_noise.wrong_together(*pair)
    assert (both[:, 1] <= both[:, 0]).all()
    wrong = [1 - human_noise.human_matrix(kind).diagonal() for kind in pair]
    by_chance = (5000 * wrong[0] * wrong[1]).sum()
    assert both[:, 0].sum() > 1.3 * by_chance


def test_unknown_kinds_and_pairs_are_refused():
    with pytest.raises(ValueError, match="`kind` out of worse, aggre.*did you mean 'worse'"):
        human_noise.human_matrix("worst")
    with pytest.raises(ValueError, match="Expected `pair` out of"):
        human_noise.wrong_together("random2", "random1")


def test_rescaling_keeps_the_pattern():
    matrix = human_noise.human_matrix("worse")
    got = noise.check_transition(human_noise.rescale(matrix, 0.2))
    assert 1 - got.diagonal().mean().item() == pytest.approx(0.2)
    off = ~torch.eye(10, dtype=torch.bool)
    ratio = got[off] / matrix[off]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
    assert torch.equal(human_noise.rescale(matrix, 0.0), torch.eye(10).double())
    pairflip = human_noise.rescale(noise.pairflip_matrix(4, 0.1), 1.0)
    torch.testing.assert_close(pairflip, noise.pairflip_matrix(4, 1.0))


def test_rescaling_refuses_what_cannot_be():
    matrix = human_noise.human_matrix("worse")
    with pytest.raises(ValueError, match="at most"):
        human_noise.rescale(matrix, 0.95)
    with pytest.raises(ValueError, match="identity"):
        human_noise.rescale(torch.eye(3), 0.2)
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"`rate` in \[0, 1\]"):
            human_noise.rescale(matrix, rate)


def test_table_says_where_it_comes_from():
    text = resources.files("nlcourse.noise").joinpath(human_noise.TABLE).read_text(encoding="utf-8")
    table = json.loads(text)
    assert "CC BY-NC 4.0" in table["licence"]
    assert "UCSC-REAL/cifar-10-100n" in table["source"]
    assert len(text) < 5000


def test_table_is_packaged():
    """Without this line an installed copy (not an editable one) would lack the table."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "**/*.json" in setup["tool"]["setuptools"]["package-data"]["nlcourse"]


def test_missing_label_file_is_said(tmp_path):
    with pytest.raises(files.DataError, match="cifar"):
        human_noise.count_again(tmp_path)


@pytest.mark.real_data
def test_counting_again_gives_the_table():
    folder = os.environ["NLCOURSE_DATA"]
    text = resources.files("nlcourse.noise").joinpath(human_noise.TABLE).read_text(encoding="utf-8")
    assert human_noise.count_again(folder) == json.loads(text)


@pytest.mark.real_data
def test_worse_is_wrong_exactly_when_one_of_the_three_is():
    found = files.find(files.needed("cifar10n", files.data_root(None))[-1])
    arrays = {key: np.asarray(part) for key, part in files.read_labels(found).items()}
    true = arrays["clean_label"]
    three = np.stack([arrays[f"random_label{i}"] for i in (1, 2, 3)])
    assert np.array_equal((three != true).any(0), arrays["worse_label"] != true)
    assert (three == arrays["worse_label"]).any(0).all()
    assert (three == arrays["aggre_label"]).any(0).all()
