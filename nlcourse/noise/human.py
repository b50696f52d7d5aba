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
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import datasets
from ..datasets import files
from . import injectors as noise

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

    Raises:
        ValueError: for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected `kind` to be one of {', '.join(KINDS)}, got {kind!r}")
    return torch.tensor(_table()["counts"][kind])


def human_matrix(kind: str = "worse") -> Tensor:
    """Transition matrix of human labels, float64 ``(10, 10)``, row = true class.

    Raises:
        ValueError: for a kind that :func:`human_counts` does not know.
    """
    counts = human_counts(kind).double()
    return counts / counts.sum(dim=1, keepdim=True)


def wrong_together(first: str, second: str) -> Tensor:
    """Count images that two of the three people both labelled wrong.

    Args:
        first: ``"random1"`` or ``"random2"``.
        second: a later one.

    Returns:
        int64 ``(10, 2)``, row = true class: how often both are wrong, and how often with the same
        wrong label.

    Raises:
        ValueError: for another pair.
    """
    if (first, second) not in PAIRS:
        known = ", ".join(map(str, PAIRS))
        raise ValueError(f"Expected a pair out of {known}, got {(first, second)}")
    return torch.tensor(_table()["wrong_together"][f"{first}+{second}"])


def rescale(matrix: Tensor, rate: float) -> Tensor:
    """Keep the pattern of a matrix and change how much of it there is.

    All entries off the diagonal are multiplied by one number, so that a share `rate` of the labels
    is wrong when classes are equally common.

    Args:
        matrix: ``(C, C)``, row = true class; some label has to go wrong.
        rate: in [0, 1].

    Returns:
        float64 ``(C, C)``.

    Raises:
        TypeError: for a matrix that is no tensor of floats.
        ValueError: for a bad rate, a matrix without noise, or a rate that would take more than all
            labels of some class.
    """
    matrix = noise.check_transition(matrix)
    if not 0 <= rate <= 1:
        raise ValueError(f"Expected `rate` in [0, 1], got {rate:g}: the share of wrong labels")
    wrong = 1 - matrix.diagonal()
    if wrong.mean() == 0:
        raise ValueError("Expected a `matrix` with wrong labels, got the identity: no pattern")
    factor = rate / wrong.mean()
    if factor * wrong.max() > 1 + 1e-9:
        top = wrong.mean() / wrong.max()
        raise ValueError(
            f"Expected `rate` of at most {top:.3g} for this matrix, got {rate:g}: one class would "
            "lose more than all of its labels"
        )
    scaled = matrix * factor
    return scaled.fill_diagonal_(0) + torch.diag((1 - factor * wrong).clamp_min(0))


@cache
def _table() -> dict:
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    return json.loads(text)


def make_table(root: str | Path | None = None) -> dict:
    """Count the table again from the checked label file under `root`.

    Raises:
        DataError: when the file is missing or damaged.
    """
    folder = files.data_root(root)
    found = files.find_labels("cifar10n", folder)
    if isinstance(found, str):
        raise files.DataError(files.message("cifar10n", folder, [found]))
    arrays = {key: np.asarray(part) for key, part in files.read_labels(found).items()}
    true = arrays["clean_label"].astype(np.int64)
    given = {k: arrays[v].astype(np.int64) for k, v in datasets.HUMAN_KINDS["cifar10n"].items()}
    return {
        "what": "counts of human labels of CIFAR-10's training images; row = true class",
        "source": "CIFAR-10N, repository UCSC-REAL/cifar-10-100n, Wei et al. 2022 (ICLR)",
        "paper": "arXiv 2110.12088",
        "licence": "CC BY-NC 4.0",
        "made_by": "python -m nlcourse.noise.human FOLDER",
        "class_names": list(_CIFAR10_CLASSES),
        "counts": {kind: _counts(true, labels) for kind, labels in given.items()},
        "wrong_together": {f"{a}+{b}": _both_wrong(true, given[a], given[b]) for a, b in PAIRS},
    }


_CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def _counts(true: np.ndarray, given: np.ndarray) -> list[list[int]]:
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=int)
    np.add.at(counts, (true, given), 1)
    return counts.tolist()


def _both_wrong(true: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[list[int]]:
    both = (first != true) & (second != true)
    same = both & (first == second)
    return [[int(both[true == c].sum()), int(same[true == c].sum())] for c in range(NUM_CLASSES)]


def _write(root: str | None = None) -> None:
    path = Path(__file__).with_name(TABLE)
    table = make_table(root)
    parts = {key: json.dumps(value) for key, value in table.items()}
    for key in ("counts", "wrong_together"):  # a line a matrix: fit to be read
        rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in table[key].items())
        parts[key] = f"{{\n{rows}\n }}"
    body = ",\n".join(f" {json.dumps(key)}: {text}" for key, text in parts.items())
    path.write_text(f"{{\n{body}\n}}\n", encoding="utf-8")
    print(f"wrote {path.name}")


if __name__ == "__main__":
    _write(*sys.argv[1:2])
