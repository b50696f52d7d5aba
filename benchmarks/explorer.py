"""Times the explorer on digits: first point, 30 epochs, and what live drawing costs.

Run ``python benchmarks/explorer.py [--repeats 7]``. Each repetition presses Start on a fresh seed
and, in turn, trains the same settings without a panel. Medians over the repetitions; the first run
of the process is left out (imports). What is asked for (issue 2): the first point within 200 ms of
Start, 30 epochs within 2 s on two cores, drawing at most 25 % of the training time.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import threading
import time

import ipywidgets
import matplotlib
import torch

from nlcourse.panels import Explorer
from nlcourse.training import find_device

TIMEOUT = 300


def time_panel(explorer: Explorer) -> dict[str, float]:
    """Press Start and time what a student sees."""
    shown: list[float] = []
    explorer.view.figure.observe(lambda change: shown.append(time.perf_counter()), "value")
    began = time.perf_counter()
    explorer.view.start.click()
    returned = time.perf_counter() - began
    if not explorer.wait(TIMEOUT):
        raise TimeoutError(f"The run did not end within {TIMEOUT} s")
    total = time.perf_counter() - began
    explorer.view.figure.unobserve_all("value")
    pace = explorer.runner.pace
    return {
        "Start returns (ms)": 1000 * returned,
        "first point (ms)": 1000 * (shown[0] - began),
        "30 epochs (s)": total,
        "drawings": pace.drawings,
        "drawing / training (%)": 100 * pace.drawing_time / (total - pace.drawing_time),
    }


def time_bare(explorer: Explorer) -> float:
    """Train the panel's settings without drawing anything."""
    began = time.perf_counter()
    explorer.trainer(explorer.settings, threading.Event(), lambda history: None)
    return time.perf_counter() - began


def measure(method: str, repeats: int) -> dict[str, float]:
    """Return medians over the repetitions."""
    explorer = Explorer(epochs=30)
    explorer.controls["method"].value = method
    rows = []
    for seed in range(repeats + 1):
        explorer.fixed = {"seed": seed}  # otherwise the stored run would be shown
        row = time_panel(explorer)
        row["30 epochs without a panel (s)"] = time_bare(explorer)
        row["with / without"] = row["30 epochs (s)"] / row["30 epochs without a panel (s)"]
        rows.append(row)
    return {name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}


def main() -> None:
    """Measure both methods and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{platform.machine()}, {os.cpu_count()} cores{load}, device {find_device()}")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"matplotlib {matplotlib.__version__}, ipywidgets {ipywidgets.__version__}"
    )
    print(f"digits, symmetric 40 %, medians of {repeats} runs after one that does not count\n")
    for method in ("cross-entropy", "co-teaching"):
        print(method)
        for name, value in measure(method, repeats).items():
            print(f"  {name:<32}{value:8.2f}")


if __name__ == "__main__":
    main()
