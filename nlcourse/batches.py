"""A data set that lives on the device, and the shuffled batches drawn from it.

A ``DataLoader`` opens, transforms and collates one image at a time. The sets of this course fit
into the memory of the device, so the images go there once; a batch is then a single gather, and
augmentation works on the whole batch. Explained in lesson 00 (the loop) and measured in
``benchmarks/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Batch(NamedTuple):
    """What a method sees of the data: never the true labels.

    Attributes:
        images: float32 ``(b, channels, height, width)``, normalised.
        labels: int64 ``(b,)``, the given labels.
        index: int64 ``(b,)``, the position of each example in the training set.
    """

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class Augment:
    """Random crop after padding, horizontal flip and cutout, for a whole batch at once.

    Attributes:
        crop: pixels of black padding on each side before a window of the old size is cut out.
        flip: mirror half of the images left to right. Leave it off for digits: a mirrored 2 is no
            2.
        cutout: side of the square that is set to the mean (DeVries and Taylor 2017, arXiv
            1708.04552); 0 for none.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that are no sizes."""
        if self.crop < 0 or self.cutout < 0:
            raise ValueError(
                f"Expected `crop` and `cutout` of at least 0 pixels, got {self.crop} and "
                f"{self.cutout}"
            )

    def shift(
        self, images: Tensor, generator: torch.Generator | None = None, black: Tensor | None = None
    ) -> Tensor:
        """Crop and flip.

        Args:
            images: ``(b, channels, height, width)``, any dtype.
            generator: on the device of the images.
            black: ``(channels,)`` value of the padding; zero when left out.
        """
        if not self.crop and not self.flip:
            return images
        (size, _, height, width), device = images.shape, images.device
        if self.flip:
            mirrored = torch.rand(size, 1, generator=generator, device=device) < 0.5
        if self.crop:
            offsets = torch.randint(
                2 * self.crop + 1, (2, size, 1), generator=generator, device=device
            )
            images = _windows(_pad(images, self.crop, black), *offsets, height, width)
        return _mirror(images, mirrored) if self.flip else images

    def cut(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Set one square an image to zero, which is the mean after normalisation."""
        if not self.cutout:
            return images
        size, _, height, width = images.shape
        device = images.device
        # The centre may lie on the border, so that part of the square falls outside (as in the
        # paper).
        centre_row = torch.randint(height, (size, 1), generator=generator, device=device)
        centre_column = torch.randint(width, (size, 1), generator=generator, device=device)
        low, high = self.cutout // 2, self.cutout - self.cutout // 2
        row = torch.arange(height, device=device) - centre_row
        column = torch.arange(width, device=device) - centre_column
        hole = ((row >= -low) & (row < high))[:, :, None]
        hole = hole & ((column >= -low) & (column < high))[:, None, :]
        return images.masked_fill(hole[:, None], 0.0)


def _pad(images: Tensor, margin: int, black: Tensor | None) -> Tensor:
    padded = F.pad(images, (margin,) * 4)
    if black is not None:
        inside = torch.ones(images.shape[-2:], dtype=torch.bool, device=images.device)
        outside = ~F.pad(inside, (margin,) * 4)
        padded = torch.where(outside, black[:, None, None], padded)
    return padded


def _windows(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut one window out of each image; `top` and `left` are ``(b, 1)``.

    All runs of `width` neighbouring pixels, wherever they begin, are the rows of one overlapping
    view; a window is a choice of such rows, each copied as a whole. Choosing pixel by pixel takes
    ten times as long.
    """
    size, channels, rows, columns = images.shape
    plane = torch.arange(size * channels, device=images.device).view(size, channels, 1)
    row = torch.arange(height, device=images.device) + top
    starts = plane * (rows * columns) + (row * columns + left)[:, None]
    images = images.contiguous()
    runs = images.as_strided((images.numel() - width + 1, width), (1, 1))
    return runs.index_select(0, starts.flatten()).view(size, channels, height, width)


def _mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images for which `mirrored` ``(b, 1)`` says so."""
    both = torch.stack((images, images.flip(3)), dim=1).flatten(0, 1)
    chosen = 2 * torch.arange(len(images), device=images.device) + mirrored[:, 0]
    return both.index_select(0, chosen)


class Images:
    """Images on a device, normalised once (float32) or batch by batch (uint8, four times smaller).

    Args:
        images: ``(n, channels, height, width)``, uint8 in 0..255 or float32 in 0..1.
        mean: per channel, on the 0..1 scale.
        std: per channel, on the 0..1 scale.
        device: where the images are to live.
    """

    def __init__(self, images: Tensor, mean, std, device: torch.device | str = "cpu") -> None:
        """Move the images to the device."""
        if images.dim() != 4:
            raise ValueError(
                "Expected `images` of shape (n, channels, height, width), got "
                f"{tuple(images.shape)}"
            )
        if images.dtype not in (torch.uint8, torch.float32):
            raise TypeError(
                f"Expected `images` as uint8 (0 to 255) or float32 (0 to 1), got {images.dtype}"
            )
        self.shape = images.shape
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self.std = torch.tensor(std, dtype=torch.float32, device=device)
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        # (x / scale - mean) / std as one multiplication and one addition.
        # As large as an image: numbers that stand for a whole channel take three times as long.
        self._factor = _everywhere(1 / (scale * self.std), images)
        self._offset = _everywhere(-self.mean / self.std, images)
        self._stored = images.to(device) if _fits(images, self.mean.device) else images
        # What is stored elsewhere comes to the device batch by batch, and is normalised there.
        elsewhere = self._stored.device != self.mean.device
        self._normalise_late = images.dtype == torch.uint8 or elsewhere
        if not self._normalise_late:
            self._stored = self.normalise(self._stored)

    def normalise(self, images: Tensor) -> Tensor:
        """Return images with zero mean and unit deviation in each channel, as float32."""
        return torch.addcmul(self._offset, images.float(), self._factor)

    def __len__(self) -> int:
        """Return the number of images."""
        return self.shape[0]

    def get(
        self,
        index: Tensor | slice,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the normalised (and augmented) images at `index`."""
        if isinstance(index, Tensor):
            index = index.to(self._stored.device)
        if isinstance(index, Tensor) and index.dtype == torch.int64 and index.dim() == 1:
            images = self._stored.index_select(0, index)  # up to forty times as fast as [index]
        else:
            images = self._stored[index]
        images = images.to(self.mean.device)
        if augment is not None:
            black = None if self._normalise_late else self._offset[:, 0, 0]
            images = augment.shift(images, generator, black)
        if self._normalise_late:
            images = self.normalise(images)
        return images if augment is None else augment.cut(images, generator)


def _fits(images: Tensor, device: torch.device) -> bool:
    """Say whether the device's memory holds the images and as much again; else they come batchwise.

    Clothing1M takes 150 GB.
    """
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return 2 * images.numel() * images.element_size() < free


def _everywhere(values: Tensor, images: Tensor) -> Tensor:
    """Return one value a channel ``(channels,)`` at every pixel of an image."""
    return values[:, None, None].expand(images.shape[1:]).contiguous()


class Batches:
    """The training set, met once an epoch in a new random order.

    Iterating yields :class:`Batch`; every batch has `batch_size` examples but the last, which
    takes what is left. The order and the augmentation come from `generator` alone, so one seed
    gives the same batches again, bit for bit.

    Args:
        images: the training images.
        labels: int64 ``(n,)``, the given labels.
        batch_size: examples in a batch, from 1.
        generator: on the device of the images.
        augment: random changes to each image, or None.
    """

    def __init__(
        self,
        images: Images,
        labels: Tensor,
        *,
        batch_size: int,
        generator: torch.Generator | None = None,
        augment: Augment | None = None,
    ) -> None:
        """Hold images and labels; draws nothing yet."""
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` of at least 1, got {batch_size}")
        if len(images) != len(labels):
            raise ValueError(
                f"Expected one label an image, got {len(images)} images and {len(labels)} labels"
            )
        self.images = images
        self.labels = labels.to(images.mean.device)
        self.batch_size = batch_size
        self.generator = generator
        self.augment = augment

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        device = self.labels.device
        order = torch.randperm(len(self.labels), generator=self.generator, device=device)
        labels = self.labels[order].split(self.batch_size)
        for index, given in zip(order.split(self.batch_size), labels, strict=True):
            yield Batch(self.images.get(index, self.augment, self.generator), given, index)
