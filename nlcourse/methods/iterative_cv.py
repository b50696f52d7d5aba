"""Iterative noisy cross-validation (INCV): believe a label that a network foresees unseen.

Chen, Liao, Chen and Zhang 2019, "Understanding and Utilizing Deep Neural Networks Trained with
Noisy Labels" (arXiv 1905.05040); their code: chenpf1025/noisy_label_understanding_utilizing.
Lesson 13 says where it stands. (For "Iterative-CV" in ELR's WebVision table another paper is cited
as well, Wang et al. 2018 on open-set noise; this is the procedure that the name describes.)

All examples are candidates at first. In each round two fresh networks learn from the examples
selected so far and from one half of the candidates each. Then each looks at the half that it has
not seen: whose given label it predicts is selected; of those with the largest losses some are given
up. From how often the first round agrees with the labels follows the noise rate. At last two fresh
networks teach each other (Co-teaching), first from the selected, later from the candidates, too.

All rounds run inside one training: the first ``rounds * round_epochs`` epochs are theirs. Each
round's networks stand ready from the beginning, since an optimizer cannot be given new ones; those
whose turn it is not get no gradient and stay as they are.

Where we differ from the code: plain epochs instead of the best epoch on noisy validation labels;
fresh first weights in each round (the code goes back to the same ones); the noise rate is estimated
from both halves; the batches of the last part are those of the whole data set, of which only the
examples in question count, so they are smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from .co_teaching import forget_rate

CHUNK = 2048  # images looked at together
MOST_GIVEN_UP = 2.0  # times the number selected, as in the code


def noise_rate_from_agreement(agreement: float, num_classes: int) -> float:
    """Return the symmetric noise rate at which held-out labels are foreseen that often.

    A network trained on labels of which a share e is wrong, and that has fitted them, predicts a
    fresh image with e wrong, too. It agrees with the fresh image's given label when both are right
    or both wrong in the same way (equation 3 of the paper)::

        agreement = (1 - e)^2 + e^2 / (C - 1)

    Args:
        agreement: share of held-out given labels that were predicted, in [0, 1].
        num_classes: C, at least 2.

    Returns:
        The smaller solution e in [0, (C - 1) / C]; the largest possible one where labels are
        foreseen no better than by chance.

    Raises:
        ValueError: an argument is out of its range.

    >>> round(noise_rate_from_agreement(0.6**2 + 0.4**2 / 9, 10), 6)
    0.4
    """
    if not 0 <= agreement <= 1:
        raise ValueError(f"Expected `agreement` in [0, 1], got {agreement}: it is a share")
    if num_classes < 2:
        raise ValueError(f"Expected `num_classes` of at least 2, got {num_classes}")
    a = num_classes / (num_classes - 1)
    return (1 - math.sqrt(max(0.0, 1 - a * (1 - agreement)))) / a


def noise_rate_of_selected(noise_rate: float, num_classes: int) -> float:
    """Return the share of wrong labels that is left among the selected (symmetric noise).

    Selected are right labels foreseen, (1 - e)^2, and wrong ones foreseen by chance, e^2 / (C - 1).

    >>> round(noise_rate_of_selected(0.4, 10), 4)
    0.0471
    """
    wrong = noise_rate**2 / (num_classes - 1)
    return wrong / (wrong + (1 - noise_rate) ** 2)


def foreseen(
    logits: Tensor, labels: Tensor, held_out: Tensor, give_up: float
) -> tuple[Tensor, Tensor]:
    """Sort held-out examples: whose label was foreseen, and who is given up.

    Args:
        logits: float ``(N, C)``, of a network that has not seen the held-out examples.
        labels: int64 ``(N,)``, the given labels.
        held_out: bool ``(N,)``; nobody else is looked at.
        give_up: how many to give up for each one foreseen, from 0: those of the largest losses.

    Returns:
        Two masks, bool ``(N,)``. An example may be in both: then it was foreseen.
    """
    chosen = held_out & (logits.argmax(dim=1) == labels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    count = min(int(give_up * int(chosen.sum())), int(held_out.sum()))
    hardest = losses.masked_fill(~held_out, -math.inf).topk(count).indices
    dropped = torch.zeros_like(held_out)
    dropped[hardest] = True
    return chosen, dropped


class IterativeCV(Method):
    """Iterative noisy cross-validation, then Co-teaching on what it selected.

    The defaults are the paper's; ``recipes.toml`` has some for 60 epochs.

    Args:
        rounds: N, rounds of selection, at least 1.
        round_epochs: E, epochs of each round, at least 1.
        warm_up: epochs of the last part that see the selected examples alone.
        ramp_epochs: T_k of the last part: epochs over which the share to drop grows.
        give_up: False keeps all candidates, as the code does for asymmetric noise.

    Attributes:
        chosen: bool ``(N,)``, the examples selected so far.
        candidates: bool ``(N,)``, those still open.
        noise_rate: the estimate, a 0-d tensor; nan before the first round has ended.

    Raises:
        ValueError: a setting is out of its range.
    """

    chosen: Tensor
    candidates: Tensor
    seen: Tensor
    noise_rate: Tensor
    part: Tensor

    def __init__(
        self,
        rounds: int = 4,
        round_epochs: int = 50,
        *,
        warm_up: int = 40,
        ramp_epochs: float = 10,
        give_up: bool = True,
    ) -> None:
        """Check the settings."""
        super().__init__()
        if rounds < 1 or round_epochs < 1:
            raise ValueError(
                "Expected `rounds` and `round_epochs` of at least 1, got "
                f"{rounds} and {round_epochs}"
            )
        if warm_up < 0 or not ramp_epochs > 0:
            raise ValueError(
                "Expected `warm_up` of at least 0 and `ramp_epochs` above 0, got "
                f"{warm_up} and {ramp_epochs}"
            )
        self.rounds, self.round_epochs = rounds, round_epochs
        self.warm_up, self.ramp_epochs = warm_up, ramp_epochs
        self.give_up = give_up
        self.num_networks = 2 * rounds + 2

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make two networks a round and two for the last part; everybody is a candidate."""
        super().build(make_network, num_examples, num_classes)
        nobody = torch.zeros(num_examples, dtype=torch.bool)
        # Two rows whatever the number of networks: two of them learn at a time.
        self.register_buffer("selected", torch.stack((nobody, nobody)), False)
        self.register_buffer("chosen", nobody.clone())
        self.register_buffer("candidates", ~nobody)
        # Row k: the half of the candidates that network k of this round learns from.
        self.register_buffer("seen", torch.stack((nobody, nobody)))
        self.register_buffer("noise_rate", torch.tensor(math.nan))
        # A buffer, too: who loads a finished run predicts with the right networks.
        self.register_buffer("part", torch.zeros((), dtype=torch.int64))

    @property
    def pair(self) -> nn.ModuleList:
        """The two networks whose turn it is."""
        at = 2 * int(self.part)
        return self.networks[at : at + 2]

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)``: the mean over the two networks of this part."""
        outputs = [network(images).softmax(dim=1) for network in self.pair]
        return torch.stack(outputs).mean(dim=0)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Train the networks of this part; a round ends with its selection."""
        now, within = divmod(self.epoch, self.round_epochs)
        self.part.fill_(min(now, self.rounds))
        if now >= self.rounds:
            self._co_teach(data, step)
            return
        if within == 0:
            self._split(data.labels.device)
        pair = self.pair
        for batch in data:
            step(lambda batch: self._halves_loss(pair, batch), batch)
        if within == self.round_epochs - 1:
            self._select(data)
        if not self.noise_rate.isnan():
            self._mark(self.chosen)

    # The rounds ----------------------------------------------------------------------------------

    def _split(self, device: torch.device) -> None:
        order = torch.randperm(len(self.chosen), generator=self.generator, device=device)
        open_ = order[self.candidates[order]]
        self.seen.fill_(False)
        self.seen[0, open_[: len(open_) // 2]] = True
        self.seen[1, open_[len(open_) // 2 :]] = True

    def _halves_loss(self, pair: nn.ModuleList, batch: Batch) -> Tensor:
        """Return the sum of both networks' mean losses, each on the selected and its own half."""
        total = torch.zeros((), device=batch.images.device)
        for number, network in enumerate(pair):
            learns = (self.chosen | self.seen[number])[batch.index]
            total = total + _mean_of(_losses(network, batch), learns)
        return total

    @torch.no_grad()
    def _select(self, data) -> None:
        """Let each network judge the half that it has not seen."""
        self.eval()
        logits = [_all_logits(network, data) for network in self.pair]
        self.train()
        held_out = [self.seen[1], self.seen[0]]
        if self.noise_rate.isnan():
            self._estimate_rate(logits, data.labels, held_out)
        rate = float(self.noise_rate)
        ratio = min(MOST_GIVEN_UP, rate / (1 - rate)) if self.give_up else 0.0
        for outputs, held in zip(logits, held_out, strict=True):
            chosen, dropped = foreseen(outputs, data.labels, held, ratio)
            self.chosen |= chosen
            self.candidates &= ~(chosen | dropped)

    def _estimate_rate(self, logits: list[Tensor], labels: Tensor, held_out: list[Tensor]) -> None:
        pairs = zip(logits, held_out, strict=True)
        agreed = sum((z.argmax(dim=1) == labels)[held].sum() for z, held in pairs)
        rate = noise_rate_from_agreement(float(agreed) / len(labels), self.num_classes)
        self.noise_rate.fill_(rate)

    # The last part --------------------------------------------------------------------------------

    def _co_teach(self, data: TrainingData, step: Step) -> None:
        epoch = self.epoch - self.rounds * self.round_epochs
        usable = self.chosen if epoch < self.warm_up else self.chosen | self.candidates
        rate = noise_rate_of_selected(float(self.noise_rate), self.num_classes)
        share = 1 - forget_rate(epoch, rate, self.ramp_epochs)
        pair = self.pair
        for batch in data:
            step(lambda batch: self._crossed_loss(pair, batch, usable, share), batch)

    def _crossed_loss(
        self, pair: nn.ModuleList, batch: Batch, usable: Tensor, share: float
    ) -> Tensor:
        """Return the losses of both networks, each on what the other finds easy."""
        losses = [_losses(network, batch) for network in pair]
        keep = (share * self.chosen[batch.index].sum()).round()
        easy = [_smallest(loss.detach(), usable[batch.index], keep) for loss in losses]
        self._mark(torch.stack(easy[::-1]), batch.index)
        return _mean_of(losses[0], easy[1]) + _mean_of(losses[1], easy[0])

    def _mark(self, rows: Tensor, index: Tensor | slice = slice(None)) -> None:
        self.selects = True
        self.selected[:, index] = rows


# Small pieces -------------------------------------------------------------------------------------


def _losses(network: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(network(batch.images), batch.labels, reduction="none")


def _mean_of(losses: Tensor, which: Tensor) -> Tensor:
    """Return the mean over a mask; 0 for an empty one. No wait for the device, as ``[mask]``."""
    return torch.where(which, losses, 0.0).sum() / which.sum().clamp(min=1)


def _smallest(losses: Tensor, usable: Tensor, count: Tensor) -> Tensor:
    """Return the mask of the `count` smallest losses among the usable."""
    order = losses.masked_fill(~usable, math.inf).argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return usable & (rank < count)


def _all_logits(network: nn.Module, data: TrainingData) -> Tensor:
    chunks = range(0, len(data.labels), CHUNK)
    return torch.cat([network(data.images(slice(at, at + CHUNK))) for at in chunks])
