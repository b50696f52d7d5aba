"""Numbers of the papers, as a small table in the package: what lesson 13 puts beside its own.

``paper_results.csv`` holds test accuracies on MNIST, Fashion-MNIST, CIFAR-10, CIFAR-10N and
mini-WebVision as the papers print them: a row a number, with the paper, its table, the kind of
accuracy, the network and where the number was read. They are facts to compare patterns with. They
are *not* comparable with each other, nor with a run on digits: :data:`SETTINGS` says what differs.

    rows = papers.load(paper="CDR", noise_type="pairflip")
    papers.ours("F-correction")   # 'forward-estimated': its name among our recipes
"""

from __future__ import annotations

from pathlib import Path

from . import results

FOLDER = Path(__file__).parent
TABLE = "paper_results"

SETTINGS = {
    "Co-teaching": "9-layer CNN, no augmentation; mean of the last ten epochs, 5 runs",
    "ELR, table 1": "ResNet-34, crop and flip; epoch chosen on noisy labels, 5 noises",
    "ELR, table 2": "PreAct ResNet-18, crop and flip; best epoch, chosen on the test set",
    "Joint optimization": "PreAct ResNet-32, crop and flip; best and last epoch, 5 runs",
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
    rows = results.load(TABLE, FOLDER)
    columns = tuple(rows[0])
    for column, value in which.items():
        if column not in columns:
            raise KeyError(f"{column!r} is no column; there are {', '.join(columns)}")
        rows = [row for row in rows if _fits(row[column], column, value)]
    return rows


def _fits(text: str, column: str, value: str | float) -> bool:
    if column == "paper":
        return text.startswith(str(value))
    if isinstance(value, str):
        return text == value
    return bool(text) and float(text) == value


def ours(method: str) -> str | None:
    """Return our recipe for what a paper calls a method; None where the course has none.

    >>> ours("Standard"), ours("Meta-Learning")
    ('cross-entropy', None)
    """
    for recipe, names in NAMES.items():
        if method in names:
            return recipe
    return None
