"""What a network sees in an image: the numbers that go into its last layer.

CurriculumNet and deep self-learning compare images by them. Explained in lesson 08.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CHUNK = 2048  # images at a time: large enough to keep a device busy, small enough for a laptop


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the network's last linear layer, which makes the logits, and its dotted name.

    Raises:
        ValueError: the network has none.
    """
    found = [
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)
    ]
    if not found:
        raise ValueError(f"Expected a network that ends in a linear layer, got {network}")
    return found[-1]


def features(network: nn.Module, images: Tensor) -> Tensor:
    """Return what goes into the last linear layer, float ``(n, d)``, with its gradient.

    The network stays in the mode it is in; call ``network.eval()`` first where that matters.

    Args:
        network: ends in a linear layer.
        images: float ``(n, channels, height, width)``, normalised.

    Raises:
        ValueError: the network has no linear layer.

    >>> identity = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    >>> features(identity, torch.tensor([[[[5.0, 7.0]]]]))
    tensor([[5., 7.]])
    """
    caught: list[Tensor] = []
    hook = last_linear(network)[1].register_forward_pre_hook(
        lambda layer, inputs: caught.append(inputs[0])
    )
    try:
        network(images)
    finally:
        hook.remove()
    return caught[0].flatten(1).float()


@torch.no_grad()
def all_features(network: nn.Module, images: Callable[[slice], Tensor], count: int) -> Tensor:
    """Return the features of all images, ``(N, d)``, in evaluation mode, as they are.

    Args:
        network: ends in a linear layer; it is left in the mode it came in.
        images: ``images(slice)`` returns some of them, normalised, as a method's data do.
        count: how many there are.
    """
    training = network.training
    network.eval()
    try:
        parts = [features(network, images(slice(at, at + CHUNK))) for at in range(0, count, CHUNK)]
    finally:
        network.train(training)
    return torch.cat(parts)
