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
    """Hold out a `share` in (0, 1) of the training set, drawn with a seed.

    Returns the data set without these examples, and their positions in `data`, int64.
    """
    size = len(data.labels)
    count = int(share * size)
    found = f"{share} of {size}"
    expect(0 < count < size, "`share` in (0, 1) with something on either side", found)
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
        """Return a column of the history in the best epoch."""
        wanted, why = len(self.accuracies), "a resumed run is not watched from its start"
        expect(len(history) == wanted, f"the history of {wanted} watched epochs", len(history), why)
        return history[column][self.best_epoch - 1]
