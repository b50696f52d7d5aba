"""Co-teaching: two networks, each trained on the examples with a small loss under the other.

Han et al. 2018, "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels"
(arXiv 1804.06872); their code: bhanML/Co-teaching. Explained in lesson 07.

Symbols of the paper: T, the epoch; R(T), the share of each batch that is kept; tau, the noise rate;
T_k and c, length and shape of the ramp. Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method, expect


def forget_rate(epoch: int, noise_rate: float, ramp_epochs: float, exponent: float = 1.0) -> float:
    """Share of each batch to drop: ``1 - R(T) = tau * min(T^c / T_k, 1)`` (the paper's appendix).

    Args:
        epoch: T, 0 in the first epoch, in which nothing is dropped.
        noise_rate: tau, the share of wrong labels, known or guessed, in [0, 1).
        ramp_epochs: T_k, above 0; for c = 1 the epoch in which tau is reached.
        exponent: c, above 0.

    >>> [round(forget_rate(epoch, 0.4, 4), 2) for epoch in range(6)]
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.4]
    """
    expect(epoch >= 0, "`epoch` of at least 0", epoch)
    expect(0 <= noise_rate < 1, "`noise_rate` in [0, 1)", noise_rate, "the share of wrong labels")
    expect(ramp_epochs > 0, "`ramp_epochs` above 0", ramp_epochs)
    expect(exponent > 0, "`exponent` above 0", exponent)
    return noise_rate * float(min(epoch**exponent / ramp_epochs, 1.0))


def small_loss_indices(losses: Tensor, forget_rate: float) -> Tensor:
    """Positions of the examples with the smallest losses, which are probably labelled right.

    Args:
        losses: float ``(n,)``, one loss an example.
        forget_rate: share to drop, in [0, 1].

    Returns:
        int64 ``(k,)`` with ``k = int((1 - forget_rate) * n)``, smallest loss first.

    >>> small_loss_indices(torch.tensor([0.9, 0.1, 2.5, 0.4]), 0.5)
    tensor([1, 3])
    """
    shape, why = tuple(losses.shape), "one loss an example, so use reduction='none'"
    expect(len(shape) == 1, "`losses` of shape (n,)", shape, why)
    expect(0 <= forget_rate <= 1, "`forget_rate` in [0, 1]", forget_rate, "the share to drop")
    return losses.argsort(stable=True)[: int((1 - forget_rate) * len(losses))]


def crossed_losses(
    losses_first: Tensor, losses_second: Tensor, kept_by_first: Tensor, kept_by_second: Tensor
) -> tuple[Tensor, Tensor]:
    """Exchange the selections: each network's mean loss on the examples that its peer kept.

    Args:
        losses_first: float ``(n,)``, losses of the first network on the batch.
        losses_second: float ``(n,)``, losses of the second network on the same batch.
        kept_by_first: int64 ``(k,)``, positions in the batch of the first network's selection.
        kept_by_second: int64 ``(k,)``, the same for the second network.

    Returns:
        The loss of the first network and that of the second: two scalars, 0 where nothing is kept.
    """
    return _mean(losses_first, kept_by_second), _mean(losses_second, kept_by_first)


def own_losses(
    losses_first: Tensor, losses_second: Tensor, kept_by_first: Tensor, kept_by_second: Tensor
) -> tuple[Tensor, Tensor]:
    """Leave the exchange out: each network's mean loss on its own selection (for comparison)."""
    return _mean(losses_first, kept_by_first), _mean(losses_second, kept_by_second)


def _mean(losses: Tensor, kept: Tensor) -> Tensor:
    chosen = losses.index_select(0, kept)
    # A tiny last batch may keep nothing: then there is nothing to learn from it, and no 0 / 0.
    return chosen.mean() if len(chosen) else chosen.sum()


class CoTeaching(Method):
    """Co-teaching (algorithm 1 of the paper).

    Args:
        noise_rate: tau, the share of wrong labels, known or guessed.
        ramp_epochs: T_k, epochs over which the share to drop grows to `noise_rate`.
        exponent: c, the shape of that growth.
        forget_rate: the schedule.
        select: which positions of a vector of losses to keep.
        losses: from losses and selections to the loss of each network.
    """

    num_networks = 2

    def __init__(
        self,
        noise_rate: float,
        ramp_epochs: float = 10,
        exponent: float = 1.0,
        *,
        forget_rate: Callable[..., float] = forget_rate,
        select: Callable[[Tensor, float], Tensor] = small_loss_indices,
        losses: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = crossed_losses,
    ) -> None:
        """Check the settings by asking for the first epoch's share."""
        super().__init__()
        forget_rate(0, noise_rate, ramp_epochs, exponent)
        self.noise_rate, self.ramp_epochs, self.exponent = noise_rate, ramp_epochs, exponent
        self.forget_rate, self.select, self.losses = forget_rate, select, losses

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of both losses: the networks share no weight, so each gets its own."""
        share = self.forget_rate(self.epoch, self.noise_rate, self.ramp_epochs, self.exponent)
        losses, kept = [], []
        for number, network in enumerate(self.networks):
            own = F.cross_entropy(network(batch.images), batch.labels, reduction="none")
            if own.requires_grad:  # who only asks for the loss notes nothing
                own.register_hook(functools.partial(self._note, number, batch.index))
            losses.append(own)
            kept.append(self.select(own.detach(), share))
        of_first, of_second = self.losses(*losses, *kept)
        return of_first + of_second

    def _note(self, number: int, index: Tensor, gradient: Tensor) -> None:
        """Mark what a network learns from: the examples whose losses get a gradient."""
        self.mark_selected(number, index, gradient != 0)
