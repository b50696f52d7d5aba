"""Is a result right? Judges that several exercises share.

A judge takes ``(got, expected, arguments)`` and returns None or a :class:`Mismatch`. It is generous
in form (tensor, numpy, list, Python number; 32 or 64 bits) and strict in meaning.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .exercise import Arguments, Mismatch

TOLERANCE = 1e-5  # relative and absolute: float32 rounding in any order of summing stays below it


def close(one: float, other: float) -> bool:
    """Say whether two numbers are equal up to rounding; nan equals nan (the share of nothing)."""
    nothing = math.isnan(one) and math.isnan(other)
    return nothing or math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def number(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge one number: a Python, numpy or 0-d tensor number."""
    if isinstance(got, Tensor | np.ndarray) and got.ndim:
        return Mismatch("shape", f"it has shape {tuple(got.shape)} where one number is expected")
    value = got.item() if isinstance(got, Tensor | np.ndarray | np.generic) else got
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Mismatch("type", f"it is a {type(value).__name__} where a number is expected")
    return None if close(value, float(expected)) else Mismatch("value", "the number differs")


def named_numbers(got: Any, expected: dict[str, float], arguments: Arguments) -> Mismatch | None:
    """Judge a dictionary of numbers; keys beyond the expected ones are free."""
    if not isinstance(got, dict):
        return Mismatch("type", f"it is a {type(got).__name__} where a dictionary is expected")
    missing = [key for key in expected if key not in got]
    if missing:
        return Mismatch("keys", f"the dictionary lacks {' and '.join(map(repr, missing))}")
    return _first_of({f"under {key!r}": (got[key], value) for key, value in expected.items()})


def pair_of_numbers(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge two numbers in their order: a tuple, a list or a vector."""
    if not isinstance(got, tuple | list | Tensor | np.ndarray):
        return Mismatch("type", f"it is a {type(got).__name__} where a pair is expected")
    if getattr(got, "ndim", 1) == 0 or len(got) != 2:
        return Mismatch("type", "it is not a pair: two numbers are expected")
    pairs = zip(got, expected, strict=True)
    return _first_of(dict(zip(("at the first place", "at the second place"), pairs, strict=True)))


def _first_of(pairs: dict[str, tuple[Any, Any]]) -> Mismatch | None:
    for where, (got, expected) in pairs.items():
        if problem := number(got, expected, {}):
            return Mismatch(problem.kind, f"{where}: {problem.says}")
    return None


def as_tensor(value: Any, shape: tuple[int, ...] | None = None) -> Tensor | Mismatch:
    """Return a tensor from a tensor, a numpy array or a (nested) list."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError):
        return Mismatch("type", f"it is a {type(value).__name__} where a tensor is expected")
    if shape is not None and tensor.shape != shape:
        return Mismatch("shape", f"it has shape {tuple(tensor.shape)}, expected {tuple(shape)}")
    return tensor.detach()


def no_tensor(value: Any, user: str) -> Mismatch | None:
    """Say it of a result that is no tensor, where what comes next computes with it."""
    if isinstance(value, Tensor):
        return None
    kind = "numpy array" if isinstance(value, np.ndarray) else type(value).__name__
    return Mismatch("no tensor", f"it is a {kind}: {user} takes tensors", evidence="")


def all_close(one: Tensor, other: Tensor) -> bool:
    """Say whether all numbers of two tensors are equal up to rounding; nan equals nothing."""
    return torch.allclose(one.double(), other.double(), rtol=TOLERANCE, atol=TOLERANCE)


def numbers(
    got: Any, expected: Tensor, arguments: Arguments, *, what: str = "numbers"
) -> Mismatch | None:
    """Judge a tensor of numbers by its shape and values; the dtype is free."""
    value = as_tensor(got, expected.shape)
    if isinstance(value, Mismatch):
        return value
    if value.is_complex() or value.dtype == torch.bool:
        return Mismatch("dtype", f"it is {value.dtype} where {what} are expected")
    return None if all_close(value, expected) else Mismatch("value", f"the {what} differ")


def finite_numbers(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge a tensor of numbers; say so by name if some are infinite or none at all."""
    problem, value = numbers(got, expected, arguments), as_tensor(got)
    infinite = isinstance(value, Tensor) and not value.isfinite().all()
    if problem and problem.kind == "value" and infinite:
        return Mismatch("infinite", "it has entries that are infinite or no numbers", evidence="")
    return problem


def as_whole_numbers(value: Any, shape: tuple[int, ...] | None = None) -> Tensor | Mismatch:
    """Return an int64 tensor from integers of any width; an empty list counts as integers."""
    if isinstance(value, tuple) and any(isinstance(part, Tensor) and part.dim() for part in value):
        says = "it is a pair: topk and sort return the values and their positions"
        return Mismatch("pair", says, evidence="")
    tensor = as_tensor(value)
    if isinstance(tensor, Mismatch):
        return tensor
    if tensor.dtype == torch.bool:
        return Mismatch("mask", "it is a mask of True and False where whole numbers are expected")
    if tensor.is_floating_point() and tensor.numel():
        return Mismatch("dtype", f"it is {tensor.dtype} where whole numbers are expected")
    return as_tensor(tensor.long(), shape)
