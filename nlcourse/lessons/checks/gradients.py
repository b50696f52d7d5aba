"""Ask for a gradient beside a result, and judge both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .exercise import NOTHING, Arguments, Mismatch
from .judges import as_tensor, finite_numbers, number

NO_GRADIENT = "no gradient"  # stands for the gradient of what has none; None is no answer at all


def no_gradient(source: str) -> Mismatch:
    """Return the mismatch of a result that has no gradient in its source."""
    says = f"no gradient flows back to {source}, so nothing would be learned"
    return Mismatch(NO_GRADIENT, says, evidence="")


def with_gradient(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Call with probabilities as a network gives them: with a gradient behind them."""
    arguments["probabilities"].requires_grad_()
    return function(*arguments.values())


def cut_off(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge a tensor, and that no gradient flows out of it."""
    problem = finite_numbers(got, expected, arguments)
    if problem is None and isinstance(got, Tensor) and got.requires_grad:
        says = "it carries a gradient of the probabilities"
        shown, wanted = "a tensor that requires grad", "a tensor that does not"
        return Mismatch("gradient", says, shown, wanted, evidence="")
    return problem


def value_and_slope(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the loss and its gradient in the logits; None where it has none."""
    logits = arguments["logits"].requires_grad_()
    loss = function(*arguments.values())
    if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
        return loss, None
    return loss.detach(), torch.autograd.grad(loss, logits, allow_unused=True)[0]


def loss_and_slope(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge what :func:`value_and_slope` returned: the loss first, then its gradient."""
    (loss, slope), (true_loss, true_slope) = got, expected
    if loss is None:
        return NOTHING
    shown, wanted = _shown(loss), _shown(true_loss)
    value = as_tensor(loss)
    if isinstance(value, Tensor) and value.dim() == 0 and not bool(value.isfinite()):
        says = "the loss is infinite or no number: a sure network must not break it"
        return Mismatch("infinite", says, shown, wanted, evidence="")
    if problem := number(loss, true_loss, arguments):
        return Mismatch(problem.kind, problem.says, shown, wanted, evidence=shown)
    if slope is None:
        says = "the number is right, but no gradient flows from it: nothing would be learned"
        return Mismatch("no gradient", says, shown, wanted, evidence="")
    if finite_numbers(slope, true_slope, arguments) is None:
        return None
    shown, wanted = _shown(slope), _shown(true_slope)
    says = "the number is right, but its gradient in the logits differs"
    return Mismatch("slope", says, shown, wanted, evidence=shown)


def _shown(value: Any) -> str:
    tensor = as_tensor(value)
    if isinstance(tensor, Mismatch):
        return str(value)
    if tensor.numel() > 12:
        return f"a tensor of shape {tuple(tensor.shape)} with norm {tensor.norm().item():.4g}"
    return str(torch.round(tensor.double(), decimals=5).tolist())
