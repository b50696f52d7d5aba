"""The data sets of the course as tensors: images, given labels, true labels, test set.

``load("digits")`` needs no download (scikit-learn carries the images). The others are looked for in
the folder that the environment variable ``NLCOURSE_DATA`` names, else in ``data/``, and fetched
into it on the first call. Every file is checked against its published md5 sum before it is opened,
an idx file that lies there unpacked against its own header; what is damaged is named and never
used. Explained in lesson 00.

Clothing1M, mini-WebVision, Food-101 (and any folder of images, with ``load_folder``) are decoded
once into a memory-mapped cache; where nobody knows the true label of an image it is UNKNOWN, -1.

Sources: hashes, addresses and the CIFAR reader are torchvision's; the human labels of CIFAR-10N and
CIFAR-100N are those of Wei et al. 2022 (arXiv 2110.12088), repository UCSC-REAL/cifar-10-100n.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import files, image_cache
from . import photographs as real_sets
from .dataset import UNKNOWN, Dataset, stratified
from .files import DataError

__all__ = ["NAMES", "UNKNOWN", "DataError", "Dataset", "load", "load_folder"]

NAMES = (
    *("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "cifar10n", "cifar100n"),
    *real_sets.NAMES,
)

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
SAMPLE = 1000  # images that the mean and deviation of a student's own folder are measured on


def load(
    name: str,
    *,
    root: str | os.PathLike | None = None,
    kind: str | None = None,
    download: bool = True,
    **photographs,
) -> Dataset:
    """Load a data set, fetching it first when it is not there.

    Args:
        name: one of :data:`NAMES`. ``digits`` are float32 in 0..1, the others uint8.
        root: folder of the data; left out: ``NLCOURSE_DATA``, else ``data/``.
        kind: which labels. ``cifar10n``: worse (default), aggre, random1, random2, random3;
            ``clothing1m``: noisy (default), both, clean (see :func:`real_sets.read`).
        download: may missing files be fetched? (Clothing1M and WebVision come by other ways.)
        photographs: for ``clothing1m``, ``mini-webvision`` and ``food101``: `test`, which test set
            (:data:`real_sets.TEST_SETS`, the first by default), and `size`, `damaged`, `cache`,
            `workers` and `progress` of :class:`image_cache.Decoding`.

    Returns:
        The data set. Given labels are the true ones but for ``cifar10n``, ``cifar100n`` and the
        three sets of photographs, whose true labels are mostly unknown.

    Raises:
        ValueError: for an unknown name, kind, test set or option.
        DataError: when files are missing or damaged and cannot be fetched.

    Example:
        >>> load("digits").image_shape
        (1, 8, 8)
    """
    _check_name(name)
    kind = _checked_kind(name, kind)
    if name in real_sets.NAMES:
        return _load_photographs(name, files.data_root(root), kind, download, photographs)
    if photographs:
        raise ValueError(
            f"Expected {', '.join(photographs)} for {', '.join(real_sets.NAMES)} only, not for "
            f"{name!r}"
        )
    if name == "digits":
        return _load_digits()
    folder = files.data_root(root)
    files.provide(name, folder, download)
    if name in ("mnist", "fashion-mnist"):
        return _load_idx(name, folder)
    data = _load_cifar(name, folder)
    return data if kind is None else _with_human_labels(data, folder, kind)


def load_folder(
    path: str | os.PathLike,
    *,
    labels: str | os.PathLike | None = None,
    test_labels: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    size: int = 224,
    damaged: str = "refuse",
    cache: str | os.PathLike | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Dataset:
    """Load any folder of images with a label file, or with a folder of images for each class.

    Without test images of their own a share of all is split off, each class in its share. Their
    labels are the true ones where the label file has them, else the given ones, noise and all.
    (Another `test_share` or `seed` is another list of images, and so another cache.)

    Args:
        path: the folder.
        labels: a CSV file ``path,label[,true_label]``; see :func:`real_sets.read_folder`.
        test_labels: the same for the test images.
        class_names: the classes in their order; left out: all that occur.
        test_share: share of the images that is split off, in (0, 1).
        seed: decides which.
        size: side of the decoded images; this and the next as :class:`image_cache.Decoding` says.
        damaged: "refuse" or "skip" images that cannot be decoded.
        cache: where the decoded images go.
        workers: threads that decode.
        progress: show a bar.

    Returns:
        The data set, named like the folder; uint8 images of three channels on a memory map.

    Raises:
        ValueError: for settings out of their range.
        DataError: for missing or damaged images and for label files that say what cannot be.
    """
    folder = Path(path).expanduser().absolute()
    how = image_cache.Decoding(
        size, damaged, cache or folder / image_cache.FOLDER, workers, progress
    )
    listing = real_sets.read_folder(folder, labels, test_labels, class_names)
    if listing.test is None:
        listing = _split_off_test(listing, test_share, seed)
    return _decoded(folder.name, listing, how)


# ---------------------------------------------------------------- reading


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The scans count from 0 to 16.
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[stratified(labels, DIGITS_TEST_SIZE, seed=0)] = True
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


# ---------------------------------------------------------------- photographs


def _load_photographs(
    name: str, root: Path, kind: str | None, download: bool, options: Mapping[str, object]
) -> Dataset:
    options = {"test": real_sets.TEST_SETS[name][0], **options}
    test = options.pop("test")
    if test not in real_sets.TEST_SETS[name]:
        known = ", ".join(real_sets.TEST_SETS[name])
        raise ValueError(f"Expected `test` of {name!r} to be one of {known}, got {test!r}")
    known = [field.name for field in dataclasses.fields(image_cache.Decoding)]
    if strange := [option for option in options if option not in known]:
        raise ValueError(f"Expected options of {', '.join(['test', *known])}, got {strange[0]!r}")
    own_cache = root / real_sets.FOLDERS[name] / image_cache.FOLDER
    how = image_cache.Decoding(**{"cache": own_cache, **options})
    listing = _read_lists(name, root, kind, test, download)
    try:
        return _decoded(name, listing, how)
    except DataError as error:
        raise DataError(real_sets.how_to_get(name, root, str(error))) from error


def _read_lists(
    name: str, root: Path, kind: str | None, test: str, download: bool
) -> real_sets.Listing:
    folder = root / real_sets.FOLDERS[name]
    if (
        name == "food101"
        and download
        and not ((folder / "meta").is_dir() and (folder / "images").is_dir())
    ):
        try:
            files.fetch_food101(root)
        except DataError as error:
            raise DataError(real_sets.how_to_get(name, root, str(error))) from error
    return real_sets.read(name, root, kind, test)


def _split_off_test(listing: real_sets.Listing, share: float, seed: int) -> real_sets.Listing:
    if not 0 < share < 1:
        raise ValueError(f"Expected `test_share` in (0, 1), got {share}")
    part = listing.train
    size = round(share * len(part.paths))
    if not 0 < size < len(part.paths):
        raise ValueError(
            f"Expected a `test_share` that leaves images on both sides: {share} of "
            f"{len(part.paths)} images are {size}"
        )
    is_test = np.zeros(len(part.paths), dtype=bool)
    is_test[stratified(torch.from_numpy(part.best_labels()), size, seed).numpy()] = True
    train = part.take(np.flatnonzero(~is_test), f"{part.name}-train")
    test = part.take(np.flatnonzero(is_test), f"{part.name}-test")
    return dataclasses.replace(listing, train=train, test=test)


def _decoded(name: str, listing: real_sets.Listing, how: image_cache.Decoding) -> Dataset:
    train, test = listing.train, listing.test
    images, test_images = (
        image_cache.cached_images(part.name, part.base, part.paths, how) for part in (train, test)
    )
    mean, std = listing.statistics or _measure(images.images)
    return Dataset(
        name=name,
        images=images.images,
        labels=torch.from_numpy(train.labels)[images.index],
        true_labels=torch.from_numpy(train.true_labels)[images.index],
        test_images=test_images.images,
        test_labels=torch.from_numpy(test.best_labels())[test_images.index],
        class_names=listing.class_names,
        mean=mean,
        std=std,
    )


def _measure(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and deviation of each channel on evenly spread images: a thousand suffice."""
    spread = torch.linspace(0, len(images) - 1, min(len(images), SAMPLE)).long()
    channels = images[spread].transpose(0, 1).flatten(1)
    # Counting how often each of the 256 values occurs needs no copy of the pixels as floats.
    shares = torch.stack([channel.bincount(minlength=256) for channel in channels]).double()
    shares /= channels.shape[1]
    values = torch.arange(256).double() / 255
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(1)
    # Without any deviation (all images black, say) normalising would divide by zero.
    return tuple(mean.tolist()), tuple(variance.sqrt().clamp(min=1 / 255).tolist())


# ---------------------------------------------------------------- checks at the border


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"Expected `name` to be one of {', '.join(NAMES)}, got {name!r}")


def _checked_kind(name: str, kind: str | None) -> str | None:
    known = HUMAN_KINDS.get(name) or real_sets.KINDS.get(name, ())
    if kind is None:
        return next(iter(known), None)
    if kind not in known:
        choice = f"to be one of {', '.join(known)}" if known else "to be left out"
        raise ValueError(f"Expected `kind` of {name!r} {choice}, got {kind!r}")
    return kind
