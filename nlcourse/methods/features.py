"""Features of an image: the activations that go into a network's last linear layer.

CurriculumNet and deep self-learning compare images by them: lesson 08, docs/deviations.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..base import expect

CHUNK = 2048  # images at a time: large enough to keep a device busy, small enough for a laptop


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the network's last linear layer, which makes the logits, and its dotted name."""
    found = [(name, one) for name, one in network.named_modules() if isinstance(one, nn.Linear)]
    expect(bool(found), "a network that ends in a linear layer", network)
    return found[-1]


def features(network: nn.Module, images: Tensor) -> Tensor:
    """Return what goes into the last linear layer, float ``(n, d)``, with its gradient.

    The network stays in the mode it is in; call ``network.eval()`` first where that matters.

    >>> identity = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    >>> features(identity, torch.tensor([[[[5.0, 7.0]]]]))
    tensor([[5., 7.]])
    """
    caught: list[Tensor] = []
    layer = last_linear(network)[1]
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        network(images)
    finally:
        hook.remove()
    return caught[0].flatten(1).float()


@torch.no_grad()
def over_all(
    network: nn.Module,
    what: Callable[[Tensor], Tensor],
    images: Callable[[slice], Tensor],
    count: int,
) -> Tensor:
    """Compute something of all images as they are, with the network in evaluation mode.

    `what` goes from images to rows (it may be the network itself); `images` returns a slice of all
    `count`, normalised, as a method's data do. The network is left in the mode it came in.
    """
    training = network.training
    network.eval()
    parts = [what(images(slice(at, at + CHUNK))) for at in range(0, count, CHUNK)]
    network.train(training)
    return torch.cat(parts)


def all_features(network: nn.Module, images: Callable[[slice], Tensor], count: int) -> Tensor:
    """Return the :func:`features` of all images, ``(N, d)``; arguments as :func:`over_all`."""
    return over_all(network, functools.partial(features, network), images, count)
