"""How fast the linear model of lesson 04 runs beside plain autograd on the same data.

    python benchmarks/linear.py

One core. Both take the same steps in float64 and measure at the same steps; the ratio is taken in
pairs within one run, so that it holds on a machine whose speed drifts. Medians of five pairs after
a warm-up; autograd takes a tenth of the steps and its time is scaled, since it is slow.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import platform  # noqa: E402 - the numbers of threads come first
import statistics  # noqa: E402
import time  # noqa: E402

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from nlcourse import linear  # noqa: E402

PAIRS = 5
STEPS = 10_000
PART = 10  # autograd takes one step of so many


def by_autograd(data: linear.Sample, theta: torch.Tensor, steps: int, lambda_: float) -> None:
    """Train as one would by hand: a leaf tensor, backward, and the same step."""
    theta = theta.clone().requires_grad_()
    targets = torch.zeros(len(data.features), 2, dtype=torch.float64)
    for _ in range(steps):
        scores = data.features @ theta.T
        loss = F.cross_entropy(scores, data.given_labels)
        if lambda_:
            p = scores.softmax(dim=1).clamp(linear.CLAMP, 1 - linear.CLAMP)
            targets = 0.7 * targets + 0.3 * p.detach()
            loss = loss + lambda_ * (1 - (p * targets).sum(dim=1)).log().mean()
        (gradient,) = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            theta -= 0.5 * gradient


def timed(function, *arguments, **options) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - began


def main() -> None:
    """Print a line for cross entropy and one for ELR."""
    torch.set_num_threads(1)
    print(f"python {platform.python_version()}, torch {torch.__version__}, one thread")
    generator = torch.Generator().manual_seed(0)
    data = linear.sample(120, 100, 0.1, 0.4, generator)
    theta = linear.initial_theta(100, generator=generator)
    for name, lambda_ in (("cross entropy", 0.0), ("ELR, lambda 3", 3.0)):
        pairs = []
        for _ in range(PAIRS + 1):
            ours = timed(linear.gradient_descent, data, steps=STEPS, lambda_=lambda_, theta=theta)
            other = PART * timed(by_autograd, data, theta, STEPS // PART, lambda_)
            pairs.append((ours, other))
        mine, theirs = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
        ratios = [one / other for one, other in pairs[1:]]
        print(
            f"{name:14} {STEPS} steps: {mine:.3f} s, autograd {theirs:.3f} s, "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
