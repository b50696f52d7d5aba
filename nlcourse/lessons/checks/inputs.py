"""What the cases of several exercises are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def double(values: Any) -> Tensor:
    """Return numbers as a float64 tensor."""
    return torch.as_tensor(values, dtype=torch.float64)


def random_rows(n: int, classes: int, generator: torch.Generator, scale: float = 2.0) -> Tensor:
    """Return random rows of probabilities, float64 ``(n, classes)``."""
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1)
