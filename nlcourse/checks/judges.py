"""Is a result right? Judges that several exercises share.

A judge takes ``(got, expected, arguments)`` and returns None or a :class:`Mismatch`. It is generous
in form (tensor, numpy, list, Python number; 32 or 64 bits) and strict in meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .exercise import Arguments, Mismatch
from .show import describe

TOLERANCE = 1e-5  # relative and absolute: float32 rounding in any order of summing stays below it


def broken(
    kind: str, says: str, *, got: str | None = None, expected: str | None = None
) -> Mismatch:
    """Return the mismatch of a random result: what shows the mistake is its kind alone."""
    return Mismatch(kind, says, got=got, expected=expected, evidence="")


def as_number(value: Any) -> float | Mismatch:
    """Return one Python float from a Python, numpy or 0-d tensor number."""
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim:
            return Mismatch(
                "shape", f"it has shape {tuple(value.shape)} where one number is expected"
            )
        value = value.item()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Mismatch("type", f"it is a {type(value).__name__} where a number is expected")
    return float(value)


def close(one: float, other: float) -> bool:
    """Say whether two numbers are equal up to rounding; nan equals nan (the share of nothing)."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def number(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge one number."""
    value = as_number(got)
    if isinstance(value, Mismatch):
        return value
    return None if close(value, float(expected)) else Mismatch("value", "the number differs")


def named_numbers(got: Any, expected: dict[str, float], arguments: Arguments) -> Mismatch | None:
    """Judge a dictionary of numbers; keys beyond the expected ones are free."""
    if not isinstance(got, dict):
        return Mismatch("type", f"it is a {type(got).__name__} where a dictionary is expected")
    missing = [key for key in expected if key not in got]
    if missing:
        return Mismatch("keys", f"the dictionary lacks {' and '.join(map(repr, missing))}")
    for key, value in expected.items():
        problem = number(got[key], value, arguments)
        if problem is not None:
            return Mismatch(problem.kind, f"under {key!r}: {problem.says}")
    return None


def pair_of_numbers(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge two numbers in their order: a tuple, a list or a vector."""
    if not isinstance(got, tuple | list | Tensor | np.ndarray):
        return Mismatch("type", f"it is a {type(got).__name__} where a pair is expected")
    if getattr(got, "ndim", 1) == 0 or len(got) != 2:
        return Mismatch("type", "it is not a pair: two numbers are expected")
    for place, one, other in zip(("first", "second"), got, expected, strict=True):
        problem = number(one, other, arguments)
        if problem is not None:
            return Mismatch(problem.kind, f"at the {place} place: {problem.says}")
    return None


def as_tensor(value: Any) -> Tensor | Mismatch:
    """Return a tensor from a tensor, a numpy array or a (nested) list."""
    if isinstance(value, Tensor):
        return value.detach()
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        return Mismatch("type", f"it is a {type(value).__name__} where a tensor is expected")


def as_whole_numbers(value: Any, shape: tuple[int, ...] | None = None) -> Tensor | Mismatch:
    """Return an int64 tensor from integers of any width; an empty list counts as integers."""
    tensor = as_tensor(value)
    if isinstance(tensor, Mismatch):
        return tensor
    if tensor.dtype == torch.bool:
        return Mismatch("mask", "it is a mask of True and False where whole numbers are expected")
    if tensor.is_floating_point() and tensor.numel():
        return Mismatch("dtype", f"it is {tensor.dtype} where whole numbers are expected")
    if shape is not None and tuple(tensor.shape) != shape:
        return Mismatch("shape", f"it has shape {tuple(tensor.shape)}, expected {shape}")
    return tensor.long()


def ask_twice(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Call twice with generators of the same state; a global state, if used, has moved on."""
    generator = arguments["generator"]
    state = generator.get_state()
    first = function(*arguments.values())
    generator.set_state(state)
    return first, function(*arguments.values())


def ask_in_a_row(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Call twice with the same generator, which has moved on in between."""
    return function(*arguments.values()), function(*arguments.values())


def repeatable(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge :func:`ask_twice`: all randomness has to come from the generator."""
    first, second = (as_tensor(part) for part in got)
    if isinstance(first, Tensor) and isinstance(second, Tensor) and torch.equal(first, second):
        return None
    return broken(
        "not repeatable",
        "two calls with generators of the same seed differ",
        got="two different results",
        expected="the same result twice: every draw takes generator=generator",
    )


def draws_anew(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge :func:`ask_in_a_row`: the generator must not be set back, nor the draw be fixed."""
    first, second = (as_tensor(part) for part in got)
    if isinstance(first, Tensor) and isinstance(second, Tensor) and not torch.equal(first, second):
        return None
    return broken(
        "same draw again",
        "two calls in a row with one generator give the same result",
        got="twice " + describe(got[0]),
        expected="a new draw at every call",
    )
