"""Right answers in another form: lists, arrays or 32-bit integers, where the lesson needs tensors.

The judges take them, so the cells after the check have to be able to go on with them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .engine import seed_all, undisturbed
from .exercise import Exercise, ask_once
from .judges import as_tensor
from .show import fresh

Dtypes = frozenset[torch.dtype]


def usable(exercise: Exercise, function: Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    """Return a right function as the lesson can go on with it, and in words what that changes.

    Where the course's version returns tensors and the student's something else, or another kind of
    number (int32 for int64, int64 for bool, floats wider than those that came in), the results are
    turned into such tensors. Else it is the function itself and "".
    """
    cases = [case for case in exercise.cases() if case.ask is ask_once]
    with undisturbed(), redirect_stdout(io.StringIO()):
        expected = [exercise.reference(*fresh(c.arguments).values()) for c in cases]
        wanted = _kinds(expected)
        try:
            results = [_seeded(function, fresh(c.arguments)) for c in cases] if wanted else []
        except Exception:  # it was right a moment ago: one that remembers its calls, say
            return function, ""
    widths = [_width(case.arguments.values()) for case in cases]
    follows = all(_widened(one, width) is one for one, width in zip(expected, widths, strict=True))

    def fitting(result: Any, width: torch.dtype | None) -> Any:
        return _widened(_turned(result, wanted), width if follows else None)

    pairs = zip(results, widths, strict=False)
    words = next(
        (_words(one, turned) for one, width in pairs if (turned := fitting(one, width)) is not one),
        "",
    )
    if not words:
        return function, ""

    @wraps(function)
    def as_tensors(*arguments: Any, **more: Any) -> Any:
        return fitting(function(*arguments, **more), _width([*arguments, *more.values()]))

    return as_tensors, words


def _width(arguments: Iterable[Any]) -> torch.dtype | None:
    """Return the dtype of the first floats among the arguments."""
    return next((value.dtype for value in arguments if _is_float(value)), None)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _widened(result: Any, width: torch.dtype | None) -> Any:
    """Return the result with floats of that dtype; itself where they have it already."""
    if width is None:
        return result
    if _is_float(result):
        return result.to(width)
    if not isinstance(result, tuple | list):
        return result
    turned = [part.to(width) if _is_float(part) else part for part in result]
    same = all(one is other for one, other in zip(turned, result, strict=True))
    return result if same else type(result)(turned)


def _seeded(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    seed_all()
    return function(*arguments.values())


def _kinds(expected: list[Any]) -> Dtypes | list[Dtypes] | None:
    """Return which dtypes the reference returns: a set, for a tuple or list one a part.

    Where the number of parts varies there is one set for all; None if they are no tensors.
    """
    if expected and all(isinstance(result, Tensor) for result in expected):
        return frozenset(result.dtype for result in expected)
    if not all(isinstance(result, tuple | list) for result in expected):
        return None
    everything = [part for result in expected for part in result]
    if not all(isinstance(part, Tensor) for part in everything):
        return None
    if len({len(result) for result in expected}) > 1:
        return [frozenset(part.dtype for part in everything)]
    return [frozenset(part.dtype for part in parts) for parts in zip(*expected, strict=True)]


def _turned(result: Any, wanted: Dtypes | list[Dtypes]) -> Any:
    """Return the result as tensors of the wanted kind; itself where it is that already."""
    if isinstance(wanted, frozenset):
        return _one_turned(result, wanted)
    parts = _parts(result)
    wanted = wanted * len(parts) if len(wanted) == 1 else wanted
    if len(parts) != len(wanted):
        return result
    turned = list(map(_one_turned, parts, wanted))
    same = all(one is other for one, other in zip(turned, parts, strict=True))
    return result if same else turned if isinstance(result, list) else tuple(turned)


def _parts(result: Any) -> list[Any]:
    """Return the parts of a tuple or list, also of one that was stacked; [] of anything else."""
    stacked = isinstance(result, Tensor | np.ndarray) and result.ndim
    return list(result) if stacked or isinstance(result, tuple | list) else []


def _one_turned(value: Any, dtypes: Dtypes) -> Any:
    floats = {dtype for dtype in dtypes if dtype.is_floating_point}
    if isinstance(value, Tensor):
        if value.dtype in dtypes or (value.is_floating_point() and floats):
            return value
        return value.to(min(dtypes, key=str))
    rows = isinstance(value, list | tuple) and any(isinstance(row, Tensor) for row in value)
    try:
        tensor = torch.stack(list(map(torch.as_tensor, value))) if rows else as_tensor(value)
    except (TypeError, ValueError, RuntimeError):  # the cell that uses it will say so
        return value
    if not isinstance(tensor, Tensor):
        return value
    of_python = not isinstance(value, np.ndarray | np.generic)
    if of_python and tensor.dtype == torch.float64 and len(floats) > 1:
        return tensor.to(torch.get_default_dtype())  # as torch.tensor does
    if tensor.dtype in dtypes:
        return tensor
    return tensor.to(min(tensor.is_floating_point() and floats or dtypes, key=str))


def _words(result: Any, turned: Any) -> str:
    """Return in words what is turned into what."""
    if not isinstance(turned, Tensor):
        pairs = zip(_parts(result), turned, strict=True)
        result, turned = next(pair for pair in pairs if pair[0] is not pair[1])
    if isinstance(result, Tensor):
        had, gets = (str(t.dtype).removeprefix("torch.") for t in (result, turned))
        return f"your {had} tensor is turned into {gets}"
    kind = "numpy array" if isinstance(result, np.ndarray) else type(result).__name__
    return f"your {kind} is turned into a tensor"
