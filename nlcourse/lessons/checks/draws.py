"""Judges of results that are drawn at random, for lessons 01 and 03.

Two right answers differ, so these judges look at properties, and name the kind in which one fails.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .exercise import Arguments, Misconception, Mismatch
from .judges import as_tensor, as_whole_numbers
from .show import describe

# A right answer leaves bands this wide less than once in 10^7 draws.
SIGMAS = 6


# The mismatch of a random result: what shows the mistake is its kind alone.
broken = partial(Mismatch, evidence="")


def as_classes(got: Any, labels: Tensor, num_classes: int) -> Tensor | Mismatch:
    """Return new labels, int64, of which there is one for each old one."""
    new = as_whole_numbers(got, labels.shape)
    if isinstance(new, Mismatch):
        return broken(new.kind, new.says)
    if len(new) and not 0 <= int(new.min()) <= int(new.max()) < num_classes:
        found, wanted = f"{new.min()} to {new.max()}", f"labels from 0 to {num_classes - 1}"
        says = "some of its labels are no classes"
        return broken("range", says, got=f"labels from {found}", expected=wanted)
    return new


def ask_twice(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Call twice with generators of the same state; a global state, if used, has moved on."""
    state = arguments["generator"].get_state()
    first = function(*arguments.values())
    arguments["generator"].set_state(state)
    return first, function(*arguments.values())


def ask_in_a_row(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Call twice with the same generator, which has moved on in between."""
    return function(*arguments.values()), function(*arguments.values())


def repeatable(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge :func:`ask_twice`: all randomness has to come from the generator."""
    first, second = (as_tensor(part) for part in got)
    if isinstance(first, Tensor) and isinstance(second, Tensor) and torch.equal(first, second):
        return None
    says = "two calls with generators of the same seed differ"
    wanted = "the same result twice: every draw takes generator=generator"
    return broken("not repeatable", says, got="two different results", expected=wanted)


def draws_anew(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge :func:`ask_in_a_row`: the generator must not be set back, nor the draw be fixed."""
    first, second = (as_tensor(part) for part in got)
    if isinstance(first, Tensor) and isinstance(second, Tensor) and not torch.equal(first, second):
        return None
    says, twice = "two calls in a row with one generator give the same result", describe(got[0])
    wanted = "a new draw at every call"
    return broken("same draw again", says, got=f"twice {twice}", expected=wanted)


def ask_often(function: Callable[..., Any], arguments: Arguments) -> list[Any]:
    """Call 40 times with the same generator."""
    return [function(*arguments.values()) for _ in range(40)]


def independent(
    got: list[Any], expected: Any, arguments: Arguments, *, group: str = "all labels"
) -> Mismatch | None:
    """Judge :func:`ask_often`: how many labels change has to vary, neither too little nor too much.

    `group` says which labels a single draw for many would change together.
    """
    labels = arguments["labels"]
    draws = [as_whole_numbers(draw, labels.shape) for draw in got]
    if any(isinstance(draw, Mismatch) for draw in draws):
        return broken("type", "not all draws are labels")
    counts = torch.tensor([int((draw != labels).sum()) for draw in draws])
    n, wanted = len(labels), "each label is drawn by itself"
    said = f"{int(counts.min())} to {int(counts.max())} of {n} labels changed in {len(got)} calls"
    if counts.max() == 0:
        return broken("nothing changed", "no label has changed", got=said)
    if counts.min() == counts.max():
        kind, says = "fixed number", "in every call exactly the same number of labels changes"
    elif (counts.remainder(n) == 0).all():
        kind, says = "all or none", f"in every call {group} change or none"
    else:
        return None
    return broken(kind, says, got=said, expected=wanted)


# The two classic mistakes with a generator, for every exercise that draws.
GENERATOR_MISTAKES = (
    Misconception(
        "does not use the generator",
        "Every function that draws takes `generator=...`: does each of yours?",
        replace={"generator=generator": "generator=None"},
    ),
    Misconception(
        "seeds its own generator",
        "The caller decides on the seed. What happens to the second of two draws?",
        replace={"generator=generator": "generator=torch.Generator().manual_seed(0)"},
    ),
)
