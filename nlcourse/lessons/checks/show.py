"""Values in few characters, copies of arguments, and the student's own lines of a traceback."""

from __future__ import annotations

import copy
import linecache
import reprlib
import sysconfig
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .exercise import Arguments

SMALL = 24  # entries: larger arrays are described rather than printed
LONG = 160  # characters of one value in a message
_LIBRARY = tuple(
    str(Path(path).resolve())
    for path in {
        *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")),
        str(Path(__file__).parent),  # the engine
        str(Path(torch.__file__).parent),
        str(Path(np.__file__).parent),
    }
)


def describe(value: Any, digits: int = 4) -> str:
    """Return a value as short text.

    >>> describe((torch.tensor([0.5, 2.0]), 1 / 3, None))
    '(tensor([0.5, 2.0]), 0.3333, None)'
    """
    if isinstance(value, torch.Generator):
        return f"generator({value.initial_seed()})"
    if isinstance(value, Tensor | np.ndarray):
        return _describe_array(value, digits)
    if isinstance(value, dict):
        inside = ", ".join(f"{key!r}: {describe(item, digits)}" for key, item in value.items())
        return _cut("{" + inside + "}")
    if isinstance(value, list | tuple):
        inside = ", ".join(describe(item, digits) for item in value[:SMALL])
        inside += ", ..." if len(value) > SMALL else ""
        return _cut(f"[{inside}]" if isinstance(value, list) else f"({inside})")
    if isinstance(value, float | np.floating):
        text = f"{float(value):.{digits}g}"
        return f"{text}.0" if text.lstrip("-").isdigit() else text
    if isinstance(value, np.generic):
        return repr(value.item())
    return _cut(reprlib.repr(value))


def _describe_array(value: Tensor | np.ndarray, digits: int) -> str:
    tensor = torch.as_tensor(value).detach().cpu()
    if tensor.numel() <= SMALL:
        kind = "tensor" if isinstance(value, Tensor) else "array"
        return f"{kind}({describe(tensor.tolist(), digits)})"
    low, high = describe(tensor.min().item()), describe(tensor.max().item())
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"<{dtype} of shape {tuple(tensor.shape)}, {low} to {high}>"


def _cut(text: str) -> str:
    return text if len(text) <= LONG else text[: LONG - 4] + " ..."


def describe_call(name: str, arguments: Arguments) -> str:
    """Return the call as a student would type it."""
    inside = ", ".join(f"{key}={describe(value)}" for key, value in arguments.items())
    return f"{name}({inside})"


def canonical(value: Any) -> str:
    """Return the same text for results that mean the same, whatever type carries them."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = torch.as_tensor(value).detach().tolist()
    if isinstance(value, dict):
        return str(sorted((str(key), canonical(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(canonical(item) for item in value) + "]"
    if isinstance(value, bool | int | float):
        return f"{float(value) + 0.0:.4g}"
    return type(value).__name__


def fresh(value: Any) -> Any:
    """Return a copy that shares nothing with the original: every call sees the same."""
    if isinstance(value, dict):
        return {key: fresh(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, torch.Generator):
        # The state keeps the seed too, which the messages show.
        generator = torch.Generator()
        generator.set_state(value.get_state())
        return generator
    return copy.deepcopy(value)


def changed(before: Arguments, after: Arguments, *, marks: bool = True) -> list[str]:
    """Return the names of the arguments that have changed (generators may move on).

    `marks` says whether `requires_grad` counts: not where the question itself set it.
    """
    return [name for name, value in before.items() if not _same(value, after[name], marks)]


def _same(one: Any, other: Any, marks: bool) -> bool:
    if isinstance(one, Tensor):
        if marks and one.requires_grad != other.requires_grad:
            return False
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, list | tuple):
        same = (_same(a, b, marks) for a, b in zip(one, other, strict=False))
        return len(one) == len(other) and all(same)
    return isinstance(one, torch.Generator) or one == other


def student_lines(traceback: TracebackType | None) -> tuple[str, ...]:
    """Return the student's own lines on the way to an error: the outermost and the innermost.

    Frames of the engine before them and of libraries below them are left out.
    """
    lines: list[str] = []
    while traceback is not None:
        path = traceback.tb_frame.f_code.co_filename
        if not _in_library(path):
            source = linecache.getline(path, traceback.tb_lineno).strip()
            name = traceback.tb_frame.f_code.co_name
            lines.append(f"line {traceback.tb_lineno}, in {name}: {source}")
        elif lines:
            break
        traceback = traceback.tb_next
    return tuple(dict.fromkeys(lines[:1] + lines[-1:]))


def _in_library(path: str) -> bool:
    return path.startswith("<frozen") or str(Path(path).resolve()).startswith(_LIBRARY)
