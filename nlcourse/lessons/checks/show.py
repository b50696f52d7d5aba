"""Values in few characters, copies of arguments, and the student's own lines of a traceback."""

from __future__ import annotations

import copy
import linecache
import reprlib
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .exercise import Arguments

SMALL = 24  # entries: larger arrays are described rather than printed
LONG = 160  # characters of one value in a message
_INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
_IMPORTED = [Path(file).parent for file in (__file__, torch.__file__, np.__file__)]
_LIBRARY = tuple(str(path.resolve()) for path in _INSTALLED + _IMPORTED)  # and this engine


def describe(value: Any, digits: int = 4) -> str:
    """Return a value as short text.

    >>> describe((torch.tensor([0.5, 2.0]), 1 / 3, None))
    '(tensor([0.5, 2.0]), 0.3333, None)'
    """
    if isinstance(value, torch.Generator):
        return f"generator({value.initial_seed()})"
    if isinstance(value, Tensor | np.ndarray):
        return _describe_array(value, digits)
    if isinstance(value, float | np.floating):
        text = f"{float(value):.{digits}g}"
        return f"{text}.0" if text.lstrip("-").isdigit() else text
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, dict):
        inside = ", ".join(f"{key!r}: {describe(item, digits)}" for key, item in value.items())
        text = "{" + inside + "}"
    elif isinstance(value, list | tuple):
        inside = ", ".join(describe(item, digits) for item in value[:SMALL])
        inside += ", ..." if len(value) > SMALL else ""
        text = f"[{inside}]" if isinstance(value, list) else f"({inside})"
    else:
        text = reprlib.repr(value)
    return text if len(text) <= LONG else text[: LONG - 4] + " ..."


def _describe_array(value: Tensor | np.ndarray, digits: int) -> str:
    tensor = torch.as_tensor(value).detach().cpu()
    if tensor.numel() <= SMALL:
        kind = "tensor" if isinstance(value, Tensor) else "array"
        return f"{kind}({describe(tensor.tolist(), digits)})"
    low, high = describe(tensor.min().item()), describe(tensor.max().item())
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"<{dtype} of shape {tuple(tensor.shape)}, {low} to {high}>"


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
        return torch.Generator().set_state(value.get_state())
    return copy.deepcopy(value)


def same(one: Any, other: Any, *, marks: bool = True) -> bool:
    """Say whether an argument is as it was; generators may move on.

    `marks` says whether `requires_grad` counts: not where the question itself set it.
    """
    if isinstance(one, Tensor):
        marked = marks and one.requires_grad != other.requires_grad
        return not marked and torch.equal(one, other)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(*pair, marks=marks) for pair in pairs)
    return isinstance(one, torch.Generator) or one == other


def student_lines(trace: TracebackType | None) -> tuple[str, ...]:
    """Return the student's own lines on the way to an error: the outermost and the innermost.

    Frames of the engine before them and of libraries below them are left out.
    """
    lines: list[str] = []
    for frame, number in traceback.walk_tb(trace):
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if not path.startswith("<frozen") and not str(Path(path).resolve()).startswith(_LIBRARY):
            lines.append(f"line {number}, in {name}: {linecache.getline(path, number).strip()}")
        elif lines:
            break
    return tuple(dict.fromkeys(lines[:1] + lines[-1:]))
