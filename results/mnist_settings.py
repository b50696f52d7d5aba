"""Is it the method or the setting? Those that fell below cross entropy on real MNIST, set anew.

    python results/mnist_settings.py

The classroom's settings are carried over to MNIST in `classroom_methods.py`. Some methods fall far
below cross entropy there. Here one setting is changed for each, in one run (seed 0), by a look at
the test accuracy: this shows what the cause is, not what is best. Read from NLCOURSE_DATA.
"""

import json
from pathlib import Path

import torch

from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan

KEY = ("method", "noise", "rate", "changed", "seed")
SLOW = {"optimizer": {"lr": 0.01}}
TRIES = (
    ("cross-entropy", "asymmetric", 0.4, ({}, SLOW)),
    ("cross-entropy", "symmetric", 0.4, ({}, SLOW)),
    ("cross-entropy", "symmetric", 0.6, ({}, SLOW)),
    ("elr", "asymmetric", 0.4, ({}, SLOW, {"arguments": {"beta": 0.9, "lambda_": 1.0}},
                                {"arguments": {"beta": 0.7, "lambda_": 3.0}})),
    ("nce-rce", "symmetric", 0.4, ({}, SLOW)),
    ("co-teaching-plus", "symmetric", 0.4, ({}, SLOW)),
    ("cdr", "symmetric", 0.6, ({}, SLOW, {"arguments": {"decay": 0.0}})),
    ("t-revision", "symmetric", 0.6, ({}, SLOW)),
)  # fmt: skip


def measure(run):
    """Train once with some of the recipe's numbers changed."""
    recipe = recipes.find("mnist", run["method"], noise=run["noise"], rate=run["rate"])
    return runs.train(recipe.but(**json.loads(run["changed"])), run, device="cpu")[1]


RUNS = [
    dict(zip(KEY, (name, kind, rate, json.dumps(changed), 0), strict=True))
    for name, kind, rate, changes in TRIES
    for changed in changes
]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    torch.set_num_threads(1)
    runner.carry_out(PLAN)
