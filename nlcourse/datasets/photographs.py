"""Real noisy sets: which images belong to them, and which labels they were given.

Clothing1M, mini-WebVision and Food-101 in the layouts that their authors (and all published codes)
use, and any folder of images with a label file. What is read here are lists; ``image_cache.py``
decodes the images, ``datasets.py`` makes a ``Dataset`` of both. Where nobody knows the true label
of a training image it is UNKNOWN here. How to get the sets: ``data/README.md``.

Sources: Xiao et al. 2015 (Clothing1M), Li et al. 2017 (WebVision, arXiv 1708.02862), Bossard et al.
2014 (Food-101). Layouts, and the mean and deviation of Clothing1M, as in the code of DivideMix
(LiJunnan1992/DivideMix); ImageNet's mean and deviation are those of torchvision's weights.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import UNKNOWN
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
    """

    name: str
    base: Path
    paths: Sequence[str]
    labels: np.ndarray
    true_labels: np.ndarray

    def take(self, index: np.ndarray, name: str | None = None) -> Part:
        """Return the images at `index`, under another name if one is given."""
        paths = [self.paths[i] for i in index]
        return Part(
            name or self.name, self.base, paths, self.labels[index], self.true_labels[index]
        )

    def best_labels(self) -> np.ndarray:
        """Return the true labels, and the given ones where the true ones are unknown."""
        return np.where(self.true_labels == UNKNOWN, self.labels, self.true_labels)


@dataclass(frozen=True, eq=False)
class Listing:
    """A training list, a test list (None: to be split off), and what the classes are called.

    Attributes:
        train: what to train on.
        test: its labels are true ones, as far as anybody knows.
        class_names: one a class.
        statistics: mean and deviation of each channel; None: to be measured.
    """

    train: Part
    test: Part | None
    class_names: tuple[str, ...]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def read(name: str, root: Path, kind: str | None, test: str) -> Listing:
    """Read the lists of one of :data:`NAMES`.

    Args:
        name: of the set.
        root: folder of all data; the set lies in ``FOLDERS[name]`` there.
        kind: of :data:`KINDS`, for ``clothing1m``. "noisy": the million with given labels;
            "both": the images of the clean training list that also have a given label, so that
            the noise can be measured; "clean": that whole list with its clean labels.
        test: which test set, of :data:`TEST_SETS`.

    Raises:
        DataError: a list is missing or says what cannot be; the message names file and line.
    """
    folder = root / FOLDERS[name]
    try:
        if name == "clothing1m":
            return _read_clothing(folder, kind or "noisy", test)
        return _read_webvision(folder, test) if name == "mini-webvision" else _read_food(folder)
    except FileNotFoundError as error:
        raise DataError(how_to_get(name, root, f"missing: {error.filename}")) from error


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
    clean = _read_labels(lists / "clean_label_kv.txt", len(CLOTHING_CLASSES))
    noisy = _read_labels(lists / "noisy_label_kv.txt", len(CLOTHING_CLASSES))
    keys = _read_keys(lists / f"{'noisy' if kind == 'noisy' else 'clean'}_train_key_list.txt")
    if kind == "both":
        keys = [key for key in keys if key in noisy]
    given = clean if kind == "clean" else noisy
    test_list = lists / f"clean_{'test' if test == 'test' else 'val'}_key_list.txt"
    return Listing(
        _clothing_part(f"clothing1m-{kind}", folder, keys, given, clean),
        _clothing_part(f"clothing1m-{test}", folder, _read_keys(test_list), clean, clean),
        CLOTHING_CLASSES,
        CLOTHING,
    )


def _clothing_part(name: str, folder: Path, keys: list[str], given, clean) -> Part:
    _check_not_empty(keys, name, folder)
    without = [key for key in keys if key not in given]
    if without:
        raise DataError(f"{len(without)} images of {name} have no label, the first: {without[0]}")
    paths = keys
    # The keys begin with images/; DivideMix keeps the folders below it one level higher.
    if not (folder / "images").is_dir():
        paths = [key.removeprefix("images/") for key in keys]
    labels = _as_labels(given[key] for key in keys)
    return Part(name, folder, paths, labels, _as_labels(clean.get(key, UNKNOWN) for key in keys))


def _read_keys(path: Path) -> list[str]:
    """Return the lines of a list; one that stands there twice counts once, as in training."""
    return list(dict.fromkeys(line for _, line in _lines(path)))


def _read_labels(path: Path, num_classes: int) -> dict[str, int]:
    return dict(_read_pairs(path, num_classes))


# ---------------------------------------------------------------- WebVision


def _read_webvision(folder: Path, test: str) -> Listing:
    names = _webvision_classes(folder / "info" / "synsets.txt")
    train = _mini(folder / "info" / "train_filelist_google.txt")
    train_part = Part(
        "mini-webvision-train", folder, list(train), _as_labels(train.values()), _unknown(train)
    )
    _check_not_empty(train, train_part.name, folder)
    if test == "ilsvrc12":
        return Listing(train_part, _read_ilsvrc12(folder), names, IMAGENET)
    pairs = _mini(folder / "info" / "val_filelist.txt")
    labels = _as_labels(pairs.values())
    paths = [f"val_images_256/{path}" for path in pairs]
    _check_not_empty(paths, "mini-webvision-webvision", folder)
    test_part = Part("mini-webvision-webvision", folder, paths, labels, labels)
    return Listing(train_part, test_part, names, IMAGENET)


def _mini(path: Path) -> dict[str, int]:
    return {key: label for key, label in _read_pairs(path) if label < MINI_CLASSES}


def _webvision_classes(path: Path) -> tuple[str, ...]:
    """Return the classes' names; the file has a line ``n01440764 tench, Tinca tinca`` for each."""
    if not path.is_file():
        return tuple(f"class {label}" for label in range(MINI_CLASSES))
    lines = [line.partition(" ")[2].partition(",")[0] for _, line in _lines(path)]
    if len(lines) < MINI_CLASSES:
        raise DataError(f"Expected at least {MINI_CLASSES} classes in {path}, got {len(lines)}")
    return tuple(lines[:MINI_CLASSES])


def _read_ilsvrc12(folder: Path) -> Part:
    """List ImageNet's validation images: a folder a class, called 0, 1, ... or by its synset."""
    base = folder / "imagenet" / "val"
    if not base.is_dir():
        raise FileNotFoundError(2, "no such folder", str(base))
    names = _ilsvrc12_folders(base, folder / "info" / "synsets.txt")
    pairs = [pair for label, name in enumerate(names) for pair in _images_in(base, name, label)]
    _check_not_empty(pairs, "mini-webvision-ilsvrc12", base)
    labels = _as_labels(label for _, label in pairs)
    return Part("mini-webvision-ilsvrc12", base, [path for path, _ in pairs], labels, labels)


def _ilsvrc12_folders(base: Path, synsets: Path) -> list[str]:
    if (base / "0").is_dir():
        return [str(label) for label in range(MINI_CLASSES)]
    if synsets.is_file():
        return [line.partition(" ")[0] for _, line in _lines(synsets)][:MINI_CLASSES]
    found = _class_folders(base)
    if len(found) != 1000:  # in the order of their names they are the classes, but only all of them
        raise DataError(
            f"Expected in {base} the folders 0 to {MINI_CLASSES - 1}, or synset folders beside "
            f"{synsets}, got {len(found)} folders"
        )
    return found[:MINI_CLASSES]


# ---------------------------------------------------------------- Food-101


def _read_food(folder: Path) -> Listing:
    classes = [line for _, line in _lines(folder / "meta" / "classes.txt")]
    number = {name: label for label, name in enumerate(classes)}
    train, test = (_food_part(folder, name, number) for name in ("train", "test"))
    train = Part(train.name, train.base, train.paths, train.labels, _unknown(train.paths))
    return Listing(train, test, tuple(name.replace("_", " ") for name in classes), IMAGENET)


def _food_part(folder: Path, name: str, number: Mapping[str, int]) -> Part:
    path = folder / "meta" / f"{name}.txt"
    keys, labels = [], []
    for line, key in _lines(path):
        label = key.partition("/")[0]
        if label not in number:
            raise DataError(f"{path}:{line}: {label!r} is no class of classes.txt")
        keys.append(f"images/{key}.jpg")
        labels.append(number[label])
    _check_once(keys, path)
    _check_not_empty(keys, f"food101-{name}", folder)
    return Part(f"food101-{name}", folder, keys, _as_labels(labels), _as_labels(labels))


# ---------------------------------------------------------------- any folder


def read_folder(
    folder: Path,
    labels: str | os.PathLike | None = None,
    test_labels: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
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

    Raises:
        DataError: nothing of that is there, or a list says what cannot be.
        ValueError: `test_labels` without a label file for training.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a folder of images, there is none at {folder}")
    labels = _listed(folder, labels, "labels.csv")
    if labels is None:
        if test_labels is not None:
            raise ValueError("Expected `labels` beside `test_labels`: a folder a class has neither")
        return _read_class_folders(folder, class_names)
    test_labels = _listed(folder, test_labels, "test_labels.csv")
    rows = _read_csv(labels)
    test_rows = _read_csv(test_labels) if test_labels else []
    names = _check_classes(rows + test_rows, class_names)
    seen = {row.path for row in rows}
    for row in test_rows:
        if row.path in seen:
            raise DataError(f"{row.place}: {row.path} is a training image as well")
    test = _csv_part(test_labels.stem, folder, test_rows, names) if test_rows else None
    return Listing(_csv_part(labels.stem, folder, rows, names), test, names)


@dataclass(frozen=True)
class _Row:
    place: str  # file and line, for messages
    path: str
    label: str
    true_label: str


def _listed(folder: Path, given: str | os.PathLike | None, usual: str) -> Path | None:
    """Return the CSV file to read: that which was named, else the usual one if it is there."""
    if given is None:
        return folder / usual if (folder / usual).is_file() else None
    path = Path(given).expanduser()
    path = path if path.is_file() else folder / path
    if not path.is_file():
        raise DataError(f"There is no label file {given} (nor {path})")
    return path


def _read_csv(path: Path) -> list[_Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = reader.fieldnames or []
        if not {"path", "label"} <= set(columns):
            raise DataError(
                f"Expected the columns path,label[,true_label] in {path}, got "
                f"{','.join(columns) or 'an empty file'}"
            )
        rows = [_row(f"{path}:{reader.line_num}", entry) for entry in reader]
    _check_once([row.path for row in rows], path)
    _check_not_empty(rows, path.name, path.parent)
    return rows


def _row(place: str, entry: Mapping[str, str | None]) -> _Row:
    path, label = (entry["path"] or "").strip(), (entry["label"] or "").strip()
    if not path or not label:
        raise DataError(f"{place}: expected a path and a label, got {path!r} and {label!r}")
    true_label = (entry.get("true_label") or "").strip()
    return _Row(place, os.path.normpath(path), label, true_label)


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
    labels = _as_labels(number[row.label] for row in rows)
    true_labels = _as_labels(number[row.true_label] for row in rows)
    return Part(name, folder, [row.path for row in rows], labels, true_labels)


def _read_class_folders(folder: Path, class_names: Sequence[str] | None) -> Listing:
    base = folder / "train" if (folder / "train").is_dir() else folder
    test_base = next((folder / n for n in ("test", "val") if (folder / n).is_dir()), None)
    test_base = test_base if base != folder else None
    names = tuple(class_names) if class_names is not None else tuple(_class_folders(base))
    if not names:
        raise DataError(
            f"Expected in {folder} a file labels.csv (path,label[,true_label]) or a folder of "
            "images for each class; found neither"
        )
    train = _folder_part("train", base, names)
    return Listing(train, _folder_part("test", test_base, names) if test_base else None, names)


def _folder_part(name: str, base: Path, names: Sequence[str]) -> Part:
    strangers = [found for found in _class_folders(base) if found not in names]
    if strangers:
        raise DataError(f"{base / strangers[0]} is none of the classes {', '.join(names)}")
    pairs = [pair for label, one in enumerate(names) for pair in _images_in(base, one, label)]
    _check_not_empty(pairs, name, base)
    labels = _as_labels(label for _, label in pairs)
    return Part(name, base, [path for path, _ in pairs], labels, _unknown(pairs))


def _class_folders(base: Path) -> list[str]:
    found = (one.name for one in base.iterdir() if one.is_dir())
    return sorted(name for name in found if not name.startswith(".") and name != FOLDER)


def _images_in(base: Path, name: str, label: int) -> Iterator[tuple[str, int]]:
    """Yield path and label of the images below a class folder, in the order of their names."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    if not (base / name).is_dir():
        return
    for path, _ in make_dataset(base, {name: label}, IMG_EXTENSIONS, allow_empty=True):
        yield str(Path(path).relative_to(base)), label


# ---------------------------------------------------------------- lines and labels


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not blank."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.strip()


def _read_pairs(path: Path, num_classes: int | None = None) -> Iterable[tuple[str, int]]:
    """Read lines ``path label``: an image with two different labels is refused."""
    found: dict[str, int] = {}
    for number, line in _lines(path):
        *key, text = line.rsplit(maxsplit=1)
        if not key or not text.isdecimal() or (num_classes and int(text) >= num_classes):
            top = f" from 0 to {num_classes - 1}" if num_classes else ""
            raise DataError(f"{path}:{number}: expected a path and a label{top}, got {line!r}")
        if found.setdefault(key[0], int(text)) != int(text):
            raise DataError(f"{path}:{number}: a second, other label for {key[0]}")
    return found.items()


def _check_once(paths: Sequence[str], source: Path) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise DataError(f"{path} stands twice in {source}: each image has one line")
        seen.add(path)


def _check_not_empty(found, name: str, folder: Path) -> None:
    if not found:
        raise DataError(f"No image is listed for {name} in {folder}")


def _as_labels(labels: Iterable[int]) -> np.ndarray:
    return np.fromiter(labels, dtype=np.int64)


def _unknown(images) -> np.ndarray:
    return np.full(len(images), UNKNOWN, dtype=np.int64)
