"""Images without content: the other half of Zhang et al. 2017. Explained in lessons 01 and 02.

Source: Zhang et al. 2017 (arXiv 1611.03530), section 2. Images are ``(n, channels, height,
width)``; shape, dtype and device stay. Random numbers are drawn on the generator's device (on the
CPU, by torch's global generator, without one), so that a seed gives the same images everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import expect
from .injectors import drawing_device

CHUNK = 4096  # images permuted at a time: the sort keys of 50,000 would take half a gigabyte


def _flat_pixels(images: Tensor) -> Tensor:
    """Return images as ``(n, channels, height * width)``."""
    shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
    known = isinstance(images, Tensor) and images.dim() == 4 and len(images) > 0
    expect(known, "`images` as a tensor of shape (n, channels, height, width)", shape)
    return images.flatten(2)


def shuffle_pixels(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Move the pixels of every image by one and the same random permutation.

    The channels of a pixel stay together. Give training and test images in one call, or two
    generators of the same seed, to move both alike.
    """
    flat = _flat_pixels(images)
    order = torch.randperm(flat.shape[-1], generator=generator, device=drawing_device(generator))
    return flat[..., order.to(images.device)].view_as(images)


def random_pixels(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Move the pixels of every image by a random permutation of its own, channels together."""
    device = drawing_device(generator)
    moved = []
    for part in torch.split(_flat_pixels(images), CHUNK):
        keys = torch.rand(len(part), part.shape[-1], generator=generator, device=device)
        order = keys.argsort(dim=1).to(images.device)
        moved.append(part.gather(2, order[:, None].expand_as(part)))
    return torch.cat(moved).view_as(images)


def gaussian_images(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Replace the images by normal noise of the data's mean and deviation, channel by channel.

    The images are uint8 from 0 to 255 or float from 0 to 1, the noise float32 on the 0..1 scale. It
    is not cut at black and white, so that its deviation stays that of the data; some values lie
    outside 0..1.
    """
    _flat_pixels(images)
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    noise = torch.randn(images.shape, generator=generator, device=drawing_device(generator))
    noise = noise.to(images.device)
    for channel in range(images.shape[1]):
        values = images[:, channel].double() / scale
        mean, std = values.mean(), values.std(correction=0)
        noise[:, channel].mul_(std).add_(mean)
    return noise
