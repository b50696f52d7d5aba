"""FixMatch: a few labels, and the network's own sure answers for all other images.

Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence"
(arXiv 2001.07685); their code: google-research/fixmatch. Explained in lesson 11.

An image without a label is shown twice. If the network is sure of the weakly augmented one, its
answer becomes the label of the strongly augmented one.

What the paper has and this file leaves to others: the cosine schedule (``schedule`` of ``fit``),
the mean of the weights for testing (lesson 10 has one), and RandAugment, whose colours and
rotations mean nothing on grey images of 8 x 8 pixels. The strong augmentation here is a shift, a
hole and noise. As in the paper's code the labelled images are among the unlabelled ones, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from ..datasets.augment import Augment
from .dividemix import endless

STRONG = Augment(crop=1, cutout=3)  # for 8 x 8 pixels: a shift by one, a hole of 3 x 3


def draw_labelled(
    labels: Tensor, per_class: int, num_classes: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw which examples count as labelled: `per_class` of each class, or all where fewer are.

    Args:
        labels: int64 ``(N,)``.
        per_class: from 1.
        num_classes: C.
        generator: on the device of the labels.

    Returns:
        A mask ``(N,)``.

    Raises:
        ValueError: `per_class` below 1.
    """
    if per_class < 1:
        raise ValueError(f"Expected `per_class` of at least 1, got {per_class}")
    order = torch.randperm(len(labels), generator=generator, device=labels.device)
    # How many of its class come up to each place of the shuffled order.
    place = F.one_hot(labels[order], num_classes).cumsum(dim=0)
    rank = place.gather(1, labels[order, None])[:, 0]
    labelled = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    labelled[order] = rank <= per_class
    return labelled


def pseudo_label_loss(weak: Tensor, strong: Tensor, threshold: float) -> Tensor:
    """Cross entropy of the strong view on the answer to the weak one, where that is sure.

    Args:
        weak: logits float ``(n, C)`` of the weakly augmented images; no gradient flows into them.
        strong: logits float ``(n, C)`` of the same images, strongly augmented.
        threshold: tau; an answer counts if its probability is at least this.

    Returns:
        A scalar: the sum over the sure ones divided by **all** n, so that few count little.
    """
    sure, answer = weak.detach().softmax(dim=1).max(dim=1)
    losses = F.cross_entropy(strong, answer, reduction="none")
    return (losses * (sure >= threshold)).mean()


class FixMatch(Method):
    """FixMatch on a split into labelled and unlabelled examples.

    Args:
        labelled: mask ``(N,)`` of the examples whose label is used; drawn when left out.
        per_class: how many are drawn of each class then.
        threshold: tau, in 0..1: how sure an answer has to be.
        lambda_u: weight of the unlabelled part, from 0; 0 learns from the labelled ones alone.
        ratio: mu, unlabelled images for each labelled one in a batch.
        strong: shift and hole of the strong augmentation; the weak one is ``augment`` of ``fit``.
        noise: deviation of its Gaussian noise, on normalised images.
        loss_of_views: from the logits of both views to a loss; a student's own fits here.

    Raises:
        ValueError: a setting out of its range.
    """

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
        if not 0 <= threshold <= 1:
            raise ValueError(f"Expected `threshold` in 0..1, got {threshold}")
        if lambda_u < 0 or noise < 0 or ratio < 1 or per_class < 1:
            raise ValueError(
                "Expected `lambda_u` and `noise` from 0, `ratio` and `per_class` from 1, got "
                f"{lambda_u}, {noise}, {ratio} and {per_class}"
            )
        if labelled is not None and (labelled.dtype != torch.bool or not bool(labelled.any())):
            raise ValueError("Expected `labelled` as a mask of bool with at least one True")
        self._given = labelled
        self.per_class, self.threshold, self.lambda_u = per_class, threshold, lambda_u
        self.ratio, self.strong, self.noise = ratio, strong, noise
        self.loss_of_views = loss_of_views

    def build(self, make_network: Callable, num_examples: int, num_classes: int) -> None:
        """Make the network and the mask: a buffer, so that a checkpoint holds it.

        Raises:
            ValueError: a mask for another number of examples.
        """
        super().build(make_network, num_examples, num_classes)
        given = self._given
        if given is not None and given.shape != (num_examples,):
            raise ValueError(
                f"Expected `labelled` of shape ({num_examples},), got {tuple(given.shape)}"
            )
        mask = torch.zeros(num_examples, dtype=torch.bool) if given is None else given.clone()
        self.register_buffer("labelled", mask)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Take as many steps as the whole set has batches."""
        if self.epoch == 0 and self._given is None:
            self.labelled = draw_labelled(
                data.labels, self.per_class, self.num_classes, self.generator
            )
        self.mark_selected(0, self.labelled)
        everybody = torch.arange(len(data.labels), device=data.labels.device)
        size = min(data.batch_size, int(self.labelled.sum()))
        first = endless(everybody[self.labelled], len(data), size, self.generator)
        second = endless(everybody, len(data), size * self.ratio, self.generator)
        for index, other in zip(first, second, strict=True):
            loss = functools.partial(self._loss_of, data=data, other=other)
            step(loss, data.batch(index))

    def _loss_of(self, batch: Batch, *, data, other: Tensor) -> Tensor:
        """Cross entropy of the labelled plus lambda_u times the loss of the two views."""
        if not self.lambda_u:
            return F.cross_entropy(self.network(batch.images), batch.labels)
        weak = data.batch(other).images
        strong = data.batch(other, self.strong).images
        noise = torch.randn(strong.shape, generator=self.generator, device=strong.device)
        together = torch.cat((batch.images, weak, strong + self.noise * noise))
        logits = self.network(together)
        labelled, weak, strong = logits.split((len(batch.index), len(other), len(other)))
        loss = F.cross_entropy(labelled, batch.labels)
        return loss + self.lambda_u * self.loss_of_views(weak, strong, self.threshold)
