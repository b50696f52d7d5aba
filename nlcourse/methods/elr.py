"""Early-learning regularization: hold on to what the network predicted before it memorized.

Liu et al. 2020, "Early-Learning Regularization Prevents Memorization of Noisy Labels" (arXiv
2007.00151); their code: shengliu66/ELR. Explained in lesson 10.

Symbols of the paper: p, predicted probabilities; t, targets; beta, their momentum; lambda, weight
of the regularizer; gamma, decay of the exponential moving average (EMA) of the weights.
Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect, expect_index, expect_rows
from .ema import Average, AveragedNetworks, average_weights
from .mixup import mix_with_targets

CLAMP = 1e-4  # probabilities are kept this far from 0 and 1, as in the code
Piece = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def update_targets(targets: Tensor, index: Tensor, probabilities: Tensor, beta: float) -> Tensor:
    """Temporal ensembling, ``t <- beta t + (1 - beta) p``, of the rows in `index`, int64 ``(n,)``.

    Takes targets ``(N, C)`` and p ``(n, C)``; returns new targets ``(N, C)`` without gradient.
    """
    expect(0 <= beta < 1, "`beta` in [0, 1)", beta, "the share of the old target that stays")
    shapes = tuple(targets.shape), tuple(index.shape), tuple(probabilities.shape)
    fits = targets.dim() == 2 and shapes[2] == (len(index), shapes[0][1])
    expect(fits, "`targets` (N, C), `index` (n,) and `probabilities` (n, C)", shapes)
    expect_index("index", index, len(targets))
    expect_rows("probabilities", probabilities)
    t, p = targets.detach(), probabilities.detach().to(targets.dtype)
    return t.index_copy(0, index, beta * t.index_select(0, index) + (1 - beta) * p)


def _rest(p: Tensor, t: Tensor) -> Tensor:
    """Return ``1 - <p, t>`` ``(n, 1)``, at least what the dtype can tell from 0."""
    shapes = tuple(p.shape), tuple(t.shape)
    expect(shapes[0] == shapes[1], "`probabilities` and `targets` of one shape (n, C)", shapes)
    expect_rows("probabilities", p)
    return (1 - (p * t.detach()).sum(dim=1, keepdim=True)).clamp(min=torch.finfo(p.dtype).eps)


def regularizer(probabilities: Tensor, targets: Tensor) -> Tensor:
    """``log(1 - <p, t>)`` of each example ``(n,)``: the smaller, the better p agrees with t."""
    return _rest(probabilities, targets).log().squeeze(dim=1)


def regularizer_gradient(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Lemma 2: g ``(n, C)``, the slope in the logits, is ``p (<p, t> - t) / (1 - <p, t>)``."""
    p, t, rest = probabilities, targets, _rest(probabilities, targets)
    return p * ((p * t).sum(dim=1, keepdim=True) - t) / rest


def elr_loss(logits: Tensor, labels: Tensor, targets: Tensor, lambda_: float) -> Tensor:
    """Equation 6, maybe negative; labels are int64 ``(n,)``, or rows ``(n, C)`` if mixed."""
    p = logits.softmax(dim=1).clamp(CLAMP, 1 - CLAMP)
    return F.cross_entropy(logits, labels) + lambda_ * regularizer(p, targets).mean()


class ELR(Method):
    """Early-learning regularization with one network; `update` moves t, `objective` is the loss."""

    targets: Tensor

    def __init__(
        self,
        beta: float = 0.7,  # the paper's for CIFAR-10; 0.9 for asymmetric noise and CIFAR-100
        lambda_: float = 3.0,  # likewise; 1 for asymmetric noise, 7 for CIFAR-100
        *,
        update: Piece = update_targets,
        objective: Piece = elr_loss,
    ) -> None:
        """Check the settings; the targets come with :meth:`build`."""
        super().__init__()
        expect(0 <= beta < 1, "`beta` in [0, 1)", beta, "the share of the old target that stays")
        expect(0 <= lambda_ < float("inf"), "`lambda_` of at least 0 and finite", lambda_)
        self.beta, self.lambda_, self.update, self.objective = beta, lambda_, update, objective

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network, and targets of 0: a buffer, so that a checkpoint has them."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("targets", torch.zeros(num_examples, num_classes))

    def follow(self, targets: Tensor, index: Tensor, logits: Tensor) -> Tensor:
        """Move the rows at `index`, not copying all N, towards the predictions; return them."""
        p = logits.detach().softmax(dim=1).clamp(CLAMP, 1 - CLAMP)
        rows, places = targets[index], torch.arange(len(index), device=index.device)
        targets[index] = rows = self.update(rows, places, p / p.sum(1, keepdim=True), self.beta)
        return rows

    def loss(self, batch: Batch) -> Tensor:
        """Move the batch's targets, then return the loss."""
        logits = self.network(batch.images)
        t = self.follow(self.targets, batch.index, logits)
        return self.objective(logits, batch.labels, t, self.lambda_)


class ELRPlus(ELR):
    """ELR+: ELR with two networks, averaged weights and mixup (algorithm 2 of the paper)."""

    num_networks = 2

    def __init__(
        self,
        beta: float = 0.7,
        lambda_: float = 3.0,
        *,
        gamma: float = 0.997,
        alpha: float = 1.0,
        average: Average = average_weights,
        mix: Callable[..., tuple[Tensor, Tensor, Tensor]] = mix_with_targets,
        **pieces: Piece,
    ) -> None:
        """Check the settings; `alpha` is that of `mix`, and `pieces` are ELR's."""
        super().__init__(beta, lambda_, **pieces)
        expect(
            0 <= gamma < 1, "`gamma` in [0, 1)", gamma, "the share of the old average that stays"
        )
        expect(0 <= alpha < float("inf"), "`alpha` of at least 0 and finite", alpha)
        self.gamma, self.alpha, self.average, self.mix = gamma, alpha, average, mix

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the networks, their averaged copies, and targets for each."""
        super().build(make_network, num_examples, num_classes)
        self.targets = self.targets.repeat(self.num_networks, 1, 1)
        self.averages = AveragedNetworks(self.networks)

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of the networks' losses: they share no weight, so each gets its own."""
        losses = []
        for k, network in enumerate(self.networks):
            with torch.no_grad():  # what the other's average says of the unmixed images
                peer = self.averages[-1 - k](batch.images)
            t = self.follow(self.targets[k], batch.index, peer)
            images, labels, t = self.mix(batch.images, batch.labels, t, self.alpha, self.generator)
            losses.append(self.objective(network(images), labels, t, self.lambda_))
        return torch.stack(losses).sum()

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Go once through the data; after each step the averaged weights follow."""
        for number, batch in enumerate(data, start=self.epoch * len(data)):
            step(self.loss, batch)
            self.averages.follow(self.networks, self.average, number, self.gamma)
