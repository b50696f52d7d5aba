"""Time one training of every classroom recipe: lesson 13's answer to "how long does it run".

    python results/method_seconds.py

Digits, 40 % symmetric noise, all epochs of the recipe, one thread. What counts is the processor
time of the process, not the clock on the wall: other programs on the machine hardly change it. Two
runs each, the faster one counts.
"""

import time
from pathlib import Path

import torch

from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan

KEY = ("method", "run")
NOISE = {"noise": "symmetric", "rate": 0.4, "seed": 0}


def measure(run):
    """Train once and tell both times."""
    recipe = recipes.find("classroom", run["method"], noise="symmetric", rate=0.4)
    noisy = runs.corrupted(recipe.load(), NOISE)
    begin = time.process_time()
    history, row = runs.train(recipe, {**run, **NOISE}, noisy, device="cpu")
    spent = time.process_time() - begin
    wall = sum(history["seconds"])
    return row | {"cpu_seconds": f"{spent:.2f}", "wall_seconds": f"{wall:.2f}"}


RUNS = [{"method": name, "run": run} for run in range(2) for name in recipes.names("classroom")]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    torch.set_num_threads(1)
    measure(RUNS[0])  # the first training in a process pays for imports
    runner.carry_out(PLAN)
