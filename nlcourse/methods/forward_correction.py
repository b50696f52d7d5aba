"""Forward correction: predict the given label through the transition matrix.

Patrini et al. 2017, "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach"
(arXiv 1609.03683); their code: giorgiop/loss-correction. Explained in lesson 06, the estimate of
the matrix in lesson 03. Symbols: T transition matrix (row = true class), p softmax.
Where paper and code differ: docs/deviations.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect
from ..noise import check_transition, estimation
from .losses import forward_corrected_cross_entropy


class ForwardCorrection(Method):
    """Cross entropy with the forward correction, by a given or an estimated matrix.

    Args:
        matrix: float ``(C, C)``, row = true class. None estimates it: `estimate_epochs` of cross
            entropy, T off the predictions on the training images, and a fresh start.
        estimate_epochs: epochs before the estimate. Few: a network that has memorized its labels
            says that none is wrong.
        quantile: of the estimate, see :func:`nlcourse.noise.estimation.anchor_points`.
        loss: called as ``loss(logits, labels, matrix)``; a student's own fits here.
    """

    matrix: Tensor

    def __init__(
        self,
        matrix: Tensor | None = None,
        *,
        estimate_epochs: int = 5,
        quantile: float = estimation.PATRINI_QUANTILE,
        loss: Callable[..., Tensor] = forward_corrected_cross_entropy,
    ) -> None:
        """Check the settings."""
        super().__init__()
        expect(estimate_epochs >= 1, "`estimate_epochs` of at least 1", estimate_epochs)
        self.given = None if matrix is None else check_transition(matrix).float()
        self.rule, self.quantile = loss, quantile
        self.estimate_epochs = 0 if self.given is not None else estimate_epochs
        self.described = "estimated" if self.given is None else str(self.given.tolist())

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make a fresh network, and room for the matrix."""
        super().build(make_network, num_examples, num_classes)
        matrix = torch.eye(num_classes)
        if self.given is not None:
            matrix = check_transition(self.given, num_classes).float()
        self.register_buffer("matrix", matrix)
        self.matrix_now = self.matrix  # a copy on the CPU: our own loss checks it there
        # Kept from the start: the fresh weights are those of the seed, whatever is drawn later.
        self.first_weights = {n: w.clone() for n, w in self.network.state_dict().items()}

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Estimate the matrix when it is time and start afresh, then go once through the data."""
        if self.given is None and self.epoch == self.estimate_epochs:
            self.eval()
            with torch.no_grad():
                p = torch.cat([self(batch.images) for batch in data])
            self.train()
            self.matrix.copy_(estimation.estimate_transition(p, quantile=self.quantile))
            self.network.load_state_dict(self.first_weights)
        self.matrix_now = self.matrix.cpu()
        super().train_epoch(data, step)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean corrected loss; plain cross entropy before the estimate."""
        logits = self.network(batch.images)
        if self.epoch < self.estimate_epochs:
            return F.cross_entropy(logits, batch.labels)
        # Our own loss checks the matrix, which on the CPU makes no GPU wait; a student's
        # multiplies with it where the logits are.
        ours = self.rule is forward_corrected_cross_entropy
        return self.rule(logits, batch.labels, self.matrix_now if ours else self.matrix).mean()
