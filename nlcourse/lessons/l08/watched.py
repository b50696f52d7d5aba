"""Cross entropy that keeps a record of each example, for the rankings of lesson 08."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...base import Batch, MakeNetwork
from ...methods.aum import margins
from ...methods.cross_entropy import CrossEntropy


class WatchedCrossEntropy(CrossEntropy):
    """Cross entropy that notes how each example stood just before its step of the latest epoch."""

    last_margins: Tensor
    last_losses: Tensor

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network, and room for a margin and a loss an example."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("last_margins", torch.zeros(num_examples))
        self.register_buffer("last_losses", torch.zeros(num_examples))

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross entropy; note margins and losses on the way."""
        logits = self.network(batch.images)
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        self.last_margins[batch.index] = margins(logits.detach(), batch.labels)
        self.last_losses[batch.index] = losses.detach()
        return losses.mean()
