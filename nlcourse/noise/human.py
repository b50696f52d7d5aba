"""How people go wrong: the transition matrices of CIFAR-10N as a small table in the package.

Wei et al. 2022 (arXiv 2110.12088) had the 50,000 training images of CIFAR-10 labelled again, by
three people each. ``cifar10n_transitions.json`` holds counts made from their labels, so that
lesson 03 can show real human noise without any download. The labels themselves are read by
``datasets.load("cifar10n")``.

The table was made by ``python -m nlcourse.noise.human FOLDER`` from the data set that FOLDER (or
``NLCOURSE_DATA``) holds; a test counts again where the data are at hand. Source: repository
UCSC-REAL/cifar-10-100n, licence CC BY-NC 4.0 (the table inherits it); cite J. Wei et al.,
"Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations", ICLR 2022.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import datasets
from ..base import expect, expect_one_of
from .matrices import check_transition, expect_rate

TABLE = "cifar10n_transitions.json"
KINDS = tuple(datasets.HUMAN_KINDS["cifar10n"])
PAIRS = (("random1", "random2"), ("random1", "random3"), ("random2", "random3"))
NUM_CLASSES = 10


def class_names() -> tuple[str, ...]:
    """The ten classes of CIFAR-10 in the order of the rows."""
    return tuple(_table()["class_names"])


def human_counts(kind: str = "worse") -> Tensor:
    """Count how people labelled the training images of CIFAR-10.

    Args:
        kind: ``"random1"``, ``"random2"``, ``"random3"`` (one person's label an image),
            ``"aggre"`` (majority of the three, a random one when all differ) or ``"worse"`` (a
            wrong one of the three, when there is any).

    Returns:
        int64 ``(10, 10)``, row = true class, column = given label; each row sums to 5,000.
    """
    expect_one_of("kind", kind, KINDS)
    return torch.tensor(_table()["counts"][kind])


def human_matrix(kind: str = "worse") -> Tensor:
    """Transition matrix of human labels, float64 ``(10, 10)``, row = true class."""
    counts = human_counts(kind).double()
    return counts / counts.sum(dim=1, keepdim=True)


def wrong_together(first: str, second: str) -> Tensor:
    """Count images that two of the three people, a pair of `PAIRS`, both labelled wrong.

    Int64 ``(10, 2)``, row = true class: how often both, and how often with the same wrong label.
    """
    expect_one_of("pair", (first, second), PAIRS)
    return torch.tensor(_table()["wrong_together"][f"{first}+{second}"])


def rescale(matrix: Tensor, rate: float) -> Tensor:
    """Keep the pattern of a matrix and change how much of it there is.

    All entries off the diagonal are multiplied by one number, so that a share `rate` of the labels
    is wrong when classes are equally common.

    Args:
        matrix: ``(C, C)``, row = true class; some label has to go wrong.
        rate: in [0, 1], and not so large that a class loses more than all of its labels.

    Returns:
        float64 ``(C, C)``.
    """
    matrix = check_transition(matrix)
    expect_rate(rate)
    wrong = 1 - matrix.diagonal()
    expect(bool(wrong.mean() > 0), "a `matrix` with wrong labels", "the identity", "no pattern")
    most = (wrong.mean() / wrong.max()).item()
    fits = rate <= most * (1 + 1e-9)
    expect(fits, f"`rate` of at most {most:.3g}", rate, "one class would lose all of its labels")
    factor = rate / wrong.mean()
    return (matrix * factor).fill_diagonal_(0) + torch.diag((1 - factor * wrong).clamp_min(0))


@cache
def _table() -> Any:
    return json.loads(Path(__file__).with_name(TABLE).read_text(encoding="utf-8"))


def count_again(root: str | Path | None = None) -> Any:
    """Return the table with counts made anew from the data set under `root`."""
    sets = {kind: datasets.load("cifar10n", kind=kind, root=root, download=False) for kind in KINDS}
    true = sets[KINDS[0]].true_labels
    counts, together = {}, {}
    for kind, data in sets.items():
        cells = (true * NUM_CLASSES + data.labels).bincount(minlength=NUM_CLASSES**2)
        counts[kind] = cells.view(NUM_CLASSES, NUM_CLASSES).tolist()
    for a, b in PAIRS:
        both = sets[a].is_wrong & sets[b].is_wrong
        same = both & (sets[a].labels == sets[b].labels)
        wrong = [true[which].bincount(minlength=NUM_CLASSES) for which in (both, same)]
        together[f"{a}+{b}"] = torch.stack(wrong, dim=1).tolist()
    return _table() | {"counts": counts, "wrong_together": together}


if __name__ == "__main__":
    rows = json.dumps(count_again(*sys.argv[1:2])).replace(', "', ',\n "')  # fit to be read
    Path(__file__).with_name(TABLE).write_text(rows + "\n", encoding="utf-8")
