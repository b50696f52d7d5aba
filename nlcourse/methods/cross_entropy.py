"""Plain training with cross entropy, the yardstick of the course. Explained in lesson 00."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method


class CrossEntropy(Method):
    """Believe every given label: the loss is -log of the probability of the given class."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch."""
        return F.cross_entropy(self.network(batch.images), batch.labels)
