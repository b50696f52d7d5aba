"""The files of the data sets: what lies there, what is damaged, fetching, reading.

Every file is checked against its published md5 sum before it is opened; an idx file that lies there
unpacked has no published sum, and torchvision's reader must take it whole. A file is fetched under
another name and gets its own only when it is whole, so that a broken download is never taken for
good later.

Sources: hashes, addresses, unpacking and the idx reader are torchvision's; the human labels of
CIFAR-10N and CIFAR-100N are those of Wei et al. 2022 (arXiv 2110.12088), repository
UCSC-REAL/cifar-10-100n.
"""

from __future__ import annotations

import http.client
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import BaseFileLock, FileLock
from torch import Tensor

IDX = ("mnist", "fashion-mnist")
TORCHVISION = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "cifar10n": "CIFAR10",
    "cifar100n": "CIFAR100",
}
# Either file serves: the first is smaller and needs no pickle, the second is the authors' own.
LABEL_FILES = {
    "cifar10n": [
        ("cifar10n.npz", "c8d9d1d8a95ac99d7959195e45c1f129"),
        ("CIFAR-10_human.pt", "96644db5574813cae939af5f7f2a0aec"),
    ],
    "cifar100n": [
        ("cifar100n.npz", "36d1386867864fc76ad8ae127b0b02ce"),
        ("CIFAR-100_human.pt", "a67b45c1d7992051865b5c755bd68bb1"),
    ],
}
LABEL_ADDRESS = "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data/"

SILENCE_SECONDS = 30.0  # a server that says nothing for so long is taken for dead
FAILURES = (OSError, RuntimeError, http.client.HTTPException)  # of a network, a disk, torchvision

Alternatives = Sequence[tuple[Path, str]]
"""Files of which any serves, each with its md5 sum ("": none is published)."""


class DataError(RuntimeError):
    """A data set is not there, damaged, or could not be fetched."""


def lock_of(path: Path) -> BaseFileLock:
    """Return the lock of a file or folder, a hidden file beside it: one process holds it."""
    return FileLock(path.with_name(f".{path.name}.lock"))


# ---------------------------------------------------------------- what is there


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the data: `root`, else ``NLCOURSE_DATA``, else ``data/``."""
    if root is None:
        root = os.environ.get("NLCOURSE_DATA") or None
    if root is not None:
        return Path(root).expanduser().absolute()
    repository = Path(__file__).resolve().parents[2]
    return (repository if (repository / "pyproject.toml").exists() else Path.cwd()) / "data"


def torchvision_class(name: str) -> Any:
    """Return torchvision's class for a data set: the list of its files, hashes and addresses."""
    from torchvision import datasets

    return getattr(datasets, TORCHVISION[name])


def needed(name: str, root: Path) -> list[Alternatives]:
    """List the files of a data set; those of human labels come last."""
    source = torchvision_class(name)
    if name in IDX:
        folder = root / TORCHVISION[name] / "raw"
        return [
            [(folder / file, md5), (folder / file.removesuffix(".gz"), "")]
            for file, md5 in source.resources
        ]
    listed = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    files: list[Alternatives] = [[(root / source.base_folder / file, md5)] for file, md5 in listed]
    if name in LABEL_FILES:
        files.append([(root / "cifar-n" / file, md5) for file, md5 in LABEL_FILES[name]])
    return files


def find(alternatives: Alternatives) -> Path:
    """Return the first file that is there and whole; DataError names what is missing or damaged."""
    problem = "missing: " + " or ".join(str(path) for path, _ in alternatives)
    for path, md5 in alternatives:
        if path.is_file():
            if _is_whole(path, md5):
                return path
            why = "its md5 sum is not the published one" if md5 else "no whole idx file"
            problem = f"damaged ({why}, cut off?): {path}"
    raise DataError(problem)


def _is_whole(path: Path, md5: str) -> bool:
    from torchvision.datasets.utils import check_integrity

    if md5:
        return bool(check_integrity(path, md5))
    with suppress(AssertionError, KeyError, RuntimeError, TypeError, ValueError):
        read_idx(path)
        return True
    return False


def find_problems(name: str, root: Path) -> list[str]:
    """Say for each file that is missing or damaged what is wrong; an empty list is good news."""
    problems = []
    for alternatives in needed(name, root):
        try:
            find(alternatives)
        except DataError as problem:
            problems.append(str(problem))
    return problems


def provide(name: str, root: Path, download: bool) -> None:
    """Return when all files are there and whole; else fetch them, or raise DataError."""
    problems, failure = find_problems(name, root), ""
    if problems and download:
        try:
            _fetch(name, root)
        except DataError as error:
            failure = str(error)
        problems = find_problems(name, root)
    if problems:
        raise DataError(message(name, root, problems, failure))


def message(name: str, root: Path, problems: Sequence[str], failure: str = "") -> str:
    """Say what is missing or damaged, where it was looked for, and what to do."""
    damaged = any(problem.startswith("damaged") for problem in problems)
    setting = "" if root == data_root(None) else f"   with NLCOURSE_DATA={root}"
    lines = [
        f"The data set {name!r} is not complete:",
        *(f"  {problem}" for problem in problems),
        "  Damaged files are never used; the command below replaces them." if damaged else "",
        f"Looked for in {root} (`root`, else the folder NLCOURSE_DATA names, else data/).",
        failure,
        f"To fetch it, with a network: nlcourse data {name}{setting}",
        'Without one: datasets.load("digits") needs no files at all.',
    ]
    return "\n".join(line for line in lines if line)


# ---------------------------------------------------------------- fetching


@contextmanager
def _fetching(goal: Path) -> Iterator[None]:
    """Let one process at a time fetch, wait for no dead server, and say why it failed."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)  # torchvision's connections know no time limit
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(goal):
            yield
    except FAILURES as error:
        raise DataError(f"It could not be fetched: {error or type(error).__name__}") from error
    finally:
        socket.setdefaulttimeout(before)


def _workplace(folder: Path) -> tempfile.TemporaryDirectory[str]:
    # Beside the goal, so that the last step is a rename: a file is there whole or not at all.
    return tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder)


def _move(found: Path, folder: Path) -> None:
    """Move files and folders into a folder; folders that are there stay, files are replaced."""
    folder.mkdir(exist_ok=True)
    for part in found.iterdir():
        if not (folder / part.name).is_dir():
            os.replace(part, folder / part.name)


def _fetch(name: str, root: Path) -> None:
    """Fetch what is missing or damaged."""
    source = torchvision_class(name)
    # Data sets of the same files, CIFAR-10 and CIFAR-10N, share the lock.
    with _fetching(root / TORCHVISION[name]):
        for alternatives in needed(name, root):
            try:
                find(alternatives)  # another process may have fetched it by now
            except DataError as problem:
                if str(problem).startswith("damaged"):
                    warnings.warn(f"{problem}; fetching it again", stacklevel=4)
                path, md5 = alternatives[0 if name in IDX else -1]
                if name in IDX:
                    _fetch_file([mirror + path.name for mirror in source.mirrors], path, md5)
                elif path.parent.name == "cifar-n":
                    _fetch_file([LABEL_ADDRESS + path.name], path, md5)
                else:
                    _fetch_archive(source, root)


def _fetch_archive(source: Any, root: Path) -> None:
    """Unpack a CIFAR (fetched unless its archive lies there) and move its files into place."""
    from torchvision.datasets.utils import check_integrity, extract_archive

    archive = root / source.filename
    with _workplace(root) as workplace:
        if not check_integrity(archive, source.tgz_md5):
            archive = Path(workplace, source.filename)
            _fetch_file([source.url], archive, source.tgz_md5)
        extract_archive(archive, workplace)
        _move(Path(workplace, source.base_folder), root / source.base_folder)


def fetch_food101(folder: Path) -> None:
    """Fetch Food-101 (5 GB) with torchvision; its parts appear only when all is unpacked."""
    from torchvision.datasets import Food101

    with _fetching(folder):
        folder.mkdir(exist_ok=True)
        if all((folder / part).is_dir() for part in ("meta", "images")):
            return  # another process has fetched it by now
        with _workplace(folder) as workplace:
            Food101(workplace, download=True)
            _move(Path(workplace, "food-101"), folder)


def _fetch_file(addresses: Sequence[str], path: Path, md5: str) -> None:
    """Fetch a file from the first address that gives it whole; it appears only then."""
    from torchvision.datasets import utils

    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with _workplace(path.parent) as workplace:
        for address in addresses:
            try:
                utils.download_url(address, workplace, path.name, md5)
            except FAILURES as error:
                failures.append(f"{address}: {error or type(error).__name__}")
                continue
            fetched = Path(workplace, path.name)
            if utils.check_integrity(fetched, md5):
                os.replace(fetched, path)
                return
            failures.append(f"{address}: what came is not the published file (cut off?)")
    raise DataError("; ".join(failures))


# ---------------------------------------------------------------- reading


def read_idx(path: Path) -> Tensor:
    """Return the values of an idx file, packed or not: uint8 images or int64 labels."""
    from torchvision.datasets import mnist
    from torchvision.datasets.utils import extract_archive

    read = mnist.read_image_file if "idx3" in path.name else mnist.read_label_file
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix == ".gz":
            path = Path(extract_archive(path, folder))
        values: Tensor = read(path)
    return values


def read_labels(path: Path) -> dict[str, Tensor]:
    """Return the int64 labels of each kind in a checked file; no pickle is run."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key].astype(np.int64)) for key in arrays.files}
    # What a pickled array of whole numbers is made of, under its old and its new address.
    rebuild = np.empty(0).__reduce__()[0]
    names = [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]
    allowed: list[Any] = [np.ndarray, np.dtype, np.dtypes.Int64DType, np.dtypes.UInt8DType]
    allowed += [(rebuild, name) for name in names]
    with torch.serialization.safe_globals(allowed):
        arrays = torch.load(path, weights_only=True)
    return {key: torch.from_numpy(values.astype(np.int64)) for key, values in arrays.items()}
