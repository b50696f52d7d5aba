"""FixMatch: a few labels, and the network's own confident pseudo-labels for all other images.

Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence"
(arXiv 2001.07685); their code: google-research/fixmatch. Explained in lesson 11.

Symbols of the paper: tau, threshold of confidence; mu, unlabelled images for each labelled one.
Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect
from ..datasets.augment import Augment
from .mixmatch import endless

STRONG = Augment(crop=1, cutout=3)  # for 8 x 8 pixels: a shift by one, Cutout of 3 x 3


def draw_labelled(
    labels: Tensor, per_class: int, num_classes: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the labelled set, a mask ``(N,)``: `per_class` of each class, or all where fewer are."""
    expect(per_class >= 1, "`per_class` of at least 1", per_class)
    order = torch.randperm(len(labels), generator=generator, device=labels.device)
    # How many of its class come up to each place of the shuffled order.
    place = F.one_hot(labels[order], num_classes).cumsum(dim=0)
    rank = place.gather(1, labels[order, None])[:, 0]
    labelled = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    labelled[order] = rank <= per_class
    return labelled


def pseudo_label_loss(weak: Tensor, strong: Tensor, threshold: float) -> Tensor:
    """l_u: consistency of the strong view with the pseudo-label of the weak one (cross entropy).

    Args:
        weak: logits ``(n, C)`` of the weakly augmented images; no gradient flows into them.
        strong: logits ``(n, C)`` of the same images, strongly augmented.
        threshold: tau; a pseudo-label counts if its probability is at least this.

    Returns:
        A scalar: the sum over those that count divided by **all** n, so that few count little.
    """
    confidence, pseudo_label = weak.detach().softmax(dim=1).max(dim=1)
    losses = F.cross_entropy(strong, pseudo_label, reduction="none")
    return (losses * (confidence >= threshold)).mean()


class FixMatch(Method):
    """FixMatch on a split into labelled and unlabelled examples.

    Args:
        labelled: mask ``(N,)`` of the examples whose label is used; drawn when left out.
        per_class: how many are drawn of each class then.
        threshold: tau.
        lambda_u: weight of the unlabelled part; 0 learns from the labelled ones alone.
        ratio: mu.
        strong: shift and Cutout of the strong augmentation; the weak one is ``augment`` of ``fit``.
        noise: deviation of its Gaussian noise, on normalised images.
        loss_of_views: as :func:`pseudo_label_loss`.
    """

    labelled: Tensor

    def __init__(
        self,
        labelled: Tensor | None = None,
        *,
        per_class: int = 4,
        threshold: float = 0.95,
        lambda_u: float = 1.0,
        ratio: int = 7,
        strong: Augment = STRONG,
        noise: float = 0.3,
        loss_of_views: Callable[[Tensor, Tensor, float], Tensor] = pseudo_label_loss,
    ) -> None:
        """Check the settings; the mask comes with :meth:`build` or with the first epoch."""
        super().__init__()
        expect(0 <= threshold <= 1, "`threshold` in 0..1", threshold)
        expect(lambda_u >= 0 and noise >= 0, "`lambda_u`, `noise` from 0", f"{lambda_u}, {noise}")
        expect(
            ratio >= 1 and per_class >= 1, "`ratio`, `per_class` from 1", f"{ratio}, {per_class}"
        )
        mask = labelled is None or (labelled.dtype == torch.bool and bool(labelled.any()))
        expect(mask, "`labelled` as a mask of bool with at least one True", labelled)
        self.given, self.per_class, self.threshold = labelled, per_class, threshold
        self.lambda_u, self.ratio, self.strong, self.noise = lambda_u, ratio, strong, noise
        self.loss_of_views = loss_of_views

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network, and the mask as a buffer, so that a checkpoint has it."""
        super().build(make_network, num_examples, num_classes)
        nobody = torch.zeros(num_examples, dtype=torch.bool)
        mask = nobody if self.given is None else self.given.clone()
        expect(len(mask) == num_examples, f"`labelled` of shape ({num_examples},)", len(mask))
        self.register_buffer("labelled", mask)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Take as many steps as the whole set has batches, each with mu unlabelled for a labelled.

        The labelled images are among the unlabelled ones, too.
        """
        if self.epoch == 0 and self.given is None:
            drawn = self.per_class, self.num_classes, self.generator
            self.labelled.copy_(draw_labelled(data.labels, *drawn))
        self.mark_selected(0, self.labelled)
        everybody = torch.arange(len(data.labels), device=data.labels.device)
        size = min(data.batch_size, int(self.labelled.sum()))
        labelled = endless(everybody[self.labelled], len(data), size, self.generator)
        unlabelled = endless(everybody, len(data), size * self.ratio, self.generator)
        for index, other in zip(labelled, unlabelled, strict=True):
            step(functools.partial(self.loss_of, other, data), data.batch(index))

    def loss_of(self, other: Tensor, data: TrainingData, batch: Batch) -> Tensor:
        """Return l_s + lambda_u l_u: labelled images and both views of the others in one pass."""
        if not self.lambda_u:
            return F.cross_entropy(self.network(batch.images), batch.labels)
        weak = data.batch(other).images
        strong = data.batch(other, self.strong).images
        noise = torch.randn(strong.shape, generator=self.generator, device=strong.device)
        logits = self.network(torch.cat((batch.images, weak, strong + self.noise * noise)))
        labelled, weak, strong = logits.split((len(batch.index), len(other), len(other)))
        l_s = F.cross_entropy(labelled, batch.labels)
        return l_s + self.lambda_u * self.loss_of_views(weak, strong, self.threshold)
