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
from .photographs import Statistics

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
            ``clothing1m``: noisy (default), the million with given labels; both, the images of the
            clean training list that have a given label too, so that the noise can be measured;
            clean, that whole list with its clean labels.
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
        labels: a CSV file with the columns ``path``, ``label`` and, if known, ``true_label``;
            paths start from the folder. Left out: ``labels.csv`` in it, else one folder a class,
            in ``train`` (and ``test`` or ``val``) or in the folder itself.
        test_labels: the same for the test images; left out: ``test_labels.csv`` if it is there.
        class_names: the classes in their order; left out: all that occur, numbers by their size,
            words (and class folders) by the alphabet.
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
    is_test = stratified(labels, DIGITS_TEST_SIZE, seed=0)
    pixels = images[~is_test].double()
    statistics = (pixels.mean().item(),), (pixels.std(correction=0).item(),)
    parts = [(images[part], labels[part]) for part in (~is_test, is_test)]
    return _of_true_labels("digits", parts, DIGITS, statistics)


def _load_idx(name: str, root: Path) -> Dataset:
    values = [files.read_idx(files.find(one)) for one in files.needed(name, root)]
    parts = [(values[at].unsqueeze(1), values[at + 1]) for at in (0, 2)]
    names = DIGITS if name == "mnist" else tuple(files.torchvision_class(name).classes)
    return _of_true_labels(name, parts, names, STATISTICS[name])


def _load_cifar(name: str, root: Path) -> Dataset:
    source = files.torchvision_class(name)
    # torchvision checks the hash of each file itself before it unpickles it.
    found = [source(root, train=part, download=False) for part in (True, False)]
    parts = [
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in found
    ]
    return _of_true_labels(name, parts, tuple(found[0].classes), STATISTICS[name.removesuffix("n")])


def _of_true_labels(
    name: str, parts: list[tuple[Tensor, Tensor]], class_names: tuple[str, ...], of: Statistics
) -> Dataset:
    (images, labels), test = parts
    return Dataset(name, images, labels.clone(), labels, *test, class_names, *of)


def _with_human_labels(data: Dataset, root: Path, kind: str) -> Dataset:
    found = files.find(files.needed(data.name, root)[-1])
    human = files.read_labels(found)
    if not torch.equal(human["clean_label"], data.true_labels):
        raise DataError(
            f"The clean labels in {found} are not those of the CIFAR images in {root}: one of the "
            "two is in another order, so that no label would belong to its image"
        )
    return data.with_labels(human[HUMAN_KINDS[data.name][kind]])


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
    return Dataset(
        name,
        images.images,
        train.labels[images.index],
        train.true_labels[images.index],
        test_images.images,
        test.best_labels[test_images.index],
        listing.class_names,
        *(listing.statistics or _measure(images.images)),
    )


def _measure(images: Tensor) -> Statistics:
    """Measure mean and deviation of each channel on evenly spread images: a thousand suffice."""
    spread = torch.linspace(0, len(images) - 1, min(len(images), SAMPLE)).long()
    # One channel after the other: floats take four times the room of the pixels.
    channels = images[spread].transpose(0, 1)
    measured = [torch.std_mean(channel.float() / 255, correction=0) for channel in channels]
    # Without any deviation (all images black, say) normalising would divide by zero.
    std = tuple(max(std.item(), 1 / 255) for std, _ in measured)
    return tuple(mean.item() for _, mean in measured), std
