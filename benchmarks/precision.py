"""What channels-last and bfloat16 are worth on this processor, and whether ``torch.compile`` is.

    python benchmarks/precision.py

A step (forward, loss, backward, SGD) of each network beside the same network as PyTorch makes it:
float32, channels first. ``training.acceleration`` takes what is faster here; a processor without
instructions for bfloat16 keeps float32 by itself.
"""

from __future__ import annotations

import os

import torch
from _timing import compare, whole, with_threads
from torch import nn
from torch.nn import functional as F

from nlcourse.training.acceleration import accelerate
from nlcourse.training.networks import lenet, mlp, preact_resnet18, small_cnn

STEPS = 4
CASES = (
    ("small CNN, digits, batch 64", small_cnn, (1, 8, 8), 64, 20),
    ("small CNN, 28 x 28, batch 128", small_cnn, (1, 28, 28), 128, 1),
    ("small CNN, CIFAR-10, batch 128", small_cnn, (3, 32, 32), 128, 1),
    ("LeNet, 28 x 28, batch 128", lenet, (1, 28, 28), 128, 5),
    ("MLP, 28 x 28, batch 64", mlp, (1, 28, 28), 64, 20),
    ("PreAct ResNet-18, CIFAR-10, batch 32", preact_resnet18, (3, 32, 32), 32, 1),
)


def steps(network: nn.Module, shape: tuple[int, int, int], batch_size: int, count: int):
    """Return a function that takes so many steps."""
    images, labels = torch.randn(batch_size, *shape), torch.randint(10, (batch_size,))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def take() -> None:
        for _ in range(count):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()

    return take


def main() -> None:
    """Compare both precisions with plain PyTorch, network by network."""
    with_threads(os.cpu_count() or 1)
    for name, make, shape, batch_size, factor in CASES:
        count = STEPS * factor
        plain = whole(steps(make(shape, 10), shape, batch_size, count))
        for precision in ("float32", "bfloat16"):
            fast = accelerate(make(shape, 10), "cpu", precision)
            compare(f"channels last, {precision} / plain PyTorch: {name}",
                    whole(steps(fast, shape, batch_size, count)), plain,
                    goal=1.0, pairs=5)  # fmt: skip
    shape = (3, 32, 32)
    fast, compiled = (
        accelerate(small_cnn(shape, 10), "cpu", "bfloat16", compiled=compiled)  # `fit` would not
        for compiled in (False, True)
    )
    compare("compiled / not compiled: small CNN, CIFAR-10, batch 128, bfloat16",
            whole(steps(compiled, shape, 128, STEPS)), whole(steps(fast, shape, 128, STEPS)),
            goal=1.0, pairs=5)  # fmt: skip


if __name__ == "__main__":
    main()
