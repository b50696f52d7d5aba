"""MentorNet with its predefined curriculum: a weight for each example, from its loss alone.

Jiang, Zhou, Leung, Li and Fei-Fei 2018, "MentorNet: Learning Data-Driven Curriculum for Very Deep
Neural Networks on Corrupted Labels" (arXiv 1712.05055); their code: google/mentornet. Lesson 13
says where it stands.

The predefined curriculum ("PD") has three parts: all examples count at first; then those count
whose loss is below a threshold (self-paced learning); towards the end the border becomes soft. The
threshold is a running mean of a percentile of the losses of each batch.

The authors write the curriculum down as a function and train a small recurrent network to imitate
it. We use the function. So there is no second network here, and what is called a network in the
name is three lines. Their other curriculum ("DD") is learned from examples known to be right, which
this course does not give to any method.

What we call the code's are the defaults of its function and script. Its published commands say
more: for PD a percentile of 0.75 at 20 and 40 % noise and 0.5 at 80 %, for DD 0.8, 0.6 and 0.5 at
20, 40 and 80 %. So the percentile follows the noise. (They spell that option
``loss_p_precentile``, which the script does not know.) For PD they have no burn-in, only the early
dropout of examples.

The other tables of the course's papers mean something simpler by "MentorNet": one network that
keeps its own small losses, at a rate that it is told. ``CoTeaching(cross=False)`` with two networks
is near to that; lesson 07 measures one network, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method


def curriculum_weights(losses: Tensor, threshold: Tensor | float, *, width: float = 0.0) -> Tensor:
    """Weights that minimise ``v l + width / 2 v^2 - (threshold + width) v`` in [0, 1].

    With width 0 that is self-paced learning: 1 up to the threshold, 0 above it. Else the weight
    falls from 1 at the threshold to 0 at threshold + width: ``clip(1 - (l - threshold) / width, 0,
    1)``.

    Args:
        losses: float ``(n,)``.
        threshold: lambda_1, a loss.
        width: lambda_2, from 0.

    Returns:
        Float ``(n,)`` in [0, 1], without gradient.

    Raises:
        ValueError: losses that are not a vector, or a negative width.

    >>> curriculum_weights(torch.tensor([0.5, 1.0, 1.25, 3.0]), 1.0)
    tensor([1., 1., 0., 0.])
    >>> curriculum_weights(torch.tensor([0.5, 1.0, 1.25, 3.0]), 1.0, width=1.0)
    tensor([1.0000, 1.0000, 0.7500, 0.0000])
    """
    if losses.dim() != 1:
        raise ValueError(
            f"Expected `losses` of shape (n,), one an example, got {tuple(losses.shape)}: "
            "use reduction='none'"
        )
    if not width >= 0:
        raise ValueError(f"Expected `width` of at least 0, got {width}")
    above = losses.detach() - threshold
    if width == 0:
        return (above <= 0).to(losses.dtype)
    return (1 - above / width).clamp(0, 1)


class MentorNet(Method):
    """MentorNet PD.

    Args:
        percentile: of the losses of a batch, in (0, 1]: about the share of examples that count.
            0.7 is the default of the code's script.
        noise_rate: where the share of wrong labels is known or guessed, in [0, 1): the percentile
            is then 1 minus this.
        burn_in: epochs in which all examples count; 18 % of the training is the default of the
            code's function, whence 11 of 60.
        soft_from: from this epoch (0 is the first) the border is soft; 90 % of the training in the
            code, whence 54 of 60.
        width: how soft: a loss that much above the threshold no longer counts; above 0.
        decay: of the running mean of the threshold, in [0, 1); 0.9 is the default of the
            code's function, its script takes 0.5.
        drop_early: share of examples left out at random during the burn-in, in [0, 1).
        drop_late: the same share afterwards.
        weights: from losses and threshold to weights; a student's own fits here.

    Raises:
        ValueError: a setting is out of its range.
    """

    threshold: Tensor

    def __init__(
        self,
        percentile: float = 0.7,
        *,
        noise_rate: float | None = None,
        burn_in: int = 11,
        soft_from: int = 54,
        width: float = 1.0,
        decay: float = 0.9,
        drop_early: float = 0.5,
        drop_late: float = 0.05,
        weights: Callable[..., Tensor] = curriculum_weights,
    ) -> None:
        """Check the settings."""
        super().__init__()
        if noise_rate is not None:
            _check_shares(noise_rate=noise_rate)
            percentile = 1 - noise_rate
        _check_settings(percentile, burn_in, soft_from, width)
        _check_shares(decay=decay, drop_early=drop_early, drop_late=drop_late)
        self.percentile = percentile
        self.burn_in, self.soft_from = burn_in, soft_from
        self.width, self.decay = width, decay
        self.drop_early, self.drop_late = drop_early, drop_late
        self.weights = weights

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make the network, and the threshold as a buffer: a checkpoint holds it."""
        super().build(make_network, num_examples, num_classes)
        # In the code it begins at 0; beginning with the first percentile serves short runs, too.
        self.register_buffer("threshold", torch.tensor(torch.nan))

    def loss(self, batch: Batch) -> Tensor:
        """Return ``1/n sum_i v_i l_i``."""
        logits = self.network(batch.images)
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        self._move_threshold(losses.detach())
        weights = self._weights(losses.detach())
        self.selects = True  # what counts is what has a weight
        self.selected[0, batch.index] = weights > 0
        return (weights * losses).mean()

    def _move_threshold(self, losses: Tensor) -> None:
        now = losses.quantile(self.percentile)
        moved = self.decay * self.threshold + (1 - self.decay) * now
        self.threshold = torch.where(self.threshold.isnan(), now, moved)

    def _weights(self, losses: Tensor) -> Tensor:
        early = self.epoch < self.burn_in
        if early:
            weights = torch.ones_like(losses)
        else:
            width = self.width if self.epoch >= self.soft_from else 0.0
            weights = self.weights(losses, self.threshold, width=width)
        drop = self.drop_early if early else self.drop_late
        drawn = torch.rand(len(losses), generator=self.generator, device=losses.device)
        return weights * (drawn >= drop)


def _check_settings(percentile: float, burn_in: int, soft_from: int, width: float) -> None:
    if not 0 < percentile <= 1:
        raise ValueError(
            f"Expected `percentile` in (0, 1], got {percentile}: it is a share of the batch"
        )
    if burn_in < 0 or soft_from < burn_in:
        raise ValueError(
            "Expected `burn_in` of at least 0 and `soft_from` of at least `burn_in`, got "
            f"{burn_in} and {soft_from}"
        )
    if not width > 0:
        raise ValueError(f"Expected `width` above 0, got {width}")


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"Expected `{name}` in [0, 1), got {share}: it is a share")
