"""What makes a network fast on its device: layout of its memory, short numbers, compiling.

None of it is seen by a method: a network takes float32 images and returns float32 logits, whatever
it computes in between. Measured in ``benchmarks/precision.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..base import expect_one_of
from .device import SMALL_IMAGE

PRECISIONS = ("float32", "bfloat16")


def accelerate(
    network: nn.Module,
    device: torch.device | str,
    precision: str = "float32",
    *,
    compiled: bool | str = False,
) -> nn.Module:
    """Make a network from float32 images to logits fast on its device; return it.

    Args:
        network: moved to the device later.
        device: where it will compute.
        precision: "float32", or "bfloat16" to multiply numbers of 8 binary digits in place of 24.
            Weights, sums and logits stay float32. The network's ``precision`` says which.
        compiled: let ``torch.compile`` write one program for it, which takes up to a minute; a
            string is its mode. It made nothing faster on a processor: `fit` compiles on CUDA alone.
    """
    expect_one_of("precision", precision, PRECISIONS)
    device = torch.device(device)
    if device.type in ("cpu", "cuda"):
        # The channels of one pixel side by side, as convolutions read them.
        network = network.to(memory_format=torch.channels_last)
        averages = (each for each in network.modules() if isinstance(each, nn.AdaptiveAvgPool2d))
        for layer in [] if compiled else averages:  # the compiler chooses layouts by itself
            layer.register_forward_pre_hook(_keep_layout)
    setattr(network, "precision", precision)  # noqa: B010 - mypy takes it for a submodule
    if precision == "bfloat16":
        arithmetic = _Bfloat16(device.type)
        # A compiled program begins after the one and ends before the other.
        outside: Callable[..., Any] = torch.compiler.disable if compiled else lambda hook: hook
        network.register_forward_pre_hook(outside(arithmetic.begin))
        network.register_forward_hook(outside(arithmetic.end), always_call=True)
    if compiled:
        torch._dynamo.config.suppress_errors = True
        network.compile(mode=compiled if isinstance(compiled, str) else None)
    return network


def fastest_precision(network: nn.Module, images: Tensor, device: torch.device | str) -> str:
    """Return the precision that makes a network fast on a device: "float32" or "bfloat16".

    On CUDA that is bfloat16. On a processor it was measured to be where it has instructions for it,
    the network has convolutions and the `images` that it is to see, ``(n, channels, height,
    width)``, are larger than digits (1.5 to 2 times as fast).
    """
    device = torch.device(device)
    convolves = any(isinstance(layer, nn.Conv2d) for layer in network.modules())
    large = convolves and images[0].numel() > SMALL_IMAGE
    if device.type == "cuda" or (device.type == "cpu" and large and _processor_has_bfloat16()):
        return "bfloat16"
    return "float32"


def fused(optimizer: torch.optim.Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """Let SGD and Adam move all weights in one kernel where the device is CUDA.

    Others stay as they are: not all of torch's have such a kernel there (Adagrad has none).
    On a processor that would be 5 % of the MLP's step, but the last digit of the numbers in the
    course, and of yours, would change.
    """
    if device.type == "cuda" and isinstance(optimizer, (torch.optim.SGD, torch.optim.Adam)):
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    return optimizer


def _keep_layout(pool: nn.Module, inputs: tuple[Tensor]) -> None:
    """Lay the gradient of a global average out pixel by pixel, as the layers before it compute.

    torch returns it channel by channel, and a ReLU before it then takes ten times as long.
    """
    if inputs[0].requires_grad:
        inputs[0].register_hook(_channels_last)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _processor_has_bfloat16() -> bool:
    # Without such instructions torch imitates them, slowly. Older versions of torch do not tell.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class _Bfloat16:
    """Hooks around a network's forward pass.

    Hooks, and not a network around the network: its names in a checkpoint stay, a deep copy has
    them too, and no method has to think of them.
    """

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type
        self.open: list[torch.autocast] = []

    def begin(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Switch to bfloat16."""
        self.open.append(torch.autocast(self.device_type, dtype=torch.bfloat16))
        self.open[-1].__enter__()

    def end(
        self, network: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor | None
    ) -> Tensor | None:
        """Switch back, also after an error (then there are no logits)."""
        self.open.pop().__exit__(None, None, None)
        return None if logits is None else logits.float()
