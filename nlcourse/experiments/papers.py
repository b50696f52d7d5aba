"""Numbers of the papers, as a small table in the package: what lesson 13 puts beside its own.

``paper_results.csv`` holds test accuracies on MNIST, Fashion-MNIST, CIFAR-10, CIFAR-10N and
mini-WebVision as the papers print them: a row a number, with the paper, its table, the kind of
accuracy, the network and where the number was read. They are facts to compare patterns with. They
are *not* comparable with each other, nor with a run on digits: :data:`SETTINGS` says what differs.

The kind of accuracy (``metric``) is one of "best" (epoch), "last" (epoch), "last ten" (the mean of
the last ten epochs) and "chosen" (the epoch that is best on held-out *noisy* labels). DivideMix
calls "last" what is the mean of its last ten.

    rows = papers.load(paper="CDR", noise_type="pairflip")
    papers.ours("F-correction")   # 'forward-estimated': its name among our recipes
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from . import results

FOLDER = Path(__file__).parent

SETTINGS = {
    "Co-teaching": "9-layer CNN, no augmentation; mean of the last ten epochs, 5 runs",
    "ELR, table 1": "ResNet-34, crop and flip; epoch chosen on noisy labels, 5 noises",
    "ELR, table 2": "PreAct ResNet-18, crop and flip; best epoch, chosen on the test set",
    "Joint optimization": "PreAct ResNet-32, crop and flip; last, and best on 5,000 clean labels",
    "CDR": "LeNet (MNIST), ResNet-50 (else); epoch chosen on noisy labels, 5 runs",
    "DivideMix": "PreAct ResNet-18, crop and flip; best epoch and mean of the last ten, 1 run",
    "mixup": "PreAct ResNet-18; best and last epoch",
    "AUM": "ResNet-32, crop and flip; last epoch",
    "CIFAR-N": "ResNet-34 (DivideMix: PreAct ResNet-18); best epoch, chosen on the test set",
    "WebVision": "InceptionResNetV2; best epoch",
}
"""What lies behind the numbers of a paper: network, augmentation, and which accuracy it is."""

NAMES = {
    "cross-entropy": ("Cross entropy", "Cross Entropy", "Cross-Entropy", "CE", "Standard", "ERM"),
    "bootstrap-hard": ("Bootstrap",),
    "forward-estimated": ("F-correction", "Forward"),
    "gce": ("GCE",),
    "sce": ("SL",),
    "nce-mae": ("APL",),
    "dmi": ("DMI",),
    "mixup": ("Mixup",),
    "decoupling": ("Decoupling",),
    "mentornet": ("MentorNet",),
    "co-teaching": ("Co-teaching",),
    "co-teaching-plus": ("Co-teaching+",),
    "joint-optimization": ("Joint", "Joint-Optim", "Joint optimization"),
    "elr": ("ELR",),
    "elr-plus": ("ELR+",),
    "dividemix": ("DivideMix",),
    "cdr": ("CDR",),
    "t-revision": ("T-Revision",),
    "d2l": ("D2L",),
    "iterative-cv": ("Iterative-CV",),
}
"""Our recipe, and what the papers call that method. Settings differ; "Bootstrap" may be either."""


def load(**which: str | float) -> list[dict[str, str]]:
    """Return rows of the table, as text.

    Args:
        which: value by column (``paper``, ``table``, ``dataset``, ``noise_type``, ``noise_rate``,
            ``method``, ``metric``); numbers are compared as numbers, and of ``paper`` the beginning
            is enough.

    Raises:
        KeyError: there is no such column.
    """
    rows = results.load("paper_results", FOLDER)
    for column in which:
        if column not in rows[0]:
            raise KeyError(f"{column!r} is no column; there are {', '.join(rows[0])}")
    begins = str(which.pop("paper", ""))
    return [
        row
        for row in rows
        if row["paper"].startswith(begins)
        and all(results.same(row[column], value) for column, value in which.items())
    ]


def ours(method: str) -> str | None:
    """Return our recipe for what a paper calls a method; None where the course has none.

    >>> ours("Standard"), ours("Meta-Learning")
    ('cross-entropy', None)
    """
    return next((recipe for recipe, names in NAMES.items() if method in names), None)


class Gain(NamedTuple):
    """What a method adds to plain cross entropy, in points."""

    method: str  # as the paper calls it
    paper: float  # in the paper's table
    ours: tuple[float, ...]  # in rows of ours, one for each column


def gains(
    rows: Sequence[dict[str, str]],
    noise: tuple[str, object],
    columns: Sequence[str] = ("mean_of_last_ten", "best"),
    **which: str | float,
) -> tuple[float, list[Gain]]:
    """Return the gains over cross entropy in a paper's table, beside ours.

    Args:
        rows: of ours, with the columns ``method``, ``noise`` and ``rate``; means are taken.
        noise: kind and rate that the gains of ours are of.
        columns: of ours.
        which: picks a table of one paper, with one noise, as for :func:`load`.

    Returns:
        The paper's cross entropy (%), and a gain for each method that stands in both.

    Raises:
        ValueError: the paper's rows hold no cross entropy, or several.
    """
    table = load(**which)
    plain = [float(row["accuracy"]) for row in table if ours(row["method"]) == "cross-entropy"]
    if len(plain) != 1:
        raise ValueError(f"Expected one cross entropy in the rows of {which}, got {len(plain)}")

    def measured(recipe: str | None, column: str) -> float:
        kind, rate = noise
        found = results.numbers(rows, column, method=recipe, noise=kind, rate=rate)
        return 100 * mean(found) if found else float("nan")

    base = [measured("cross-entropy", column) for column in columns]
    known = {row["method"] for row in rows} - {"cross-entropy"}
    told = []
    for row in table:
        if (recipe := ours(row["method"])) in known:
            own = [measured(recipe, column) for column in columns]
            over = tuple(one - other for one, other in zip(own, base, strict=True))
            told.append(Gain(row["method"], float(row["accuracy"]) - plain[0], over))
    return plain[0], told
