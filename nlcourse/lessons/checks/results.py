"""Right answers in another form: lists, arrays or 32-bit integers, where the lesson needs tensors.

The judges take them, so the cells after the check have to be able to go on with them.
"""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .engine import seed_all, undisturbed
from .exercise import Exercise, ask_once
from .judges import as_tensor
from .show import fresh


def usable(exercise: Exercise, function: Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    """Return a right function as the lesson can go on with it, and in words what that changes.

    Where the course's version returns tensors and the student's something else, or another kind of
    number (int32 for int64, int64 for bool, floats wider than those that came in), the results are
    turned into such tensors. Else it is the function itself and "".
    """
    asked = [case.arguments for case in exercise.cases() if case.ask is ask_once]
    came_in = [_dtype(arguments.values()) for arguments in asked]
    with undisturbed(), redirect_stdout(io.StringIO()):
        form = _form([_seeded(exercise.reference, each) for each in asked], came_in)
        if form is None:
            return function, ""
        try:
            results = [_seeded(function, each) for each in asked]
        except Exception:  # it was right a moment ago: one that remembers its calls, say
            return function, ""
    turned = map(form.turn, results, came_in)
    pairs = [pair for pair in zip(results, turned, strict=True) if pair[0] is not pair[1]]
    if not pairs:
        return function, ""

    @wraps(function)
    def as_tensors(*arguments: Any, **more: Any) -> Any:
        return form.turn(function(*arguments, **more), _dtype([*arguments, *more.values()]))

    return as_tensors, _words(*pairs[0])


class _Form(NamedTuple):
    """What the reference returns: a tensor, or several in a tuple or list."""

    dtypes: list[torch.dtype | None]  # of the parts, or of all; None: the dtype that came in
    several: bool

    def turn(self, result: Any, came_in: torch.dtype | None) -> Any:
        """Return the result in this form; itself where it has it already."""
        if not self.several:
            return _turned(result, self.dtypes[0], came_in)
        parts = _parts(result)
        dtypes = self.dtypes * (len(parts) if len(self.dtypes) == 1 else 1)
        turned = [_turned(part, dtype, came_in) for part, dtype in zip(parts, dtypes, strict=False)]
        if len(turned) < len(parts) or all(map(operator.is_, turned, parts)):
            return result
        return turned if isinstance(result, list) else tuple(turned)


def _form(expected: list[Any], came_in: list[torch.dtype | None]) -> _Form | None:
    """Return the form of all results of the reference, or None if they are no tensors."""
    several = all(isinstance(one, tuple | list) for one in expected)
    rows = [list(one) if several else [one] for one in expected]
    if not all(isinstance(part, Tensor) for row in rows for part in row):
        return None
    pairs = [[(part.dtype, c) for part in row] for row, c in zip(rows, came_in, strict=True)]
    if len({len(row) for row in rows}) > 1:  # one a layer, say: they are all alike
        pairs = [[pair] for row in pairs for pair in row]
    places = list(zip(*pairs, strict=True))
    dtypes = [None if all(one == c for one, c in place) else place[0][0] for place in places]
    return _Form(dtypes, several) if places else None


def _seeded(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    seed_all()
    return function(*fresh(arguments).values())


def _dtype(arguments: Iterable[Any]) -> torch.dtype | None:
    """Return the dtype that came in: of the first floats, else of the first tensor."""
    dtypes = [value.dtype for value in arguments if isinstance(value, Tensor)]
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    return next(iter(floats + dtypes), None)


def _parts(result: Any) -> list[Any]:
    """Return the parts of a tuple or list, also of one that was stacked; [] of anything else."""
    stacked = isinstance(result, Tensor | np.ndarray) and result.ndim
    return list(result) if stacked or isinstance(result, tuple | list) else []


def _turned(value: Any, dtype: torch.dtype | None, came_in: torch.dtype | None) -> Any:
    """Return a value as a tensor of that dtype; itself where it is one, or cannot become one."""
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    if is_float and dtype is not None and dtype.is_floating_point:
        return value  # float32 or float64 is then the student's choice
    if not isinstance(value, Tensor):
        rows = isinstance(value, list | tuple) and any(isinstance(row, Tensor) for row in value)
        try:
            tensor = torch.stack(list(map(torch.as_tensor, value))) if rows else as_tensor(value)
        except (TypeError, ValueError, RuntimeError):  # the cell that uses it will say so
            return value
        value = tensor if isinstance(tensor, Tensor) else value
    dtype = dtype or came_in
    return value.to(dtype) if isinstance(value, Tensor) and dtype else value


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
