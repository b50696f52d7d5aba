"""Real noisy sets: which images belong to them, and which labels they were given.

Clothing1M, mini-WebVision and Food-101 in the layouts that their authors (and all published codes)
use, and any folder of images with a label file. What is read here are lists; ``image_cache.py``
decodes the images, ``loading.py`` makes a ``Dataset`` of both. Where nobody knows the true label
of a training image it is UNKNOWN here. How to get the sets: ``data/README.md``.

Sources: Xiao et al. 2015 (Clothing1M), Li et al. 2017 (WebVision, arXiv 1708.02862), Bossard et al.
2014 (Food-101). Layouts, and the mean and deviation of Clothing1M, as in the code of DivideMix
(LiJunnan1992/DivideMix); ImageNet's mean and deviation are those of torchvision's weights.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..base import expect
from .dataset import UNKNOWN, stratified
from .files import DataError
from .image_cache import FOLDER

NAMES = ("clothing1m", "mini-webvision", "food101")
KINDS = {"clothing1m": ("noisy", "both", "clean")}
TEST_SETS = {
    "clothing1m": ("test", "validation"),
    "mini-webvision": ("webvision", "ilsvrc12"),
    "food101": ("test",),
}
FOLDERS = {"clothing1m": "Clothing1M", "mini-webvision": "WebVision", "food101": "food-101"}
HOW_TO_GET = {
    "clothing1m": (
        "noisy_train_key_list.txt, clean_train_key_list.txt, clean_val_key_list.txt, "
        "clean_test_key_list.txt, noisy_label_kv.txt, clean_label_kv.txt and images/",
        "Its authors give it for research on request: https://github.com/Cysu/noisy_label",
    ),
    "mini-webvision": (
        "info/train_filelist_google.txt, info/val_filelist.txt, google/ and val_images_256/ "
        "(WebVision 1.0, resized images); for test='ilsvrc12' imagenet/val/ with a folder a class",
        "https://data.vision.ee.ethz.ch/cvl/webvision/dataset2017.html and https://image-net.org",
    ),
    "food101": (
        "meta/classes.txt, meta/train.txt, meta/test.txt and images/",
        "nlcourse data food101 fetches it (5 GB) when meta/ or images/ is not there",
    ),
}

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLOTHING = ((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214))
CLOTHING_CLASSES = (
    "T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket",
    "Down Coat", "Suit", "Shawl", "Dress", "Vest", "Underwear",
)  # fmt: skip
MINI_CLASSES = 50  # "mini": the first 50 of WebVision's 1,000 classes


@dataclass(frozen=True, eq=False)
class Part:
    """A list of images with their labels.

    Attributes:
        name: how its cache is called.
        base: folder that the paths start from.
        paths: n paths, each once.
        labels: int64 ``(n,)``, the given labels.
        true_labels: int64 ``(n,)``; UNKNOWN where nobody knows.

    Raises:
        DataError: no image, or one that is listed twice.
    """

    name: str
    base: Path
    paths: Sequence[str]
    labels: Tensor
    true_labels: Tensor

    def __post_init__(self) -> None:
        """Refuse lists that cannot be."""
        if not self.paths:
            raise DataError(f"No image is listed for {self.name} in {self.base}")
        path, times = Counter(self.paths).most_common(1)[0]
        if times > 1:
            raise DataError(f"{path} stands twice in the list of {self.name}: each has one line")

    @property
    def best_labels(self) -> Tensor:
        """The true labels, and the given ones where the true ones are unknown."""
        return torch.where(self.true_labels == UNKNOWN, self.labels, self.true_labels)

    def split(self, share: float, seed: int) -> tuple[Part, Part]:
        """Split off a share for testing, each class in its share."""
        n = len(self.paths)
        size = round(share * n)
        what = "a `test_share` in (0, 1) that leaves images on both sides"
        expect(0 < share < 1 and 0 < size < n, what, f"{share} of {n} images")
        is_test = torch.zeros(n, dtype=torch.bool)
        is_test[stratified(self.best_labels, size, seed)] = True
        train, test = (
            Part(
                f"{self.name}-{name}",
                self.base,
                list(compress(self.paths, chosen.tolist())),
                self.labels[chosen],
                self.true_labels[chosen],
            )
            for name, chosen in (("train", ~is_test), ("test", is_test))
        )
        return train, test


class Listing(NamedTuple):
    """A training list, a test list, and what the classes are called.

    Attributes:
        train: what to train on.
        test: its labels are true ones, as far as anybody knows.
        class_names: one a class.
        statistics: mean and deviation of each channel; None: to be measured.
    """

    train: Part
    test: Part
    class_names: tuple[str, ...]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def _labelled(
    name: str, base: Path, labels: Mapping[str, int], true: Mapping[str, int] | None = None
) -> Part:
    """Make a part of path -> given label and path -> true label, as far as it is known."""
    true = true or {}
    known = torch.tensor([true.get(path, UNKNOWN) for path in labels])
    return Part(name, base, list(labels), torch.tensor(list(labels.values())), known)


def read(name: str, folder: Path, kind: str | None, test: str) -> Listing:
    """Read the lists of one of :data:`NAMES`.

    Args:
        name: of the set.
        folder: where the set lies.
        kind: of :data:`KINDS`, for ``clothing1m``. "noisy": the million with given labels;
            "both": the images of the clean training list that also have a given label, so that
            the noise can be measured; "clean": that whole list with its clean labels.
        test: which test set, of :data:`TEST_SETS`.

    Raises:
        FileNotFoundError: a list is missing.
        DataError: a list says what cannot be; the message names file and line.
    """
    if name == "clothing1m":
        return _read_clothing(folder, kind or "noisy", test)
    return _read_webvision(folder, test) if name == "mini-webvision" else _read_food(folder)


def how_to_get(name: str, root: Path, problem: str) -> str:
    """Say what is wrong, what a set's folder has to hold, and where the set comes from."""
    holds, source = HOW_TO_GET[name]
    return (
        f"The data set {name!r} cannot be used:\n  {problem}\n"
        f"Looked for in {root} (`root`, else the folder NLCOURSE_DATA names, else data/).\n"
        f"Expected in {root / FOLDERS[name]}: {holds}.\n{source}"
    )


# ---------------------------------------------------------------- Clothing1M


def _read_clothing(folder: Path, kind: str, test: str) -> Listing:
    lists = folder / "annotations" if (folder / "annotations").is_dir() else folder
    clean, noisy = (
        _read_pairs(lists / f"{one}_label_kv.txt", len(CLOTHING_CLASSES))
        for one in ("clean", "noisy")
    )
    # A line that stands there twice counts once, as in the published training.
    train, test_keys = (
        dict.fromkeys(line for _, line in _lines(lists / f"{one}_key_list.txt"))
        for one in (
            "noisy_train" if kind == "noisy" else "clean_train",
            "clean_test" if test == "test" else "clean_val",
        )
    )
    if kind == "both":
        train = {key: None for key in train if key in noisy}
    given = clean if kind == "clean" else noisy
    return Listing(
        _clothing_part(f"clothing1m-{kind}", folder, train, given, clean),
        _clothing_part(f"clothing1m-{test}", folder, test_keys, clean, clean),
        CLOTHING_CLASSES,
        CLOTHING,
    )


def _clothing_part(
    name: str, folder: Path, keys: Iterable[str], given: Mapping[str, int], clean: Mapping[str, int]
) -> Part:
    without = [key for key in keys if key not in given]
    if without:
        raise DataError(f"{len(without)} images of {name} have no label, the first: {without[0]}")
    # The keys begin with images/; DivideMix keeps the folders below it one level higher.
    prefix = "" if (folder / "images").is_dir() else "images/"
    paths = {key.removeprefix(prefix): key for key in keys}
    labels = {path: given[key] for path, key in paths.items()}
    true = {path: clean[key] for path, key in paths.items() if key in clean}
    return _labelled(name, folder, labels, true)


# ---------------------------------------------------------------- WebVision


def _read_webvision(folder: Path, test: str) -> Listing:
    info = folder / "info"
    names = tuple(f"class {label}" for label in range(MINI_CLASSES))
    if (info / "synsets.txt").is_file():  # lines "n01440764 tench, Tinca tinca"
        lines = [line for _, line in _lines(info / "synsets.txt")][:MINI_CLASSES]
        names = tuple(line.partition(" ")[2].partition(",")[0] for line in lines)
        if len(names) < MINI_CLASSES:
            raise DataError(f"Expected at least {MINI_CLASSES} classes in {info}, got {len(names)}")
    train = _labelled("mini-webvision-train", folder, _mini(info / "train_filelist_google.txt"))
    if test == "ilsvrc12":
        return Listing(train, _read_ilsvrc12(folder), names, IMAGENET)
    validation = _mini(info / "val_filelist.txt").items()
    labels = {f"val_images_256/{path}": label for path, label in validation}
    of_test = _labelled("mini-webvision-webvision", folder, labels, labels)
    return Listing(train, of_test, names, IMAGENET)


def _mini(path: Path) -> dict[str, int]:
    return {key: label for key, label in _read_pairs(path).items() if label < MINI_CLASSES}


def _read_ilsvrc12(folder: Path) -> Part:
    """List ImageNet's validation images: a folder a class, called 0, 1, ... or by its synset."""
    base, synsets = folder / "imagenet" / "val", folder / "info" / "synsets.txt"
    if not base.is_dir():
        raise FileNotFoundError(2, "no such folder", str(base))
    if (base / "0").is_dir():
        names = [str(label) for label in range(MINI_CLASSES)]
    elif synsets.is_file():
        names = [line.partition(" ")[0] for _, line in _lines(synsets)]
    else:  # in the order of their names they are the classes, but only all of them
        names = _class_folders(base)
        if len(names) != 1000:
            raise DataError(
                f"Expected in {base} the folders 0 to {MINI_CLASSES - 1}, or synset folders beside "
                f"{synsets}, got {len(names)} folders"
            )
    labels = _labels_of_folders(base, names[:MINI_CLASSES])
    return _labelled("mini-webvision-ilsvrc12", base, labels, labels)


# ---------------------------------------------------------------- Food-101


def _read_food(folder: Path) -> Listing:
    classes = [line for _, line in _lines(folder / "meta" / "classes.txt")]
    train, test = (_food_part(folder, name, classes) for name in ("train", "test"))
    train = replace(train, true_labels=torch.full_like(train.labels, UNKNOWN))
    return Listing(train, test, tuple(name.replace("_", " ") for name in classes), IMAGENET)


def _food_part(folder: Path, name: str, classes: list[str]) -> Part:
    path = folder / "meta" / f"{name}.txt"
    number = {label: i for i, label in enumerate(classes)}
    keys = []
    for line, key in _lines(path):
        if key.partition("/")[0] not in number:
            raise DataError(f"{path}:{line}: {key.partition('/')[0]!r} is no class of classes.txt")
        keys.append(key)
    labels = torch.tensor([number[key.partition("/")[0]] for key in keys])
    return Part(f"food101-{name}", folder, [f"images/{key}.jpg" for key in keys], labels, labels)


# ---------------------------------------------------------------- any folder


class _Row(NamedTuple):
    place: str  # file and line, for messages
    path: str
    label: str
    true_label: str


def read_folder(
    folder: Path,
    labels: str | os.PathLike[str] | None,
    test_labels: str | os.PathLike[str] | None,
    class_names: Sequence[str] | None,
    test_share: float,
    seed: int,
) -> Listing:
    """List the images of a folder with a label file, or with a folder for each class.

    Args:
        folder: of the images.
        labels: a CSV file with the columns ``path``, ``label`` and, if known, ``true_label``;
            paths start from `folder`. Left out: ``labels.csv`` in the folder, else one folder a
            class, in ``train`` (and ``test`` or ``val``) or in the folder itself.
        test_labels: the same for the test images; left out: ``test_labels.csv`` if it is there.
        class_names: the classes in their order; left out: all that occur, numbers by their size,
            words by the alphabet.
        test_share: share of the images to be split off where there are no test images.
        seed: decides which.

    Raises:
        DataError: nothing of that is there, or a list says what cannot be.
        ValueError: `test_labels` without a label file for training, or a share of no images.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a folder of images, there is none at {folder}")
    file = _listed(folder, labels, "labels.csv")
    if file is None:
        why = "a folder a class has neither"
        expect(test_labels is None, "`labels` beside `test_labels`", repr(test_labels), why)
        train, test, names = _read_class_folders(folder, class_names)
    else:
        test_file = _listed(folder, test_labels, "test_labels.csv")
        train, test, names = _read_label_files(folder, file, test_file, class_names)
    if test is None:
        train, test = train.split(test_share, seed)
    return Listing(train, test, names)


def _read_label_files(
    folder: Path, file: Path, test_file: Path | None, class_names: Sequence[str] | None
) -> tuple[Part, Part | None, tuple[str, ...]]:
    rows = _read_csv(file)
    test_rows = _read_csv(test_file) if test_file else []
    names = _check_classes(rows + test_rows, class_names)
    seen = {row.path for row in rows}
    for row in test_rows:
        if row.path in seen:
            raise DataError(f"{row.place}: {row.path} is a training image as well")
    test = _csv_part(test_file.stem, folder, test_rows, names) if test_file else None
    return _csv_part(file.stem, folder, rows, names), test, names


def _listed(folder: Path, given: str | os.PathLike[str] | None, usual: str) -> Path | None:
    """Return the CSV file to read: that which was named, else the usual one if it is there."""
    if given is None:
        return folder / usual if (folder / usual).is_file() else None
    path = Path(given).expanduser()
    path = path if path.is_file() else folder / path
    if not path.is_file():
        raise DataError(f"There is no label file {given} (nor {path})")
    return path


def _read_csv(file: Path) -> list[_Row]:
    rows = []
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True)
        columns = reader.fieldnames or []
        if not {"path", "label"} <= set(columns):
            got = ",".join(columns) or "an empty file"
            raise DataError(f"Expected the columns path,label[,true_label] in {file}, got {got}")
        for entry in reader:
            place = f"{file}:{reader.line_num}"
            path, label, true_label = (
                (entry.get(column) or "").strip() for column in _Row._fields[1:]
            )
            if not path or not label:
                raise DataError(f"{place}: expected a path and a label, got {path!r} and {label!r}")
            rows.append(_Row(place, os.path.normpath(path), label, true_label))
    return rows


def _check_classes(rows: Sequence[_Row], class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes in their order; refuse labels that are none of the given classes."""
    if class_names is None:
        found = {row.label for row in rows} | {row.true_label for row in rows if row.true_label}
        are_numbers = all(name.isdecimal() for name in found)
        return tuple(sorted(found, key=int if are_numbers else None))
    names = tuple(str(name) for name in class_names)
    for row in rows:
        for label in (row.label, row.true_label or row.label):
            if label not in names:
                raise DataError(f"{row.place}: {label!r} is none of the classes {', '.join(names)}")
    return names


def _csv_part(name: str, folder: Path, rows: Sequence[_Row], names: Sequence[str]) -> Part:
    number = {name: label for label, name in enumerate(names)} | {"": UNKNOWN}
    labels = torch.tensor([number[row.label] for row in rows])
    true_labels = torch.tensor([number[row.true_label] for row in rows])
    return Part(name, folder, [row.path for row in rows], labels, true_labels)


def _read_class_folders(
    folder: Path, class_names: Sequence[str] | None
) -> tuple[Part, Part | None, tuple[str, ...]]:
    base, test = folder, None
    if (folder / "train").is_dir():
        base = folder / "train"
        test = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    names = tuple(_class_folders(base) if class_names is None else class_names)
    if not names:
        raise DataError(
            f"Expected in {folder} a file labels.csv (path,label[,true_label]) or a folder of "
            "images for each class; found neither"
        )
    for part in filter(None, (base, test)):
        for stranger in sorted({*_class_folders(part)} - {*names}):
            raise DataError(f"{part / stranger} is none of the classes {', '.join(names)}")
    train = _labelled("train", base, _labels_of_folders(base, names))
    return train, _labelled("test", test, _labels_of_folders(test, names)) if test else None, names


def _class_folders(base: Path) -> list[str]:
    found = (one.name for one in base.iterdir() if one.is_dir())
    return sorted(name for name in found if not name.startswith(".") and name != FOLDER)


def _labels_of_folders(base: Path, names: Sequence[str]) -> dict[str, int]:
    """Return path -> class of the images below class folders, class by class in their order."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    number = {name: label for label, name in enumerate(names)}
    found = make_dataset(base, number, IMG_EXTENSIONS, allow_empty=True)
    found.sort(key=lambda pair: pair[1])
    return {str(Path(path).relative_to(base)): label for path, label in found}


# ---------------------------------------------------------------- lines


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not blank."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.strip()


def _read_pairs(path: Path, num_classes: int | None = None) -> dict[str, int]:
    """Read lines ``path label``: an image with two different labels is refused."""
    found: dict[str, int] = {}
    for number, line in _lines(path):
        *key, text = line.rsplit(maxsplit=1)
        if not key or not text.isdecimal() or (num_classes and int(text) >= num_classes):
            top = f" from 0 to {num_classes - 1}" if num_classes else ""
            raise DataError(f"{path}:{number}: expected a path and a label{top}, got {line!r}")
        if found.setdefault(key[0], int(text)) != int(text):
            raise DataError(f"{path}:{number}: a second, other label for {key[0]}")
    return found
