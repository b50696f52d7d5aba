"""Step 2 of joint optimization (arXiv 1803.11364, lesson 09); see also docs/deviations.md."""

from __future__ import annotations

from torch import Tensor

from ..base import Batch, MakeNetwork, Method, expect, expect_rows
from .joint import label_loss


class FromSoftLabels(Method):
    """A fresh network learns with L_c alone from fixed label rows.

    Args:
        labels: float ``(N, C)``, rows summing to 1, in the order of the training set; for example
            ``current_labels`` of a finished :class:`~.joint.JointOptimization`.
    """

    current_labels: Tensor

    def __init__(self, labels: Tensor) -> None:
        """Keep a copy of the labels."""
        super().__init__()
        expect_rows("labels", labels)
        self.register_buffer("current_labels", labels.detach().clone().float())

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make a network; the labels have to belong to these data."""
        super().build(make_network, num_examples, num_classes)
        shape, size = tuple(self.current_labels.shape), (num_examples, num_classes)
        expect(shape == size, f"`labels` of shape {size}", shape, "one row an example")

    def loss(self, batch: Batch) -> Tensor:
        """Return L_c; the labels of the batch are not used."""
        return label_loss(self.network(batch.images), self.current_labels[batch.index])
