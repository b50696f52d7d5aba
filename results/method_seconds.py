"""Time one training of every classroom recipe: lesson 13's answer to "how long does it run".

    python results/method_seconds.py

Digits, 40 % symmetric noise, all epochs of the recipe, one thread. What counts is the processor
time of the process, not the clock on the wall: other programs on the machine hardly change it. Two
runs each, the faster one counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch

from nlcourse import noise
from nlcourse.experiments import recipes, results

KEY = ("method", "run")
RUNS = 2


def measure(what: Mapping) -> dict:
    """Train once and return the row."""
    recipe = recipes.find("classroom", what["method"], noise="symmetric", rate=0.4)
    noisy = noise.inject(recipe.load(), "symmetric", 0.4, seed=0)
    begin = time.process_time()
    options = {"seed": 0, "kind": "symmetric", "rate": 0.4, "device": "cpu", "progress": False}
    history, _ = results.trained(recipe.train, noisy, **options)
    spent = time.process_time() - begin
    told = results.summary(history)
    row = what | {"data": recipe.data, "epochs": told["epochs"], "cpu_seconds": f"{spent:.2f}"}
    return row | {"wall_seconds": f"{sum(history['seconds']):.2f}", "device": told["device"]}


def main() -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    names = recipes.names("classroom")
    runs = [{"method": name, "run": run} for run in range(RUNS) for name in names]
    if ("cross-entropy", 0) not in table:
        measure(runs[0])  # the first training in a process pays for imports
    table.fill(runs, measure)


if __name__ == "__main__":
    main()
