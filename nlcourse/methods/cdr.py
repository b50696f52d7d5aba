"""CDR: let only those parameters learn that matter now, and let the others decay.

Xia et al. 2021, "Robust Early-Learning: Hindering the Memorization of Noisy Labels" (ICLR 2021,
OpenReview Eql5b1_hTE4); their code: xiaoboxia/CDR. Explained in lesson 12.

Symbols of the paper: tau, the noise rate; g, the importance of a parameter; W_c and W_n, the
critical and the non-critical parameters; lambda, the weight of the decay. The paper and its code
are two methods, `mode` "paper" and "code". Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, expect, expect_one_of

Direction = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


def importance(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return ``g = |gradient * parameter|`` of each entry, in the shape of both.

    >>> importance(torch.tensor([2.0, -3.0, 0.0]), torch.tensor([-0.5, -1.0, 9.0]))
    tensor([1., 3., 0.])
    """
    shapes = tuple(parameter.shape), tuple(gradient.shape)
    expect(shapes[0] == shapes[1], "`parameter` and `gradient` of one shape", shapes)
    return (gradient * parameter).detach().abs()


def critical_mask(importances: Sequence[Tensor], share: float) -> list[Tensor]:
    """Mark the most important share of all entries of all parameters, ranked together.

    Of m entries ``int(share * m)`` are critical (``share = 1 - tau`` in the paper), and what ties
    with the last of them. Takes one float tensor a parameter; returns one bool mask for each.

    >>> critical_mask([torch.tensor([1.0, 5.0]), torch.tensor([4.0, 2.0])], 0.5)
    [tensor([False,  True]), tensor([ True, False])]
    """
    expect(0 <= share <= 1, "`share` in [0, 1]", share, "it is the critical part")
    expect(len(importances) > 0, "at least one tensor in `importances`", "none")
    flat = torch.cat([values.flatten() for values in importances])
    count = int(share * len(flat))
    if count == 0:
        return [torch.zeros_like(values, dtype=torch.bool) for values in importances]
    # The threshold stays on the device: nobody waits for it.
    threshold = flat.kthvalue(len(flat) - count + 1).values
    return [values >= threshold for values in importances]


def paper_direction(
    parameter: Tensor, gradient: Tensor, critical: Tensor, noise_rate: float, decay: float
) -> Tensor:
    """What the paper steps against: ``(1 - tau) gradient`` in W_c, ``lambda sgn(w)`` in all."""
    _expect(noise_rate, decay, parameter, gradient, critical)
    return (1 - noise_rate) * gradient * critical + decay * parameter.detach().sign()


def code_direction(
    parameter: Tensor, gradient: Tensor, critical: Tensor, noise_rate: float, decay: float
) -> Tensor:
    """What the code steps against: biases and norms learn as ever; the decay is ``lambda w``."""
    _expect(noise_rate, decay, parameter, gradient, critical)
    if is_weight(parameter):
        gradient = (1 - noise_rate) * gradient * critical
    return gradient + decay * parameter.detach()


def is_weight(parameter: Tensor) -> bool:
    """Say whether the published code ranks a parameter: those of linear layers, convolutions."""
    return parameter.dim() in (2, 4)


def _expect(noise_rate: float, decay: float, *tensors: Tensor) -> None:
    """Refuse numbers out of their range, and tensors of several shapes."""
    shapes = [tuple(each.shape) for each in tensors]
    expect(len(set(shapes)) <= 1, "`parameter`, `gradient` and `critical` of one shape", shapes)
    expect(0 <= noise_rate < 1, "`noise_rate` in [0, 1)", noise_rate, "the share of wrong labels")
    expect(0 <= decay < float("inf"), "`decay` of at least 0 and finite", decay)


DIRECTIONS: dict[str, Direction] = {"paper": paper_direction, "code": code_direction}


class CDR(Method):
    """Cross entropy whose step is changed parameter by parameter.

    Args:
        noise_rate: tau, known or guessed, in [0, 1); 0 is cross entropy with a decay.
        mode: "paper" or "code": what is ranked, and the direction if that is left out.
        decay: lambda, in place of ``fit``'s `weight_decay`; 0.001 in the code.
        momentum: of the critical parameters alone, where that of ``fit`` is 0.
        importance: of the entries of a parameter.
        mask: which entries are critical.
        direction: what a step goes against.
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
        _expect(noise_rate, decay)
        expect_one_of("mode", mode, DIRECTIONS)
        expect(0 <= momentum < 1, "`momentum` in [0, 1)", momentum)
        self.noise_rate, self.mode, self.decay, self.momentum = noise_rate, mode, decay, momentum
        self.importance, self.mask = importance, mask
        self.direction = direction or DIRECTIONS[mode]

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network; with a momentum of its own, a velocity for each parameter."""
        super().build(make_network, num_examples, num_classes)
        parameters = self.network.parameters() if self.momentum else ()
        zeros = (nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in parameters)
        self.velocities = nn.ParameterList(zeros)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch."""
        return F.cross_entropy(self.network(batch.images), batch.labels)

    @torch.no_grad()
    def change_gradients(self) -> None:
        """Put the direction in the place of each gradient."""
        gradients = {p: p.grad for p in self.network.parameters() if p.grad is not None}
        ranked = [p for p in gradients if self.mode == "paper" or is_weight(p)]
        masks = self.mask([self.importance(p, gradients[p]) for p in ranked], 1 - self.noise_rate)
        critical = dict(zip(ranked, masks, strict=True))
        velocities = dict(zip(self.network.parameters(), self.velocities, strict=False))
        # SGD's momentum would let the decay add up as well: so much is its sum.
        decay = self.decay / (1 - self.momentum)
        for p, gradient in gradients.items():
            chosen = critical.get(p, torch.ones_like(p, dtype=torch.bool))  # else it learns as ever
            if self.momentum:
                gradient = velocities[p].mul_(self.momentum).add_(gradient).mul_(chosen)
            p.grad = self.direction(p, gradient, chosen, self.noise_rate, decay)
