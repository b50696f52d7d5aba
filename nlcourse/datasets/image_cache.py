"""Photographs decoded once, to one size, into a file that training reads like memory.

Opening a JPEG takes milliseconds, every epoch again; a row of a memory-mapped array takes
microseconds, and the operating system keeps in memory what is used. So each image is decoded once:
the shorter side resized to `size`, the middle cut out (as the published codes do for testing), and
kept as uint8.

Two files make a cache. ``NAME-SIZE-KEY.npy`` holds the images ``(n, 3, size, size)``; KEY is the
checksum of the list of images, the size and the format, so that another list can never meet it.
``NAME-SIZE-KEY.rows.npy`` says for each row which image of the list it holds (-1: none yet) and how
many bytes its file had. A row is entered there after its pixels are on the disk: a decoding that
was killed goes on where it was, and a file that was replaced is decoded again.
"""

from __future__ import annotations

import glob
import hashlib
import math
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from ..base import expect, expect_one_of
from .dataset import KEY
from .files import DataError, lock_of

FORMAT = 1  # of the cache; another number makes every old cache stale
FOLDER = "nlcourse-cache"  # beside the images, unless another place is named
CHUNK = 512  # images between two entries: what a kill can cost
SHOWN = 10  # images named in a message
EMPTY = -1
Mapped = np.memmap[Any, np.dtype[Any]]
ELSEWHERE = 'Another place: Decoding(cache="FOLDER")'


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
    """

    size: int = 224
    damaged: str = "refuse"
    cache: str | os.PathLike[str] | None = None
    workers: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that have no meaning."""
        expect(self.size >= 1, "`size` of at least 1 pixel", self.size)
        expect_one_of("damaged", self.damaged, ("refuse", "skip"))
        expect(self.workers is None or self.workers >= 1, "`workers` of at least 1", self.workers)


class Cached(NamedTuple):
    """Decoded images on a memory map that nobody may write to.

    Attributes:
        images: uint8 ``(m, 3, size, size)``; its attribute ``cache_key`` is a short checksum of
            what the rows hold.
        index: int64 ``(m,)``, which image of the list each row holds.
    """

    images: Tensor
    index: Tensor  # type: ignore[assignment]  # the name of a method of tuples


def decode(path: Path, size: int) -> NDArray[np.uint8]:
    """Return one image as uint8 ``(3, size, size)``, resized and cut; grey gets equal channels."""
    from PIL import Image
    from torchvision.transforms import functional

    with Image.open(path) as image:
        pixels = functional.resize(image.convert("RGB"), size)
    return np.asarray(functional.center_crop(pixels, size)).transpose(2, 0, 1)


def cached_images(name: str, base: Path, paths: Sequence[str], how: Decoding) -> Cached:
    """Return the images at `paths`, each once, below `base`; decode those that no cache holds yet.

    Raises:
        DataError: images are missing or damaged (see `how.damaged`), or the cache, whose files
            begin with `name`, cannot be written.
    """
    cache = _Cache(name, base, paths, how)
    rows = cache.read()
    to_do = _to_do(rows)
    if len(to_do):
        cache.warn_of_stale()
        missing = to_do[cache.bytes_now[to_do] == EMPTY].tolist()
        if missing and (how.damaged == "refuse" or len(missing) == len(paths)):
            # Before hours of decoding, not after.
            cache.report(dict.fromkeys(missing, "missing"), refuse=True)
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
            with lock_of(cache.folder / "images"):  # one process at a time decodes into a folder
                rows = cache.decode_missing()
        except OSError as error:
            raise DataError(f"{cache.file} cannot be made: {error}. {ELSEWHERE}") from error
    return cache.open(rows)


def _to_do(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which images no row holds, ascending."""
    return np.setdiff1d(np.arange(len(rows)), rows[:, 0])


class _Cache:
    """The two files of a cache. Rows are int64 ``(n, 2)``: which image, and its bytes then."""

    def __init__(self, name: str, base: Path, paths: Sequence[str], how: Decoding) -> None:
        self.name, self.base, self.paths, self.how = name, base, paths, how
        text = "\n".join([f"format {FORMAT}, size {how.size}", *paths])
        key = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
        self.folder = Path(how.cache).expanduser() if how.cache is not None else base / FOLDER
        self.file = self.folder / f"{name}-{how.size}-{key}.npy"
        self.rows_file = self.file.with_suffix(".rows.npy")
        self.shape = (len(paths), 3, how.size, how.size)
        self.bytes_now = np.array([self._bytes(path) for path in paths], dtype=np.int64)

    def _bytes(self, path: str) -> int:
        try:
            return os.stat(self.base / path).st_size
        except OSError:
            return EMPTY

    def read(self) -> NDArray[np.int64]:
        """Return the rows; EMPTY are those of a broken cache and those not right any more."""
        nothing = np.full((len(self.paths), 2), EMPTY, dtype=np.int64)
        try:
            rows: NDArray[np.int64] = np.load(self.rows_file)
            # Opened for reading alone: for writing, numpy would lengthen a file that is cut off.
            images = np.load(self.file, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return nothing
        kinds = (rows.shape, rows.dtype, images.shape, images.dtype)
        fits = kinds == (nothing.shape, nothing.dtype, self.shape, np.uint8)
        if not fits or rows.max(0)[0] >= len(rows):
            return nothing
        # Files that were replaced. Originals that are gone change nothing: their pixels are here.
        now = self.bytes_now[rows[:, 0]]
        rows[(now >= 0) & (now != rows[:, 1])] = EMPTY
        # The second of two rows that hold one image: a kill came while a gap was closed.
        _, first = np.unique(rows[:, 0], return_index=True)
        rows[np.setdiff1d(np.arange(len(rows)), first)] = EMPTY
        return rows

    def decode_missing(self) -> NDArray[np.int64]:
        """Decode what no row holds yet; return the rows, without gaps."""
        now = self.read()  # again: another process may have been at work till now
        to_do = _to_do(now)
        needed, free = len(to_do) * math.prod(self.shape[1:]), shutil.disk_usage(self.folder).free
        if needed > free:  # a memory map on a full disk kills the whole process
            raise DataError(
                f"The decoded images take {needed / 1e9:.1f} GB more in {self.folder}, where "
                f"{free / 1e9:.1f} GB are free. A smaller `size` takes less. {ELSEWHERE}"
            )
        if len(to_do) == len(now):
            # The rows last: where they are, the images have their full size.
            self.rows_file.unlink(missing_ok=True)
            open_memmap(self.file, mode="w+", dtype=np.uint8, shape=self.shape).flush()
            unfinished = self.rows_file.with_suffix(".unfinished.npy")
            np.save(unfinished, now)
            os.replace(unfinished, self.rows_file)
        images: Mapped = np.load(self.file, mmap_mode="r+")
        rows: Mapped = np.load(self.rows_file, mmap_mode="r+")
        rows[:] = now
        troubles = self._decode_into(images, rows, to_do)
        _close_gaps(images, rows)
        if troubles:
            self.report(troubles, self.how.damaged == "refuse" or len(troubles) == len(rows))
        return np.array(rows)

    def _decode_into(
        self, images: Mapped, rows: Mapped, to_do: NDArray[np.int64]
    ) -> dict[int, str]:
        """Decode the images `to_do` into empty rows; return what is wrong with those that fail."""
        from tqdm.auto import tqdm

        def fill(place: int, image: int) -> str:
            try:
                images[place] = decode(self.base / self.paths[image], self.how.size)
            except MemoryError:
                raise
            except FileNotFoundError:
                return "missing"
            except Exception as error:  # Pillow raises many kinds for files that are damaged
                return f"{type(error).__name__}: {error}"
            return ""

        bar = tqdm(
            desc=f"decoding {self.name}",
            total=len(rows),
            initial=len(rows) - len(to_do),
            unit="image",
            disable=not self.how.progress,
        )
        free = np.flatnonzero(rows[:, 0] < 0)
        troubles: dict[int, str] = {}
        with bar, ThreadPoolExecutor(self.how.workers or os.cpu_count()) as pool:
            for at in range(0, len(to_do), CHUNK):
                chunk, places = to_do[at : at + CHUNK], free[at : at + CHUNK]
                results = list(pool.map(fill, places, chunk))
                images.flush()
                for place, image, trouble in zip(places, chunk, results, strict=False):
                    if trouble:
                        troubles[int(image)] = trouble
                    else:
                        rows[place] = image, self.bytes_now[image]
                rows.flush()
                bar.update(len(chunk))
        return troubles

    def open(self, rows: NDArray[np.int64]) -> Cached:
        """Return what the first rows hold, on a memory map."""
        index = rows[rows[:, 0] >= 0, 0]
        images = np.load(self.file, mmap_mode="r")[: len(index)]
        with warnings.catch_warnings():
            # torch warns that nobody may write to these images. Nobody should: they are the cache.
            warnings.filterwarnings("ignore", message=".*not writable")
            tensor = torch.from_numpy(images)
        content = hashlib.sha256(self.file.name.encode() + rows.tobytes())
        setattr(tensor, KEY, content.hexdigest()[:16])
        return Cached(tensor, torch.from_numpy(index.copy()))

    def warn_of_stale(self) -> None:
        """Name caches of the same name and size that were made for another list of images."""
        stem = glob.escape(self.file.stem.rpartition("-")[0])
        others = sorted({*self.folder.glob(f"{stem}-????????????.npy")} - {self.file})
        if others:
            warnings.warn(
                "Caches of another list of images (or of an older format) lie there and are not "
                f"used; delete them if nobody needs them: {', '.join(map(str, others))}",
                stacklevel=4,
            )

    def report(self, troubles: Mapping[int, str], refuse: bool) -> None:
        """Name the images that are missing or damaged: an error, or a warning."""
        lines = [f"  {self.base / self.paths[i]}: {what}" for i, what in sorted(troubles.items())]
        more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        of = f"{len(lines)} of the {len(self.paths)} images of {self.name}"
        text = "\n".join([f"{of} are missing or damaged:", *lines[:SHOWN], *more])
        if refuse:
            raise DataError(text + '\nTo leave them out: Decoding(damaged="skip")')
        warnings.warn(f"left out: {text}", stacklevel=6)


def _close_gaps(images: Mapped, rows: Mapped) -> None:
    """Move the last rows into those that stayed empty, so that the first m rows are in use."""
    used = np.flatnonzero(rows[:, 0] >= 0)
    gaps = np.flatnonzero(rows[: len(used), 0] < 0)
    for gap, last in zip(gaps, used[::-1], strict=False):
        images[gap] = images[last]
        rows[gap] = rows[last]
        rows[last] = EMPTY
