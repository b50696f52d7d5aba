"""Cross entropy alone, the baseline of the course (lesson 00); see also docs/deviations.md."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method


class CrossEntropy(Method):
    """Take the given labels as they are: the loss is -log of the given class's probability."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch."""
        return F.cross_entropy(self.network(batch.images), batch.labels)
