"""PreAct ResNet-18, the network of ELR+ and DivideMix at full scale.

He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027). Why the identity
path helps is explained in lesson 10.

The codes of mixup, DivideMix and ELR+ share a model file that differs from that paper. It has batch
norm and ReLU after the first convolution and none after the last block; and its blocks add ``h =
ReLU(BN(x))`` where the paper adds x itself. We keep the first, so that the parameter counts agree,
and take the true identity; ``legacy_shortcut=True`` gives their blocks, ``final_norm=True`` the
paper's ends.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (64, 128, 256, 512)


class PreActBlock(nn.Module):
    """Two convolutions, each after batch norm and ReLU, beside a shortcut.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution.
        legacy_shortcut: add ``ReLU(BN(x))`` instead of x where the shapes agree.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, legacy_shortcut: bool) -> None:
        """Make the layers; a 1 x 1 convolution as the shortcut where the shape changes."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv3(inputs, outputs, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3(outputs, outputs)
        self.legacy_shortcut = legacy_shortcut
        self.project = None
        if stride != 1 or inputs != outputs:
            self.project = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shortcut plus what the two convolutions make of ``h``."""
        h = F.relu(self.norm1(x))
        shortcut = h if self.legacy_shortcut else x
        if self.project is not None:
            shortcut = self.project(h)
        change: Tensor = self.conv2(F.relu(self.norm2(self.conv1(h))))
        return shortcut + change


def preact_resnet18(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    legacy_shortcut: bool = False,
    final_norm: bool = False,
) -> nn.Sequential:
    """PreAct ResNet-18 for small images: 11,171,274 parameters for CIFAR-10.

    Args:
        image_shape: (channels, height, width); 32 x 32 in the papers, any size from 8 x 8 works.
        num_classes: C.
        legacy_shortcut: the blocks of the published codes (see the head of this file).
        final_norm: batch norm and ReLU after the last block instead of after the first convolution,
            as in He et al.
    """
    inputs = WIDTHS[0]
    layers: list[nn.Module] = [_conv3(image_shape[0], inputs)]
    if not final_norm:
        layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
    for stage, width in enumerate(WIDTHS):
        layers.append(PreActBlock(inputs, width, 2 if stage else 1, legacy_shortcut))
        layers.append(PreActBlock(width, width, 1, legacy_shortcut))
        inputs = width
    if final_norm:
        layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)]
    return nn.Sequential(*layers, *head)


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
