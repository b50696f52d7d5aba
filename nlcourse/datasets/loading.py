"""The data sets of the course as tensors: images, given labels, true labels, test set.

``load("digits")`` needs no download (scikit-learn carries the images). The others are looked for in
the folder that the environment variable ``NLCOURSE_DATA`` names, else in ``data/``, and fetched
into it on the first call; what is damaged is named and never used (``files.py``). Explained in
lesson 00.

Clothing1M, mini-WebVision, Food-101 (and any folder of images, with ``load_folder``) are decoded
once into a memory-mapped cache; where nobody knows the true label of an image it is UNKNOWN, -1.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..base import expect, expect_one_of
from . import files, photographs
from .dataset import Dataset, stratified
from .files import DataError
from .image_cache import FOLDER, Decoding, cached_images

NAMES = (
    *("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "cifar10n", "cifar100n"),
    *photographs.NAMES,
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

DIGITS = tuple(str(digit) for digit in range(10))
DIGITS_TEST_SIZE = 500
SAMPLE = 1000  # images that the mean and deviation of a student's own folder are measured on


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    kind: str | None = None,
    test: str | None = None,
    download: bool = True,
    decoding: Decoding | None = None,
) -> Dataset:
    """Load a data set, fetching it first when it is not there.

    Args:
        name: one of :data:`NAMES`. ``digits`` are float32 in 0..1, the others uint8.
        root: folder of the data; left out: ``NLCOURSE_DATA``, else ``data/``.
        kind: which labels. ``cifar10n``: worse (default), aggre, random1, random2, random3;
            ``clothing1m``: noisy (default), both, clean (see :func:`photographs.read`).
        test: which test set, for those that have two: ``clothing1m`` test (default) or validation,
            ``mini-webvision`` webvision (default) or ilsvrc12.
        download: may missing files be fetched? (Clothing1M and WebVision come by other ways.)
        decoding: size and cache of ``clothing1m``, ``mini-webvision`` and ``food101``.

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
    expect_one_of("name", name, NAMES)
    kinds = [*HUMAN_KINDS.get(name, ()), *photographs.KINDS.get(name, ())]
    kind = _chosen("kind", kind, kinds, name)
    test = _chosen("test", test, photographs.TEST_SETS.get(name, ()), name)
    of_photographs = f"`decoding` for {', '.join(photographs.NAMES)} only"
    expect(decoding is None or test is not None, of_photographs, repr(name))
    if name == "digits":
        return _load_digits()
    folder = files.data_root(root)
    if test is not None:
        return _load_photographs(name, folder, kind, test, download, decoding or Decoding())
    files.provide(name, folder, download)
    try:
        data = _load_idx(name, folder) if name in files.IDX else _load_cifar(name, folder)
    except (RuntimeError, ValueError) as error:  # changed since it was checked, or mixed up
        problems = files.find_problems(name, folder) or [f"damaged ({error}): {folder}"]
        raise DataError(files.message(name, folder, problems)) from error
    return data if kind is None else _with_human_labels(data, folder, kind)


def _chosen(what: str, value: str | None, known: Sequence[str], name: str) -> str | None:
    """Return the choice, or the first that there is."""
    if value is None:
        return next(iter(known), None)
    expect(bool(known), f"`{what}` of {name!r} to be left out", repr(value))
    expect_one_of(what, value, known)
    return value


def load_folder(
    path: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    test_labels: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    decoding: Decoding | None = None,
) -> Dataset:
    """Load any folder of images with a label file, or with a folder of images for each class.

    Without test images of their own a share of all is split off, each class in its share. Their
    labels are the true ones where the label file has them, else the given ones, noise and all.
    (Another `test_share` or `seed` is another list of images, and so another cache.)

    Args:
        path: the folder.
        labels: a CSV file ``path,label[,true_label]``; see :func:`photographs.read_folder`.
        test_labels: the same for the test images.
        class_names: the classes in their order; left out: all that occur.
        test_share: share of the images that is split off, in (0, 1).
        seed: decides which.
        decoding: size of the images, place of their cache, what becomes of damaged ones.

    Returns:
        The data set, named like the folder; uint8 images of three channels on a memory map.

    Raises:
        ValueError: for settings out of their range.
        DataError: for missing or damaged images and for label files that say what cannot be.
    """
    folder = Path(path).expanduser().absolute()
    listing = photographs.read_folder(folder, labels, test_labels, class_names, test_share, seed)
    return _decoded(folder.name, folder, listing, decoding or Decoding())


# ---------------------------------------------------------------- small images


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The scans count from 0 to 16.
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    is_test[stratified(labels, DIGITS_TEST_SIZE, seed=0)] = True
    pixels = images[~is_test].double()
    statistics = (pixels.mean().item(),), (pixels.std(correction=0).item(),)
    train, test = ((images[part], labels[part]) for part in (~is_test, is_test))
    return _with_true_labels("digits", train, test, DIGITS, statistics)


def _load_idx(name: str, root: Path) -> Dataset:
    images, labels, test_images, test_labels = (
        files.read_idx(files.find(alternatives)) for alternatives in files.needed(name, root)
    )
    names = DIGITS if name == "mnist" else tuple(files.torchvision_class(name).classes)
    train, test = (images.unsqueeze(1), labels), (test_images.unsqueeze(1), test_labels)
    return _with_true_labels(name, train, test, names, STATISTICS[name])


def _load_cifar(name: str, root: Path) -> Dataset:
    source = files.torchvision_class(name)
    # torchvision checks the hash of each file itself before it unpickles it.
    parts = [source(root, train=part, download=False) for part in (True, False)]
    train, test = (
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in parts
    )
    statistics = STATISTICS[name.removesuffix("n")]
    return _with_true_labels(name, train, test, tuple(parts[0].classes), statistics)


def _with_human_labels(data: Dataset, root: Path, kind: str) -> Dataset:
    found = files.find(files.needed(data.name, root)[-1])
    human = files.read_labels(found)
    if not torch.equal(human["clean_label"], data.true_labels):
        raise DataError(
            f"The clean labels in {found} are not those of the CIFAR images in {root}: one of the "
            "two is in another order, so that no label would belong to its image"
        )
    return data.with_labels(human[HUMAN_KINDS[data.name][kind]])


def _with_true_labels(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    class_names: tuple[str, ...],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
) -> Dataset:
    (images, labels), (test_images, test_labels) = train, test
    mean, std = statistics
    return Dataset(
        name, images, labels.clone(), labels, test_images, test_labels, class_names, mean, std
    )


# ---------------------------------------------------------------- photographs


def _load_photographs(
    name: str, root: Path, kind: str | None, test: str, download: bool, how: Decoding
) -> Dataset:
    folder = root / photographs.FOLDERS[name]
    is_there = all((folder / part).is_dir() for part in ("meta", "images"))
    try:
        if name == "food101" and download and not is_there:
            files.fetch_food101(folder)
        return _decoded(name, folder, photographs.read(name, folder, kind, test), how)
    except FileNotFoundError as error:
        problem = f"missing: {error.filename}"
        raise DataError(photographs.how_to_get(name, root, problem)) from error
    except DataError as error:
        raise DataError(photographs.how_to_get(name, root, str(error))) from error


def _decoded(name: str, folder: Path, listing: photographs.Listing, how: Decoding) -> Dataset:
    train, test = listing.train, listing.test
    how = dataclasses.replace(how, cache=how.cache or folder / FOLDER)
    images, test_images = (
        cached_images(part.name, part.base, part.paths, how) for part in (train, test)
    )
    mean, std = listing.statistics or _measure(images.images)
    return Dataset(
        name=name,
        images=images.images,
        labels=train.labels[images.index],
        true_labels=train.true_labels[images.index],
        test_images=test_images.images,
        test_labels=test.best_labels[test_images.index],
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
