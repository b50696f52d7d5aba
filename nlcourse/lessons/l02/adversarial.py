"""Adversarial training as a regulariser: Goodfellow et al. 2015 (arXiv 1412.6572). Lesson 02.

Half of the loss is that of images moved a little to where the network errs. Arpit et al. 2017 move
the images with their own search, we with one step to the corner of the box.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...base import Batch, Method, expect
from .memorization import input_gradient


class AdversarialTraining(Method):
    """Cross entropy on the images and on their adversarial neighbours.

    Args:
        radius: how far a pixel may move, on the scale of the network's input.
        weight: share of the neighbours in the loss, in [0, 1]; 0 is plain cross entropy.
    """

    def __init__(self, radius: float, weight: float = 0.5) -> None:
        """Make the method."""
        super().__init__()
        expect(0 <= radius < math.inf, "a finite `radius` of at least 0", radius)
        expect(0 <= weight <= 1, "`weight` in [0, 1]", weight)
        self.radius, self.weight = radius, weight

    def loss(self, batch: Batch) -> Tensor:
        """Mix the loss at x, 1 - weight of it, with that at x + radius * sign(gradient at x)."""
        images, labels = batch.images, batch.labels
        plain = F.cross_entropy(self.network(images), labels)
        moved = images + self.radius * input_gradient(self.network, images, labels).sign()
        return torch.lerp(plain, F.cross_entropy(self.network(moved), labels), self.weight)
