"""Deep self-learning: correct the labels by a few typical images of each class.

Han, Luo and Wang 2019, "Deep Self-Learning From Noisy Labels" (arXiv 1908.02160). No code of the
authors is public; what we could not read in the paper itself we took from a summary of it, and say
so. Explained in lesson 08.

Two phases take turns, epoch by epoch. Training: cross entropy against the given labels and, in a
share alpha, against the corrected ones. Correction: in each class some images become prototypes,
those that many others resemble and that do not resemble each other. Every training image then gets
the label of the class whose prototypes it resembles most. Resemblance is the cosine between two
images' features.

Choices:

* `S_c`, the similarity that counts as close, is the value at the top 40 % of all entries of the
  class's similarities, the ones of the diagonal included. (A student's code takes the 40th per cent
  from below: nearly everybody is close then.)
* prototypes are the densest among those with eta below 0.95. A low eta means that no denser image
  is nearly the same. (The 0.95 is not verified. Taking the *largest* eta, as some codes do, turns
  the rule round.) If too few pass, the densest of the others follow.
* the labels are corrected once an epoch for the whole set, from the features at its end, without
  augmentation. (Some codes do it in every batch.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from .features import all_features

TOP_SHARE = 0.4  # of the similarities of a class that count as close
MAX_RESEMBLANCE = 0.95  # to a denser image, for a prototype


# Prototypes -------------------------------------------------------------------------------------


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of each row of one ``(n, d)`` with each of the other: ``(n, m)``."""
    return F.normalize(one, dim=1) @ F.normalize(other, dim=1).T


def density_and_resemblance(similarities: Tensor, top_share: float = TOP_SHARE) -> tuple:
    """Return rho and eta of the images of one class.

    ``rho_i = sum_j sign(S_ij - S_c)``: how many are closer than S_c, minus how many are not.
    ``eta_i``: the largest similarity to an image of higher density; for the densest, the smallest
    similarity to any.

    Args:
        similarities: float ``(m, m)``, S.
        top_share: in (0, 1]; S_c is the entry at place ``top_share * m^2`` (rounded up, counted
            from 1) of all, largest first.

    Returns:
        rho, float ``(m,)``, and eta, float ``(m,)``.
    """
    if similarities.dim() != 2 or similarities.shape[0] != similarities.shape[1]:
        raise ValueError(
            f"Expected `similarities` of shape (m, m), got {tuple(similarities.shape)}"
        )
    place = math.ceil(top_share * similarities.numel())
    ascending = similarities.numel() - place + 1
    close = similarities.flatten().kthvalue(ascending).values
    rho = (similarities - close).sign().sum(dim=1)
    denser = rho[None, :] > rho[:, None]
    eta = similarities.masked_fill(~denser, -torch.inf).amax(dim=1)
    eta = torch.where(denser.any(dim=1), eta, similarities.amin(dim=1))
    return rho, eta


def choose_prototypes(features: Tensor, count: int = 8) -> Tensor:
    """Choose typical images of one class that differ from each other.

    Images whose eta reaches 0.95 come only when no other is left.

    Args:
        features: float ``(m, d)`` of images with one given label.
        count: p, how many, from 1.

    Returns:
        int64 ``(min(count, m),)``, positions, the densest first.

    Raises:
        ValueError: features that are no matrix, or a count below 1.
    """
    if features.dim() != 2:
        raise ValueError(f"Expected `features` of shape (m, d), got {tuple(features.shape)}")
    if count < 1:
        raise ValueError(f"Expected `count` of at least 1, got {count}")
    if not len(features):
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    rho, eta = density_and_resemblance(cosines(features, features))
    # Every rho lies in [-m, m]: taking 2m + 1 off puts whoever is too similar behind all others.
    order = rho - (2 * len(features) + 1) * (eta >= MAX_RESEMBLANCE)
    return order.argsort(descending=True, stable=True)[:count]


def class_scores(features: Tensor, prototypes: Sequence[Tensor]) -> Tensor:
    """Return how much each image resembles each class: sigma of the paper.

    Args:
        features: float ``(n, d)``.
        prototypes: C tensors ``(p_c, d)``, the features of each class's prototypes.

    Returns:
        float ``(n, C)``: the mean cosine with the prototypes; minus infinity for a class without.
    """
    if not len(prototypes):
        raise ValueError("Expected `prototypes` of at least one class, got none")
    columns = [
        cosines(features, some).mean(dim=1)
        if len(some)
        else features.new_full((len(features),), -torch.inf)
        for some in prototypes
    ]
    return torch.stack(columns, dim=1)


def prototype_labels(features: Tensor, prototypes: Sequence[Tensor]) -> Tensor:
    """Return the class whose prototypes an image resembles most, on average.

    Args:
        features: float ``(n, d)``.
        prototypes: C tensors ``(p_c, d)``; the classes may have different numbers of them.

    Returns:
        int64 ``(n,)``.

    >>> prototype_labels(torch.tensor([[1.0, 3.0]]), [torch.eye(2)[:1], torch.eye(2)[1:]])
    tensor([1])
    """
    return class_scores(features, prototypes).argmax(dim=1)


def all_prototypes(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    count: int = 8,
    sample: int = 1280,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Choose the prototypes of every class among the images that were given its label.

    Args:
        features: float ``(N, d)``.
        labels: int64 ``(N,)``, given.
        num_classes: C.
        count: p, prototypes a class.
        sample: m, images of a class to choose among, drawn at random when there are more.
        generator: on the device of the features.

    Returns:
        C tensors ``(p_c, d)``; empty for a class without images.
    """
    found = []
    for label in range(num_classes):
        members = (labels == label).nonzero().squeeze(1)
        if len(members) > sample:
            drawn = torch.randperm(len(members), generator=generator, device=members.device)
            members = members[drawn[:sample]]
        own = features[members]
        found.append(own[choose_prototypes(own, count)])
    return found


# The loss ---------------------------------------------------------------------------------------


def two_part_loss(logits: Tensor, labels: Tensor, corrected: Tensor, alpha: float) -> Tensor:
    """``(1 - alpha) CE(given labels) + alpha CE(corrected labels)``, the mean over the batch."""
    given = F.cross_entropy(logits, labels)
    return (1 - alpha) * given + alpha * F.cross_entropy(logits, corrected)


# The method -------------------------------------------------------------------------------------


class SelfLearning(Method):
    """Train on given and corrected labels; correct them after every epoch.

    Args:
        alpha: share of the corrected labels in the loss once there are any, in [0, 1]; 0.5 in the
            paper.
        warm_up: epochs on the given labels alone, from 1.
        count: p, prototypes a class, from 1.
        sample: m, images of a class that prototypes are chosen among, from 1.
        relabel: from features and prototypes to labels; a student's own fits here.

    Attributes:
        current_labels: float ``(N, C)``, the corrected labels; at first the given ones, zeros for
            examples not met yet.

    Raises:
        ValueError: a setting is out of its range.
    """

    current_labels: Tensor

    def __init__(
        self,
        alpha: float = 0.5,
        *,
        warm_up: int = 10,
        count: int = 8,
        sample: int = 1280,
        relabel: Callable[[Tensor, Sequence[Tensor]], Tensor] = prototype_labels,
    ) -> None:
        """Check the settings; memory for the labels comes with :meth:`build`."""
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"Expected `alpha` in [0, 1], got {alpha}")
        if min(warm_up, count, sample) < 1:
            raise ValueError(
                "Expected `warm_up`, `count` and `sample` of at least 1, got "
                f"{warm_up}, {count} and {sample}"
            )
        self.alpha = alpha
        self.warm_up = warm_up
        self.count = count
        self.sample = sample
        self.relabel = relabel

    def build(self, make_network: Callable, num_examples: int, num_classes: int) -> None:
        """Make the network, and room for the labels: a buffer, so that a checkpoint holds them."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("current_labels", torch.zeros(num_examples, num_classes))

    def loss(self, batch: Batch) -> Tensor:
        """Return the two-part loss; in the first epochs the given labels count alone."""
        logits = self.network(batch.images)
        if self.epoch < self.warm_up:
            given = F.one_hot(batch.labels, self.num_classes).float()
            self.current_labels[batch.index] = given
            return F.cross_entropy(logits, batch.labels)
        corrected = self.current_labels[batch.index].argmax(dim=1)
        return two_part_loss(logits, batch.labels, corrected, self.alpha)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Train once through the data, then correct the labels."""
        super().train_epoch(data, step)
        if self.epoch + 1 >= self.warm_up:
            labels = self._corrected(data)
            self.current_labels.copy_(F.one_hot(labels, self.num_classes))

    @torch.no_grad()
    def _corrected(self, data: TrainingData) -> Tensor:
        seen = all_features(self.network, data.images, len(data.labels))
        prototypes = all_prototypes(
            seen, data.labels, self.num_classes,
            count=self.count, sample=self.sample, generator=self.generator,
        )  # fmt: skip
        return torch.as_tensor(self.relabel(seen, prototypes)).to(seen.device).long()
