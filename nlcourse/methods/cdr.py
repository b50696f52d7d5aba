"""CDR: let only those weights learn that matter now, and let the others fade.

Xia et al. 2021, "Robust Early-Learning: Hindering the Memorization of Noisy Labels" (ICLR 2021,
OpenReview Eql5b1_hTE4); their code: xiaoboxia/CDR. Explained in lesson 12.

Symbols of the paper: tau, the noise rate; g, the importance of a parameter; W_c and W_n, the
critical and the non-critical parameters; lambda, the weight of the decay.

The paper and its published code are two methods; both are here (`mode`):

=====================  ==============================  ========================================
                       "paper"                         "code"
=====================  ==============================  ========================================
ranked                 all parameters                  weights (2-D, 4-D) in one ranking
gradient of W_c        times 1 - tau                   times 1 - tau
gradient of W_n        dropped                         dropped
biases, norm layers    as all others                   always the whole gradient
decay                  lambda sgn(w), the l1 norm's    lambda w: l2, SGD's weight decay
=====================  ==============================  ========================================

In both the decay acts on all parameters, the importance is that of the batch, and parameters that
tie with the last critical one are critical, too.

Momentum: in the code SGD's momentum of 0.9 goes on moving a parameter by its older gradients when
it is not critical. The formulas of the paper have no momentum. Here the momentum of ``fit`` acts in
both modes as in the code, so "the paper's rule" with ``fit``'s usual 0.9 is more than the paper
writes; ``fit(momentum=0.0)`` leaves it out. ``fit(momentum=0.0)`` with ``CDR(momentum=0.9)`` keeps
it to the parameters that are critical in this step. SGD's momentum also adds up the decay, to ``1 /
(1 - momentum)`` times as much; the own momentum multiplies the decay by that, so that the two weigh
gradient and decay alike. What else the code does (a second forward pass, a schedule of the factor
that is overwritten) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method

WEIGHT_DIMENSIONS = (2, 4)  # of linear layers and of convolutions; biases and norms have 1
Direction = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


# Which parameters matter ------------------------------------------------------------------------


def importance(parameter: Tensor, gradient: Tensor) -> Tensor:
    """How much each entry of a parameter matters now: ``g = |gradient * parameter|``.

    With G(t) = L(tW) the slope at t = 1 is the sum of gradient times parameter; g is the size of
    each summand.

    Args:
        parameter: float, any shape.
        gradient: of the same shape.

    Returns:
        A new tensor of that shape, from 0.

    Raises:
        ValueError: shapes that differ.

    >>> importance(torch.tensor([2.0, -3.0, 0.0]), torch.tensor([-0.5, -1.0, 9.0]))
    tensor([1., 3., 0.])
    """
    _check_shapes(parameter, gradient)
    return (gradient * parameter).detach().abs()


def critical_mask(importances: Sequence[Tensor], share: float) -> list[Tensor]:
    """Mark the most important share of all entries of all parameters, ranked together.

    Args:
        importances: one float tensor a parameter, of any shape.
        share: in [0, 1]: ``int(share * m)`` of the m entries are critical. The paper takes
            ``1 - noise_rate``.

    Returns:
        One bool mask a parameter, of its shape. Entries that tie with the last critical one are
        True, too, as in the code: where most importances are 0 there may be many.

    Raises:
        ValueError: a `share` outside [0, 1], or no parameters.

    >>> critical_mask([torch.tensor([1.0, 5.0]), torch.tensor([[4.0], [2.0]])], 0.5)
    [tensor([False,  True]), tensor([[ True],
            [False]])]
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Expected `share` in [0, 1], got {share}: it is the critical part")
    if not importances:
        raise ValueError("Expected at least one tensor in `importances`, got none")
    flat = torch.cat([values.flatten() for values in importances])
    count = int(share * len(flat))
    if count == 0:
        return [torch.zeros_like(values, dtype=torch.bool) for values in importances]
    # The threshold stays on the device: nobody waits for it.
    threshold = flat.kthvalue(len(flat) - count + 1).values
    return [values >= threshold for values in importances]


# The two rules ----------------------------------------------------------------------------------


def paper_direction(
    parameter: Tensor, gradient: Tensor, critical: Tensor, noise_rate: float, decay: float
) -> Tensor:
    """What the paper's rule steps against: a step is ``W <- W - lr * direction``.

    ``(1 - tau) gradient + lambda sgn(w)`` where critical, ``lambda sgn(w)`` elsewhere.

    Args:
        parameter: float, any shape.
        gradient: of the same shape.
        critical: bool, of the same shape.
        noise_rate: tau, in [0, 1).
        decay: lambda, from 0.

    Returns:
        A new tensor of that shape.

    Raises:
        ValueError: shapes that differ, or a number out of its range.

    >>> w, g = torch.tensor([2.0, -2.0]), torch.tensor([1.0, 1.0])
    >>> paper_direction(w, g, torch.tensor([True, False]), 0.5, 0.25)
    tensor([ 0.7500, -0.2500])
    """
    _check_step(parameter, gradient, critical, noise_rate, decay)
    return (1 - noise_rate) * gradient * critical + decay * parameter.detach().sign()


def code_direction(
    parameter: Tensor, gradient: Tensor, critical: Tensor, noise_rate: float, decay: float
) -> Tensor:
    """What the published code steps against: a step is ``W <- W - lr * direction``.

    Weights (2-D, 4-D): ``(1 - tau) gradient`` where critical and nothing elsewhere. Biases and
    norm layers: the whole gradient, whatever `critical` says. All: plus ``lambda w``, which is the
    weight decay of SGD.

    Args:
        parameter: float, any shape; its number of dimensions tells what it is.
        gradient: of the same shape.
        critical: bool, of the same shape.
        noise_rate: tau, in [0, 1).
        decay: lambda, from 0.

    Returns:
        A new tensor of that shape.

    Raises:
        ValueError: shapes that differ, or a number out of its range.

    >>> w, g = torch.tensor([[2.0, -2.0]]), torch.tensor([[1.0, 1.0]])
    >>> code_direction(w, g, torch.tensor([[True, False]]), 0.5, 0.25)
    tensor([[ 1.0000, -0.5000]])
    """
    _check_step(parameter, gradient, critical, noise_rate, decay)
    if is_weight(parameter):
        gradient = (1 - noise_rate) * gradient * critical
    return gradient + decay * parameter.detach()


def is_weight(parameter: Tensor) -> bool:
    """Say whether the published code ranks a parameter: has it two or four dimensions?"""
    return parameter.dim() in WEIGHT_DIMENSIONS


DIRECTIONS: dict[str, Direction] = {"paper": paper_direction, "code": code_direction}


# The method -------------------------------------------------------------------------------------


class CDR(Method):
    """Cross entropy whose step is changed parameter by parameter.

    Args:
        noise_rate: tau, known or guessed, in [0, 1); 0 is cross entropy with a decay.
        mode: "paper" or "code", see the head of this file.
        decay: lambda, from 0; of the l1 norm in mode "paper", of the l2 norm in mode "code". 0.001
            in the code. It takes the place of `weight_decay` of ``fit``.
        momentum: in [0, 1), of the critical parameters alone: use it with ``fit(momentum=0.0)``.
            The decay then acts ``1 / (1 - momentum)`` times as strongly, as it does under SGD's.
        importance: a student's own fits here.
        mask: ``mask(importances, share)``; a student's own fits here.
        direction: the rule; left out, that of `mode`. A student's own fits here.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        noise_rate: float = 0.2,
        *,
        mode: str = "paper",
        decay: float = 1e-3,
        momentum: float = 0.0,
        importance: Callable[[Tensor, Tensor], Tensor] = importance,
        mask: Callable[[Sequence[Tensor], float], Sequence[Tensor]] = critical_mask,
        direction: Direction | None = None,
    ) -> None:
        """Check the settings."""
        super().__init__()
        _check_noise_rate(noise_rate)
        _check_decay(decay)
        if mode not in DIRECTIONS:
            raise ValueError(f"Expected `mode` to be one of {', '.join(DIRECTIONS)}, got {mode!r}")
        if not 0 <= momentum < 1:
            raise ValueError(f"Expected `momentum` in [0, 1), got {momentum}")
        self.noise_rate, self.mode = noise_rate, mode
        self.decay, self.momentum = decay, momentum
        self.importance, self.mask = importance, mask
        self.direction = direction or DIRECTIONS[mode]

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make the network; with a momentum of its own, a velocity for each parameter."""
        super().build(make_network, num_examples, num_classes)
        self.velocities = _Velocities(self.network if self.momentum else None)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch."""
        return F.cross_entropy(self.network(batch.images), batch.labels)

    @torch.no_grad()
    def change_gradients(self) -> None:
        """Put the rule's direction in the place of each gradient."""
        learning = [p for p in self.network.parameters() if p.grad is not None]
        ranked = [p for p in learning if self.mode == "paper" or is_weight(p)]
        masks = self.mask([self.importance(p, p.grad) for p in ranked], 1 - self.noise_rate)
        critical = dict(zip(ranked, masks, strict=True))
        for number, parameter in enumerate(self.network.parameters()):
            if parameter.grad is None:
                continue
            # What is not ranked learns as ever.
            chosen = critical.get(parameter, torch.ones_like(parameter, dtype=torch.bool))
            gradient = parameter.grad
            if self.momentum:
                gradient = self.velocities.follow(number, gradient, chosen, self.momentum)
            # SGD's momentum would let the decay add up as well: so much is its sum.
            decay = self.decay / (1 - self.momentum)
            parameter.grad = self.direction(parameter, gradient, chosen, self.noise_rate, decay)


class _Velocities(nn.Module):
    """Momentum that a parameter feels only while it is critical; saved with the method."""

    def __init__(self, network: nn.Module | None) -> None:
        super().__init__()
        for number, parameter in enumerate(network.parameters() if network else ()):
            self.register_buffer(f"of_{number}", torch.zeros_like(parameter))

    def follow(self, number: int, gradient: Tensor, critical: Tensor, momentum: float) -> Tensor:
        """Take in the gradient where critical, forget elsewhere; return the velocity."""
        velocity = getattr(self, f"of_{number}")
        return velocity.mul_(momentum).add_(gradient).mul_(critical)


# Small pieces -----------------------------------------------------------------------------------


def _check_shapes(parameter: Tensor, *others: Tensor) -> None:
    for other in others:
        if other.shape != parameter.shape:
            raise ValueError(
                f"Expected one shape, that of `parameter` {tuple(parameter.shape)}, got "
                f"{tuple(other.shape)}"
            )


def _check_noise_rate(noise_rate: float) -> None:
    if not 0 <= noise_rate < 1:
        raise ValueError(
            f"Expected `noise_rate` in [0, 1), got {noise_rate}: it is the share of wrong labels"
        )


def _check_decay(decay: float) -> None:
    if not 0 <= decay < math.inf:
        raise ValueError(f"Expected `decay` of at least 0 and finite, got {decay}")


def _check_step(
    parameter: Tensor, gradient: Tensor, critical: Tensor, noise_rate: float, decay: float
) -> None:
    _check_shapes(parameter, gradient, critical)
    _check_noise_rate(noise_rate)
    _check_decay(decay)
