"""Co-teaching+: two networks that learn from each other where they disagree.

Yu et al. 2019, "How does Disagreement Help Generalization against Label Corruption?" (arXiv
1901.04215); their code: xingruiyu/coteaching_plus. Explained in lesson 07. Decoupling (Malach and
Shalev-Shwartz 2017, arXiv 1706.02613) trains each network on *all* examples on which the two
disagree. That is Co-teaching+ with a noise rate of 0, where nothing is ranked or exchanged.

Symbols of the paper: e, the epoch; lambda(e), the share that is kept; tau, the noise rate; E_k, the
ramp. Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method, expect
from .co_teaching import forget_rate


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """Say for each example whether two networks predict different classes.

    Args:
        first: logits or probabilities of the first network, float ``(n, C)``.
        second: those of the second, ``(n, C)``.

    >>> disagreement(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.6, 0.4], [0.7, 0.3]]))
    tensor([False,  True])
    """
    shapes = tuple(first.shape), tuple(second.shape)
    fits = first.dim() == 2 and shapes[0] == shapes[1]
    expect(fits, "the outputs of two networks for the same batch, both (n, C)", shapes)
    return first.argmax(dim=1) != second.argmax(dim=1)


def small_loss_among(losses: Tensor, candidates: Tensor, forget_rate: float) -> Tensor:
    """Say which candidates have the smallest losses.

    A mask instead of indices: how many are kept depends on the data, and asking for that number
    would make the processor wait for the GPU.

    Args:
        losses: float ``(n,)``, one loss an example.
        candidates: bool ``(n,)``, the examples to choose from.
        forget_rate: share of the candidates to drop, in [0, 1].

    Returns:
        bool ``(n,)``, true for ``int((1 - forget_rate) * m)`` of the m candidates, at least one
        where there is one.

    >>> small_loss_among(
    ...     torch.tensor([0.1, 0.9, 0.2, 0.5]), torch.tensor([False, True, True, True]), 0.4
    ... )
    tensor([False, False,  True, False])
    """
    expect(0 <= forget_rate <= 1, "`forget_rate` in [0, 1]", forget_rate, "the share to drop")
    order = losses.argsort(stable=True)
    order = order[(~candidates[order]).int().argsort(stable=True)]  # candidates first
    # In double, so that a count comes out as it does for plain numbers in small_loss_indices.
    count = ((1 - forget_rate) * candidates.sum().double()).floor().clamp(min=1)
    return (order.argsort() < count) & candidates


class CoTeachingPlus(Method):
    """Co-teaching+ (algorithm 1 of the paper).

    Args:
        noise_rate: tau, the share of wrong labels, known or guessed; 0 is Decoupling.
        ramp_epochs: E_k, epochs over which the share to drop grows to `noise_rate`.
        warm_up: epochs of plain Co-teaching, on whole data, before disagreement counts.
        disagree: which examples the networks disagree on.
    """

    num_networks = 2

    def __init__(
        self,
        noise_rate: float,
        ramp_epochs: float = 10,
        *,
        warm_up: int = 10,
        disagree: Callable[[Tensor, Tensor], Tensor] = disagreement,
    ) -> None:
        """Check the settings."""
        super().__init__()
        forget_rate(0, noise_rate, ramp_epochs)
        expect(warm_up >= 0, "`warm_up` of at least 0 epochs", warm_up)
        self.noise_rate, self.ramp_epochs, self.warm_up = noise_rate, ramp_epochs, warm_up
        self.disagree = disagree

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of both networks' mean losses on what the other kept."""
        logits = [network(batch.images) for network in self.networks]
        losses = [F.cross_entropy(z, batch.labels, reduction="none") for z in logits]
        candidates = torch.ones_like(batch.labels, dtype=torch.bool)
        if self.epoch >= self.warm_up:
            candidates = self.disagree(*(z.detach() for z in logits))
        share = forget_rate(self.epoch, self.noise_rate, self.ramp_epochs)
        kept = [small_loss_among(own.detach(), candidates, share) for own in losses]
        means = []
        for number, (own, by_peer) in enumerate(zip(losses, reversed(kept), strict=True)):
            self.mark_selected(number, batch.index, by_peer)
            means.append((own * by_peer).sum() / by_peer.sum().clamp(min=1))
        return means[0] + means[1]
