"""Training with another loss than cross entropy. Explained in lesson 06.

:class:`RobustLoss` takes any loss of :mod:`.losses` (or a student's). :class:`TruncatedGCE` is
Zhang and Sabuncu 2018 (arXiv 1805.07836), repository AlanChou/Truncated-Loss (a replication).
Symbols: p softmax, y given label, q and k of the truncated loss.
Where paper and code differ: docs/deviations.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect
from . import losses


class RobustLoss(Method):
    """Train with any loss of logits and labels.

    Args:
        loss: called as ``loss(logits, labels, **settings)``; returns one value an example, or a
            scalar for the batch.
        warm_up: epochs with cross entropy before it, for a loss that cannot begin
            (:func:`~nlcourse.methods.losses.determinant_mutual_information`).
        l1: weight of the sum of all absolute weights and biases, added to the loss. (l2 is
            ``weight_decay`` of ``fit``.)
        settings: further arguments of the loss: ``q=0.7``, ``matrix=...``
    """

    def __init__(
        self,
        loss: Callable[..., Tensor] = losses.generalized_cross_entropy,
        *,
        warm_up: int = 0,
        l1: float = 0.0,
        **settings: Any,
    ) -> None:
        """Hold the loss and its settings."""
        super().__init__()
        expect(warm_up >= 0 and l1 >= 0, "`warm_up` and `l1` of at least 0", f"{warm_up}, {l1}")
        self.rule, self.warm_up, self.l1, self.settings = loss, warm_up, l1, settings
        # Plain text, so that a checkpoint of other settings is told apart.
        told = ", ".join(f"{key}={_plain(value)}" for key, value in sorted(settings.items()))
        self.described = f"{getattr(loss, '__qualname__', repr(loss))}({told})"

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of the batch, cross entropy in the first `warm_up` epochs."""
        logits = self.network(batch.images)
        if self.epoch < self.warm_up:
            value = F.cross_entropy(logits, batch.labels)
        else:
            value = self.rule(logits, batch.labels, **self.settings).mean()
        if self.l1:
            value = value + self.l1 * sum(one.abs().sum() for one in self.network.parameters())
        return value


def _plain(value: object) -> str:
    return str(value.tolist()) if isinstance(value, Tensor) else repr(value)


class TruncatedGCE(Method):
    """Generalized cross entropy that leaves out examples with an unlikely label (algorithm 1).

    From epoch `start` on, and again every `every` epochs, an example with ``p_y <= k`` gets the
    weight 0.

    Args:
        q: of the loss, in [0, 1].
        k: threshold, in (0, 1).
        start: the first epoch that prunes; 40 of 120 in the paper for CIFAR-10.
        every: epochs between two prunings; 10 in the paper.
    """

    counts: Tensor

    def __init__(self, q: float = 0.7, k: float = 0.5, *, start: int = 40, every: int = 10) -> None:
        """Check the settings."""
        super().__init__()
        expect(0 <= q <= 1 and 0 < k < 1, "`q` in [0, 1] and `k` in (0, 1)", f"{q} and {k}")
        expect(
            start >= 0 and every >= 1, "`start` from 0 and `every` from 1", f"{start} and {every}"
        )
        self.q, self.k, self.start, self.every = q, k, start, every

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make a fresh network; at first every example counts."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("counts", torch.ones(num_examples, dtype=torch.bool))

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Prune when it is time, then go once through the data."""
        if self.epoch >= self.start and (self.epoch - self.start) % self.every == 0:
            self.eval()
            with torch.no_grad():
                for batch in data:
                    p_y = self(batch.images).gather(1, batch.labels[:, None])[:, 0]
                    self.counts[batch.index] = p_y > self.k
            self.train()
        super().train_epoch(data, step)

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum over those that count, divided by the whole batch, as in the paper."""
        counts = self.counts[batch.index]
        if self.epoch >= self.start:
            # Written without indexing, whose result would have a size that a GPU has to tell.
            self.selects = True
            self.selected[0, batch.index] = counts
        values = losses.generalized_cross_entropy(self.network(batch.images), batch.labels, self.q)
        return (values * counts).mean()
