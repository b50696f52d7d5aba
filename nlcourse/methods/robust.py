"""Training with another loss than cross entropy. Explained in lesson 06.

:class:`RobustLoss` takes any loss of :mod:`.losses` (or a student's); :class:`TruncatedGCE` and
:class:`ForwardCorrection` are the two methods of that lesson that need more than a loss. The
papers are named in :mod:`.losses`.

Where papers and code differ:

* truncated GCE: the paper alternates between the weights and the network, and starts with all
  examples. The replication that everybody uses prunes with the network of the best *test* epoch;
  we take the network as it is. We prune with a running network that has already memorized a
  little, so `start` matters.
* forward correction: the paper trains twice, once to estimate the matrix, once to use it. So do we,
  within one run: after `estimate_epochs` the network starts again from fresh weights. The momentum
  of the first part stays, and is gone after a few steps. Their code estimates from predictions
  that it has overwritten (:mod:`nlcourse.noise.estimation`); we follow the paper.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import noise
from ..base import Batch, Method, Step, TrainingData
from ..noise import estimation as noise_estimation
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

    Raises:
        ValueError: a negative `warm_up` or `l1`.
    """

    def __init__(
        self,
        loss: Callable[..., Tensor] = losses.generalized_cross_entropy,
        *,
        warm_up: int = 0,
        l1: float = 0.0,
        **settings,
    ) -> None:
        """Hold the loss and its settings."""
        super().__init__()
        if warm_up < 0 or not l1 >= 0:
            raise ValueError(f"Expected `warm_up` and `l1` of at least 0, got {warm_up} and {l1}")
        self.rule, self.warm_up, self.l1 = loss, warm_up, l1
        self.settings = settings
        # Plain text, so that a checkpoint of other settings is told apart.
        name = getattr(loss, "__qualname__", repr(loss))
        told = [f"{key}={_plain(value)}" for key, value in sorted(settings.items())]
        self.described = f"{name}({', '.join(told)})"

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of the batch, cross entropy in the first `warm_up` epochs."""
        logits = self.network(batch.images)
        if self.epoch < self.warm_up:
            value = F.cross_entropy(logits, batch.labels)
        else:
            value = self.rule(logits, batch.labels, **self.settings).mean()
        return value + self.l1 * self._size() if self.l1 else value

    def _size(self) -> Tensor:
        return sum(parameter.abs().sum() for parameter in self.network.parameters())


def _plain(value: object) -> str:
    return str(value.tolist()) if isinstance(value, Tensor) else repr(value)


class TruncatedGCE(Method):
    """Generalized cross entropy that leaves out examples with an unlikely label.

    From epoch `start` on, and again every `every` epochs, an example whose label has a probability
    of at most `k` gets the weight 0 (Zhang and Sabuncu 2018, algorithm 1).

    Args:
        q: of the loss, in [0, 1].
        k: threshold, in (0, 1).
        start: the first epoch that prunes; 40 of 120 in the paper for CIFAR-10.
        every: epochs between two prunings; 10 in the paper.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(self, q: float = 0.7, k: float = 0.5, *, start: int = 40, every: int = 10) -> None:
        """Check the settings."""
        super().__init__()
        if not (0 <= q <= 1 and 0 < k < 1):
            raise ValueError(f"Expected `q` in [0, 1] and `k` in (0, 1), got {q} and {k}")
        if start < 0 or every < 1:
            raise ValueError(f"Expected `start` from 0 and `every` from 1, got {start} and {every}")
        self.q, self.k, self.start, self.every = q, k, start, every

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make a fresh network; at first every example counts."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("counts", torch.ones(num_examples, dtype=torch.bool))

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Prune when it is time, then go once through the data."""
        if self.epoch >= self.start and (self.epoch - self.start) % self.every == 0:
            self.prune(data)
        super().train_epoch(data, step)

    @torch.no_grad()
    def prune(self, data: TrainingData) -> None:
        """Let only those examples count whose label the network finds likelier than `k`."""
        self.eval()
        for batch in data:
            p = self(batch.images).gather(1, batch.labels[:, None])[:, 0]
            self.counts[batch.index] = p > self.k
        self.train()

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of those that count; the rest adds a constant that moves nothing.

        Divided by the whole batch, as in the paper's sum: what is left out is not made up for.
        """
        counts = self.counts[batch.index]
        if self.epoch >= self.start:
            # Written without indexing, whose result would have a size that a GPU has to tell.
            self.selects = True
            self.selected[0, batch.index] = counts
        values = losses.generalized_cross_entropy(self.network(batch.images), batch.labels, self.q)
        return (values * counts).mean()


class ForwardCorrection(Method):
    """Cross entropy with the forward correction, by a given or an estimated matrix.

    Args:
        matrix: float ``(C, C)``, row = true class. None estimates it: `estimate_epochs` of cross
            entropy, the matrix off the predictions on the training images, and a fresh start.
        estimate_epochs: epochs before the estimate. Few: a network that has memorized its labels
            says that none is wrong.
        quantile: of the estimate, see :func:`nlcourse.noise.estimation.anchor_points`.
        loss: called as ``loss(logits, labels, matrix)``; a student's own fits here.

    Raises:
        TypeError, ValueError: a matrix that is no transition matrix, or no epochs to estimate it.
    """

    def __init__(
        self,
        matrix: Tensor | None = None,
        *,
        estimate_epochs: int = 5,
        quantile: float = noise_estimation.PATRINI_QUANTILE,
        loss: Callable[..., Tensor] = losses.forward_corrected_cross_entropy,
    ) -> None:
        """Check the settings."""
        super().__init__()
        if matrix is not None:
            matrix = noise.check_transition(matrix).float()
        elif estimate_epochs < 1:
            raise ValueError(f"Expected `estimate_epochs` of at least 1, got {estimate_epochs}")
        self.given, self.rule = matrix, loss
        self.estimate_epochs = estimate_epochs if matrix is None else 0
        self.quantile = quantile
        self.described = "estimated" if matrix is None else _plain(matrix)

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make a fresh network, and room for the matrix."""
        super().build(make_network, num_examples, num_classes)
        if self.given is not None:
            noise.check_transition(self.given, num_classes)
        matrix = torch.eye(num_classes) if self.given is None else self.given.clone()
        self.register_buffer("matrix", matrix)
        self.matrix_now = matrix
        # Kept from the start: the fresh weights are those of the seed, whatever is drawn later.
        weights = self.network.state_dict() if self.given is None else {}
        self.first_weights = {name: value.clone() for name, value in weights.items()}

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Estimate the matrix when it is time, then go once through the data."""
        if self.given is None and self.epoch == self.estimate_epochs:
            self.estimate(data)
            self.network.load_state_dict(self.first_weights)
        self.matrix_now = self.matrix.cpu()
        super().train_epoch(data, step)

    @torch.no_grad()
    def estimate(self, data: TrainingData) -> None:
        """Read the matrix off the predictions on the training images."""
        self.eval()
        rows = torch.cat([self(batch.images).cpu() for batch in data])
        self.train()
        estimate = noise_estimation.estimate_transition(rows, quantile=self.quantile)
        self.matrix.copy_(estimate)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean corrected loss; plain cross entropy before the estimate."""
        logits = self.network(batch.images)
        if self.epoch < self.estimate_epochs:
            return F.cross_entropy(logits, batch.labels)
        # Our own loss checks the matrix, which on the CPU makes no GPU wait; a student's
        # multiplies with it where the logits are.
        ours = self.rule is losses.forward_corrected_cross_entropy
        matrix = self.matrix_now if ours else self.matrix
        return self.rule(logits, batch.labels, matrix).mean()
