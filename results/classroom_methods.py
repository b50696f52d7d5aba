"""Every method of the course beside cross entropy, in one table: lesson 13's board.

    python results/classroom_methods.py                         # digits, five seeds
    python results/classroom_methods.py mnist --seeds 1         # a part of real MNIST
    python results/classroom_methods.py fashion-mnist --seeds 1

Settings: nlcourse/experiments/recipes.toml, the same for every noise; no seed is chosen and nothing
is chosen by a test accuracy of these runs. One thread a run. The real sets are read from
NLCOURSE_DATA.

Methods that need the noise rate get the true one, and "forward-true" and "backward-true" the true
matrix: in earnest nobody has either. Instance-dependent noise has no one matrix, so these two are
missing there. FixMatch learns from a few labels that are right, and so is no method for this table.
A run that diverged keeps what it had until then; `ended` says so.
"""

import argparse
import functools
import itertools
from pathlib import Path

import torch

from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan

REAL = (("symmetric", 0.4), ("asymmetric", 0.4), ("symmetric", 0.2), ("symmetric", 0.6))
MORE = (("symmetric", 0.8), ("pairflip", 0.45), ("instance", 0.4))
FIRST = (("symmetric", 0.4), ("symmetric", 0.2), ("symmetric", 0.6), ("asymmetric", 0.4))
NOISES = {"classroom": FIRST + MORE, "mnist": REAL, "fashion-mnist": REAL}
KEY = ("method", "noise", "rate", "seed")
TOLD = ("method", "network", "optimizer", "schedule", "batch_size")


def measure(setting, run):
    """Train a recipe and tell all its settings."""
    recipe = recipes.find(setting, run["method"], noise=run["noise"], rate=run["rate"])
    history, row = runs.train(recipe, run, device="cpu")
    return row | {"settings": "; ".join(f"{name} {history.settings.get(name)}" for name in TOLD)}


def plan(setting="classroom", seeds=5):
    """A noise at a time, a seed at a time, so that what stands can be compared."""
    made = []
    wanted = itertools.product(NOISES[setting], range(seeds), recipes.names(setting))
    for (kind, rate), seed, name in wanted:
        matrix = recipes.find(setting, name).arguments.get("matrix")
        if name != "fixmatch" and not (kind == "instance" and matrix == "true"):
            made.append(dict(zip(KEY, (name, kind, rate, seed), strict=True)))
    table = Path(__file__).with_name(f"{setting.replace('-', '_')}_methods.csv")
    return Plan(table, KEY, made, functools.partial(measure, setting))


PLAN = plan()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("setting", nargs="?", default="classroom", choices=list(NOISES))
    parser.add_argument("--seeds", type=int, default=5)
    torch.set_num_threads(1)
    runner.carry_out(plan(**vars(parser.parse_args())))
