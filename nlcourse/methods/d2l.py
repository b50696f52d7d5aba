"""D2L: mix predictions into the labels once the dimensionality of the features begins to rise.

Ma et al. 2018, "Dimensionality-Driven Learning with Noisy Labels" (ICML 2018, arXiv 1806.02612);
their code: xingjunm/dimensionality-driven-learning. A baseline of the seeds' tables; named in
lesson 13.

While a network learns simple patterns, the features of a batch, its last hidden layer, lie close to
a manifold of few dimensions. Memorizing single labels needs more. So:

1. after each epoch estimate the local intrinsic dimensionality (LID) of those features;
2. the turning point: LID exceeds the mean of the last `window` epochs by two standard deviations;
3. go back by one epoch, and from then on train on ``alpha y + (1 - alpha) onehot(argmax p)`` with
   ``alpha = exp(-(epoch / epochs) * LID / min LID)``.

Where paper and code differ: docs/deviations.md.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect
from .features import features

NEIGHBOURS = 20  # k of the paper
BATCHES = 10  # an estimate looks at this many batches
DEVIATIONS = 2.0  # above the mean of the window


def intrinsic_dimension(features: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """From features ``(n, d)`` to the local intrinsic dimensionality ``(n,)`` at each of them.

    ``LID(x) = -1 / mean_j log(r_j / r_k)`` with ``r_1 <= ... <= r_k`` the distances to the k
    nearest others, k < n: how fast neighbours become more with the distance (maximum likelihood). A
    point with k others at one distance has a very large LID.

    >>> on_a_line = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    >>> intrinsic_dimension(on_a_line, 2)[0]
    tensor(2.8854)
    """
    expect(features.dim() == 2, "`features` of shape (n, d)", tuple(features.shape))
    fits = 2 <= neighbours < len(features)
    expect(fits, f"`neighbours` from 2 to one less than the {len(features)} points", neighbours)
    # By differences, not by the inner product: near neighbours would lose their digits.
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(math.inf)
    nearest = distances.topk(neighbours, dim=1, largest=False).values
    tiny = torch.finfo(nearest.dtype).tiny
    ratios = (nearest.clamp(min=tiny) / nearest[:, -1:].clamp(min=tiny)).log()
    return -1 / ratios.mean(dim=1).clamp(max=-torch.finfo(nearest.dtype).eps)


def is_turning_point(dimensions: Tensor, window: int = 5) -> bool:
    """Say whether the last of some dimensions, the oldest first, rises above the `window` before.

    >>> is_turning_point(torch.tensor([5.0, 4.0, 4.0, 5.0, 9.0]), window=4)
    True
    """
    before = dimensions[-1 - window : -1]
    # nan, which is no dimension yet, is not exceeded by anything.
    rises = dimensions[-1] > before.mean() + DEVIATIONS * before.std(correction=0)
    return len(before) == window and bool(rises)


def label_weight(epoch: int, epochs: int, dimension: float, lowest: float) -> float:
    """Share alpha of the given label in the target: ``exp(-(epoch / epochs) LID / min LID)``.

    `epoch` counts from 0, `epochs` is that of the whole training, `lowest` the least LID so far.

    >>> label_weight(0, 60, 4.0, 2.0), round(label_weight(30, 60, 4.0, 2.0), 4)
    (1.0, 0.3679)
    """
    expect(lowest > 0 and epochs >= 1, "`lowest` > 0, `epochs` from 1", f"{lowest}, {epochs}")
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
    """

    dimensions: Tensor
    lowest: Tensor
    turned_at: Tensor

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
        expect(epochs >= 1 and start >= 0, "`epochs` from 1, `start` from 0", f"{epochs}, {start}")
        got = f"{window} and {neighbours}"
        expect(window >= 2 and neighbours >= 2, "`window` and `neighbours` from 2", got)
        self.epochs, self.start, self.window = epochs, start, window
        self.neighbours, self.dimension = neighbours, dimension

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network, a copy to go back to, and room for the dimensions."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("dimensions", torch.full((self.window + 1,), math.nan))
        self.register_buffer("lowest", torch.tensor(math.inf))
        self.register_buffer("turned_at", torch.tensor(-1))
        self.alpha = 1.0
        self.before = copy.deepcopy(self.network).requires_grad_(False)  # one epoch ago

    @property
    def turned(self) -> bool:
        """Has the turning point been passed?"""
        return bool(self.turned_at >= 0)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Look at the dimension, turn if it is time, then go once through the data."""
        now = self.measure(data)
        self.dimensions = torch.cat([self.dimensions[1:], now[None]])
        self.lowest = torch.minimum(self.lowest, now)
        if not self.turned:
            if self.epoch >= self.start and is_turning_point(self.dimensions, self.window):
                self.turned_at.fill_(self.epoch)
                self.network.load_state_dict(self.before.state_dict())
            else:
                self.before.load_state_dict(self.network.state_dict())
        if self.turned:
            self.alpha = label_weight(self.epoch, self.epochs, now.item(), self.lowest.item())
        super().train_epoch(data, step)

    @torch.no_grad()
    def measure(self, data: TrainingData) -> Tensor:
        """Return the mean dimension of the last hidden layer over some data, a scalar."""
        self.eval()
        seen = [features(self.network, batch.images) for batch in islice(data, BATCHES)]
        self.train()
        k = self.neighbours
        found = [self.dimension(some, k) for some in seen if len(some) > k]  # the last may be small
        why = "each needs so many neighbours. Take a larger `batch_size`, or fewer `neighbours`"
        expect(bool(found), f"batches of more than {k} examples", [len(some) for some in seen], why)
        return torch.cat(found).mean()

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross entropy with given and predicted labels, weighted by alpha."""
        logits = self.network(batch.images)
        of_label = F.cross_entropy(logits, batch.labels)
        if self.alpha == 1:
            return of_label
        predicted = logits.detach().argmax(dim=1)
        return self.alpha * of_label + (1 - self.alpha) * F.cross_entropy(logits, predicted)
