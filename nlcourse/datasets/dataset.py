"""What a data set of the course is: images, given labels, true labels, test set, as tensors.

``datasets.py`` loads them. Explained in lesson 00.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from . import image_cache

UNKNOWN = -1  # the true label of an image that nobody has checked
IMPLAUSIBLE = 10.0  # no image on the 0..1 scale is so bright, not even Gaussian noise like it


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
        mean: per channel, on the 0..1 scale, of the training images.
        std: per channel, on the 0..1 scale, of the training images.

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
        _check_images(self.images, "images")
        _check_images(self.test_images, "test_images")
        if self.images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(
                f"Expected `test_images` of the shape {self.image_shape} of `images`, got "
                f"{tuple(self.test_images.shape[1:])}"
            )
        _check_labels(self.labels, "labels", len(self.images), self.num_classes)
        _check_labels(
            self.true_labels, "true_labels", len(self.images), self.num_classes, lowest=UNKNOWN
        )
        _check_labels(self.test_labels, "test_labels", len(self.test_images), self.num_classes)
        channels = self.image_shape[0]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise ValueError(
                f"Expected a `mean` and a positive `std` for each of the {channels} channels, got "
                f"{self.mean} and {self.std}"
            )

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
        return tuple(self.images.shape[1:])

    @property
    def images_key(self) -> str:
        """What the images are, in a few letters, when they lie on a memory map; else empty.

        A checkpoint asks for it: a million images are too many to be read for a checksum.
        """
        return getattr(self.images, image_cache.KEY, "")

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

        Where the true class is unknown the given label stands for it. Images on a memory map are
        copied into memory.

        Args:
            size: from 1 to n.
            seed: the same seed takes the same examples.

        Raises:
            ValueError: for a size out of range.
        """
        if not 1 <= size <= len(self.images):
            raise ValueError(
                f"Expected `size` from 1 to {len(self.images)}, the number of training images, "
                f"got {size}"
            )
        classes = torch.where(self.is_known, self.true_labels, self.labels).cpu()
        index = stratified(classes, size, seed).to(self.labels.device)
        return dataclasses.replace(
            self,
            images=self.images[index.to(self.images.device)],
            labels=self.labels[index],
            true_labels=self.true_labels[index.to(self.true_labels.device)],
        )


# ---------------------------------------------------------------- checks and choices


def _check_images(images: Tensor, name: str) -> None:
    if not isinstance(images, Tensor) or images.dim() != 4 or not images.numel():
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"Expected `{name}` of shape (n, channels, height, width), got {got}")
    if images.dtype not in (torch.uint8, torch.float32):
        raise TypeError(
            f"Expected `{name}` as uint8 (0 to 255) or float32 (0 to 1), got {images.dtype}"
        )
    # Written with "not", so that nan fails here too.
    if images.dtype == torch.float32 and not images.abs().max() <= IMPLAUSIBLE:
        low, high = images.aminmax()
        raise ValueError(
            f"Expected float `{name}` on the 0..1 scale, got {low:.3g} to {high:.3g}: divide by "
            "255, or give uint8"
        )


def _check_labels(
    labels: Tensor, name: str, size: int, num_classes: int, *, lowest: int = 0
) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"Expected `{name}` as an int64 tensor of class ids, got {got}")
    if labels.shape != (size,):
        raise ValueError(
            f"Expected `{name}` of shape ({size},), one label an image, got {tuple(labels.shape)}"
        )
    low, high = labels.aminmax()
    if low < lowest or high >= num_classes:
        raise ValueError(
            f"Expected `{name}` from 0 to {num_classes - 1}, the {num_classes} classes that have a "
            f"name, got {low} to {high}"
        )


def stratified(labels: Tensor, size: int, seed: int) -> Tensor:
    """Choose `size` examples, each class in its share: sorted positions, int64 ``(size,)``."""
    generator = torch.Generator().manual_seed(seed)
    shares = labels.bincount() * size
    quotas, remainders = shares // len(labels), shares % len(labels)
    # The largest remainders take the places that rounding down left; ties go to the smaller id.
    rest = size - int(quotas.sum())
    quotas[remainders.sort(descending=True, stable=True).indices[:rest]] += 1
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return torch.cat(chosen).sort().values
