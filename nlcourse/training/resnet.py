"""The residual networks of the full-scale runs: ResNet-18, 34 and 50.

He et al. 2016, "Deep Residual Learning" (arXiv 1512.03385); blocks and weights are torchvision's.
For images of CIFAR's size the codes of ELR, GCE and CDR replace the beginning: a 3 x 3 convolution
of stride 1 and no pooling, where ImageNet's network takes every fourth pixel first. They start from
torch's own first weights, torchvision's class from He's; here it is the former.

Clothing1M and Food-101 are trained from ImageNet's weights: ``resnet50_imagenet``.
"""

from __future__ import annotations

from torch import nn

from ..base import expect
from ..datasets.files import DataError, data_root

WEIGHTS_FOLDER = "weights"  # inside the folder of the data
ImageShape = tuple[int, int, int]


def resnet18_small(
    image_shape: ImageShape, num_classes: int, *, stem_padding: int = 1
) -> nn.Module:
    """ResNet-18 for small images: 11,173,962 parameters for CIFAR-10.

    Args:
        image_shape: (channels, height, width), from 8 x 8.
        num_classes: C.
        stem_padding: of the first convolution; CDR's code leaves it out (0), at equal size.
    """
    return _for_small_images("BasicBlock", [2, 2, 2, 2], image_shape, num_classes, stem_padding)


def resnet34_small(
    image_shape: ImageShape, num_classes: int, *, stem_padding: int = 1
) -> nn.Module:
    """ResNet-34 for small images, as :func:`resnet18_small`: 21,282,122 parameters (ELR, GCE)."""
    return _for_small_images("BasicBlock", [3, 4, 6, 3], image_shape, num_classes, stem_padding)


def resnet50_small(
    image_shape: ImageShape, num_classes: int, *, stem_padding: int = 1
) -> nn.Module:
    """ResNet-50 for small images, as :func:`resnet18_small`: 23,520,842 parameters (CDR)."""
    return _for_small_images("Bottleneck", [3, 4, 6, 3], image_shape, num_classes, stem_padding)


def _for_small_images(
    block: str, depths: list[int], image_shape: ImageShape, num_classes: int, stem_padding: int
) -> nn.Module:
    from torchvision.models import resnet  # only here: torchvision takes a second to import

    network: nn.Module = resnet.ResNet(getattr(resnet, block), depths, num_classes=num_classes)
    network.conv1 = nn.Conv2d(image_shape[0], 64, 3, padding=stem_padding, bias=False)
    network.maxpool = nn.Identity()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return network


def resnet50_imagenet(
    image_shape: ImageShape, num_classes: int, *, pretrained: bool = True
) -> nn.Module:
    """ResNet-50 with ImageNet's weights and a new last layer: for Clothing1M, Food-101, WebVision.

    All layers are trained on. The weights (98 MB) are looked for in the folder ``weights`` of the
    data, else fetched into it.

    Args:
        image_shape: (3, height, width); 224 x 224 is what the weights have seen.
        num_classes: C.
        pretrained: False: the same network with random weights.

    Raises:
        ValueError: for images that do not have three channels.
        DataError: when the weights are not there and cannot be fetched, or are damaged.
    """
    expect(image_shape[0] == 3, "images with 3 channels for ImageNet's ResNet-50", image_shape[0])
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    if pretrained:
        _load_imagenet_weights(network)
    network.fc = nn.Linear(network.fc.in_features, num_classes)
    made: nn.Module = network
    return made


def _load_imagenet_weights(network: nn.Module) -> None:
    from torchvision.models import ResNet50_Weights

    weights = ResNet50_Weights.IMAGENET1K_V1  # what `pretrained=True` meant when the papers ran
    file = data_root(None) / WEIGHTS_FOLDER / weights.url.rsplit("/", 1)[-1]
    there = file.is_file()
    how = {"model_dir": str(file.parent), "map_location": "cpu", "weights_only": True}
    try:
        network.load_state_dict(weights.get_state_dict(progress=True, check_hash=True, **how))
    except Exception as error:  # no network, cut off, no such format: torch raises many kinds
        trouble = "is damaged" if there else "is not there and could not be fetched"
        raise DataError(
            f"The file with ImageNet's weights {trouble}: {file}\n"
            f"  {type(error).__name__}: {error}\n"
            f"Fetch {weights.url} where there is a network and put it there, under its name.\n"
            "Without it: nlcourse.training.networks.resnet50_imagenet(..., pretrained=False), or "
            'network="resnet50", start from random weights.'
        ) from error
