"""AUM: the area under the margin, or how long an image has spoken against its label.

Pleiss, Zhang, Elenberg and Weinberger 2020, "Identifying Mislabeled Data using the Area Under the
Margin Ranking" (arXiv 2001.10528); their code: asappresearch/aum. Explained in lesson 08.

The margin of an example is the logit of its label minus the largest other logit. Its mean over the
epochs is the AUM. To know how low is too low, some examples are given a class that does not exist:
their labels are wrong for sure. Whoever lies under the 99th percentile of these is thrown out.

Where paper and code differ:

* the fake class takes N / (C + 1) examples (paper); the code takes N / C;
* margins come from the forward pass of the training step, augmented, before the step; the first
  epoch does not count (code). The code stores them in half precision; we do not;
* two passes with disjoint fake sets, so that every example is judged; out goes who is flagged in
  every pass in which it kept its label (both);
* flagged is who lies at or under the percentile, interpolated; the code compares ranks, the same
  up to ties.

Two of ours. Both passes and the training on what is left run in **one** call of ``fit``, one stage
after the other, each stage with networks of its own: the passes side by side in the first
`find_epochs` epochs, a fresh network after that. And the stages share the learning rate: the paper
wants it constant in the first, and a schedule of `fit` should begin to fall only after it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from .cross_entropy import CrossEntropy
from .features import last_linear

PASSES = 2


# Margins ----------------------------------------------------------------------------------------


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of the label minus the largest of the others, for each example.

    ``M = z_y - max_{k != y} z_k``. Positive: the network predicts the label. Logits, not
    probabilities: a probability cannot rise above 1, so a sure network would give all its examples
    the same margin.

    Args:
        logits: float ``(n, C)``, at least two classes.
        labels: int64 ``(n,)``, in 0..C-1.

    Returns:
        ``(n,)``, any sign.

    Raises:
        ValueError: shapes that do not fit, or a single class.

    >>> margins(torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]), torch.tensor([0, 1]))
    tensor([ 1., -2.])
    """
    if logits.dim() != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            "Expected `logits` (n, C) of at least two classes and `labels` (n,), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    column = labels[:, None]
    others = logits.scatter(1, column, -torch.inf)
    return logits.gather(1, column).squeeze(1) - others.amax(dim=1)


# The fake class ---------------------------------------------------------------------------------


def threshold_sets(
    num_examples: int, num_classes: int, generator: torch.Generator | None = None
) -> Tensor:
    """Choose who gets the fake class: two disjoint sets of ``N / (C + 1)`` random examples.

    So large is a true class when all C + 1 are equally frequent.

    Args:
        num_examples: N.
        num_classes: C.
        generator: source of the choice; torch's global one when left out.

    Returns:
        bool ``(2, N)``, one row a pass, on the device of the generator.

    Raises:
        ValueError: too few examples for two sets that are not empty.
    """
    count = num_examples // (num_classes + 1)
    if count < 1:
        raise ValueError(
            f"Expected at least {num_classes + 1} examples for a fake class beside {num_classes} "
            f"true ones, got {num_examples}"
        )
    device = generator.device if generator is not None else None
    order = torch.randperm(num_examples, generator=generator, device=device)
    sets = torch.zeros(PASSES, num_examples, dtype=torch.bool, device=device)
    for number in range(PASSES):
        sets[number, order[number * count : (number + 1) * count]] = True
    return sets


def flag_suspects(scores: Tensor, threshold_scores: Tensor, percentile: float = 99.0) -> Tensor:
    """Flag who looks no better than examples whose label is wrong for sure.

    Args:
        scores: float ``(n,)``, the AUM of the examples to judge.
        threshold_scores: float ``(m,)``, the AUM of those with the fake class, at least one.
        percentile: in [0, 100]: the threshold is the value that so many per cent of
            `threshold_scores` do not exceed, interpolated between neighbours.

    Returns:
        bool ``(n,)``: at or under the threshold.

    Raises:
        ValueError: no threshold scores, or a percentile outside [0, 100].

    >>> flag_suspects(torch.tensor([-2.0, 0.5, 4.0]), torch.tensor([-3.0, -1.0, 1.0]))
    tensor([ True,  True, False])
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"Expected `percentile` in [0, 100], got {percentile}")
    if threshold_scores.dim() != 1 or not len(threshold_scores):
        raise ValueError(
            "Expected `threshold_scores` (m,) of at least one example with the fake class, got "
            f"shape {tuple(threshold_scores.shape)}"
        )
    return scores <= torch.quantile(threshold_scores, percentile / 100)


def widen(network: nn.Module) -> nn.Module:
    """Replace the last linear layer by a fresh one with one output more; return the network."""
    name, old = last_linear(network)
    new = nn.Linear(old.in_features, old.out_features + 1, bias=old.bias is not None)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new.to(old.weight))
    return network


# The methods ------------------------------------------------------------------------------------


class WatchedCrossEntropy(CrossEntropy):
    """Cross entropy that notes, for each example, how it stood just before each of its steps.

    Attributes:
        last_margins: float ``(N,)``, the margins of the latest epoch.
        last_losses: float ``(N,)``, the losses of the latest epoch.
    """

    last_margins: Tensor
    last_losses: Tensor

    def build(self, make_network: Callable, num_examples: int, num_classes: int) -> None:
        """Make the network, and room for a margin and a loss an example."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("last_margins", torch.zeros(num_examples))
        self.register_buffer("last_losses", torch.zeros(num_examples))

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross entropy; note margins and losses on the way."""
        logits = self.network(batch.images)
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        self.last_margins[batch.index] = margins(logits.detach(), batch.labels)
        self.last_losses[batch.index] = losses.detach()
        return losses.mean()


class AUM(Method):
    """Find the suspects by their margins, then train a fresh network without them.

    Args:
        find_epochs: length of the first stage, at least 2 (its first epoch does not count). The
            paper takes the epochs before the first fall of the learning rate: half of its training.
        percentile: of the fake class's AUM; the paper's is 99.
        margins: a student's own fits here.
        flag: a student's own fits here.

    Attributes:
        suspects: bool ``(N,)``, who is thrown out; nobody before the first stage has ended.

    Raises:
        ValueError: a setting is out of its range; after the first stage: everybody is a suspect.
    """

    num_networks = PASSES + 1
    suspects: Tensor
    threshold_sets: Tensor
    margin_sums: Tensor

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
        if find_epochs < 2:
            raise ValueError(
                f"Expected `find_epochs` of at least 2, got {find_epochs}: the first epoch does "
                "not count"
            )
        if not 0 <= percentile <= 100:
            raise ValueError(f"Expected `percentile` in [0, 100], got {percentile}")
        self.find_epochs = find_epochs
        self.percentile = percentile
        self.margins = margins
        self.flag = flag

    def build(self, make_network: Callable, num_examples: int, num_classes: int) -> None:
        """Make two networks with a fake class, one without, and room for the margins."""
        super().build(make_network, num_examples, num_classes)
        for number in range(PASSES):
            widen(self.networks[number])
        # The last network alone learns from a selection: one row, not three.
        self.selected = torch.zeros(1, num_examples, dtype=torch.bool)
        # Where a pass has its fake class; drawn in the first epoch, from the run's generator.
        self.register_buffer("threshold_sets", torch.zeros(PASSES, num_examples, dtype=torch.bool))
        self.register_buffer("margin_sums", torch.zeros(PASSES, num_examples))
        self.register_buffer("counted", torch.zeros((), dtype=torch.int64))
        self.register_buffer("suspects", torch.zeros(num_examples, dtype=torch.bool))
        self.register_buffer("second_stage", torch.tensor(False))

    @property
    def network(self) -> nn.Module:
        """The network that is trained without the suspects."""
        return self.networks[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)``: of the passes first, later of the last network."""
        if self.second_stage:  # a buffer: a run taken up from its checkpoint knows it, too
            return self.network(images).softmax(dim=1)
        logits = torch.stack([net(images) for net in self.networks[:PASSES]])
        return logits[..., : self.num_classes].softmax(dim=-1).mean(dim=0)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Go once through the data: all of it at first, later what is left of it."""
        if self.epoch == 0:
            sets = threshold_sets(len(self.suspects), self.num_classes, self.generator)
            self.threshold_sets.copy_(sets)
        if self.epoch >= self.find_epochs:
            self.second_stage.fill_(True)
            self._train_on_the_rest(data, step)
            return
        for batch in data:
            step(self._pass_losses, batch)
        if self.epoch > 0:
            self.counted += 1
        if self.epoch + 1 == self.find_epochs:
            self.suspects.copy_(self._find())

    def aum(self) -> Tensor:
        """Return the AUM ``(N,)``: the mean over the passes in which an example kept its label."""
        means = self.margin_sums / self.counted.clamp(min=1)
        kept = ~self.threshold_sets
        return (means * kept).sum(dim=0) / kept.sum(dim=0)

    def threshold_aum(self) -> list[Tensor]:
        """Return the AUM of the fake class, one tensor a pass."""
        means = self.margin_sums / self.counted.clamp(min=1)
        return [row[fake] for row, fake in zip(means, self.threshold_sets, strict=True)]

    def _pass_losses(self, batch: Batch) -> Tensor:
        """Sum of both passes' losses; they share no weight, so each steps by its own."""
        return sum(self._pass_loss(number, batch) for number in range(PASSES))

    def _pass_loss(self, number: int, batch: Batch) -> Tensor:
        fake = self.threshold_sets[number, batch.index]
        labels = torch.where(fake, self.num_classes, batch.labels)
        logits = self.networks[number](batch.images)
        if self.epoch > 0:
            noted = torch.as_tensor(self.margins(logits.detach(), labels))
            self.margin_sums[number, batch.index] += noted.to(self.margin_sums)
        return F.cross_entropy(logits, labels)

    def _find(self) -> Tensor:
        means = self.margin_sums / self.counted
        flagged = torch.stack([
            torch.as_tensor(self.flag(row, row[fake], self.percentile)).to(fake) | fake
            for row, fake in zip(means, self.threshold_sets, strict=True)
        ])  # fmt: skip
        # Its own fake label says nothing about an example: the other pass decides alone.
        return flagged.all(dim=0)

    def _train_on_the_rest(self, data: TrainingData, step: Step) -> None:
        kept = (~self.suspects).nonzero().squeeze(1)
        if not len(kept):
            raise ValueError(
                "Expected some examples above the threshold, got none: the margins are no better "
                f"than those of the fake class. Try more than {self.find_epochs} `find_epochs` "
                f"or a `percentile` below {self.percentile:g}"
            )
        shuffled = torch.randperm(len(kept), generator=self.generator, device=kept.device)
        for index in kept[shuffled].split(data.batch_size):
            step(self._rest_loss, data.batch(index))

    def _rest_loss(self, batch: Batch) -> Tensor:
        self.mark_selected(0, batch.index)
        return F.cross_entropy(self.network(batch.images), batch.labels)
