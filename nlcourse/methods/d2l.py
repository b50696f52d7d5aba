"""D2L: stop believing the labels when the network begins to use more dimensions for them.

Ma et al. 2018, "Dimensionality-Driven Learning with Noisy Labels" (ICML 2018, arXiv 1806.02612);
their code: xingjunm/dimensionality-driven-learning. A baseline of the seeds' tables; named in
lesson 13.

While a network learns simple patterns, the images of a batch lie close to a surface of few
dimensions in its last hidden layer. Memorizing single labels needs more. So:

1. after each epoch estimate the local intrinsic dimensionality (LID) of those features;
2. the turning point: LID exceeds the mean of the last `window` epochs by two standard deviations;
3. go back by one epoch, and from then on train on ``alpha y + (1 - alpha) onehot(argmax p)`` with
   ``alpha = exp(-(epoch / epochs) * LID / min LID)``.

Where paper and code differ we follow the paper: cross entropy before the turning point (later
versions of the code take the symmetric one). We differ from the code in when that point may come:
its window begins at `start`, ours may reach back before it. With 5 and 5 the code may turn from
epoch 10 on (0 is the first), ours from epoch 5 on. The features are those of the batches of the
next epoch, predicted without dropout; alpha is renewed once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from .features import features

NEIGHBOURS = 20  # k of the paper
BATCHES = 10  # an estimate looks at this many batches
DEVIATIONS = 2.0  # above the mean of the window


def intrinsic_dimension(features: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Local intrinsic dimensionality at each point, among the points of its batch.

    ``LID(x) = -1 / mean_j log(r_j / r_k)`` with ``r_1 <= ... <= r_k`` the distances to the k
    nearest others: how fast neighbours become more with the distance (maximum likelihood).

    Args:
        features: float ``(n, d)``.
        neighbours: k, from 2 to n - 1.

    Returns:
        ``(n,)``, above 0. A point with k others at one distance has a very large LID.

    Raises:
        ValueError: shapes or a number of neighbours that have no meaning.

    >>> on_a_line = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    >>> intrinsic_dimension(on_a_line, 2)[0]
    tensor(2.8854)
    """
    if features.dim() != 2:
        raise ValueError(f"Expected `features` of shape (n, d), got {tuple(features.shape)}")
    if not 2 <= neighbours < len(features):
        raise ValueError(
            f"Expected `neighbours` from 2 to {len(features) - 1}, one less than the points, got "
            f"{neighbours}"
        )
    # By differences, not by the inner product: near neighbours would lose their digits.
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(math.inf)
    nearest = distances.topk(neighbours, dim=1, largest=False).values
    tiny = torch.finfo(nearest.dtype).tiny
    ratios = (nearest.clamp(min=tiny) / nearest[:, -1:].clamp(min=tiny)).log()
    return -1 / ratios.mean(dim=1).clamp(max=-torch.finfo(nearest.dtype).eps)


def is_turning_point(dimensions: Tensor, window: int = 5) -> bool:
    """Say whether the last of some dimensions rises above those before it.

    Args:
        dimensions: float ``(k,)``, one an epoch, the oldest first.
        window: so many epochs before the last make mean and standard deviation.

    Returns:
        False as long as there are too few.

    >>> is_turning_point(torch.tensor([5.0, 4.0, 4.0, 5.0, 9.0]), window=4)
    True
    """
    if len(dimensions) <= window:
        return False
    before = dimensions[-1 - window : -1]
    return bool(dimensions[-1] > before.mean() + DEVIATIONS * before.std(correction=0))


def label_weight(epoch: int, epochs: int, dimension: float, lowest: float) -> float:
    """Share alpha of the given label in the target: ``exp(-(epoch / epochs) LID / min LID)``.

    Args:
        epoch: 0 in the first epoch, 1 in the second, ...
        epochs: T, of the whole training.
        dimension: LID now.
        lowest: the least LID so far, above 0.

    Returns:
        A number in (0, 1].

    >>> label_weight(0, 60, 4.0, 2.0), round(label_weight(30, 60, 4.0, 2.0), 4)
    (1.0, 0.3679)
    """
    if lowest <= 0 or epochs < 1:
        raise ValueError(f"Expected `lowest` above 0 and `epochs` from 1, got {lowest}, {epochs}")
    return math.exp(-epoch / epochs * dimension / lowest)


class D2L(Method):
    """Cross entropy until the turning point, then on labels mixed with predictions.

    Args:
        epochs: of the whole training: tell it what you tell ``fit``.
        start: no turning point before this epoch; 5 for MNIST, 40 for CIFAR-10 in the paper. For
            the first epoch of the code take its number plus `window`.
        window: epochs that the turning point is measured against.
        neighbours: of the estimate; batches must be larger than that.
        dimension: a student's own :func:`intrinsic_dimension` fits here.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        epochs: int = 60,
        *,
        start: int = 5,
        window: int = 5,
        neighbours: int = NEIGHBOURS,
        dimension: Callable[[Tensor, int], Tensor] = intrinsic_dimension,
    ) -> None:
        """Check the settings."""
        super().__init__()
        if epochs < 1 or start < 0 or window < 2 or neighbours < 2:
            raise ValueError(
                "Expected `epochs` from 1, `start` from 0, `window` and `neighbours` from 2, got "
                f"{epochs}, {start}, {window} and {neighbours}"
            )
        self.epochs, self.start, self.window = epochs, start, window
        self.neighbours, self.dimension = neighbours, dimension

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make the network, a copy to go back to, and room for the dimensions."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("dimensions", torch.full((self.window + 1,), math.nan))
        self.register_buffer("lowest", torch.tensor(math.inf))
        self.register_buffer("turned_at", torch.tensor(-1))
        self.alpha = 1.0
        self.saved = nn.Module()  # buffers with the weights one epoch ago
        for number, value in enumerate(self.network.state_dict().values()):
            self.saved.register_buffer(f"of_{number}", value.clone())

    @property
    def turned(self) -> bool:
        """Has the turning point been passed?"""
        return bool(self.turned_at >= 0)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Look at the dimension, turn if it is time, then go once through the data."""
        self.watch(data)
        super().train_epoch(data, step)

    def watch(self, data: TrainingData) -> None:
        """Estimate the dimension; at the turning point go back by one epoch."""
        now = self.measure(data)
        self.dimensions = torch.cat([self.dimensions[1:], now[None]])
        self.lowest = torch.minimum(self.lowest, now)
        known = self.dimensions[~self.dimensions.isnan()]
        # The window may reach back before `start`; in the code it begins there.
        if not self.turned and self.epoch >= self.start and is_turning_point(known, self.window):
            self.turned_at.fill_(self.epoch)
            self._restore()
        elif not self.turned:
            self._keep()
        if self.turned:
            dimension, lowest = now.item(), self.lowest.item()
            self.alpha = label_weight(self.epoch, self.epochs, dimension, lowest)

    @torch.no_grad()
    def measure(self, data: TrainingData) -> Tensor:
        """Return the mean dimension of the last hidden layer over some data, a scalar."""
        self.eval()
        found = []
        for batch in islice(data, BATCHES):
            seen = features(self.network, batch.images)
            if len(seen) > self.neighbours:  # the last batch of an epoch may be small
                found.append(self.dimension(seen, self.neighbours))
        self.train()
        if not found:
            raise ValueError(
                f"Expected batches of more than {self.neighbours} examples: each needs so many "
                "neighbours. Take a larger `batch_size`, or fewer `neighbours`"
            )
        return torch.cat(found).mean()

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross entropy with the labels as they are believed now."""
        logits = self.network(batch.images)
        if not self.alpha < 1:
            return F.cross_entropy(logits, batch.labels)
        predicted = logits.detach().argmax(dim=1)
        of_label = F.cross_entropy(logits, batch.labels)
        return self.alpha * of_label + (1 - self.alpha) * F.cross_entropy(logits, predicted)

    def _keep(self) -> None:
        for place, value in self._places():
            place.copy_(value)

    def _restore(self) -> None:
        for place, value in self._places():
            value.copy_(place)

    def _places(self) -> Iterable[tuple[Tensor, Tensor]]:
        return zip(self.saved.buffers(), self.network.state_dict().values(), strict=True)
