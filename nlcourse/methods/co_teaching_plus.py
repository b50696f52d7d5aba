"""Co-teaching+: two networks that learn from each other where they disagree.

Yu et al. 2019, "How does Disagreement Help Generalization against Label Corruption?" (arXiv
1901.04215); their code: xingruiyu/coteaching_plus. Explained in lesson 07. Decoupling (Malach and
Shalev-Shwartz 2017) is its neighbour: it trains each network on *all* examples on which the two
disagree, without ranking and without exchange: ``CoTeachingPlus(0.0, cross=False)``.

Where paper and code differ we follow the paper:

* the code hands probabilities to a loss that takes logits, can never select the example at place 0
  of a batch, and divides by the number kept twice; none of that is in the paper;
* a batch in which the networks agree on everything teaches nothing. The code then takes the whole
  batch for its first 5,000 "steps"; here the epochs of plain Co-teaching before (`warm_up`, the
  code's ``init_epoch``) are what keeps the two from agreeing too soon.

At least one example is kept wherever the networks disagree at all: a small set times ``1 -
forget_rate`` would else round to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method
from .co_teaching import forget_rate


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """Say for each example whether two networks predict different classes.

    Args:
        first: logits or probabilities of the first network, float ``(n, C)``.
        second: those of the second, ``(n, C)``.

    Returns:
        bool ``(n,)``.

    Raises:
        ValueError: shapes that differ or are not ``(n, C)``.

    >>> disagreement(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.6, 0.4], [0.7, 0.3]]))
    tensor([False,  True])
    """
    if first.dim() != 2 or first.shape != second.shape:
        raise ValueError(
            "Expected the outputs of two networks for the same batch, both (n, C), got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    return first.argmax(dim=1) != second.argmax(dim=1)


def small_loss_among(losses: Tensor, candidates: Tensor, forget_rate: float) -> Tensor:
    """Say which candidates have the smallest losses.

    Ranks instead of indices: how many are kept depends on the data, and asking for that number
    would make the processor wait for the device.

    Args:
        losses: float ``(n,)``, one loss an example.
        candidates: bool ``(n,)``, the examples to choose from.
        forget_rate: share of the candidates to drop, in [0, 1].

    Returns:
        bool ``(n,)``, true for ``int((1 - forget_rate) * m)`` of the m candidates, at least one
        where there is one.

    Raises:
        ValueError: a share outside [0, 1].

    >>> small_loss_among(
    ...     torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([False, True, True, True]), 0.4
    ... )
    tensor([False, False,  True, False])
    """
    if not 0 <= forget_rate <= 1:
        raise ValueError(
            f"Expected `forget_rate` in [0, 1], got {forget_rate}: it is the share to drop"
        )
    order = losses.argsort(stable=True)
    order = order[(~candidates[order]).int().argsort(stable=True)]  # candidates first
    ranks = order.argsort()
    # In double, so that a count comes out as it does for plain numbers in small_loss_indices.
    count = ((1 - forget_rate) * candidates.sum().double()).floor().clamp(min=1)
    return (ranks < count) & candidates


class CoTeachingPlus(Method):
    """Co-teaching+ (algorithm 1 of the paper).

    Args:
        noise_rate: tau, the share of wrong labels, known or guessed.
        ramp_epochs: E_k, epochs over which the share to drop grows to `noise_rate`.
        warm_up: epochs of plain Co-teaching, on whole data, before disagreement counts.
        cross: False lets each network learn from its own selection; with `noise_rate` 0 that is
            Decoupling.
        disagree: which examples the networks disagree on; a student's own fits here.

    Raises:
        ValueError: a setting is out of its range.
    """

    num_networks = 2

    def __init__(
        self,
        noise_rate: float,
        ramp_epochs: float = 10,
        *,
        warm_up: int = 10,
        cross: bool = True,
        disagree: Callable[[Tensor, Tensor], Tensor] = disagreement,
    ) -> None:
        """Check the settings by asking for the first epoch's share."""
        super().__init__()
        forget_rate(0, noise_rate, ramp_epochs)
        if warm_up < 0:
            raise ValueError(f"Expected `warm_up` of at least 0 epochs, got {warm_up}")
        self.noise_rate, self.ramp_epochs = noise_rate, ramp_epochs
        self.warm_up, self.cross, self.disagree = warm_up, cross, disagree

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of both networks' mean losses on what trains them."""
        logits = [network(batch.images) for network in self.networks]
        losses = [F.cross_entropy(z, batch.labels, reduction="none") for z in logits]
        candidates = torch.ones_like(batch.labels, dtype=torch.bool)
        if self.epoch >= self.warm_up:
            candidates = self.disagree(*(z.detach() for z in logits))
        share = forget_rate(self.epoch, self.noise_rate, self.ramp_epochs)
        kept = [small_loss_among(loss.detach(), candidates, share) for loss in losses]
        if self.cross:
            kept.reverse()
        total = 0.0
        for number, (loss, chosen) in enumerate(zip(losses, kept, strict=True)):
            self.note(number, batch.index, chosen)
            total = total + (loss * chosen).sum() / chosen.sum().clamp(min=1)
        return total

    def note(self, number: int, index: Tensor, chosen: Tensor) -> None:
        """Mark the chosen examples as selected; with a mask nothing waits for the device."""
        self.selects = True
        self.selected[number, index] |= chosen
