"""A data set that lives on the device, and the shuffled batches drawn from it.

A ``DataLoader`` opens, transforms and collates one image at a time. The sets of this course fit
into the memory of the device, so the images go there once; a batch is then a single gather, and
augmentation works on the whole batch. Explained in lesson 00 (the loop) and measured in
``benchmarks/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..base import Batch, expect
from ..datasets.augment import Augment


class Images:
    """Images on a device, normalised once (float32) or batch by batch (uint8, four times smaller).

    Args:
        images: ``(n, channels, height, width)``, uint8 in 0..255 or float32 in 0..1.
        mean: per channel, on the 0..1 scale.
        std: per channel, on the 0..1 scale.
        device: where the images are to live.
    """

    def __init__(
        self,
        images: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> None:
        """Move the images to the device."""
        shape = tuple(images.shape)
        expect(images.dim() == 4, "`images` of shape (n, channels, height, width)", shape)
        if images.dtype not in (torch.uint8, torch.float32):
            raise TypeError(f"Expected `images` as uint8 or float32 (0 to 1), got {images.dtype}")
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
    """Say whether the device's memory holds the images twice (Clothing1M takes 150 GB)."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return 2 * images.numel() * images.element_size() < free


def _everywhere(values: Tensor, images: Tensor) -> Tensor:
    """Return one value a channel ``(channels,)`` at every pixel of an image."""
    return values[:, None, None].expand(images.shape[1:]).contiguous()


class Batches:
    """The training data that `fit` hands to a method: a :class:`~nlcourse.base.TrainingData`.

    Iterating goes once through the set in a new random order; every batch has `batch_size` examples
    but the last, which takes what is left. The order and the augmentation come from `generator`
    alone, so one seed gives the same batches again, bit for bit.

    Args:
        store: the training images.
        labels: int64 ``(n,)``, the given labels.
        batch_size: examples in a batch, from 1.
        generator: on the device of the images.
        augment: random changes to each image, or None.
    """

    def __init__(
        self,
        store: Images,
        labels: Tensor,
        *,
        batch_size: int,
        generator: torch.Generator | None = None,
        augment: Augment | None = None,
    ) -> None:
        """Hold images and labels; draws nothing yet."""
        expect(batch_size >= 1, "`batch_size` of at least 1", batch_size)
        both = f"{len(store)} images and {len(labels)} labels"
        expect(len(store) == len(labels), "one label an image", both)
        self.store = store
        self.labels = labels.to(store.mean.device)
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
            yield Batch(self.store.get(index, self.augment, self.generator), given, index)

    def batch(self, index: Tensor, augment: Augment | None = None) -> Batch:
        """Return the examples at `index`, with fresh random changes (their own, or `augment`)."""
        images = self.store.get(index, augment or self.augment, self.generator)
        return Batch(images, self.labels[index], index)

    def images(self, index: Tensor | slice) -> Tensor:
        """Return the normalised images at `index`, without random changes."""
        return self.store.get(index)
