"""Deep self-learning: correct the labels by the prototypes of each class.

Han, Luo and Wang 2019, "Deep Self-Learning From Noisy Labels" (arXiv 1908.02160); no code of theirs
is public. Explained in lesson 08.
Symbols of the paper: S, cosines between the features of a class; S_c, the value that counts as
close; rho, density; eta, similarity to a denser image; sigma, similarity to a class; p, prototypes.
Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect
from .features import all_features

TOP_SHARE = 0.4  # of the similarities of a class that count as close
MAX_RESEMBLANCE = 0.95  # to a denser image, for a prototype


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of each row of one ``(n, d)`` with each of the other: ``(n, m)``."""
    return F.normalize(one, dim=1) @ F.normalize(other, dim=1).T


def density_and_resemblance(
    similarities: Tensor, top_share: float = TOP_SHARE
) -> tuple[Tensor, Tensor]:
    """Return rho and eta, each ``(m,)``, of the images of one class from S ``(m, m)``.

    ``rho_i = sum_j sign(S_ij - S_c)``, where S_c is the entry at place ``top_share * m^2`` (rounded
    up, counted from 1) of all, largest first. ``eta_i``: the largest similarity to an image of
    higher density; for the densest, the smallest similarity to any.
    """
    shape = tuple(similarities.shape)
    expect(len(shape) == 2 and shape[0] == shape[1], "`similarities` of shape (m, m)", shape)
    place = math.ceil(top_share * similarities.numel())
    ascending = similarities.numel() - place + 1
    close = similarities.flatten().kthvalue(ascending).values
    rho = (similarities - close).sign().sum(dim=1)
    denser = rho[None, :] > rho[:, None]
    eta = similarities.masked_fill(~denser, -torch.inf).amax(dim=1)
    eta = torch.where(denser.any(dim=1), eta, similarities.amin(dim=1))
    return rho, eta


def choose_prototypes(features: Tensor, count: int = 8) -> Tensor:
    """Choose dense, diverse prototypes of one class: positions ``(min(count, m),)``, by rho.

    Among `features` ``(m, d)``; images whose eta reaches 0.95 come only when no other is left.
    """
    expect(features.dim() == 2, "`features` of shape (m, d)", tuple(features.shape))
    expect(count >= 1, "`count` of at least 1", count)
    if not len(features):
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    rho, eta = density_and_resemblance(cosines(features, features))
    # Every rho lies in [-m, m]: taking 2m + 1 off puts whoever is too similar behind all others.
    order = rho - (2 * len(features) + 1) * (eta >= MAX_RESEMBLANCE)
    return order.argsort(descending=True, stable=True)[:count]


def class_scores(features: Tensor, prototypes: Sequence[Tensor]) -> Tensor:
    """Return sigma ``(n, C)``: the mean cosine with the prototypes of a class.

    `features` are ``(n, d)``, `prototypes` C tensors ``(p_c, d)``; without any it is -inf.
    """
    expect(len(prototypes) > 0, "`prototypes` of at least one class", "none")
    columns = [
        cosines(features, some).mean(dim=1)
        if len(some)
        else features.new_full((len(features),), -torch.inf)
        for some in prototypes
    ]
    return torch.stack(columns, dim=1)


def prototype_labels(features: Tensor, prototypes: Sequence[Tensor]) -> Tensor:
    """Return the class ``(n,)`` whose prototypes an image resembles most, on average.

    >>> prototype_labels(torch.tensor([[1.0, 3.0]]), [torch.eye(2)[:1], torch.eye(2)[1:]])
    tensor([1])
    """
    return class_scores(features, prototypes).argmax(dim=1)


def all_prototypes(
    features: Tensor, labels: Tensor, num_classes: int, *,
    count: int = 8, sample: int = 1280, generator: torch.Generator | None = None,
) -> list[Tensor]:  # fmt: skip
    """Choose the prototypes of every class, C tensors ``(p_c, d)``, by the given labels ``(N,)``.

    Of the `features` ``(N, d)`` of a class at most `sample` are looked at, drawn at random.
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


def two_part_loss(logits: Tensor, labels: Tensor, corrected: Tensor, alpha: float) -> Tensor:
    """``(1 - alpha) CE(given labels) + alpha CE(corrected labels)``, the mean over the batch."""
    given, new = F.cross_entropy(logits, labels), F.cross_entropy(logits, corrected)
    return (1 - alpha) * given + alpha * new


class SelfLearning(Method):
    """Train on given and corrected labels; correct them after every epoch.

    Args:
        alpha: share of the corrected labels in the loss once there are any, in [0, 1].
        warm_up: epochs on the given labels alone, from 1.
        count: p, prototypes a class, from 1.
        sample: m, images of a class that prototypes are chosen among, from 1.
        relabel: as :func:`prototype_labels`.
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
        expect(0 <= alpha <= 1, "`alpha` in [0, 1]", alpha)
        least = min(warm_up, count, sample)
        expect(least >= 1, "`warm_up`, `count` and `sample` of at least 1", least)
        self.alpha, self.warm_up, self.count, self.sample = alpha, warm_up, count, sample
        self.relabel = relabel

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network, and room for the labels: a buffer, so that a checkpoint holds them."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("current_labels", torch.zeros(num_examples, num_classes))

    def loss(self, batch: Batch) -> Tensor:
        """Return the two-part loss; in the first epochs the given labels count alone."""
        logits = self.network(batch.images)
        if self.epoch < self.warm_up:
            self.current_labels[batch.index] = F.one_hot(batch.labels, self.num_classes).float()
            return F.cross_entropy(logits, batch.labels)
        corrected = self.current_labels[batch.index].argmax(dim=1)
        return two_part_loss(logits, batch.labels, corrected, self.alpha)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Train once through the data, then correct the labels."""
        super().train_epoch(data, step)
        if self.epoch + 1 >= self.warm_up:
            seen = all_features(self.network, data.images, len(data.labels))
            prototypes = all_prototypes(
                seen, data.labels, self.num_classes,
                count=self.count, sample=self.sample, generator=self.generator,
            )  # fmt: skip
            labels = torch.as_tensor(self.relabel(seen, prototypes)).to(seen.device).long()
            self.current_labels.copy_(F.one_hot(labels, self.num_classes))
