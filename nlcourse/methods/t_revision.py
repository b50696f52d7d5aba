"""T-Revision: correct the loss by an estimated matrix, then let training correct the matrix.

Xia et al. 2019, "Are Anchor Points Really Indispensable in Label-Noise Learning?" (arXiv
1906.00189); their code: xiaoboxia/T-Revision. A baseline of seed 004; named in lessons 12 and 13,
its first two stages are lessons 03 and 06.

Three stages, here within one run of ``fit``:

1. `estimate_epochs` of cross entropy; the matrix T is read off the predictions at the anchor points
   (:mod:`nlcourse.noise.estimation`);
2. until `revise_epoch`: fresh weights, loss corrected by T;
3. from then on T + dT in its place; the slack dT, 0 at first, is learned with the network.

Where we differ: their loss adds dT to T again for each example of a batch, so that the k-th sees T
+ k dT, their normaliser divides columns, and nothing keeps a row of T + dT a distribution. Here dT
is added once, negative entries become 0 and rows are divided by their sums. Their stage 2 goes on
from the epoch of the estimate that was best on noisy validation labels, and stage 3 from the best
epoch of stage 2; ours begins stage 2 anew and goes on. In stage 3 of their first loss gradient
flows through the weights of the examples into the network, too; ours are numbers for it. They learn
stage 3 with Adam at 5e-7; here dT learns with the optimizer of ``fit``, `slack_rate` times as fast
as the network. The paper's stage 2 and 3 weigh the examples ("reweight"); "forward" is its other
variant.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from ..noise import estimation as noise_estimation

EPSILON = 1e-8  # keeps logarithms and divisions finite


def revised_matrix(matrix: Tensor, slack: Tensor) -> Tensor:
    """Return T + dT as a transition matrix: nothing negative, rows that sum to 1.

    Args:
        matrix: float ``(C, C)``, row = true class.
        slack: of the same shape; gradient flows into it.

    >>> revised_matrix(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, -0.75]]))
    tensor([[1., 0.]])
    """
    positive = (matrix + slack).clamp(min=0)
    return positive / positive.sum(dim=1, keepdim=True).clamp(min=EPSILON)


def forward_loss(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Mean of ``-log (T^T p)_y``: the network's p is about true labels, T^T p about given ones.

    The same as :func:`~.losses.forward_corrected_cross_entropy`, but for a matrix that is
    being learned and on the device: nothing is checked.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``, the given labels.
        matrix: float ``(C, C)``, row = true class.

    Returns:
        A scalar.
    """
    given = logits.softmax(dim=1) @ matrix
    return -_of_label(given, labels).clamp(min=EPSILON).log().mean()


def reweighted_loss(logits: Tensor, labels: Tensor, matrix: Tensor) -> Tensor:
    """Mean of ``w CE(p, y)`` with ``w = p_y / (T^T p)_y``: a label that T explains counts less.

    The weights are numbers: gradient flows into the network through the cross entropy alone, and
    into the matrix through the weights.

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``, the given labels.
        matrix: float ``(C, C)``, row = true class.

    Returns:
        A scalar.
    """
    p = logits.detach().softmax(dim=1)
    weights = _of_label(p, labels) / _of_label(p @ matrix, labels).clamp(min=EPSILON)
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


CORRECTIONS = {"forward": forward_loss, "reweight": reweighted_loss}


class TRevision(Method):
    """Forward correction (or reweighting) whose matrix is estimated, then revised.

    Args:
        estimate_epochs: epochs of cross entropy before the estimate, from 1.
        revise_epoch: the first epoch (from 0) in which the slack is learned.
        correction: "forward" or "reweight".
        quantile: of the estimate, see :func:`nlcourse.noise.estimation.anchor_points`.
        slack_rate: learning rate of the slack, as a part of the network's; above 0.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        *,
        estimate_epochs: int = 5,
        revise_epoch: int = 20,
        correction: str = "forward",
        quantile: float = noise_estimation.PATRINI_QUANTILE,
        slack_rate: float = 0.01,
    ) -> None:
        """Check the settings."""
        super().__init__()
        if not 1 <= estimate_epochs <= revise_epoch:
            raise ValueError(
                "Expected 1 <= `estimate_epochs` <= `revise_epoch`, got "
                f"{estimate_epochs} and {revise_epoch}"
            )
        if correction not in CORRECTIONS:
            known = ", ".join(CORRECTIONS)
            raise ValueError(f"Expected `correction` to be one of {known}, got {correction!r}")
        if not slack_rate > 0:
            raise ValueError(f"Expected `slack_rate` above 0, got {slack_rate}")
        self.estimate_epochs, self.revise_epoch = estimate_epochs, revise_epoch
        self.correction, self.quantile = correction, quantile
        self.slack_rate = slack_rate

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make the network, room for the matrix, and a slack of 0 that the optimizer finds."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("matrix", torch.eye(num_classes))
        self.raw_slack = nn.Parameter(torch.zeros(num_classes, num_classes))
        # Kept from the start: the fresh weights are those of the seed, whatever is drawn later.
        weights = self.network.state_dict()
        self.first_weights = {name: value.clone() for name, value in weights.items()}

    @property
    def slack(self) -> Tensor:
        """The slack dT, float ``(C, C)``."""
        # A gradient of the root once, and a step of the root once more: together the rate.
        return self.slack_rate**0.5 * self.raw_slack

    @property
    def transition(self) -> Tensor:
        """The matrix as it stands, float ``(C, C)``, row = true class."""
        return revised_matrix(self.matrix, self.slack)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Estimate the matrix when it is time, then go once through the data."""
        if self.epoch == self.estimate_epochs:
            self.estimate(data)
            self.network.load_state_dict(self.first_weights)
        super().train_epoch(data, step)

    @torch.no_grad()
    def estimate(self, data: TrainingData) -> None:
        """Read the matrix off the predictions on the training images."""
        self.eval()
        rows = torch.cat([self(batch.images) for batch in data])
        self.train()
        self.matrix.copy_(noise_estimation.estimate_transition(rows, quantile=self.quantile))

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the stage that the epoch belongs to."""
        logits = self.network(batch.images)
        if self.epoch < self.estimate_epochs:
            return F.cross_entropy(logits, batch.labels)
        matrix = self.transition if self.epoch >= self.revise_epoch else self.matrix
        return CORRECTIONS[self.correction](logits, batch.labels, matrix)


def _of_label(rows: Tensor, labels: Tensor) -> Tensor:
    return rows.gather(1, labels[:, None])[:, 0]
