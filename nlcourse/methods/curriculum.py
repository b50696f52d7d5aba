"""CurriculumNet: begin with the images that lie among many of their class.

Guo, Huang, Zhang, Zhuang, Dong, Scott and Huang 2018, "CurriculumNet: Weakly Supervised Learning
from Large-Scale Web Images" (arXiv 1808.01097); their code: MalongTech/research-curriculumnet.
Explained in lesson 08.

A first network learns from everything. In its features, images of one class lie close together; a
wrong label puts an image among strangers. So each class is split by density into three subsets:
clean, noisy, highly noisy. A second network learns from the first subset, then from two, then from
all, with weights 1, 0.5 and 0.5.

Choices where paper and code leave some:

* squared Euclidean distances (paper; the code takes the root, which orders them the same way and
  so gives the same densities);
* the cutoff is the value at 60 % of all n x n sorted distances, the zeros of the diagonal
  included; an example does not count itself; "closer" is strictly closer;
* features of more than 256 numbers are reduced to 256 by PCA, class by class;
* k-means with three centres on the densities; the subset with the highest centre is the clean one.
  A class with fewer than three different densities has fewer subsets;
* the first network's training is part of ours: its epochs come first in the history;
* how a batch is composed is not clear to us from what we have read; ours are drawn from all
  subsets of a stage together, and the loss is the mean of weight times cross entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from .features import all_features

CUTOFF_SHARE = 0.6  # of the sorted distances of a class
MAX_FEATURES = 256
WEIGHTS = (1.0, 0.5, 0.5)
SUBSETS = ("clean", "noisy", "highly noisy")


# Density ----------------------------------------------------------------------------------------


def local_density(features: Tensor, share: float = CUTOFF_SHARE) -> Tensor:
    """Count for each example how many others of its class lie closer than the cutoff.

    ``rho_i = #{j != i : D_ij < d_c}`` with squared Euclidean distances D; d_c is the value at place
    ``share * n^2`` (rounded up, counted from 1) of all n^2 distances in ascending order.

    Args:
        features: float ``(n, d)`` of the examples of one class.
        share: in (0, 1].

    Returns:
        int64 ``(n,)``, from 0 to n - 1.

    Raises:
        ValueError: features that are no matrix, or a share outside (0, 1].

    >>> local_density(torch.tensor([[0.0], [1.0], [2.0], [9.0]]))
    tensor([1, 2, 1, 0])
    """
    if features.dim() != 2:
        raise ValueError(f"Expected `features` of shape (n, d), got {tuple(features.shape)}")
    if not 0 < share <= 1:
        raise ValueError(f"Expected `share` in (0, 1], got {share}")
    if not len(features):
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    # Not through |a|^2 + |b|^2 - 2ab: its rounding would make equal distances differ.
    distances = torch.cdist(
        features, features, compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    place = math.ceil(share * distances.numel())
    cutoff = distances.flatten().kthvalue(place).values
    closer = distances < cutoff
    return closer.sum(dim=1) - closer.diagonal().long()


def density_subsets(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    density: Callable[[Tensor], Tensor] = local_density,
) -> Tensor:
    """Split every class into clean (0), noisy (1) and highly noisy (2) by its densities.

    Args:
        features: float ``(N, d)``.
        labels: int64 ``(N,)``, the given labels.
        num_classes: C.
        density: of the examples of one class; a student's own fits here.

    Returns:
        int64 ``(N,)``, on the device of the labels.

    Raises:
        ValueError: features and labels that do not fit together.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            "Expected `features` (N, d) and `labels` (N,), got "
            f"{tuple(features.shape)} and {tuple(labels.shape)}"
        )
    subsets = torch.zeros_like(labels)
    for label in range(num_classes):
        members = (labels == label).nonzero().squeeze(1)
        if len(members):
            rho = torch.as_tensor(density(reduced(features[members]))).to(labels.device)
            subsets[members] = split_by_density(rho)
    return subsets


def split_by_density(density: Tensor) -> Tensor:
    """Split one class by k-means on its densities: 0 for the densest centre, then 1 and 2."""
    # Imported here: the course's core imports without scikit-learn's half second.
    from sklearn.cluster import KMeans

    values = density.double().cpu().numpy()[:, None]
    centres = min(len(SUBSETS), len(density.unique()))
    found = KMeans(centres, n_init=10, random_state=0).fit(values)
    rank = torch.as_tensor(found.cluster_centers_[:, 0]).argsort(descending=True).argsort()
    return rank[torch.as_tensor(found.labels_).long()].to(density.device)


def reduced(features: Tensor, most: int = MAX_FEATURES) -> Tensor:
    """Return at most `most` numbers an example, by PCA over these examples."""
    if features.shape[1] <= most:
        return features
    from sklearn.decomposition import PCA

    fitted = PCA(min(most, len(features)), random_state=0)
    return torch.as_tensor(fitted.fit_transform(features.cpu().numpy())).to(features)


# The method -------------------------------------------------------------------------------------


class CurriculumNet(Method):
    """Learn from everything, split by density, then learn anew: dense first, sparse last.

    Args:
        initial_epochs: how long the first network learns, from 1. Memorizing destroys what its
            features tell: stop early.
        stage_epochs: length of each of the two stages before the last, from 1.
        weights: of the three subsets' losses, from 0.
        density: of the examples of one class; a student's own fits here.

    Attributes:
        subsets: int64 ``(N,)``: 0 clean, 1 noisy, 2 highly noisy; all 0 before the split.

    Raises:
        ValueError: a setting is out of its range.
    """

    num_networks = 2
    subsets: Tensor

    def __init__(
        self,
        initial_epochs: int = 10,
        stage_epochs: int = 10,
        weights: tuple[float, float, float] = WEIGHTS,
        *,
        density: Callable[[Tensor], Tensor] = local_density,
    ) -> None:
        """Check the settings; the split comes in the course of the training."""
        super().__init__()
        if initial_epochs < 1 or stage_epochs < 1:
            raise ValueError(
                "Expected `initial_epochs` and `stage_epochs` of at least 1, got "
                f"{initial_epochs} and {stage_epochs}"
            )
        if len(weights) != len(SUBSETS) or min(weights) < 0 or not math.isfinite(sum(weights)):
            raise ValueError(f"Expected three finite `weights` of at least 0, got {weights}")
        self.initial_epochs = initial_epochs
        self.stage_epochs = stage_epochs
        self.weights = weights
        self.density = density

    def build(self, make_network: Callable, num_examples: int, num_classes: int) -> None:
        """Make both networks, and room for the subsets."""
        super().build(make_network, num_examples, num_classes)
        # The second network alone learns from a selection.
        self.selected = torch.zeros(1, num_examples, dtype=torch.bool)
        self.register_buffer("subsets", torch.zeros(num_examples, dtype=torch.int64))
        self.register_buffer("subset_weights", torch.tensor(self.weights))
        self.register_buffer("second_network", torch.tensor(False))

    @property
    def stage(self) -> int:
        """0 while the first network learns, then the number of subsets in use: 1, 2 or 3."""
        after = self.epoch - self.initial_epochs
        return 0 if after < 0 else min(after // self.stage_epochs, 2) + 1

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)`` of the network that is learning now."""
        network = self.networks[1 if self.second_network else 0]
        return network(images).softmax(dim=1)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Go once through what the stage allows."""
        if self.stage == 0:
            for batch in data:
                step(self._first_loss, batch)
            return
        if self.epoch == self.initial_epochs:
            seen = all_features(self.networks[0], data.images, len(data.labels))
            split = density_subsets(seen, data.labels, self.num_classes, self.density)
            self.subsets.copy_(split)
            self.second_network.fill_(True)
        allowed = (self.subsets < self.stage).nonzero().squeeze(1)
        shuffled = torch.randperm(len(allowed), generator=self.generator, device=allowed.device)
        for index in allowed[shuffled].split(data.batch_size):
            step(self._staged_loss, data.batch(index))

    def _first_loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.networks[0](batch.images), batch.labels)

    def _staged_loss(self, batch: Batch) -> Tensor:
        self.mark_selected(0, batch.index)
        logits = self.networks[1](batch.images)
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        return (self.subset_weights[self.subsets[batch.index]] * losses).mean()

    @property
    def network(self) -> nn.Module:
        """The network of the curriculum."""
        return self.networks[1]
