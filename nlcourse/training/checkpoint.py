"""What a run is, so that a checkpoint can tell whether it belongs to it; and its file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..base import Method
from ..datasets import Dataset

NO_SETTINGS = ("training", "epoch", "selects", "num_classes")  # of a method: they come with a run


def save(path: Path, state: Mapping[str, object]) -> None:
    """Renew the checkpoint. A kill in the middle leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def load(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a checkpoint.

    Raises:
        ValueError: the file is no checkpoint, or that of a run with other settings.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        there = state["settings"]
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of nlcourse, or damaged: {error}") from error
    for name, here in settings.items():
        if there.get(name) != here:
            raise ValueError(
                f"The checkpoint {path} belongs to another run: its {name} is "
                f"{there.get(name)}, this run's is {here}. Choose another file, or delete "
                "that one to begin again."
            )
    return dict(state)


def describe(value: object) -> str:
    """Return a name for a setting that is the same in every process (a repr holds addresses)."""
    if isinstance(value, functools.partial):
        arguments = [repr(each) for each in value.args]
        arguments += [f"{name}={describe(each)}" for name, each in value.keywords.items()]
        return f"{describe(value.func)}({', '.join(arguments)})"
    if isinstance(value, Method):
        found = dict(vars(value))
        for settings in filter(dataclasses.is_dataclass, vars(value).values()):
            found |= vars(settings)  # what DivideMix, say, keeps together
        plain = {
            name: setting
            for name, setting in found.items()
            if isinstance(setting, (bool, int, float, str)) and name not in NO_SETTINGS
        }
        arguments = [f"{name}={setting!r}" for name, setting in plain.items()]
        return f"{type(value).__name__}({', '.join(arguments)})"
    return getattr(value, "__qualname__", None) or repr(value)


def pieces(method: Method) -> list[str]:
    """Name the functions that a method was given: ``CoTeaching(select=mine)`` is another run."""
    return [f"{name}={_home(one)}" for name, one in vars(method).items() if callable(one)]


def _home(piece: object) -> str:
    if isinstance(piece, functools.partial):
        return f"partial.{describe(piece)}"
    named: Any = piece if hasattr(piece, "__qualname__") else type(piece)
    return f"{named.__module__}.{named.__qualname__}"


def fingerprint(data: Dataset) -> str:
    """Return a short checksum of what the run learns from."""
    # Images on a memory map are too many to be read; they carry a checksum of what they are.
    digest = hashlib.sha256(data.images_key.encode())
    for tensor in (data.labels,) if data.images_key else (data.images, data.labels):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
