"""AUM: find mislabelled examples by the area under the margin, the mean margin of the logits.

Pleiss, Zhang, Elenberg and Weinberger 2020, "Identifying Mislabeled Data using the Area Under the
Margin Ranking" (arXiv 2001.10528); their code: asappresearch/aum. Explained in lesson 08.

Symbols: z, logits; M, margin; AUM, its mean. Threshold samples carry a class that does not exist.
Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Step, TrainingData, expect
from .cross_entropy import CrossEntropy
from .features import last_linear
from .mixmatch import shuffled

PASSES = 2


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """``M = z_y - max_{k != y} z_k`` of each example ``(n,)``, from logits ``(n, C)``.

    >>> margins(torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), torch.tensor([0, 1]))
    tensor([ 1., -2.])
    """
    shapes = tuple(logits.shape), tuple(labels.shape)
    fits = len(shapes[0]) == 2 and shapes[0][1] > 1 and shapes[1] == shapes[0][:1]
    expect(fits, "`logits` (n, C) of at least two classes and `labels` (n,)", shapes)
    column = labels[:, None]
    others = logits.scatter(1, column, -torch.inf)
    return logits.gather(1, column).squeeze(1) - others.amax(dim=1)


def threshold_sets(n: int, num_classes: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw two disjoint sets of ``N / (C + 1)`` threshold samples: masks ``(2, N)``, one a pass."""
    count = n // (num_classes + 1)
    expect(count >= 1, f"at least {num_classes + 1} examples for a fake class", n)
    device = generator.device if generator is not None else None
    place = torch.randperm(n, generator=generator, device=device).argsort()  # in a random order
    return torch.stack([place // count == number for number in range(PASSES)])


def flag_suspects(scores: Tensor, threshold_scores: Tensor, percentile: float = 99.0) -> Tensor:
    """Flag whose AUM is at or under a percentile of the threshold samples' (a mask, ``(n,)``)."""
    expect(0 <= percentile <= 100, "`percentile` in [0, 100]", percentile)
    shape = tuple(threshold_scores.shape)
    expect(
        len(shape) == 1 and shape > (0,), "`threshold_scores` (m,), some of the fake class", shape
    )
    return scores <= torch.quantile(threshold_scores, percentile / 100)


def widen(network: nn.Module) -> nn.Module:
    """Replace the last linear layer by a fresh one with one output more; return the network."""
    name, old = last_linear(network)
    new = nn.Linear(old.in_features, old.out_features + 1, bias=old.bias is not None)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new.to(old.weight))
    return network


class AUM(CrossEntropy):
    """Find the suspects by their AUM, then train a fresh network without them: cross entropy.

    The suspects, a mask ``(N,)``, are known after `find_epochs`: half of the paper's training.
    """

    num_networks = PASSES + 1
    suspects: Tensor
    threshold_sets: Tensor
    margin_sums: Tensor
    counted: Tensor
    second_stage: Tensor

    def __init__(
        self,
        find_epochs: int = 30,
        percentile: float = 99.0,
        *,
        margins: Callable[[Tensor, Tensor], Tensor] = margins,
        flag: Callable[[Tensor, Tensor, float], Tensor] = flag_suspects,
    ) -> None:
        """Check the settings; networks and memory come with :meth:`build`."""
        super().__init__()
        expect(
            find_epochs > 1, "`find_epochs` from 2", find_epochs, "the first epoch does not count"
        )
        expect(0 <= percentile <= 100, "`percentile` in [0, 100]", percentile)
        self.find_epochs, self.percentile = find_epochs, percentile
        self.margins, self.flag = margins, flag

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make two networks with a fake class, one without, and room for the margins."""
        super().build(make_network, num_examples, num_classes)
        for number in range(PASSES):
            widen(self.networks[number])
        self.selected = torch.zeros(1, num_examples, dtype=torch.bool)  # of the last network alone
        masks = torch.zeros(PASSES, num_examples, dtype=torch.bool)
        self.register_buffer("threshold_sets", masks)
        self.register_buffer("margin_sums", masks.float())
        self.register_buffer("counted", torch.zeros((), dtype=torch.int64))
        self.register_buffer("suspects", masks[0].clone())
        self.register_buffer("second_stage", torch.tensor(False))

    @property
    def network(self) -> nn.Module:
        """The network that is trained without the suspects."""
        return self.networks[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)``: of the passes first, later of the last network."""
        networks = self.networks[PASSES:] if self.second_stage else self.networks[:PASSES]
        logits = torch.stack([network(images) for network in networks])
        return logits[..., : self.num_classes].softmax(dim=-1).mean(dim=0)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Go once through the data: all of it at first, later what is left of it."""
        if self.epoch == 0:
            sets = threshold_sets(len(self.suspects), self.num_classes, self.generator)
            self.threshold_sets.copy_(sets)
        if self.epoch >= self.find_epochs:
            return self.train_on_the_rest(data, step)
        for batch in data:
            step(lambda some: self.pass_loss(0, some) + self.pass_loss(1, some), batch)
        self.counted += int(self.epoch > 0)
        if self.epoch + 1 == self.find_epochs:
            aums = zip(self.means(), self.threshold_aum(), strict=True)
            flags = [torch.as_tensor(self.flag(*one, self.percentile)) for one in aums]
            # Its own fake label says nothing about an example: the other pass decides alone.
            flagged = torch.stack(flags).to(self.threshold_sets) | self.threshold_sets
            self.suspects.copy_(flagged.all(dim=0))

    def means(self) -> Tensor:
        """Return the mean margins ``(2, N)``, one row a pass."""
        return self.margin_sums / self.counted.clamp(min=1)

    def aum(self) -> Tensor:
        """Return the AUM ``(N,)``: the mean over the passes in which an example kept its label."""
        kept = ~self.threshold_sets
        return (self.means() * kept).sum(dim=0) / kept.sum(dim=0)

    def threshold_aum(self) -> list[Tensor]:
        """Return the AUM of the threshold samples, one tensor a pass."""
        return [row[fake] for row, fake in zip(self.means(), self.threshold_sets, strict=True)]

    def pass_loss(self, number: int, batch: Batch) -> Tensor:
        """Cross entropy with the fake class; the margins are those before the step."""
        fake = self.threshold_sets[number, batch.index]
        labels = torch.where(fake, self.num_classes, batch.labels)
        logits = self.networks[number](batch.images)
        if self.epoch > 0:
            noted = torch.as_tensor(self.margins(logits.detach(), labels))
            self.margin_sums[number, batch.index] += noted.to(self.margin_sums)
        return F.cross_entropy(logits, labels)

    def train_on_the_rest(self, data: TrainingData, step: Step) -> None:
        """Train for an epoch without the suspects."""
        self.second_stage.fill_(True)
        kept = (~self.suspects).nonzero().squeeze(1)
        why = f"Try more than {self.find_epochs} `find_epochs` or a lower `percentile`"
        expect(len(kept) > 0, "some examples above the threshold", "none", why)
        self.mark_selected(0, kept)
        for index in shuffled(kept, data.batch_size, self.generator):
            step(self.loss, data.batch(index))
