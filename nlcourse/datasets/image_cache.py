"""Photographs decoded once, to one size, into a file that training reads like memory.

Opening a JPEG takes milliseconds, every epoch again; a row of a memory-mapped array takes
microseconds, and the operating system keeps in memory what is used. So each image is decoded once:
the shorter side resized to `size`, the middle cut out (as the published codes do for testing), and
kept as uint8. Used by ``datasets.py`` for Clothing1M, WebVision, Food-101 and a student's own
folder.

Two files make a cache. ``NAME-SIZE-KEY.npy`` holds the images ``(n, 3, size, size)``; KEY is the
checksum of the list of images, the size and the format, so that another list can never meet it.
``NAME-SIZE-KEY.rows.npy`` says for each row which image of the list it holds (-1: none yet) and how
many bytes its file had. A row is entered there after its pixels are on the disk: a decoding that
was killed goes on where it was, and a file that was replaced is decoded again.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .files import DataError
from .locks import lock_of

FORMAT = 1  # of the cache; another number makes every old cache stale
FOLDER = "nlcourse-cache"  # beside the images, unless another place is named
CHUNK = 512  # images between two entries: what a kill can cost
SHOWN = 10  # images named in a message
EMPTY = -1
KEY = "cache_key"  # attribute of the tensor of images: a subset, a new tensor, does not have it


@dataclass(frozen=True)
class Decoding:
    """How photographs are decoded and kept.

    Attributes:
        size: side of the square images, in pixels.
        damaged: what becomes of images that are missing or no images: "refuse" (an error that
            names them, when all others are decoded) or "skip" (a warning that names them).
        cache: folder of the caches; left out: ``nlcourse-cache`` beside the images.
        workers: threads that decode; left out: one for each core.
        progress: show a bar with the time left.

    Raises:
        ValueError: for settings that have no meaning.
    """

    size: int = 224
    damaged: str = "refuse"
    cache: str | os.PathLike | None = None
    workers: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that have no meaning."""
        if self.size < 1:
            raise ValueError(f"Expected `size` of at least 1 pixel, got {self.size}")
        if self.damaged not in ("refuse", "skip"):
            raise ValueError(f"Expected `damaged` to be 'refuse' or 'skip', got {self.damaged!r}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"Expected `workers` of at least 1, got {self.workers}")


class Cached(NamedTuple):
    """Decoded images on a memory map that nobody may write to.

    Attributes:
        images: uint8 ``(m, 3, size, size)``; its attribute ``cache_key`` is a short checksum of
            what the rows hold.
        index: int64 ``(m,)``, which image of the list each row holds.
    """

    images: Tensor
    index: Tensor


def cached_images(name: str, base: Path, paths: Sequence[str], how: Decoding) -> Cached:
    """Return the images of a list, decoding those that no cache holds yet.

    Args:
        name: how the cache is called.
        base: folder that the paths start from.
        paths: n paths, each once.
        how: size and place of the cache, and what becomes of damaged images.

    Raises:
        DataError: images are missing or damaged (see `how.damaged`), or the cache cannot be
            written.
    """
    folder = Path(how.cache).expanduser() if how.cache is not None else base / FOLDER
    file = folder / f"{name}-{how.size}-{_key(paths, how.size)}.npy"
    shape = (len(paths), 3, how.size, how.size)
    bytes_now = _file_sizes(base, paths)
    rows = _read_rows(file, shape)
    if _is_complete(rows, bytes_now):
        return _open(file, rows)
    _warn_of_stale(file)
    _refuse_missing(name, base, paths, _to_do(rows, bytes_now), bytes_now, how)
    with _alone(folder):
        rows = _decode_missing(name, file, shape, base, paths, bytes_now, how)
    return _open(file, rows)


def decode(path: Path, size: int) -> np.ndarray:
    """Return one image, its shorter side resized to `size` and the middle cut out.

    Returns:
        uint8 ``(3, size, size)``; grey images get three equal channels.

    Raises:
        Exception: whatever Pillow raises for what is no image (it has many kinds).
    """
    from PIL import Image
    from torchvision.transforms import functional

    with Image.open(path) as image:
        pixels = functional.resize(image.convert("RGB"), size)
    return np.asarray(functional.center_crop(pixels, size)).transpose(2, 0, 1)


# ---------------------------------------------------------------- which row holds which image


def _key(paths: Sequence[str], size: int) -> str:
    text = "\n".join([f"format {FORMAT}, size {size}", *paths])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _rows_file(file: Path) -> Path:
    return file.with_suffix(".rows.npy")


def _read_rows(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return image and bytes of each row, int64 ``(n, 2)``; None when there is no whole cache."""
    try:
        rows = np.load(_rows_file(file))
        # Opened for reading alone: for writing, numpy would lengthen a file that is cut off.
        images = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if rows.shape != (shape[0], 2) or rows.dtype != np.int64 or rows[:, 0].max() >= shape[0]:
        return None
    return rows if images.shape == shape and images.dtype == np.uint8 else None


def _file_sizes(base: Path, paths: Sequence[str]) -> np.ndarray:
    """Return the bytes of each file, int64 ``(n,)``; EMPTY for those that are not there."""

    def size(path: str) -> int:
        try:
            return os.stat(base / path).st_size
        except OSError:
            return EMPTY

    return np.fromiter((size(path) for path in paths), dtype=np.int64, count=len(paths))


def _forget_changed(rows: np.ndarray, bytes_now: np.ndarray) -> None:
    """Empty the rows whose file was replaced, and the second of two rows that hold one image.

    Originals that are gone change nothing: their pixels are here.
    """
    image, size = rows.T
    now = bytes_now[image]
    rows[(image >= 0) & (now >= 0) & (now != size)] = EMPTY
    _, first = np.unique(rows[:, 0], return_index=True)
    twice = np.ones(len(rows), dtype=bool)
    twice[first] = False
    rows[twice] = EMPTY


def _to_do(rows: np.ndarray | None, bytes_now: np.ndarray) -> np.ndarray:
    """Return which images no row holds, ascending."""
    if rows is None:
        return np.arange(len(bytes_now))
    rows = rows.copy()
    _forget_changed(rows, bytes_now)
    return np.setdiff1d(np.arange(len(rows)), rows[:, 0])


def _is_complete(rows: np.ndarray | None, bytes_now: np.ndarray) -> bool:
    return rows is not None and not len(_to_do(rows, bytes_now))


# ---------------------------------------------------------------- decoding


def _decode_missing(name, file, shape, base, paths, bytes_now, how: Decoding) -> np.ndarray:
    """Decode what no row holds yet; return the rows, without gaps."""
    rows = _read_rows(file, shape)  # again: another process may have been at work till now
    to_do = _to_do(rows, bytes_now)
    try:
        _check_room(file, len(to_do) * int(np.prod(shape[1:])))
        if rows is None:
            _start(file, shape)
        images = np.load(file, mmap_mode="r+")
        rows = np.load(_rows_file(file), mmap_mode="r+")
    except OSError as error:
        raise DataError(f"The cache {file} cannot be written: {error}. {_ELSEWHERE}") from error
    _forget_changed(rows, bytes_now)
    bar = _progress_bar(name, len(paths), len(to_do), how.progress)
    with bar:
        troubles = _decode_into(images, rows, base, paths, to_do, bytes_now, how.workers, bar)
    _close_gaps(images, rows)
    if troubles:
        _tell(troubles, base, paths, how)
    return np.array(rows)


_ELSEWHERE = 'Another place: cache="FOLDER"'


def _check_room(file: Path, needed: int) -> None:
    """Refuse to begin what cannot end: a memory map on a full disk kills the whole process."""
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise DataError(
            f"The decoded images take {needed / 1e9:.1f} GB more in {file.parent}, where "
            f"{free / 1e9:.1f} GB are free. A smaller `size` takes less. {_ELSEWHERE}"
        )


def _start(file: Path, shape: tuple[int, ...]) -> None:
    """Make an empty cache. The rows come last: where they are, the images have their full size."""
    rows = _rows_file(file)
    rows.unlink(missing_ok=True)
    np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape).flush()
    unfinished = rows.with_suffix(".unfinished.npy")
    np.save(unfinished, np.full((shape[0], 2), EMPTY, dtype=np.int64))
    os.replace(unfinished, rows)


def _progress_bar(name: str, total: int, to_do: int, wanted: bool):
    from tqdm.auto import tqdm

    description = f"decoding {name}"
    return tqdm(
        total=total, initial=total - to_do, desc=description, unit="image", disable=not wanted
    )


def _decode_into(images, rows, base, paths, to_do, bytes_now, workers, bar) -> dict[int, str]:
    """Decode the images `to_do` into empty rows; return what is wrong with those that failed."""
    free = np.flatnonzero(rows[:, 0] < 0)
    troubles: dict[int, str] = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for at in range(0, len(to_do), CHUNK):
            chunk, places = to_do[at : at + CHUNK], free[at : at + CHUNK]
            results = list(pool.map(functools.partial(_fill, images, base, paths), places, chunk))
            images.flush()
            for place, image, trouble in zip(places, chunk, results, strict=False):
                if trouble:
                    troubles[int(image)] = trouble
                else:
                    rows[place] = image, bytes_now[image]
            rows.flush()
            bar.update(len(chunk))
    return troubles


def _fill(images: np.ndarray, base: Path, paths: Sequence[str], place: int, image: int) -> str:
    """Decode one image into its row; return what is wrong, or nothing."""
    try:
        images[place] = decode(base / paths[image], images.shape[-1])
    except MemoryError:
        raise
    except FileNotFoundError:
        return "missing"
    except Exception as error:  # Pillow raises many kinds for files that are damaged
        return f"{type(error).__name__}: {error}"
    return ""


def _close_gaps(images: np.ndarray, rows: np.ndarray) -> None:
    """Move the last rows into those that stayed empty, so that the first m rows are in use."""
    used = np.flatnonzero(rows[:, 0] >= 0)
    gaps = np.flatnonzero(rows[: len(used), 0] < 0)
    for gap, last in zip(gaps, used[::-1], strict=False):
        images[gap] = images[last]
        rows[gap] = rows[last]
        rows[last] = EMPTY


def _open(file: Path, rows: np.ndarray) -> Cached:
    index = rows[rows[:, 0] >= 0, 0]
    images = np.load(file, mmap_mode="r")[: len(index)]
    with warnings.catch_warnings():
        # torch warns that nobody may write to these images. Nobody should: they are the cache.
        warnings.filterwarnings("ignore", message=".*not writable")
        tensor = torch.from_numpy(images)
    content = hashlib.sha256(file.name.encode() + rows.tobytes())
    setattr(tensor, KEY, content.hexdigest()[:16])
    return Cached(tensor, torch.from_numpy(index.copy()))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time decode into a folder."""
    lock = lock_of(folder / "images")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DataError(f"The cache {folder} cannot be made: {error}. {_ELSEWHERE}") from error
    try:
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------- what is said


def _warn_of_stale(file: Path) -> None:
    """Name caches of the same name and size that were made for another list of images."""
    stem = file.name.removesuffix(".npy").rpartition("-")[0]
    others = sorted(file.parent.glob(f"{glob.escape(stem)}-????????????.npy"))
    others = [other for other in others if other != file]
    if others:
        warnings.warn(
            "Caches of another list of images (or of an older format) lie there and are not used; "
            f"delete them if nobody needs them: {', '.join(str(other) for other in others)}",
            stacklevel=3,
        )


def _refuse_missing(name, base, paths, to_do, bytes_now, how: Decoding) -> None:
    """Say that images are missing before hours of decoding, not after."""
    missing = [int(image) for image in to_do if bytes_now[image] == EMPTY]
    if missing and (how.damaged == "refuse" or len(missing) == len(paths)):
        raise DataError(
            f"{len(missing)} of the {len(paths)} images of {name} are missing:\n"
            + _names(dict.fromkeys(missing, "missing"), base, paths)
            + ("" if len(missing) == len(paths) else _HOW_TO_SKIP)
        )


_HOW_TO_SKIP = '\nTo leave them out: damaged="skip"'


def _tell(troubles: Mapping[int, str], base: Path, paths: Sequence[str], how: Decoding) -> None:
    text = f"{len(troubles)} of {len(paths)} images are missing or damaged:\n"
    text += _names(troubles, base, paths)
    if how.damaged == "refuse" or len(troubles) == len(paths):
        raise DataError(text + _HOW_TO_SKIP + " (all others are decoded)")
    warnings.warn(f"left out: {text}", stacklevel=5)


def _names(troubles: Mapping[int, str], base: Path, paths: Sequence[str]) -> str:
    lines = [f"  {base / paths[image]}: {what}" for image, what in sorted(troubles.items())]
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(lines[:SHOWN] + more)
