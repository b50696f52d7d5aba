"""What the cases of several exercises are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .exercise import Case


def double(values: Any) -> Tensor:
    """Return numbers as a float64 tensor."""
    return torch.as_tensor(values, dtype=torch.float64)


def random_rows(n: int, classes: int, generator: torch.Generator, scale: float = 2.0) -> Tensor:
    """Return random rows of probabilities, float64 ``(n, classes)``."""
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1)


def case_of(**forms: Callable[[Any], Any] | None) -> Callable[..., Case]:
    """Return a maker of cases: a name, then the arguments in the order of the forms.

    Args:
        forms: by parameter name, what makes the argument of what is written down; None takes it as
            it is. Arguments at the end may be left out: the function's own default is asked.
    """

    def case(name: str, *values: Any, **more: Any) -> Case:
        pairs = zip(forms.items(), values, strict=False)
        arguments = {key: form(value) if form else value for (key, form), value in pairs}
        return Case(name, arguments, **more)

    return case
