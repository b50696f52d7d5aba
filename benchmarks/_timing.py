"""Two ways to do the same, timed in turn in one process, and a row a comparison in ``results/``.

Both sides use the same number of threads. Ratios are taken pair by pair (ours, other, ours, other,
...), so that they hold on a machine whose speed drifts; medians are told. Beside the wall clock
stands the processor time of the process: on a machine with other work to do it is the steadier one.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nlcourse.experiments import results
from nlcourse.training.device import name_of

TABLE = Path(__file__).parents[1] / "results" / "benchmarks.csv"


class Clock:
    """Adds up the time of the ``with`` blocks it is used in: what else a side does is not counted.

    Attributes:
        wall: seconds.
        processor: seconds of all threads of this process.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.wall = self.processor = 0.0

    def __enter__(self) -> None:
        """Begin to count."""
        _catch_up()
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *error) -> None:
        """Add what has passed."""
        _catch_up()
        self.wall += time.perf_counter() - self._began[0]
        self.processor += time.process_time() - self._began[1]


def _catch_up() -> None:
    """Wait for a GPU: it works on while Python goes ahead."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


Side = Callable[[Clock], None]


def clocked(method, clock: Clock, *, begin: int = 0):
    """Return the method, whose training epochs (not the measuring after them) run the clock.

    Args:
        method: to train.
        clock: runs in the epochs from `begin`.
        begin: the first epoch that counts, from 0.
    """
    train_epoch = method.train_epoch

    def train(batches, step) -> None:
        with clock if method.epoch >= begin else contextlib.nullcontext():
            train_epoch(batches, step)

    method.train_epoch = train
    return method


def whole(function: Callable[[], object]) -> Side:
    """Return a side all of whose time counts."""

    def side(clock: Clock) -> None:
        with clock:
            function()

    return side


def machine(device: str = "cpu") -> str:
    """Say on what this runs."""
    of = results.provenance(device)
    load = f", {platform.node() and _load()}" if _load() else ""
    return f"{of['device']}; {of['versions']}{load}"


def _load() -> str:
    try:
        import os

        return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    except (AttributeError, OSError):  # Windows has none
        return ""


def compare(
    name: str, ours: Side, other: Side, *, goal: float, pairs: int = 5, device: str = "cpu"
) -> float:
    """Time both in turn after a warm-up, print the medians, add a row; return the ratio.

    Args:
        name: what is compared: "ours / other: on what".
        ours: takes the clock that it has to run.
        other: the same.
        goal: the ratio ours / other that is to be reached, at most.
        pairs: how many.
        device: on which both sides compute.
    """
    _once(ours), _once(other)
    times = [(_once(ours), _once(other)) for _ in range(pairs)]
    ratios = [mine.wall / theirs.wall for mine, theirs in times]
    processor = [mine.processor / theirs.processor for mine, theirs in times]
    seconds = [statistics.median(clock.wall for clock in side) for side in zip(*times, strict=True)]
    ratio = statistics.median(ratios)
    row = {
        "benchmark": name, "pairs": pairs,
        "ours_seconds": f"{seconds[0]:.4f}", "other_seconds": f"{seconds[1]:.4f}",
        "ratio": f"{ratio:.4f}", "lowest": f"{min(ratios):.4f}", "highest": f"{max(ratios):.4f}",
        "processor_ratio": f"{statistics.median(processor):.4f}", "goal": f"{goal:.4f}",
        "busy": _load(), "device": name_of(device),
    }  # fmt: skip
    results.Table(TABLE, ("benchmark", "commit")).add(row)
    print(
        f"{name:58} {seconds[0]:8.3f} s {seconds[1]:8.3f} s   ratio {ratio:6.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), processor {row['processor_ratio']}, "
        f"goal {goal:.3f}",
        flush=True,
    )
    return ratio


def _once(side: Side) -> Clock:
    clock = Clock()
    side(clock)
    return clock


def with_threads(count: int, device: str = "cpu") -> None:
    """Set torch's threads for both sides and say so."""
    torch.set_num_threads(count)
    print(f"-- {machine(device)}", flush=True)
