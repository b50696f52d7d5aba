"""MentorNet with its predefined curriculum: a weight for each example, from its loss alone.

Jiang, Zhou, Leung, Li and Fei-Fei 2018, "MentorNet: Learning Data-Driven Curriculum for Very Deep
Neural Networks on Corrupted Labels" (arXiv 1712.05055); their code: google/mentornet. Lesson 13.

Symbols of the paper: v, weights; l, losses; lambda_1, threshold of the loss; lambda_2, width of the
soft threshold. All examples count at first; then those with a loss below the threshold, an
exponential moving average of a percentile (self-paced learning); towards the end it becomes soft.
Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, expect


class Weights(Protocol):
    """From losses ``(n,)`` and the threshold to weights ``(n,)``."""

    def __call__(self, losses: Tensor, threshold: Tensor, *, width: float) -> Tensor:
        """Return v."""


def curriculum_weights(losses: Tensor, threshold: Tensor | float, *, width: float = 0.0) -> Tensor:
    """Return v in [0, 1] that minimise ``v l + lambda_2 v^2 / 2 - (lambda_1 + lambda_2) v``.

    1 up to the `threshold` lambda_1, then falling to 0 over the `width` lambda_2; no gradient.

    >>> curriculum_weights(torch.tensor([0.5, 1.0, 1.25, 3.0]), 1.0)
    tensor([1., 1., 0., 0.])
    >>> curriculum_weights(torch.tensor([0.5, 1.0, 1.25, 3.0]), 1.0, width=1.0)
    tensor([1.0000, 1.0000, 0.7500, 0.0000])
    """
    shape = tuple(losses.shape)
    expect(losses.dim() == 1, "`losses` of shape (n,)", shape, "use reduction='none'")
    expect(width >= 0, "`width` of at least 0", width)
    above = losses.detach() - threshold
    if width == 0:
        return (above <= 0).to(losses.dtype)
    return (1 - above / width).clamp(0, 1)


@dataclass(frozen=True)
class Settings:
    """Beside the percentile; those of the code's function, for a training of 60 epochs."""

    burn_in: int = 11  # epochs in which all examples count: 18 % of the training
    soft_from: int = 54  # first epoch, counted from 0, with a soft threshold: 90 %
    width: float = 1.0  # lambda_2 from then on
    decay: float = 0.9  # of the moving average of the threshold
    drop_early: float = 0.5  # share of examples left out at random during the burn-in
    drop_late: float = 0.05  # and afterwards

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        expect(self.burn_in >= 0, "`burn_in` of at least 0", self.burn_in)
        expect(self.soft_from >= self.burn_in, "`soft_from` from `burn_in` on", self.soft_from)
        expect(self.width > 0, "`width` above 0", self.width)
        for name in ("decay", "drop_early", "drop_late"):
            expect(0 <= getattr(self, name) < 1, f"`{name}` in [0, 1)", getattr(self, name))


class MentorNet(Method):
    """MentorNet PD.

    Args:
        percentile: of the losses of a batch, in (0, 1]: about the share of examples that count;
            0.7 in the code's script.
        noise_rate: where it is known or guessed, in [0, 1): the percentile is then 1 minus this.
        weights: as :func:`curriculum_weights`.
        settings: of :class:`Settings`, by name.
    """

    threshold: Tensor

    def __init__(
        self,
        percentile: float = 0.7,
        *,
        noise_rate: float | None = None,
        weights: Weights = curriculum_weights,
        **settings: Any,
    ) -> None:
        """Check the settings."""
        super().__init__()
        if noise_rate is not None:
            expect(0 <= noise_rate < 1, "`noise_rate` in [0, 1)", noise_rate)
            percentile = 1 - noise_rate
        expect(0 < percentile <= 1, "`percentile` in (0, 1]", percentile, "a share of the batch")
        self.percentile, self.weights, self.settings = percentile, weights, Settings(**settings)

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network, and the threshold as a buffer: a checkpoint holds it."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("threshold", torch.tensor(torch.nan))  # the first percentile follows

    def loss(self, batch: Batch) -> Tensor:
        """Return ``1/n sum_i v_i l_i``."""
        losses = F.cross_entropy(self.network(batch.images), batch.labels, reduction="none")
        self.move_threshold(losses.detach())
        v = self.curriculum(losses.detach())
        self.mark_selected(0, batch.index, v > 0)
        return (v * losses).mean()

    def move_threshold(self, losses: Tensor) -> None:
        """Move lambda_1 towards the percentile of a batch: an exponential moving average."""
        now, decay = losses.quantile(self.percentile), self.settings.decay
        moved = decay * self.threshold + (1 - decay) * now
        self.threshold = torch.where(self.threshold.isnan(), now, moved)

    def curriculum(self, losses: Tensor) -> Tensor:
        """Return v for the present epoch, with some examples left out at random."""
        s, v, drop = self.settings, torch.ones_like(losses), self.settings.drop_early
        if self.epoch >= s.burn_in:
            width = s.width if self.epoch >= s.soft_from else 0.0
            v, drop = self.weights(losses, self.threshold, width=width), s.drop_late
        drawn = torch.rand(len(losses), generator=self.generator, device=losses.device)
        return v * (drawn >= drop)
