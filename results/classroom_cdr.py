"""Measure CDR at classroom scale: both rules, what each part is worth, and a wrong noise rate.

    python results/classroom_cdr.py

Digits, the classroom MLP, 60 epochs, SGD with learning rate 0.05 and momentum 0.9 unless the row
says otherwise, five seeds, one thread. Every run learns from 90 % of the noisy training data; the
other 10 %, as noisy, choose the epoch of early stopping (`chosen`, `stopped_at`, and `validation`,
the share of them that is then predicted). The decay is the published code's 0.001 in both rules; in
the paper's rule it weighs the l1 norm. Nothing was tuned.

`tau` is the assumed noise rate, 0 leaves the decay alone. For asymmetric noise `rate` is that of
each mapped class, and that is the tau of the main table, as in the authors' code; of all labels
half as many are wrong. `critical_first` and `critical_ever` say which part of the ranked entries
was critical in at least one step of the first epoch, and of all epochs.
"""

from pathlib import Path

import numpy as np
import torch

from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan
from nlcourse.methods import CrossEntropy
from nlcourse.methods.cdr import CDR, code_direction
from nlcourse.training.early_stopping import EarlyStopping

DECAY = 1e-3
NOISES = [("symmetric", 0.2), ("symmetric", 0.4), ("symmetric", 0.6), ("asymmetric", 0.4)]
MAIN = ("symmetric", 0.4)
TAUS = [0.0, 0.2, 0.4, 0.6, 0.8]
KEY = ("rule", "tau", "part", "lr", "momentum", "own_momentum", "noise", "rate", "seed")


# The parts, one by one: pieces that take the place of CDR's own -----------------------------------


def quickly(importances, share):
    """What `critical_mask` returns; numpy finds the threshold in half the time on a processor."""
    flat = torch.cat([values.flatten() for values in importances]).numpy()
    count = int(share * len(flat))
    threshold = float(np.partition(flat, len(flat) - count)[len(flat) - count])
    return [values >= threshold for values in importances]


def everything(importances, share):
    """All entries learn: what is left of CDR is the factor 1 - tau, a smaller learning rate."""
    return [torch.ones_like(values, dtype=torch.bool) for values in importances]


def at_random(importances, share):
    """As many entries as CDR takes, drawn anew in each step."""
    return quickly([torch.rand_like(values) for values in importances], share)


def smallest(importances, share):
    """The least important entries."""
    return quickly([-values for values in importances], share)


def without_factor(parameter, gradient, critical, noise_rate, decay):
    """The mask alone: critical entries get their whole gradient."""
    return code_direction(parameter, gradient, critical, 0.0, decay)


PARTS = {
    "": {},
    "factor alone": {"mask": everything},
    "random mask": {"mask": at_random},
    "smallest": {"mask": smallest},
    "mask alone": {"direction": without_factor},
    "decay 0.005": {"decay": 0.005},
}


class Watched:
    """A mask that notes which entries were critical at least once."""

    def __init__(self, mask):
        """Count nothing yet."""
        self.mask, self.union, self.shares = mask, [], []

    def __call__(self, importances, share):
        """Mask, and note."""
        masks = self.mask(importances, share)
        self.union = [a | b for a, b in zip(self.union or masks, masks, strict=True)]
        return masks

    def end_epoch(self):
        """Keep the share that was critical so far."""
        flat = torch.cat([mask.flatten() for mask in self.union] or [torch.tensor([])])
        self.shares.append(f"{flat.float().mean():.4f}" if len(flat) else "")


def measure(run):
    """Train once on 90 % of the labels, watched on the others."""
    recipe = recipes.find("classroom", "cross-entropy")
    noisy, pieces = runs.corrupted(recipe.load(), run), {"decay": DECAY} | PARTS[run["part"]]
    watched, method = Watched(pieces.pop("mask", quickly)), CrossEntropy()
    if run["rule"] != "cross-entropy":
        own = {"mode": run["rule"], "momentum": run["own_momentum"], "mask": watched}
        method = CDR(run["tau"], **own, **pieces)
    watch = EarlyStopping(method, noisy, seed=run["seed"])

    def look(history):
        watch(history)
        watched.end_epoch()

    numbers = {"lr": run["lr"], "momentum": run["momentum"]}
    recipe = recipe.but(method=lambda: method, optimizer=numbers)
    history, row = runs.train(recipe, run, watch.training_part, on_epoch=look, device="cpu")
    return row | {
        "decay": getattr(method, "decay", 0.0),
        "chosen": f"{watch.chosen(history):.4f}",
        "stopped_at": watch.best_epoch,
        "validation": f"{max(watch.accuracies):.4f}",
        "critical_first": watched.shares[0],
        "critical_ever": watched.shares[-1],
    }


# The runs -----------------------------------------------------------------------------------------


def run(rule, tau, noise=MAIN, part="", lr=0.05, momentum=0.9, own_momentum=0.0):
    """Return what decides a run, without its seed."""
    return dict(zip(KEY, (rule, tau, part, lr, momentum, own_momentum, *noise), strict=False))


MAIN_TABLE = [  # cross entropy, the decay of the l1 norm alone, and both rules with the true rate
    run(rule, tau, noise)
    for noise in NOISES
    for rule, tau in (
        ("cross-entropy", ""), ("paper", 0.0), ("paper", noise[1]), ("code", noise[1]),
    )
]  # fmt: skip
# Every assumed rate for every symmetric noise.
GRID = [run("code", tau, noise) for noise in NOISES[:3] for tau in TAUS]
# What mask and factor are worth, each without the other, where CDR holds memorization off.
PARTS_TABLE = [
    *(run("code", 0.8, MAIN, part) for part in list(PARTS)[1:-1]),
    run("cross-entropy", "", lr=0.01),
    # The factor makes the gradient five times smaller and leaves the decay: so does this.
    run("code", 0.0, MAIN, "decay 0.005", lr=0.01),
]
# No momentum (the learning rate ten times as large, so that steps are), or one of its own.
OWN = [{"momentum": 0.0, "lr": 0.5}, {"momentum": 0.0, "own_momentum": 0.9}]
MOMENTUM = [run(rule, 0.4, **more) for rule in ("code", "paper") for more in OWN]
PAPER_GRID = [run("paper", tau) for tau in TAUS]
TABLES = (MAIN_TABLE, GRID, PARTS_TABLE, MOMENTUM, PAPER_GRID)
RUNS = [one | {"seed": seed} for table in TABLES for seed in range(5) for one in table]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    runner.carry_out(PLAN)
