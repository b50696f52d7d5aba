"""Co-teaching: two networks, each taught by the examples that the other finds easy.

Han et al. 2018, "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels"
(arXiv 1804.06872); their code: bhanML/Co-teaching. Explained in lesson 07.

Where paper and code differ we follow the paper:

* the mean loss of the kept examples is used as it is; the code divides it by their number a second
  time, which Adam hides and SGD does not;
* the share to drop after epoch T is ``noise_rate * min(T^c / T_k, 1)``; the code takes
  ``linspace(0, noise_rate^c, T_k)``, which is one epoch ahead for c = 1 and jumps for any other c.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method


def forget_rate(epoch: int, noise_rate: float, ramp_epochs: float, exponent: float = 1.0) -> float:
    """Share of each batch to drop in an epoch: 1 - R(T).

    Nothing is dropped in the first epoch; the share then grows to the noise rate and stays there
    (algorithm 1 and the general form of the paper's appendix): ``noise_rate * min(epoch^exponent /
    ramp_epochs, 1)``.

    Args:
        epoch: 0 in the first epoch, 1 in the second, ...
        noise_rate: share of wrong labels, known or guessed, in [0, 1).
        ramp_epochs: T_k of the paper, above 0; for ``exponent=1`` the epoch in which the full
            share is reached.
        exponent: c of the paper, above 0.

    Raises:
        ValueError: an argument is out of its range.

    >>> [round(forget_rate(epoch, 0.4, 4), 2) for epoch in range(6)]
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.4]
    """
    if epoch < 0:
        raise ValueError(f"Expected `epoch` of at least 0, got {epoch}")
    if not 0 <= noise_rate < 1:
        raise ValueError(
            f"Expected `noise_rate` in [0, 1), got {noise_rate}: it is the share of wrong labels"
        )
    if ramp_epochs <= 0 or exponent <= 0:
        raise ValueError(
            f"Expected `ramp_epochs` and `exponent` above 0, got {ramp_epochs} and {exponent}"
        )
    return noise_rate * min(epoch**exponent / ramp_epochs, 1.0)


def small_loss_indices(losses: Tensor, forget_rate: float) -> Tensor:
    """Positions of the examples with the smallest losses, which are probably labelled right.

    Args:
        losses: float ``(n,)``, one loss an example.
        forget_rate: share to drop, in [0, 1].

    Returns:
        int64 ``(k,)`` with ``k = int((1 - forget_rate) * n)``, smallest loss first.

    Raises:
        ValueError: losses that are not a vector, or a share outside [0, 1].

    >>> small_loss_indices(torch.tensor([0.9, 0.1, 2.5, 0.4]), 0.5)
    tensor([1, 3])
    """
    if losses.dim() != 1:
        raise ValueError(
            f"Expected `losses` of shape (n,), one an example, got {tuple(losses.shape)}: "
            "use reduction='none'"
        )
    if not 0 <= forget_rate <= 1:
        raise ValueError(
            f"Expected `forget_rate` in [0, 1], got {forget_rate}: it is the share to drop"
        )
    count = int((1 - forget_rate) * len(losses))
    return losses.argsort(stable=True)[:count]


def crossed_losses(
    losses_first: Tensor, losses_second: Tensor, kept_by_first: Tensor, kept_by_second: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross the selections: each network's mean loss on the examples that its peer kept.

    Args:
        losses_first: float ``(n,)``, losses of the first network on the batch.
        losses_second: float ``(n,)``, losses of the second network on the same batch.
        kept_by_first: int64 ``(k,)``, positions in the batch that the first network finds easy.
        kept_by_second: int64 ``(k,)``, the same for the second network.

    Returns:
        The loss to train the first network with, and that of the second: two scalars. A selection
        that keeps nothing gives 0.
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
        cross: False lets each network learn from its own selection, to see what the exchange is
            worth.
        forget_rate: the schedule; a student's own fits here.
        select: which positions of a vector of losses to keep; a student's own fits here.
        losses: from losses and selections to the loss of each network; a student's own fits here.
    """

    num_networks = 2

    def __init__(
        self,
        noise_rate: float,
        ramp_epochs: float = 10,
        exponent: float = 1.0,
        *,
        cross: bool = True,
        forget_rate: Callable[..., float] = forget_rate,
        select: Callable[[Tensor, float], Tensor] = small_loss_indices,
        losses: Callable[..., tuple[Tensor, Tensor]] = crossed_losses,
    ) -> None:
        """Check the settings by asking for the first epoch's share."""
        super().__init__()
        forget_rate(0, noise_rate, ramp_epochs, exponent)
        self.noise_rate = noise_rate
        self.ramp_epochs = ramp_epochs
        self.exponent = exponent
        self.forget_rate = forget_rate
        self.select = select
        self.cross = cross
        self.losses = losses if cross else own_losses

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of both networks' mean losses on what trains them.

        The networks share no weight, so the gradient of the sum is each network's own.
        """
        first, second = (
            F.cross_entropy(network(batch.images), batch.labels, reduction="none")
            for network in self.networks
        )
        share = self.forget_rate(self.epoch, self.noise_rate, self.ramp_epochs, self.exponent)
        kept_by_first = self.select(first.detach(), share)
        kept_by_second = self.select(second.detach(), share)
        taught = (kept_by_second, kept_by_first) if self.cross else (kept_by_first, kept_by_second)
        for number, kept in enumerate(taught):
            self.mark_selected(number, batch.index.index_select(0, kept))
        of_first, of_second = self.losses(first, second, kept_by_first, kept_by_second)
        return of_first + of_second
