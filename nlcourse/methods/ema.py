"""Exponential moving averages (EMA) of weights, for ELR+ (lesson 10); see docs/deviations.md."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..base import expect

Average = Callable[[Tensor, Tensor, int, float], Tensor]


def average_weights(average: Tensor, weights: Tensor, step: int, gamma: float) -> Tensor:
    """Return the average after a step, ``g average + (1 - g) weights``; both stay as they are.

    ``g = min(1 - 1 / (step + 1), gamma)``: nothing is left of the start, and until g reaches gamma
    the average is the plain mean of all weights so far.

    Args:
        average: float, any shape.
        weights: of the same shape, after the step.
        step: 0 in the first step of the training, 1 in the second, ...
        gamma: in [0, 1), the share of the old average that stays in the long run.

    >>> average_weights(torch.tensor([1.0]), torch.tensor([4.0]), step=2, gamma=0.9)
    tensor([2.])
    """
    expect(0 <= gamma < 1, "`gamma` in [0, 1)", gamma, "the share of the old average that stays")
    shapes = tuple(average.shape), tuple(weights.shape)
    expect(shapes[0] == shapes[1], "`average` and `weights` of one shape", shapes)
    expect(step >= 0, "`step` of at least 0", step)
    return torch.lerp(weights.detach(), average, min(1 - 1 / (step + 1), gamma))


class AveragedNetworks(nn.ModuleList):
    """Copies of networks, saved with the method, whose weights only :meth:`follow` moves."""

    def __init__(self, networks: nn.ModuleList) -> None:
        """Begin as the networks are; no gradient is asked for, so no optimizer moves a copy."""
        super().__init__(copy.deepcopy(networks).requires_grad_(False))

    def follow(self, networks: nn.ModuleList, average: Average, step: int, gamma: float) -> None:
        """Move every weight to what `average` makes of it and of the network's after a step."""
        for kept, weights in zip(self.parameters(), networks.parameters(), strict=True):
            kept.copy_(average(kept, weights.detach(), step, gamma))
