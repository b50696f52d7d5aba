"""DivideMix: divide the examples by a Gaussian mixture on their losses; train by MixMatch.

Li, Socher and Hoi 2020, "DivideMix: Learning with Noisy Labels as Semi-supervised Learning" (arXiv
2002.07394); their code: LiJunnan1992/DivideMix. Explained in lesson 11.
Symbols of the paper: w, posterior that a label is clean; X and U, labelled and unlabelled set; M,
views (augmentations) of an image; T, temperature; y, labels; p, predictions; q, guessed labels.
Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect, expect_rows
from .features import over_all
from .gaussian_mixture import clean_probability as clean_probability
from .gaussian_mixture import normalised as normalised
from .mixmatch import co_guess as co_guess
from .mixmatch import confidence_penalty as confidence_penalty
from .mixmatch import endless, even_prior_loss, predictions, unsupervised_weight, views_of
from .mixmatch import semi_supervised_loss as semi_supervised_loss
from .mixmatch import sharpen as sharpen
from .mixup import label_rows, mixup

Pair = tuple[Tensor, Tensor]  # one a network


def co_divide(clean_by_first: Tensor, clean_by_second: Tensor, threshold: float) -> Pair:
    """Return X of both networks, masks ``(n,)``: where w of the **peer** is above tau."""
    return clean_by_second > threshold, clean_by_first > threshold


def co_refine(
    labels: Tensor, clean_probability: Tensor, probabilities: Tensor, temperature: float
) -> Tensor:
    """``sharpen(w y + (1 - w) p)``, ``(n, C)`` without gradient.

    y: int64 ``(n,)`` or rows ``(n, C)``; w: ``(n,)``; p: ``(n, C)``, the mean over the views.
    """
    expect_rows("probabilities", probabilities)
    w = clean_probability[:, None].to(probabilities)
    expect(len(w) == len(probabilities), "one `clean_probability` a row of p", len(w))
    expect_rows("clean_probability", torch.cat((w, 1 - w), dim=1), why="w is in 0..1")
    y = label_rows(labels, probabilities.shape[1]).to(probabilities)
    return sharpen((w * y + (1 - w) * probabilities).detach(), temperature)


@dataclass(frozen=True)
class Settings:
    """The paper's for CIFAR-10 at 50 and 80 % symmetric noise; ``recipes.toml`` has others."""

    warm_up: int = 10  # epochs before the first division
    threshold: float = 0.5  # tau
    temperature: float = 0.5  # T
    alpha: float = 4.0  # of mixup; 0 mixes nothing
    lambda_u: float = 25.0  # weight of the unlabelled part, ...
    ramp_epochs: float = 16  # ... over which it is reached
    views: int = 2  # M
    steps: int = 0  # of an epoch, for each network; 0: as many as X has batches
    average_losses: int = 1  # epochs over which losses are averaged

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, value in vars(self).items():
            least = 1 if name in ("warm_up", "views", "average_losses") else 0
            expect(least <= value < math.inf, f"a finite `{name}` from {least}", value)
        expect(self.threshold <= 1, "`threshold` in 0..1", self.threshold, "w is a probability")
        expect(self.temperature > 0, "`temperature` above 0", self.temperature)
        expect(self.ramp_epochs > 0, "`ramp_epochs` above 0", self.ramp_epochs)


class DivideMix(Method):
    """Algorithm 1; ``losses`` and ``clean`` (w), ``(2, N)``, are those before the latest epoch."""

    num_networks = 2
    losses: Tensor
    clean: Tensor
    past: Tensor

    def __init__(
        self,
        *,
        mixture: Callable[[Tensor], Tensor] = clean_probability,
        divide: Callable[[Tensor, Tensor, float], Pair] = co_divide,
        refine_labels: Callable[[Tensor, Tensor, Tensor, float], Tensor] = co_refine,
        guess_labels: Callable[[Tensor, float], Tensor] = co_guess,
        objective: Callable[[Tensor, Tensor, int, float], Tensor] = semi_supervised_loss,
        prior: Callable[[Tensor], Tensor] | None = even_prior_loss,
        penalize: Callable[[Tensor], Tensor] | None = None,
        **settings: Any,
    ) -> None:
        """Take the pieces, and :class:`Settings` by name; `prior` None leaves L_reg out."""
        super().__init__()
        self.settings, self.mixture, self.divide = Settings(**settings), mixture, divide
        self.refine_labels, self.guess_labels = refine_labels, guess_labels
        self.objective, self.prior, self.penalize = objective, prior, penalize

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make two networks, and buffers (so a checkpoint has them) for losses and w."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("losses", torch.zeros(2, num_examples))
        self.register_buffer("clean", torch.ones(2, num_examples))
        self.register_buffer("past", torch.zeros(self.settings.average_losses, 2, num_examples))

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)`` from the mean of both networks' logits."""
        return torch.stack([one(images) for one in self.networks]).mean(dim=0).softmax(dim=1)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Fit the mixtures; warm up, or co-divide and train one network, then the other."""
        self.fit_mixtures(data)
        if self.epoch < self.settings.warm_up:
            return self.warm_up((0, 1), data, step)
        labelled = self.divide(self.clean[0], self.clean[1], self.settings.threshold)
        for k in range(2):
            self.train_one(k, labelled[k], self.clean[1 - k], data, step)

    def fit_mixtures(self, data: TrainingData) -> None:
        """Fit w of both networks on all examples, from (averaged) normalised losses."""
        for k, network in enumerate(self.networks):
            logits = over_all(network, network, data.images, len(data.labels))
            self.losses[k] = F.cross_entropy(logits, data.labels, reduction="none")
            self.past[self.epoch % len(self.past), k] = normalised(self.losses[k])
        averaged = self.past[: self.epoch + 1].mean(dim=0)
        self.clean.copy_(torch.stack([self.mixture(losses) for losses in averaged]))

    def warm_up(self, networks: Sequence[int], data: TrainingData, step: Step) -> None:
        """Cross entropy on all given labels, with the penalty if there is one."""

        def loss(batch: Batch) -> Tensor:
            total = torch.zeros((), device=batch.images.device)
            for k in networks:
                logits = self.networks[k](batch.images)
                total = total + F.cross_entropy(logits, batch.labels)
                total = total + self.penalize(logits) if self.penalize else total
            return total

        for k in networks:
            self.mark_selected(k, torch.arange(len(data.labels)))
        for batch in data:
            step(loss, batch)

    def train_one(self, k: int, mask: Tensor, w: Tensor, data: TrainingData, step: Step) -> None:
        """An epoch of network k: in each step a batch of X (`mask`) and one of U."""
        s, x, u = self.settings, mask.nonzero().flatten(), (mask == 0).nonzero().flatten()
        if not len(x):  # nothing to refine, nothing to guess from
            return self.warm_up((k,), data, step)
        self.mark_selected(k, x)
        steps = s.steps or -(-len(x) // data.batch_size)
        batches = (endless(part, steps, data.batch_size, self.generator) for part in (x, u))
        for done, (index, other) in enumerate(zip(*batches, strict=True)):
            since = self.epoch - s.warm_up + done / steps
            weight = unsupervised_weight(since, s.lambda_u, s.ramp_epochs)
            step(functools.partial(self.loss_of, k, w, other, data, weight), data.batch(index))

    def loss_of(
        self, k: int, w: Tensor, other: Tensor, data: TrainingData, lambda_u: float, batch: Batch
    ) -> Tensor:
        """Co-refine the batch of X, co-guess that of U, mixup, L_X + lambda_u L_U + L_reg."""
        own, peer, s = self.networks[k], self.networks[1 - k], self.settings
        x = [batch.images, *views_of(data, batch.index, s.views - 1)]
        p = predictions(own, x).mean(dim=0)  # in training mode, as in the code; the peer is not
        rows = [self.refine_labels(batch.labels, w[batch.index], p, s.temperature)] * s.views
        if len(other):
            u = views_of(data, other, s.views)
            both = torch.cat((predictions(own, u), predictions(peer.eval(), u)))
            x, rows = x + u, rows + [self.guess_labels(both, s.temperature)] * s.views
            peer.train()
        images, y = mixup(torch.cat(x), torch.cat(rows), s.alpha, self.generator)
        z, n = own(images), s.views * len(batch.index)
        loss = self.objective(z, y, n, lambda_u) if len(other) else F.cross_entropy(z, y)
        return loss + self.prior(z.softmax(dim=1)) if self.prior else loss
