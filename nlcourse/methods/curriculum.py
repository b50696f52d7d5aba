"""CurriculumNet: begin with the images whose features lie where their class is dense.

Guo, Huang, Zhang, Zhuang, Dong, Scott and Huang 2018, "CurriculumNet: Weakly Supervised Learning
from Large-Scale Web Images" (arXiv 1808.01097); their code: MalongTech/research-curriculumnet.
Explained in lesson 08.

Symbols of the paper: D, squared distances of features within a class; d_c, cutoff; rho, density.
Each class is split by rho into clean, noisy and highly noisy; a fresh network learns in stages.
Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect
from .features import all_features
from .mixmatch import shuffled

CUTOFF_SHARE = 0.6  # of the sorted distances of a class
MAX_FEATURES = 256
SUBSETS = 3  # clean, noisy, highly noisy


def local_density(features: Tensor, share: float = CUTOFF_SHARE) -> Tensor:
    """``rho_i = #{j != i : D_ij < d_c}``, int64 ``(n,)``, of one class.

    Args:
        features: float ``(n, d)`` of the examples of one class.
        share: in (0, 1]; d_c is the value at place ``share * n^2`` (rounded up, counted from 1) of
            all n^2 distances in ascending order.

    >>> local_density(torch.tensor([[0.0], [1.0], [2.0], [9.0]]))
    tensor([1, 2, 1, 0])
    """
    expect(features.dim() == 2, "`features` of shape (n, d)", tuple(features.shape))
    expect(0 < share <= 1, "`share` in (0, 1]", share)
    if not len(features):
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    # Not through |a|^2 + |b|^2 - 2ab: its rounding would make equal distances differ.
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(features, features, compute_mode=exact).square()
    cutoff = distances.flatten().kthvalue(math.ceil(share * distances.numel())).values
    closer = distances < cutoff
    return closer.sum(dim=1) - closer.diagonal().long()


def reduced(features: Tensor, most: int = MAX_FEATURES) -> Tensor:
    """Return at most `most` numbers an example, by PCA over these examples."""
    if features.shape[1] <= most:
        return features
    from sklearn.decomposition import PCA

    fitted = PCA(min(most, len(features)), random_state=0)
    return torch.as_tensor(fitted.fit_transform(features.cpu().numpy())).to(features)


def split_by_density(density: Tensor) -> Tensor:
    """Split one class by k-means on its densities: 0 for the densest centre, then 1 and 2."""
    from sklearn.cluster import KMeans  # half a second, and few need it

    values = density.double().cpu().numpy()[:, None]
    found = KMeans(min(SUBSETS, len(density.unique())), n_init=10, random_state=0).fit(values)
    rank = torch.as_tensor(found.cluster_centers_[:, 0]).argsort(descending=True).argsort()
    return rank[torch.as_tensor(found.labels_).long()].to(density.device)


def density_subsets(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    density: Callable[[Tensor], Tensor] = local_density,
) -> Tensor:
    """Split every class of the given `labels` ``(N,)``: 0 clean, 1 noisy, 2 highly noisy."""
    fits = features.dim() == 2 and labels.shape == features.shape[:1]
    expect(fits, "`features` (N, d) and `labels` (N,)", (features.shape, labels.shape))
    subsets = torch.zeros_like(labels)
    for label in range(num_classes):
        members = (labels == label).nonzero().squeeze(1)
        if len(members):
            rho = torch.as_tensor(density(reduced(features[members]))).to(labels.device)
            subsets[members] = split_by_density(rho)
    return subsets


class CurriculumNet(Method):
    """Learn from everything, split by density, then learn anew: dense first, sparse last.

    Args:
        initial_epochs: how long the first network learns; stop before it memorizes.
        stage_epochs: length of each of the two stages before the last.
        weights: of the three subsets' losses.
        density: as :func:`local_density`.
    """

    num_networks = 2
    subsets: Tensor
    subset_weights: Tensor
    second_network: Tensor

    def __init__(
        self,
        initial_epochs: int = 10,
        stage_epochs: int = 10,
        weights: tuple[float, float, float] = (1.0, 0.5, 0.5),
        *,
        density: Callable[[Tensor], Tensor] = local_density,
    ) -> None:
        """Check the settings; the split comes in the course of the training."""
        super().__init__()
        expect(initial_epochs >= 1, "`initial_epochs` of at least 1", initial_epochs)
        expect(stage_epochs >= 1, "`stage_epochs` of at least 1", stage_epochs)
        fits = len(weights) == SUBSETS and min(weights) >= 0 and math.isfinite(sum(weights))
        expect(fits, "three finite `weights` of at least 0", weights)
        self.initial_epochs, self.stage_epochs = initial_epochs, stage_epochs
        self.weights, self.density = weights, density

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
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

    @property
    def network(self) -> nn.Module:
        """The network of the curriculum."""
        return self.networks[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)`` of the network that is learning now."""
        return torch.softmax(self.networks[int(self.second_network)](images), dim=1)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Go once through what the stage allows."""
        if self.stage == 0:
            for batch in data:
                step(self.first_loss, batch)
            return
        if self.epoch == self.initial_epochs:
            seen = all_features(self.networks[0], data.images, len(data.labels))
            split = density_subsets(seen, data.labels, self.num_classes, self.density)
            self.subsets.copy_(split)
            self.second_network.fill_(True)
        allowed = (self.subsets < self.stage).nonzero().squeeze(1)
        self.mark_selected(0, allowed)
        for index in shuffled(allowed, data.batch_size, self.generator):
            step(self.loss, data.batch(index))

    def first_loss(self, batch: Batch) -> Tensor:
        """Cross entropy of the first network."""
        return F.cross_entropy(self.networks[0](batch.images), batch.labels)

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy of the second network, weighted by subset."""
        losses = F.cross_entropy(self.network(batch.images), batch.labels, reduction="none")
        return (self.subset_weights[self.subsets[batch.index]] * losses).mean()
