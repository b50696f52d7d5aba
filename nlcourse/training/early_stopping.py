"""Early stopping on labels that are as noisy as the rest.

A part of the training data is held out, with its given labels. After each epoch the network is
asked for them, and the epoch that repeats most of them is taken. No true label and no test image
has a say. So do GCE, T-Revision, ELR and CDR in their papers. Explained in lessons 06 and 12.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..base import Method, expect
from ..datasets import Dataset
from .batches import Images
from .history import History
from .measure import predict

SHARE = 0.1  # of the training data, in all of these papers


def hold_out(data: Dataset, share: float = SHARE, seed: int = 0) -> tuple[Dataset, Tensor]:
    """Split the training set by chance.

    Args:
        data: a :class:`~nlcourse.datasets.Dataset` with given labels.
        share: of the examples to hold out, in (0, 1); at least one, and one must stay.
        seed: the same seed holds the same examples out.

    Returns:
        The data set without them, and their positions in `data`, int64.

    Raises:
        ValueError: a share that leaves one of the two parts empty.
    """
    size = len(data.labels)
    count = int(share * size)
    what = "`share` in (0, 1) with something on either side"
    expect(0 < count < size, what, f"{share} of {size}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    out, kept = order[:count], order[count:]
    part = dataclasses.replace(
        data, images=data.images[kept], labels=data.labels[kept], true_labels=data.true_labels[kept]
    )
    return part, out


class EarlyStopping:
    """Watches a run on the held-out labels: hand it to ``fit`` as `on_epoch`.

    >>> watch = EarlyStopping(method, noisy)                            # doctest: +SKIP
    >>> history = fit(method, watch.training_part, on_epoch=watch)      # doctest: +SKIP
    >>> watch.best_epoch, watch.chosen(history)                         # doctest: +SKIP
    (7, 0.942)

    The run goes on to its last epoch: only then is it known which one was the best.

    Args:
        method: the one that is trained.
        data: all of the noisy training data.
        share: of it to hold out.
        seed: decides which examples.

    Attributes:
        training_part: what is left to train on.
        accuracies: share of the held-out labels that the method predicts, a value an epoch.
    """

    def __init__(self, method: Method, data: Dataset, share: float = SHARE, seed: int = 0) -> None:
        """Split the data."""
        self.method = method
        self.training_part, out = hold_out(data, share, seed)
        self.images = data.images[out]
        self.labels = data.labels[out]
        self.statistics = data.mean, data.std
        self.accuracies: list[float] = []

    def __call__(self, history: History) -> None:
        """Measure after an epoch."""
        device = next(self.method.parameters()).device
        images = Images(self.images, *self.statistics, device)
        right = predict(self.method.eval(), images) == self.labels.to(device)
        self.accuracies.append(right.float().mean().item())

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, that predicts most of the held-out labels; the first of several."""
        expect(bool(self.accuracies), "a watched run (train with `on_epoch=` this)", "no epoch yet")
        return self.accuracies.index(max(self.accuracies)) + 1

    def chosen(self, history: History, column: str = "test_accuracy") -> float:
        """Return a column of the history in the best epoch.

        Raises:
            ValueError: the history has other epochs than those that were watched.
        """
        expect(
            len(history) == len(self.accuracies),
            f"the history of the watched run, {len(self.accuracies)} epochs",
            len(history),
            "a run that was resumed is not watched from its start",
        )
        return history[column][self.best_epoch - 1]
