"""What a training run leaves behind: one row an epoch. Explained in lesson 00."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from ..base import expect

COLUMNS = (
    "epoch",
    "seconds",
    "lr",
    "train_loss",
    "given_accuracy",
    "true_accuracy",
    "clean_accuracy",
    "test_accuracy",
    "wrong_as_true",
    "wrong_as_given",
    "wrong_as_other",
    "label_precision",
    "label_recall",
    "label_recovery",
)
"""In this order: the epoch (from 1) and what it took; the learning rate and the mean training
loss; the share of training predictions that equal the given label, the true label, and (among the
correctly labelled) the label; the test accuracy; for the wrongly labelled examples the shares
predicted as the true class, as the given wrong class (memorized) and as something else (figure 1
of the ELR paper, arXiv 2007.00151); for methods that select examples the share of right labels
among the selected and the share of all right labels that was selected; for methods that change
labels the share of the current labels that are true. Shares lie in 0..1; what has no meaning for a
run (no wrong label, no selection, labels left as they are) is nan."""


class History:
    """The rows of a run, in order.

    Attributes:
        rows: one dict an epoch, with the keys of :data:`COLUMNS`.
        settings: what the run was made with (plain values).
        stopped: "" for a run that finished, else why it ended early.
    """

    def __init__(
        self, rows: list[dict[str, float]] | None = None, settings: dict[str, object] | None = None
    ) -> None:
        """Make an empty history, or one from rows."""
        self.rows: list[dict[str, float]] = list(rows or [])
        self.settings: dict[str, object] = dict(settings or {})
        self.stopped = ""

    def __len__(self) -> int:
        """Return the number of finished epochs."""
        return len(self.rows)

    def __getitem__(self, column: str) -> list[float]:
        """Return one column, a value an epoch."""
        if column not in COLUMNS:
            raise KeyError(f"{column!r} is no column of a history: there are {', '.join(COLUMNS)}")
        return [row[column] for row in self.rows]

    @property
    def last(self) -> dict[str, float]:
        """The row of the last epoch."""
        self._refuse_empty()
        return self.rows[-1]

    def best(self, column: str = "test_accuracy") -> float:
        """Return the highest value of a column.

        For test accuracy this is an oracle's choice of epoch: it looks at the test set.
        """
        self._refuse_empty()
        values = [value for value in self[column] if not math.isnan(value)]
        return max(values, default=math.nan)

    def mean_last(self, column: str = "test_accuracy", count: int = 10) -> float:
        """Return the mean over the last `count` epochs (the Co-teaching paper reports ten)."""
        self._refuse_empty()
        values = self[column][-count:]
        return sum(values) / len(values)

    def table(self, every: int | None = None) -> str:
        """Return a text table of the main columns: every so many epochs, else about ten rows."""
        names = ("epoch", "train_loss", "given_accuracy", "test_accuracy", "wrong_as_given")
        every = every or max(1, len(self) // 10)
        shown = [row for row in self.rows if row["epoch"] % every == 0 or row is self.rows[-1]]
        lines = ["  ".join(f"{name:>14}" for name in names)]
        for row in shown:
            numbers = [f"{row['epoch']:>14.0f}", f"{row['train_loss']:>14.3f}"]
            numbers += [f"{100 * row[name]:>12.1f} %" for name in names[2:]]
            lines.append("  ".join(numbers))
        return "\n".join(lines)

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV; numbers keep every digit."""
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)

    @classmethod
    def from_csv(cls, path: str | Path) -> History:
        """Read what :meth:`to_csv` wrote."""
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
            expect(not missing, f"a history in {path}", f"no column {missing[:1]}")
            return cls([{name: float(row[name]) for name in COLUMNS} for row in reader])

    def __repr__(self) -> str:
        """Say in one line how the run went."""
        if not self.rows:
            return "History of 0 epochs"
        note = f", {self.stopped}" if self.stopped else ""
        return (
            f"History of {len(self)} epochs: test accuracy best {100 * self.best():.1f} %, "
            f"last {100 * self.last['test_accuracy']:.1f} %{note}"
        )

    def _refuse_empty(self) -> None:
        expect(
            bool(self.rows), "a history with an epoch", "an empty one: no epoch has finished yet"
        )
