"""Iterative noisy cross-validation (INCV): select the labels that held-out predictions confirm.

Chen, Liao, Chen and Zhang 2019, "Understanding and Utilizing Deep Neural Networks Trained with
Noisy Labels" (arXiv 1905.05040); their code: chenpf1025/noisy_label_understanding_utilizing.
Lesson 13 says where it stands. Where paper and code differ: docs/deviations.md.

In each of N rounds two fresh networks learn from the examples chosen so far and from one half of
the other candidates each. Then each judges the half that it has not seen: whose given label it
predicts is chosen; of those with the largest losses some are given up. At last two fresh networks
teach each other (Co-teaching), first with the chosen, later with the candidates, too.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect
from ..noise.estimation import noise_rate_from_agreement, noise_rate_of_selected
from .co_teaching import forget_rate

CHUNK = 2048  # images looked at together
MOST_GIVEN_UP = 2.0  # times the number selected, as in the code


def foreseen(logits: Tensor, labels: Tensor, held: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Sort the held-out, a mask ``(N,)``: whose label was predicted, and who is given up.

    For each one predicted `ratio` are given up: those of the largest losses; some may be in both.
    """
    chosen = held & (logits.argmax(dim=1) == labels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    count = min(int(ratio * int(chosen.sum())), int(held.sum()))
    hardest = losses.masked_fill(~held, -math.inf).topk(count).indices
    return chosen, torch.zeros_like(held).index_fill_(0, hardest, True)


def mean_of(losses: Tensor, which: Tensor) -> Tensor:
    """Return the mean over a mask; 0 for an empty one. No wait for the device, as ``[mask]``."""
    return torch.where(which, losses, 0.0).sum() / which.sum().clamp(min=1)


def smallest(losses: Tensor, usable: Tensor, count: Tensor) -> Tensor:
    """Return the mask ``(..., n)`` of the `count` smallest losses among the usable."""
    order = losses.masked_fill(~usable, math.inf).argsort(stable=True)
    return usable & (order.argsort() < count)


class IterativeCV(Method):
    """Iterative noisy cross-validation, then Co-teaching on what it chose.

    Args:
        rounds: N, rounds of selection, at least 1.
        round_epochs: E, epochs of each round, at least 1.
        warm_up: epochs of the last part that see the selected examples alone.
        ramp_epochs: T_k of the last part: epochs over which the share to drop grows.
        give_up: False keeps all candidates, as the code does for asymmetric noise.
    """

    chosen: Tensor  # bool (N,): selected so far
    candidates: Tensor  # bool (N,): still open
    seen: Tensor  # bool (2, N): the half of the candidates that each network of a round learns from
    noise_rate: Tensor  # nan before the first round has ended
    part: Tensor  # a buffer, so that a finished run that is loaded predicts with the right networks

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
        expect(min(rounds, round_epochs) >= 1, "`rounds`, `round_epochs` from 1", rounds)
        expect(warm_up >= 0, "`warm_up` of at least 0", warm_up)
        expect(ramp_epochs > 0, "`ramp_epochs` above 0", ramp_epochs)
        self.rounds, self.round_epochs, self.give_up = rounds, round_epochs, give_up
        self.warm_up, self.ramp_epochs = warm_up, ramp_epochs
        self.num_networks = 2 * rounds + 2

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make two networks a round and two for the last part: an optimizer takes no new ones."""
        super().build(make_network, num_examples, num_classes)
        nobody = torch.zeros(2, num_examples, dtype=torch.bool)
        # Two rows whatever the number of networks: two of them learn at a time.
        self.register_buffer("selected", nobody.clone(), persistent=False)
        self.register_buffer("seen", nobody.clone())
        self.register_buffer("chosen", nobody[0].clone())
        self.register_buffer("candidates", ~nobody[0])
        self.register_buffer("noise_rate", torch.tensor(math.nan))
        self.register_buffer("part", torch.tensor(0))

    @property
    def pair(self) -> list[nn.Module]:
        """The two networks whose turn it is."""
        return list(self.networks)[2 * int(self.part) :][:2]

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)``: the mean over the two networks of this part."""
        return torch.stack([net(images).softmax(dim=1) for net in self.pair]).mean(dim=0)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Train the two networks of this part; a round ends with their choice."""
        now, within = divmod(self.epoch, self.round_epochs)
        self.part.fill_(min(now, self.rounds))
        share = None
        if now < self.rounds:
            if within == 0:
                self.split()
            usable = self.chosen | self.seen
        else:
            epoch = self.epoch - self.rounds * self.round_epochs
            usable = (self.chosen | self.candidates & (epoch >= self.warm_up)).expand(2, -1)
            rate = noise_rate_of_selected(float(self.noise_rate), self.num_classes)
            share = 1 - forget_rate(epoch, rate, self.ramp_epochs)
        loss = partial(self.pair_loss, self.pair, usable, share)
        for batch in data:
            step(loss, batch)
        if now < self.rounds and within == self.round_epochs - 1:
            self.choose(data)
        if now < self.rounds and not self.noise_rate.isnan():
            self.selects, self.selected[:] = True, self.chosen

    def split(self) -> None:
        """Give each network of a round one half of the candidates."""
        device = self.chosen.device
        order = torch.randperm(len(self.chosen), generator=self.generator, device=device)
        left = order[self.candidates[order]]
        self.seen.zero_()
        for row, half in enumerate(left.tensor_split((len(left) // 2,))):
            self.seen[row, half] = True

    def pair_loss(
        self, pair: list[nn.Module], usable: Tensor, share: float | None, batch: Batch
    ) -> Tensor:
        """Return both mean losses on the `usable`, or on the share of them that the peer takes."""
        x, y, index = batch
        losses = torch.stack([F.cross_entropy(net(x), y, reduction="none") for net in pair])
        teach = usable[:, index]
        if share is not None:
            keep = (share * self.chosen[index].sum()).round()
            teach = smallest(losses.detach(), teach, keep).flip(0)
            self.selects, self.selected[:, index] = True, teach
        return mean_of(losses[0], teach[0]) + mean_of(losses[1], teach[1])

    @torch.no_grad()
    def choose(self, data: TrainingData) -> None:
        """Let each network judge the half that it has not seen."""
        self.eval()
        size = len(data.labels)
        chunks = [slice(at, at + CHUNK) for at in range(0, size, CHUNK)]
        logits = [torch.cat([net(data.images(one)) for one in chunks]) for net in self.pair]
        self.train()
        judged = list(zip(logits, self.seen.flip(0), strict=True))
        if self.noise_rate.isnan():
            agreed = sum(int((z.argmax(dim=1) == data.labels)[held].sum()) for z, held in judged)
            self.noise_rate.fill_(noise_rate_from_agreement(agreed / size, self.num_classes))
        rate = float(self.noise_rate)
        give_up = min(MOST_GIVEN_UP, rate / (1 - rate)) if self.give_up else 0.0
        for z, held in judged:
            chosen, dropped = foreseen(z, data.labels, held, give_up)
            self.chosen |= chosen
            self.candidates &= ~(chosen | dropped)
