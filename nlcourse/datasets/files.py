"""The files of the data sets: what lies there, what is damaged, fetching, reading.

Every file is checked against its published md5 sum before it is opened; an idx file that lies there
unpacked has no published sum and is checked against its own header. A file is fetched under another
name and gets its own only when it is whole, so that a broken download is never taken for good
later. Used by ``datasets.py``.

Sources: the hashes, addresses and the unpacking are torchvision's; the human labels of CIFAR-10N
and CIFAR-100N are those of Wei et al. 2022 (arXiv 2110.12088), repository UCSC-REAL/cifar-10-100n.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import os
import socket
import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .locks import lock_of

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


class DataError(RuntimeError):
    """A data set is not there, damaged, or could not be fetched."""


# ---------------------------------------------------------------- what is there


def data_root(root: str | os.PathLike | None) -> Path:
    """Return the folder of the data: `root`, else ``NLCOURSE_DATA``, else ``data/``."""
    if root is None:
        root = os.environ.get("NLCOURSE_DATA") or None
    if root is not None:
        return Path(root).expanduser().absolute()
    repository = Path(__file__).resolve().parents[2]
    return (repository if (repository / "pyproject.toml").exists() else Path.cwd()) / "data"


def provide(name: str, root: Path, download: bool) -> None:
    """Return when all files are there and whole; else fetch them, or raise DataError."""
    problems = find_problems(name, root)
    if not problems:
        return
    failure = ""
    if download:
        try:
            problems = _fetch(name, root)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failure = str(error) or type(error).__name__
            problems = find_problems(name, root)
    if problems:
        raise DataError(message(name, root, problems, failure))


def message(name: str, root: Path, problems: Sequence[str], failure: str = "") -> str:
    """Say what is missing or damaged, where it was looked for, and what to do."""
    lines = [f"The data set {name!r} is not complete:"]
    lines += [f"  {problem}" for problem in problems]
    if any(problem.startswith("damaged") for problem in problems):
        lines.append("  Damaged files are never used; the command below replaces them.")
    lines.append(f"Looked for in {root} (`root`, else the folder NLCOURSE_DATA names, else data/).")
    if failure:
        lines.append(f"It could not be fetched: {failure}")
    setting = "" if root == data_root(None) else f"   with NLCOURSE_DATA={root}"
    lines.append(f"To fetch it, with a network: nlcourse data {name}{setting}")
    lines.append('Without one: datasets.load("digits") needs no files at all.')
    return "\n".join(lines)


def find_problems(name: str, root: Path) -> list[str]:
    """Say for each file that is missing or damaged what is wrong; an empty list is good news."""
    source = torchvision_class(name)
    if name in ("mnist", "fashion-mnist"):
        found = [find_idx(idx_folder(name, root), *resource) for resource in source.resources]
        return [what for what in found if isinstance(what, str)]
    files = _cifar_files(source)
    problems = [_problem(root / source.base_folder / file, md5) for file, md5 in files]
    if name in LABEL_FILES:
        found = find_labels(name, root)
        problems.append(found if isinstance(found, str) else "")
    return [problem for problem in problems if problem]


def _problem(path: Path, md5: str) -> str:
    if not path.is_file():
        return f"missing: {path}"
    if _md5(path) != md5:
        return f"damaged (its md5 sum is not the published one, cut off?): {path}"
    return ""


def find_idx(folder: Path, packed: str, md5: str) -> Path | str:
    """Return the file to read, packed or not, or what is wrong."""
    archive, plain = folder / packed, folder / packed.removesuffix(".gz")
    problem = _problem(archive, md5)
    if not problem:
        return archive
    if not plain.is_file():
        return problem
    # No hash is published for the unpacked file; its header says how long it must be.
    return _idx_problem(plain) or plain


def find_labels(name: str, root: Path) -> Path | str:
    """Return the file of human labels to read, or what is wrong."""
    paths = [(root / "cifar-n" / file, md5) for file, md5 in LABEL_FILES[name]]
    problems = {path: _problem(path, md5) for path, md5 in paths}
    for path, problem in problems.items():
        if not problem:
            return path
    damaged = [problem for path, problem in problems.items() if path.is_file()]
    return damaged[0] if damaged else "missing: " + " or ".join(str(path) for path in problems)


def idx_folder(name: str, root: Path) -> Path:
    """Return the folder where torchvision keeps the idx files of a data set."""
    return root / TORCHVISION[name] / "raw"


def torchvision_class(name: str):
    """Return torchvision's class for a data set: the list of its files, hashes and addresses."""
    from torchvision import datasets as torchvision_datasets

    return getattr(torchvision_datasets, TORCHVISION[name])


def _cifar_files(source) -> list[tuple[str, str]]:
    listed = [tuple(entry) for entry in source.train_list + source.test_list]
    return [*listed, (source.meta["filename"], source.meta["md5"])]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


# ---------------------------------------------------------------- fetching


def _fetch(name: str, root: Path) -> list[str]:
    """Fetch what is missing or damaged, one process at a time; return what is still wrong."""
    root.mkdir(parents=True, exist_ok=True)
    # Data sets of the same files, CIFAR-10 and CIFAR-10N, share the lock.
    with lock_of(root / TORCHVISION[name]):
        problems = find_problems(name, root)  # another process may have fetched them by now
        for problem in problems:
            if problem.startswith("damaged"):
                warnings.warn(f"{problem}; fetching it again", stacklevel=4)
        if problems:
            _download(name, root)
            problems = find_problems(name, root)
    return problems


def _download(name: str, root: Path) -> None:
    source = torchvision_class(name)
    with _impatient():
        if name in ("mnist", "fashion-mnist"):
            _download_idx(source, idx_folder(name, root))
            return
        if any(
            _problem(root / source.base_folder / file, md5) for file, md5 in _cifar_files(source)
        ):
            _download_cifar(source, root)
        if name in LABEL_FILES and isinstance(find_labels(name, root), str):
            file, md5 = LABEL_FILES[name][-1]
            _fetch_file([LABEL_ADDRESS + file], root / "cifar-n", file, md5)


def _download_idx(source, folder: Path) -> None:
    for file, md5 in source.resources:
        if isinstance(find_idx(folder, file, md5), str):
            _fetch_file([mirror + file for mirror in source.mirrors], folder, file, md5)


def _download_cifar(source, root: Path) -> None:
    """Unpack the archive (fetched unless it lies there) and move its checked files into place."""
    from torchvision.datasets.utils import extract_archive

    archive = root / source.filename
    with _workplace(root) as workplace:
        if _problem(archive, source.tgz_md5):
            archive = _fetch_file([source.url], workplace, source.filename, source.tgz_md5)
        extract_archive(archive, workplace)
        target = root / source.base_folder
        target.mkdir(exist_ok=True)
        for file, _ in _cifar_files(source):
            os.replace(workplace / source.base_folder / file, target / file)


def fetch_food101(root: Path) -> None:
    """Fetch Food-101 (5 GB) with torchvision; its parts appear only when all is unpacked.

    Raises:
        DataError: it could not be fetched, or what came is not the published file.
    """
    from torchvision.datasets import Food101

    folder = root / "food-101"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock_of(folder), _impatient(), _workplace(folder) as workplace:
            if all((folder / part).is_dir() for part in ("meta", "images")):
                return  # another process has fetched it by now
            Food101(workplace, download=True)
            for part in (workplace / "food-101").iterdir():
                if not (folder / part.name).exists():
                    os.replace(part, folder / part.name)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(f"It could not be fetched: {error or type(error).__name__}") from error


def _fetch_file(addresses: Sequence[str], folder: Path, file: str, md5: str) -> Path:
    """Fetch a file from the first address that gives it whole; it appears in `folder` only then."""
    from torchvision.datasets.utils import download_url

    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    with _workplace(folder) as workplace:
        for address in addresses:
            try:
                download_url(address, workplace, file, md5)
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                failures.append(f"{address}: {error or type(error).__name__}")
                continue
            if _problem(workplace / file, md5):
                failures.append(f"{address}: what came is not the published file (cut off?)")
                continue
            os.replace(workplace / file, folder / file)
            return folder / file
    raise DataError("; ".join(failures))


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    # Beside the goal, so that the last step is a rename: a file is there whole or not at all.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as path:
        yield Path(path)


@contextmanager
def _impatient() -> Iterator[None]:
    # torchvision's connections know no time limit: a dead server would hold them for ever.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# ---------------------------------------------------------------- reading


def _idx_header(start: bytes) -> tuple[int, ...]:
    """Return the sizes in the header: 0, 0, type 8 (bytes), how many sizes, the sizes."""
    if len(start) < 4 or start[:3] != b"\x00\x00\x08" or len(start) < 4 + 4 * start[3]:
        raise DataError("no header of an idx file of bytes")
    return struct.unpack_from(f">{start[3]}I", start, 4)


def _idx_problem(path: Path) -> str:
    dimensions = 3 if "idx3" in path.name else 1
    try:
        with path.open("rb") as file:
            sizes = _idx_header(file.read(4 + 4 * 255))
    except DataError as error:
        return f"damaged ({error}): {path}"
    promised, there = 4 + 4 * len(sizes) + math.prod(sizes), path.stat().st_size
    if len(sizes) != dimensions:
        return f"damaged (its header has {len(sizes)} sizes instead of {dimensions}): {path}"
    if promised != there:
        return f"damaged ({there} bytes where its header promises {promised}, cut off?): {path}"
    return ""


def read_idx(path: Path) -> Tensor:
    """Return the uint8 values of a checked idx file, packed or not, in the shape of its header."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    sizes = _idx_header(raw)
    # bytearray: torch wants memory that it may write to.
    values = torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=4 + 4 * len(sizes))
    return values.view(sizes)


def read_labels(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a checked file of human labels; no pickle is run."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    with torch.serialization.safe_globals(_numpy_globals()):
        return torch.load(path, weights_only=True)


def _numpy_globals() -> list:
    """List what a pickled array of whole numbers is made of, under its old and new address."""
    reconstruct = np.empty(0).__reduce__()[0]
    return [
        np.ndarray,
        np.dtype,
        type(np.dtype(np.int64)),
        type(np.dtype(np.uint8)),
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
    ]
