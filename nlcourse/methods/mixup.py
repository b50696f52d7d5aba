"""mixup: train on convex combinations of two images and of their labels.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412); their code:
facebookresearch/mixup-cifar10. Explained in lesson 06.

l ~ Beta(alpha, alpha), one for a batch: the share of the first of two images; l' = max(l, 1 - l).

Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, Method, expect, expect_floats, expect_labels, expect_rows

EXACT = 1e-3  # how far label rows may be from summing to 1: float32 leaves 1e-6, bfloat16 more
Mix = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def mix_pairs(images: Tensor, rows: Tensor, partner: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mix `images` ``(n, ...)`` with their `partner` ``(n,)``: ``l' x_i + (1 - l') x_j``."""
    share = max(share, 1 - share)
    mixed_images = share * images + (1 - share) * images[partner]
    mixed_rows = share * rows + (1 - share) * rows[partner]
    return mixed_images, mixed_rows


def draw_share(alpha: float, generator: torch.Generator | None = None) -> float:
    """Draw l from ``Beta(alpha, alpha)``; 1 for alpha 0.

    A step would wait for a GPU's generator: torch's own of the processor serves then.
    """
    expect(0 <= alpha < math.inf, "a finite `alpha` of at least 0", alpha)
    if alpha == 0:
        return 1.0
    on_processor = generator is not None and generator.device.type == "cpu"
    # torch's Beta takes no generator, so a seed from the generator goes to numpy's.
    seed = torch.randint(2**62, (), generator=generator if on_processor else None)
    return float(np.random.default_rng(int(seed)).beta(alpha, alpha))


def mix_with_targets(
    images: Tensor, labels: Tensor, targets: Tensor, alpha: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix images, one-hot labels and targets ``(n, C)`` alike: the piece `mix` of ELR+."""
    share, (size, classes) = draw_share(alpha, generator), targets.shape
    partner = torch.randperm(size, generator=generator, device=images.device)
    rows = torch.cat((F.one_hot(labels, classes), targets), dim=1)
    images, rows = mix_pairs(images, rows, partner, share)
    return images, rows[:, :classes], rows[:, classes:]


def label_rows(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Return labels as rows ``(n, C)``: ids become one-hot (C: the largest and 1), rows stay."""
    if isinstance(labels, Tensor) and labels.dim() == 2:
        expect_rows("labels", labels, EXACT, "labels are mixed as rows")
        classes = labels.shape[1]
        expect(num_classes in (None, classes), f"rows of {num_classes} classes", classes)
        return labels
    expect_labels("labels", labels, num_classes or 2**31)
    return F.one_hot(labels, num_classes or -1).float()


def mixup(
    images: Tensor, labels: Tensor, alpha: float, generator: torch.Generator | None = None, *,
    num_classes: int | None = None, mix: Mix = mix_pairs,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mix a batch with a shuffled copy of itself.

    Args:
        images: float ``(n, ...)``.
        labels: class ids, int64 ``(n,)``, or rows that sum to 1, float ``(n, C)``.
        alpha: from 0 (no mixing); the larger, the nearer to half and half.
        generator: of partners and share; torch's own of the processor when left out.
        num_classes: C, for class ids: give it wherever a batch may lack the last class.
        mix: as :func:`mix_pairs`.

    Returns:
        Mixed images, as `images`, and mixed label rows, float ``(n, C)``.

    >>> images, rows = mixup(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 1]), alpha=4.0)
    >>> images.shape, rows.shape
    (torch.Size([4, 1, 8, 8]), torch.Size([4, 3]))
    """
    expect_floats("images", images)
    rows = label_rows(labels, num_classes).to(images)
    expect(len(rows) == len(images), "one label an image", f"{len(images)} and {len(rows)}")
    share = draw_share(alpha, generator)
    device = generator.device if generator is not None else torch.device("cpu")
    partner = torch.randperm(len(images), generator=generator, device=device).to(images.device)
    return mix(images, rows, partner, share)


class Mixup(Method):
    """Cross entropy on mixed examples; alpha is 1 in the paper for clean labels, up to 32 else."""

    def __init__(self, alpha: float = 1.0, *, mix: Mix = mix_pairs) -> None:
        """Keep the settings; alpha is checked by drawing with it."""
        super().__init__()
        draw_share(alpha, torch.Generator())
        self.alpha, self.mix = alpha, mix

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the mixed batch with its mixed rows."""
        rows = label_rows(batch.labels, self.num_classes)
        images, rows = mixup(batch.images, rows, self.alpha, self.generator, mix=self.mix)
        return F.cross_entropy(self.network(images), rows)
