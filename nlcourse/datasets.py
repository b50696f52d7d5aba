"""The data sets of the course as tensors: images, given labels, true labels, test set.

``load("digits")`` needs no download (scikit-learn carries the images). The others are looked for in
the folder that the environment variable ``NLCOURSE_DATA`` names, else in ``data/``, and fetched
into it on the first call. Every file is checked against its published md5 sum before it is opened,
an idx file that lies there unpacked against its own header; what is damaged is named and never
used. Explained in lesson 00.

Sources: hashes, addresses and the CIFAR reader are torchvision's; the human labels of CIFAR-10N and
CIFAR-100N are those of Wei et al. 2022 (arXiv 2110.12088), repository UCSC-REAL/cifar-10-100n.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nlcourse import files
from nlcourse.files import DataError

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "cifar10n", "cifar100n")

# The keys of the human labels in the authors' files; the first kind is the default.
HUMAN_KINDS = {
    "cifar10n": {
        "worse": "worse_label",
        "aggre": "aggre_label",
        "random1": "random_label1",
        "random2": "random_label2",
        "random3": "random_label3",
    },
    "cifar100n": {"noisy": "noisy_label"},
}

# Mean and deviation of each channel over the training images, on the 0..1 scale. A test computes
# them from the files, except for CIFAR-100: those are the values in common use, taken over.
STATISTICS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}

DIGITS_TEST_SIZE = 500
IMPLAUSIBLE = 10.0  # no image on the 0..1 scale is so bright, not even Gaussian noise like it


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training set with given and true labels, and a test set with true ones.

    Attributes:
        name: as in :data:`NAMES`.
        images: ``(n, channels, height, width)``, uint8 from 0 to 255 or float32 from 0 to 1.
        labels: int64 ``(n,)``, the given labels: what a method trains on.
        true_labels: int64 ``(n,)``, for measuring only: no method sees them.
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
        _check_labels(self.true_labels, "true_labels", len(self.images), self.num_classes)
        _check_labels(self.test_labels, "test_labels", len(self.test_images), self.num_classes)
        channels = self.image_shape[0]
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise ValueError(
                f"Expected a `mean` and a positive `std` for each of the {channels} channels, got "
                f"{self.mean} and {self.std}"
            )

    def __repr__(self) -> str:
        """Say what it is in one line, without the pixels."""
        return (
            f"Dataset({self.name!r}: {len(self.images)} training and {len(self.test_images)} test "
            f"images of {self.image_shape}, {self.num_classes} classes, "
            f"{self.noise_rate:.1%} wrong labels)"
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
    def is_wrong(self) -> Tensor:
        """Bool ``(n,)``: is the given label not the true one?"""
        return self.labels != self.true_labels

    @property
    def noise_rate(self) -> float:
        """Share of wrong given labels, as counted."""
        return self.is_wrong.float().mean().item()

    def with_labels(self, labels: Tensor) -> Dataset:
        """Return the same data with other given labels, int64 ``(n,)``; all else stays."""
        return dataclasses.replace(self, labels=labels)

    def with_images(self, images: Tensor, test_images: Tensor | None = None) -> Dataset:
        """Return the same labels with other training (and test) images; `mean` and `std` stay."""
        test_images = self.test_images if test_images is None else test_images
        return dataclasses.replace(self, images=images, test_images=test_images)

    def subset(self, size: int, seed: int = 0) -> Dataset:
        """Return `size` training examples, each true class in its share; the test set stays whole.

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
        index = _stratified(self.true_labels.cpu(), size, seed).to(self.labels.device)
        return dataclasses.replace(
            self,
            images=self.images[index.to(self.images.device)],
            labels=self.labels[index],
            true_labels=self.true_labels[index.to(self.true_labels.device)],
        )


def load(
    name: str,
    *,
    root: str | os.PathLike | None = None,
    kind: str | None = None,
    download: bool = True,
) -> Dataset:
    """Load a data set, fetching it first when it is not there.

    Args:
        name: one of :data:`NAMES`. ``digits`` are float32 in 0..1, the others uint8.
        root: folder of the data; left out: ``NLCOURSE_DATA``, else ``data/``.
        kind: which human labels. ``cifar10n``: worse (default), aggre, random1, random2, random3.
        download: may missing files be fetched?

    Returns:
        The data set; given labels are the true ones, but for ``cifar10n`` and ``cifar100n``.

    Raises:
        ValueError: for an unknown name or kind.
        DataError: when files are missing or damaged and cannot be fetched.

    Example:
        >>> load("digits").image_shape
        (1, 8, 8)
    """
    _check_name(name)
    kind = _checked_kind(name, kind)
    if name == "digits":
        return _load_digits()
    folder = files.data_root(root)
    files.provide(name, folder, download)
    if name in ("mnist", "fashion-mnist"):
        return _load_idx(name, folder)
    data = _load_cifar(name, folder)
    return data if kind is None else _with_human_labels(data, folder, kind)


def fetch(name: str, root: str | os.PathLike | None = None) -> Path:
    """Make sure that the files of a data set are there and whole; fetch what is missing.

    Args:
        name: one of :data:`NAMES`.
        root: as in :func:`load`.

    Returns:
        The folder that holds the data.

    Raises:
        ValueError: for an unknown name.
        DataError: when the files cannot be fetched.
    """
    _check_name(name)
    folder = files.data_root(root)
    if name != "digits":
        files.provide(name, folder, download=True)
    return folder


# ---------------------------------------------------------------- reading


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The scans count from 0 to 16.
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[_stratified(labels, DIGITS_TEST_SIZE, seed=0)] = True
    train = images[~is_test]
    return Dataset(
        name="digits",
        images=train,
        labels=labels[~is_test],
        true_labels=labels[~is_test],
        test_images=images[is_test],
        test_labels=labels[is_test],
        class_names=tuple(str(digit) for digit in range(10)),
        mean=(train.double().mean().item(),),
        std=(train.double().std(correction=0).item(),),
    )


def _load_idx(name: str, root: Path) -> Dataset:
    source = files.torchvision_class(name)
    parts = {}
    for file, md5 in source.resources:
        found = files.find_idx(files.idx_folder(name, root), file, md5)
        if isinstance(found, str):  # changed since it was checked
            raise DataError(files.message(name, root, [found]))
        parts[file.split("-idx")[0]] = files.read_idx(found)
    true_labels = parts["train-labels"].long()
    mean, std = STATISTICS[name]
    try:
        return Dataset(
            name=name,
            images=parts["train-images"].unsqueeze(1),
            labels=true_labels.clone(),
            true_labels=true_labels,
            test_images=parts["t10k-images"].unsqueeze(1),
            test_labels=parts["t10k-labels"].long(),
            class_names=_idx_class_names(name),
            mean=mean,
            std=std,
        )
    except ValueError as error:  # unpacked files, each whole, that do not belong together
        problem = f"damaged ({error}): {files.idx_folder(name, root)}"
        raise DataError(files.message(name, root, [problem])) from error


def _idx_class_names(name: str) -> tuple[str, ...]:
    if name == "mnist":
        return tuple(str(digit) for digit in range(10))
    return tuple(files.torchvision_class(name).classes)


def _load_cifar(name: str, root: Path) -> Dataset:
    source = files.torchvision_class(name)
    try:
        # These check the hash of each file themselves before they unpickle it.
        train, test = (source(root, train=part, download=False) for part in (True, False))
    except RuntimeError as error:  # changed since it was checked
        problems = files.find_problems(name, root) or [str(error)]
        raise DataError(files.message(name, root, problems)) from error
    true_labels = torch.tensor(train.targets)
    mean, std = STATISTICS[name.removesuffix("n")]
    return Dataset(
        name=name,
        images=_channels_first(train.data),
        labels=true_labels.clone(),
        true_labels=true_labels,
        test_images=_channels_first(test.data),
        test_labels=torch.tensor(test.targets),
        class_names=tuple(train.classes),
        mean=mean,
        std=std,
    )


def _channels_first(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _with_human_labels(data: Dataset, root: Path, kind: str) -> Dataset:
    found = files.find_labels(data.name, root)
    if isinstance(found, str):  # changed since it was checked
        raise DataError(files.message(data.name, root, [found]))
    arrays = files.read_labels(found)
    if not np.array_equal(arrays["clean_label"], data.true_labels.numpy()):
        raise DataError(
            f"The clean labels in {found} are not those of the CIFAR images in {root}: one of the "
            "two is in another order, so that no label would belong to its image"
        )
    labels = torch.from_numpy(np.asarray(arrays[HUMAN_KINDS[data.name][kind]], dtype=np.int64))
    return data.with_labels(labels)


# ---------------------------------------------------------------- checks at the border


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"Expected `name` to be one of {', '.join(NAMES)}, got {name!r}")


def _checked_kind(name: str, kind: str | None) -> str | None:
    known = HUMAN_KINDS.get(name, {})
    if kind is None:
        return next(iter(known), None)
    if kind not in known:
        choice = f"to be one of {', '.join(known)}" if known else "to be left out"
        raise ValueError(f"Expected `kind` of {name!r} {choice}, got {kind!r}")
    return kind


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


def _check_labels(labels: Tensor, name: str, size: int, num_classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"Expected `{name}` as an int64 tensor of class ids, got {got}")
    if labels.shape != (size,):
        raise ValueError(
            f"Expected `{name}` of shape ({size},), one label an image, got {tuple(labels.shape)}"
        )
    low, high = labels.aminmax()
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"Expected `{name}` from 0 to {num_classes - 1}, the {num_classes} classes that have a "
            f"name, got {low} to {high}"
        )


def _stratified(labels: Tensor, size: int, seed: int) -> Tensor:
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
