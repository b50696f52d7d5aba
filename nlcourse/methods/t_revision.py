"""T-Revision: correct the loss by an estimated matrix, then let training correct the matrix.

Xia et al. 2019, "Are Anchor Points Really Indispensable in Label-Noise Learning?" (arXiv
1906.00189); their code: xiaoboxia/T-Revision. A baseline of seed 004; named in lessons 12 and 13,
its first two stages are lessons 03 and 06.

Symbols: T transition matrix (row = true class), dT slack, p softmax, y given label. Three stages,
here within one run of ``fit``:

1. `estimate_epochs` of cross entropy; T is read off the predictions at the anchor points;
2. until `revise_epoch`: fresh weights, loss corrected by T;
3. from then on T + dT in its place; the slack dT, 0 at first, is learned with the network.

Where paper and code differ: docs/deviations.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, expect, expect_one_of
from ..noise.estimation import PATRINI_QUANTILE
from .forward_correction import ForwardCorrection

EPSILON = 1e-8  # keeps logarithms and divisions finite


def revised_matrix(matrix: Tensor, slack: Tensor) -> Tensor:
    """Return T + dT as a transition matrix ``(C, C)``: nothing negative, rows that sum to 1.

    >>> revised_matrix(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, -0.75]]))
    tensor([[1., 0.]])
    """
    positive = (matrix + slack).clamp(min=0)
    return positive / positive.sum(dim=1, keepdim=True).clamp(min=EPSILON)


def _of_label(rows: Tensor, labels: Tensor) -> Tensor:
    return rows.gather(1, labels[:, None])[:, 0]


def forward_loss(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Mean of ``-log (T^T p)_y``: the network's p is about true labels, T^T p about given ones.

    The same as :func:`~.losses.forward_corrected_cross_entropy`, but for a matrix ``(C, C)`` that
    is being learned and on the device: nothing is checked.
    """
    given = logits.softmax(dim=1) @ matrix
    return -_of_label(given, labels).clamp(min=EPSILON).log().mean()


def reweighted_loss(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Mean of ``w CE(p, y)`` with ``w = p_y / (T^T p)_y``: a label that T explains counts less.

    The weights are numbers: gradient flows into the network through the cross entropy alone, and
    into the matrix through the weights.
    """
    p = logits.detach().softmax(dim=1)
    weights = _of_label(p, labels) / _of_label(p @ matrix, labels).clamp(min=EPSILON)
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


CORRECTIONS = {"forward": forward_loss, "reweight": reweighted_loss}


class TRevision(ForwardCorrection):
    """Forward correction (or reweighting) whose matrix is estimated, then revised.

    Args:
        estimate_epochs: epochs of cross entropy before the estimate, from 1.
        revise_epoch: the first epoch (from 0) in which the slack is learned.
        correction: "forward" or "reweight".
        quantile: of the estimate, see :func:`nlcourse.noise.estimation.anchor_points`.
        slack_rate: learning rate of the slack, as a part of the network's; above 0.
    """

    def __init__(
        self,
        *,
        estimate_epochs: int = 5,
        revise_epoch: int = 20,
        correction: str = "forward",
        quantile: float = PATRINI_QUANTILE,
        slack_rate: float = 0.01,
    ) -> None:
        """Check the settings; the estimate and the fresh start are those of the base class."""
        expect_one_of("correction", correction, CORRECTIONS)
        super().__init__(
            estimate_epochs=estimate_epochs, quantile=quantile, loss=CORRECTIONS[correction]
        )
        expect(revise_epoch >= estimate_epochs, "`revise_epoch` after the estimate", revise_epoch)
        expect(slack_rate > 0, "`slack_rate` above 0", slack_rate)
        self.revise_epoch, self.correction, self.slack_rate = revise_epoch, correction, slack_rate

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network, room for the matrix, and a slack of 0 that the optimizer finds."""
        super().build(make_network, num_examples, num_classes)
        self.raw_slack = nn.Parameter(torch.zeros(num_classes, num_classes))

    @property
    def slack(self) -> Tensor:
        """The slack dT, float ``(C, C)``."""
        # A gradient of the root once, and a step of the root once more: together the rate.
        root: float = self.slack_rate**0.5
        return root * self.raw_slack

    @property
    def transition(self) -> Tensor:
        """The matrix as it stands, float ``(C, C)``, row = true class."""
        return revised_matrix(self.matrix, self.slack)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the stage that the epoch belongs to."""
        logits = self.network(batch.images)
        if self.epoch < self.estimate_epochs:
            return F.cross_entropy(logits, batch.labels)
        matrix = self.transition if self.epoch >= self.revise_epoch else self.matrix
        return self.rule(logits, batch.labels, matrix)
