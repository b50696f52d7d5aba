"""Random changes to a whole batch of images at once: crop, mirror, cutout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import expect


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
        got = f"{self.crop} and {self.cutout}"
        expect(min(self.crop, self.cutout) >= 0, "`crop` and `cutout` of at least 0 pixels", got)

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
            mirrored = torch.rand(size, 1, 1, 1, generator=generator, device=device) < 0.5
        if self.crop:
            ends = 2 * self.crop + 1
            top, left = torch.randint(ends, (2, size, 1), generator=generator, device=device)
            padded = F.pad(images, (self.crop,) * 4)
            if black is not None:
                inside = images.new_ones((1, 1, height, width), dtype=torch.bool)
                padded = padded.where(F.pad(inside, (self.crop,) * 4), black[:, None, None])
            images = _windows(padded, top, left, height, width)
        return torch.where(mirrored, images.flip(3), images) if self.flip else images

    def cut(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Set one square an image to zero, which is the mean after normalisation."""
        if not self.cutout:
            return images
        (size, _, height, width), device = images.shape, images.device
        # The centre may lie on the border: a part of the square falls outside, as in the paper.
        centre_row = torch.randint(height, (size, 1), generator=generator, device=device)
        centre_column = torch.randint(width, (size, 1), generator=generator, device=device)
        low, high = self.cutout // 2, self.cutout - self.cutout // 2
        row = torch.arange(height, device=device) - centre_row
        column = torch.arange(width, device=device) - centre_column
        hole = ((row >= -low) & (row < high))[:, :, None]
        hole = hole & ((column >= -low) & (column < high))[:, None, :]
        return images.masked_fill(hole[:, None], 0.0)


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
