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
from collections.abc import Mapping, Sequence
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
    *("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket"),
    *("Down Coat", "Suit", "Shawl", "Dress", "Vest", "Underwear"),
)
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
        is_test = stratified(self.best_labels, size, seed)
        return self._choose("train", ~is_test), self._choose("test", is_test)

    def _choose(self, name: str, chosen: Tensor) -> Part:
        paths = list(compress(self.paths, chosen.tolist()))
        name = f"{self.name}-{name}"
        return Part(name, self.base, paths, self.labels[chosen], self.true_labels[chosen])


Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class Listing(NamedTuple):
    """A training list, a test list, and what the classes are called.

    The labels of the test list are true ones, as far as anybody knows. `statistics` are the mean
    and deviation of each channel; None: to be measured.
    """

    train: Part
    test: Part
    class_names: tuple[str, ...]
    statistics: Statistics | None = None


def _labelled(
    name: str, base: Path, labels: Mapping[str, int], true: Mapping[str, int] | None = None
) -> Part:
    """Make a part of path -> given label and path -> true label, as far as it is known."""
    known = [(true or {}).get(path, UNKNOWN) for path in labels]
    return Part(name, base, list(labels), torch.tensor(list(labels.values())), torch.tensor(known))


def read(name: str, folder: Path, kind: str | None, test: str) -> Listing:
    """Read the lists of one of :data:`NAMES`; `kind` and `test` as in :func:`~.loading.load`.

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
    train_list = "noisy_train" if kind == "noisy" else "clean_train"
    test_list = "clean_test" if test == "test" else "clean_val"
    train, test_keys = (
        list(_lines(lists / f"{one}_key_list.txt").values()) for one in (train_list, test_list)
    )
    if kind == "both":
        train = [key for key in train if key in noisy]
    # The keys begin with images/; DivideMix keeps the folders below it one level higher.
    prefix = "" if (folder / "images").is_dir() else "images/"

    def part(name: str, keys: list[str], given: Mapping[str, int]) -> Part:
        without = [key for key in keys if key not in given]
        if without:
            many = f"{len(without)} images of clothing1m-{name}"
            raise DataError(f"{many} have no label, the first: {without[0]}")
        # A line that stands there twice counts once, as in the published training.
        listed = _labelled(f"clothing1m-{name}", folder, {key: given[key] for key in keys}, clean)
        return replace(listed, paths=[key.removeprefix(prefix) for key in listed.paths])

    of_train = part(kind, train, clean if kind == "clean" else noisy)
    return Listing(of_train, part(test, test_keys, clean), CLOTHING_CLASSES, CLOTHING)


# ---------------------------------------------------------------- WebVision


def _read_webvision(folder: Path, test: str) -> Listing:
    info = folder / "info"
    lines: list[str] = []  # "n01440764 tench, Tinca tinca", one a class
    names = tuple(f"class {label}" for label in range(MINI_CLASSES))
    if (info / "synsets.txt").is_file():
        lines = list(_lines(info / "synsets.txt").values())[:MINI_CLASSES]
        names = tuple(line.partition(" ")[2].partition(",")[0] for line in lines)
        if len(names) < MINI_CLASSES:
            raise DataError(f"Expected at least {MINI_CLASSES} classes in {info}, got {len(names)}")
    train = _labelled("mini-webvision-train", folder, _mini(info / "train_filelist_google.txt"))
    name = f"mini-webvision-{test}"
    if test == "ilsvrc12":
        synsets = [line.partition(" ")[0] for line in lines]
        of_test = _read_ilsvrc12(name, folder / "imagenet" / "val", synsets)
    else:
        of_test = _labelled(name, folder / "val_images_256", _mini(info / "val_filelist.txt"))
    return Listing(train, of_test, names, IMAGENET)


def _mini(path: Path) -> dict[str, int]:
    return {key: label for key, label in _read_pairs(path).items() if label < MINI_CLASSES}


def _read_ilsvrc12(name: str, base: Path, synsets: Sequence[str]) -> Part:
    """List ImageNet's validation images: a folder a class, called 0, 1, ... or by its synset."""
    found = _class_folders(base)
    if "0" in found:
        synsets = [str(label) for label in range(MINI_CLASSES)]
    elif not synsets:  # in the order of their names they are the classes, but only all of them
        synsets = found[:MINI_CLASSES]
        if len(found) != 1000:
            raise DataError(
                f"Expected in {base} the folders 0 to {MINI_CLASSES - 1}, or synset folders beside "
                f"info/synsets.txt, got {len(found)} folders"
            )
    return _part_of_rows(name, base, _rows_of_folders(base, synsets), synsets)


# ---------------------------------------------------------------- Food-101


def _read_food(folder: Path) -> Listing:
    meta = folder / "meta"
    classes = list(_lines(meta / "classes.txt").values())

    def part(name: str) -> Part:
        rows = [
            _Row(f"{meta / name}.txt:{number}", f"images/{key}.jpg", key.partition("/")[0])
            for number, key in _lines(meta / f"{name}.txt").items()
        ]
        return _part_of_rows(f"food101-{name}", folder, rows, classes)

    names = tuple(name.replace("_", " ") for name in classes)
    return Listing(part("train"), part("test"), names, IMAGENET)


# ---------------------------------------------------------------- any folder


class _Row(NamedTuple):
    place: str  # file and line, for messages
    path: str
    label: str
    true_label: str = ""


def _part_of_rows(name: str, base: Path, rows: Sequence[_Row], names: Sequence[str]) -> Part:
    """Make a part of rows, whose labels are class names."""
    number = {one: label for label, one in enumerate(names)} | {"": UNKNOWN}
    for row in rows:
        for label in (row.label, row.true_label):
            if label not in number:
                raise DataError(f"{row.place}: {label!r} is none of the classes {', '.join(names)}")
    labels = torch.tensor([number[row.label] for row in rows])
    true_labels = torch.tensor([number[row.true_label] for row in rows])
    return Part(name, base, [row.path for row in rows], labels, true_labels)


def read_folder(
    folder: Path,
    labels: str | os.PathLike[str] | None,
    test_labels: str | os.PathLike[str] | None,
    class_names: Sequence[str] | None,
    test_share: float,
    seed: int,
) -> Listing:
    """List the images of any folder; the arguments are those of :func:`~.loading.load_folder`.

    Raises:
        DataError: there are neither labels nor class folders, or a list says what cannot be.
        ValueError: `test_labels` without a label file for training, or a share of no images.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a folder of images, there is none at {folder}")
    file = _listed(folder, labels, "labels.csv")
    if file is None:
        why = "a folder a class has neither"
        expect(test_labels is None, "`labels` beside `test_labels`", repr(test_labels), why)
        tables = _read_class_folders(folder)
        names = tuple(_class_folders(tables[0][1]))
    else:
        files = [file, _listed(folder, test_labels, "test_labels.csv")]
        tables = [(one.stem, folder, _read_csv(one)) for one in files if one]
        names = _check_tables(*(rows for _, _, rows in tables))
    names = names if class_names is None else tuple(str(name) for name in class_names)
    parts = [_part_of_rows(*table, names) for table in tables]
    train, test = parts if len(parts) == 2 else parts[0].split(test_share, seed)
    return Listing(train, test, names)


def _check_tables(train: list[_Row], test: Sequence[_Row] = ()) -> tuple[str, ...]:
    """Return the classes in their order; refuse test images that are training images as well."""
    trained = {row.path for row in train}
    for row in test:
        if row.path in trained:
            raise DataError(f"{row.place}: {row.path} is a training image as well")
    found = {label for row in (*train, *test) for label in (row.label, row.true_label) if label}
    return tuple(sorted(found, key=int if all(map(str.isdecimal, found)) else None))


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


def _read_class_folders(folder: Path) -> list[tuple[str, Path, list[_Row]]]:
    bases = {"train": folder}
    if (folder / "train").is_dir():
        places = {"train": "train", "test": "test" if (folder / "test").is_dir() else "val"}
        bases = {name: folder / at for name, at in places.items() if (folder / at).is_dir()}
    if not _class_folders(bases["train"]):
        raise DataError(
            f"Expected in {folder} a file labels.csv (path,label[,true_label]) or a folder of "
            "images for each class; found neither"
        )
    return [(name, at, _rows_of_folders(at, _class_folders(at))) for name, at in bases.items()]


def _class_folders(base: Path) -> list[str]:
    found = (one.name for one in base.iterdir() if one.is_dir())
    return sorted(name for name in found if not name.startswith(".") and name != FOLDER)


def _rows_of_folders(base: Path, names: Sequence[str]) -> list[_Row]:
    """List the images below class folders, class by class in the order of `names`."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    return [
        _Row(str(base / name), str(Path(path).relative_to(base)), name)
        for name in names
        for path, _ in make_dataset(base, {name: 0}, IMG_EXTENSIONS, allow_empty=True)
    ]


# ---------------------------------------------------------------- lines


def _lines(path: Path) -> dict[int, str]:
    """Return number -> text of the lines that are not blank."""
    with path.open(encoding="utf-8") as file:
        return {number: line.strip() for number, line in enumerate(file, 1) if line.strip()}


def _read_pairs(path: Path, num_classes: int | None = None) -> dict[str, int]:
    """Read lines ``path label``: an image with two different labels is refused."""
    found: dict[str, int] = {}
    for number, line in _lines(path).items():
        *key, text = line.rsplit(maxsplit=1)
        if not key or not text.isdecimal() or (num_classes and int(text) >= num_classes):
            top = f" from 0 to {num_classes - 1}" if num_classes else ""
            raise DataError(f"{path}:{number}: expected a path and a label{top}, got {line!r}")
        if found.setdefault(key[0], int(text)) != int(text):
            raise DataError(f"{path}:{number}: a second, other label for {key[0]}")
    return found
