"""The networks of the course.

Every builder takes ``(image_shape, num_classes)`` and returns a fresh network that maps normalised
images ``(n, channels, height, width)`` to logits ``(n, C)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import prod

from torch import nn

from ..base import expect, expect_one_of
from ..datasets import Dataset
from .preact_resnet import preact_resnet18
from .resnet import resnet18_small, resnet34_small, resnet50_imagenet, resnet50_small

ImageShape = tuple[int, int, int]
NetworkMaker = Callable[[ImageShape, int], nn.Module]
HIDDEN = (256, 256)  # units in the hidden layers of the classroom's network


def mlp(
    image_shape: ImageShape, num_classes: int, *, hidden: Sequence[int] = HIDDEN, dropout: float = 0
) -> nn.Sequential:
    """Multi-layer perceptron with ReLU: the classroom network for digits.

    `hidden` has the width of each hidden layer; `dropout` is the share of units dropped there.
    """
    expect(all(width >= 1 for width in hidden), "hidden layers of at least 1 unit", tuple(hidden))
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = prod(image_shape)
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


def small_cnn(image_shape: ImageShape, num_classes: int, *, width: int = 32) -> nn.Sequential:
    """Two stages of convolution, for a laptop: fast on 8 x 8 digits as on 32 x 32 colour images."""

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        # Pooling and ReLU may change places; this way ReLU sees a quarter of the numbers.
        return [convolution, nn.BatchNorm2d(outputs), nn.MaxPool2d(2), nn.ReLU()]

    return nn.Sequential(
        *stage(image_shape[0], width),
        *stage(width, 2 * width),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


def nine_layer_cnn(
    image_shape: ImageShape, num_classes: int, *, dropout: float = 0.25
) -> nn.Sequential:
    """The nine-layer network of Co-teaching (Han et al. 2018, table 3).

    Batch norm after every convolution and unpadded last convolutions are in the code, not in the
    table; we follow the code. Its dropout was a function call without the training flag, so it was
    never active in the old PyTorch of the paper and always active in newer ones; here it is a
    module, active in training alone.
    """

    def convolution(inputs: int, outputs: int, padding: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, 3, padding=padding)
        return [layer, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.01)]

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        three = [convolution(inputs, outputs), *(convolution(outputs, outputs) for _ in range(2))]
        return [*sum(three, []), nn.MaxPool2d(2), nn.Dropout2d(dropout)]

    return nn.Sequential(
        *block(image_shape[0], 128),
        *block(128, 256),
        *convolution(256, 512, padding=0),
        *convolution(512, 256, padding=0),
        *convolution(256, 128, padding=0),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def lenet(image_shape: ImageShape, num_classes: int) -> nn.Sequential:
    """LeNet as CDR uses it on MNIST: 61,706 parameters; for images from 12 x 12."""
    channels, height, width = image_shape
    size = f"{height} x {width}"
    expect(min(height, width) >= 12, "images of at least 12 x 12 for LeNet", size)
    # Pooling halves the sides (rounding down), the second convolution takes 4 off.
    rows, columns = ((side // 2 - 4) // 2 for side in (height, width))
    first = [nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    hidden = [nn.Linear(16 * rows * columns, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    return nn.Sequential(*first, *second, *hidden, nn.Linear(84, num_classes))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "small-cnn": small_cnn,
    "nine-layer-cnn": nine_layer_cnn,
    "lenet": lenet,
    "preact-resnet18": preact_resnet18,
    "resnet18": resnet18_small,
    "resnet34": resnet34_small,
    "resnet50": resnet50_small,
    "resnet50-imagenet": resnet50_imagenet,
}


def network_maker(network: str | NetworkMaker, data: Dataset) -> Callable[[], nn.Module]:
    """Return a callable without arguments that makes a fresh network for a data set."""
    if isinstance(network, str):
        expect_one_of("network", network, NETWORKS)
        network = NETWORKS[network]
    return functools.partial(network, data.image_shape, data.num_classes)
