"""What a data set of the course is: images, given labels, true labels, test set, as tensors.

``loading.py`` makes them. Explained in lesson 00.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import expect, expect_labels

UNKNOWN = -1  # the true label of an image that nobody has checked
IMPLAUSIBLE = 10.0  # no image on the 0..1 scale is so bright, not even Gaussian noise like it
KEY = "cache_key"  # attribute of images on a memory map; a subset, a new tensor, does not have it


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training set with given and true labels, and a test set with true ones.

    Attributes:
        name: as in ``datasets.NAMES``, or that of a folder.
        images: ``(n, channels, height, width)``, uint8 from 0 to 255 or float32 from 0 to 1.
        labels: int64 ``(n,)``, the given labels: what a method trains on.
        true_labels: int64 ``(n,)``, for measuring only: no method sees them. UNKNOWN (-1) where
            nobody has checked the label.
        test_images: like `images`.
        test_labels: int64, true labels.
        class_names: one a class.
        mean: per channel, on the 0..1 scale, of the training images; so is `std`.

    Raises:
        ValueError: for shapes, lengths or label ranges that do not fit together.
        TypeError: for images or labels of another dtype.
    """

    name: str
    images: Tensor
    labels: Tensor
    true_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        _expect_images("images", self.images)
        _expect_images("test_images", self.test_images)
        own, of_test = self.image_shape, tuple(self.test_images.shape[1:])
        expect(own == of_test, f"`test_images` of the shape {own} of `images`", of_test)
        n, classes = len(self.images), self.num_classes
        expect_labels("labels", self.labels, classes, n)
        expect_labels("true_labels", self.true_labels, classes, n, lowest=UNKNOWN)
        expect_labels("test_labels", self.test_labels, classes, len(self.test_images))
        fits = len(self.mean) == len(self.std) == own[0] and min(self.std) > 0
        what = f"a `mean` and a positive `std` for each of the {own[0]} channels"
        expect(fits, what, f"{self.mean} and {self.std}")

    def __repr__(self) -> str:
        """Say what it is in one line, without the pixels."""
        known = self.is_known.float().mean().item()
        wrong = f"{self.noise_rate:.1%} wrong labels" if known else "true labels unknown"
        if 0 < known < 1:
            wrong += f" among the {known:.1%} that are known"
        return (
            f"Dataset({self.name!r}: {len(self.images)} training and {len(self.test_images)} test "
            f"images of {self.image_shape}, {self.num_classes} classes, {wrong})"
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def images_key(self) -> str:
        """What the images are, in a few letters, when they lie on a memory map; else empty.

        A checkpoint asks for it: a million images are too many to be read for a checksum.
        """
        return getattr(self.images, KEY, "")

    @property
    def is_known(self) -> Tensor:
        """Bool ``(n,)``: does anybody know the true label?"""
        return self.true_labels != UNKNOWN

    @property
    def is_wrong(self) -> Tensor:
        """Bool ``(n,)``: is the given label known not to be the true one?"""
        return self.is_known & (self.labels != self.true_labels)

    @property
    def noise_rate(self) -> float:
        """Share of wrong given labels among those known, as counted; nan when none is known."""
        return (self.is_wrong.sum() / self.is_known.sum()).item()

    def with_labels(self, labels: Tensor) -> Dataset:
        """Return the same data with other given labels, int64 ``(n,)``; all else stays."""
        return dataclasses.replace(self, labels=labels)

    def with_images(self, images: Tensor, test_images: Tensor | None = None) -> Dataset:
        """Return the same labels with other training (and test) images; `mean` and `std` stay."""
        test_images = self.test_images if test_images is None else test_images
        return dataclasses.replace(self, images=images, test_images=test_images)

    def subset(self, size: int, seed: int = 0) -> Dataset:
        """Return `size` training examples, each true class in its share; the test set stays whole.

        Where the true class is unknown the given label stands for it. The same seed takes the same
        examples. Images on a memory map are copied into memory.
        """
        n = len(self.images)
        expect(1 <= size <= n, f"`size` from 1 to {n}, the number of training images", size)
        classes = torch.where(self.is_known, self.true_labels, self.labels).cpu()
        chosen = stratified(classes, size, seed)
        return dataclasses.replace(
            self,
            images=self.images[chosen.to(self.images.device)],
            labels=self.labels[chosen.to(self.labels.device)],
            true_labels=self.true_labels[chosen.to(self.true_labels.device)],
        )


def _expect_images(name: str, images: Tensor) -> None:
    fits = isinstance(images, Tensor) and images.dim() == 4 and images.numel() > 0
    got: object = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
    expect(fits, f"`{name}` of shape (n, channels, height, width)", got)
    if images.dtype == torch.float32:
        low, high = (value.item() for value in images.aminmax())  # nan fails here too
        fits, why = -IMPLAUSIBLE <= low <= high <= IMPLAUSIBLE, "divide by 255, or give uint8"
        expect(fits, f"float `{name}` on the 0..1 scale", f"{low:.3g} to {high:.3g}", why)
    elif images.dtype != torch.uint8:
        kinds = "uint8 (0 to 255) or float32 (0 to 1)"
        raise TypeError(f"Expected `{name}` as {kinds}, got {images.dtype}")


def stratified(labels: Tensor, size: int, seed: int) -> Tensor:
    """Choose `size` examples, each class in its share: a bool mask ``(n,)``."""
    generator = torch.Generator().manual_seed(seed)
    shares = labels.bincount() * size
    quotas, remainders = shares // len(labels), shares % len(labels)
    # The largest remainders take the places that rounding down left; ties go to the smaller id.
    rest = size - int(quotas.sum())
    quotas[remainders.sort(descending=True, stable=True).indices[:rest]] += 1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, quota in enumerate(quotas.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        chosen[members[torch.randperm(len(members), generator=generator)[:quota]]] = True
    return chosen
