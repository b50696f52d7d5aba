"""Measure CDR at classroom scale: both rules, what each part is worth, and a wrong noise rate.

    python results/classroom_cdr.py [main] [grid] [parts] [momentum] [paper-grid]

Digits, the classroom MLP, 60 epochs, SGD with learning rate 0.05 and momentum 0.9 unless the row
says otherwise, five seeds, one thread. Every run learns from 90 % of the noisy training data; the
other 10 %, as noisy, choose the epoch of early stopping (`chosen`, `stopped_at`, and `validation`,
the share of them that is then predicted). The decay is the published code's 0.001 in both rules; in
the paper's rule it weighs the l1 norm. Nothing was tuned.

`tau` is the assumed noise rate, 0 leaves the decay alone. For asymmetric noise `rate` is that of
each mapped class, and that is the tau of the main table, as in the authors' code; of all labels
half as many are wrong. `critical_first` and `critical_ever` say which part of the ranked entries
was critical in at least one step of the first epoch, and of all epochs.

Each run adds a row as soon as it ends; runs that the file already holds are left out.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nlcourse import datasets, noise
from nlcourse.experiments import results
from nlcourse.methods import CrossEntropy
from nlcourse.methods.cdr import CDR, code_direction
from nlcourse.training import fit
from nlcourse.training.early_stopping import EarlyStopping

SEEDS = range(5)
EPOCHS = 60
DECAY = 1e-3
NOISES = [("symmetric", 0.2), ("symmetric", 0.4), ("symmetric", 0.6), ("asymmetric", 0.4)]
MAIN = ("symmetric", 0.4)
TAUS = [0.0, 0.2, 0.4, 0.6, 0.8]
KEY = ("rule", "tau", "part", "lr", "momentum", "own_momentum", "noise", "rate", "seed")


# The parts, one by one: pieces that take the place of CDR's own -------------------------------


def quickly(importances: list[Tensor], share: float) -> list[Tensor]:
    """What `critical_mask` returns; numpy finds the threshold in half the time on a processor."""
    flat = torch.cat([values.flatten() for values in importances]).numpy()
    count = int(share * len(flat))
    threshold = float(np.partition(flat, len(flat) - count)[len(flat) - count])
    return [values >= threshold for values in importances]


def everything(importances: list[Tensor], share: float) -> list[Tensor]:
    """All entries learn: what is left of CDR is the factor 1 - tau, a smaller learning rate."""
    return [torch.ones_like(values, dtype=torch.bool) for values in importances]


def at_random(importances: list[Tensor], share: float) -> list[Tensor]:
    """As many entries as CDR takes, drawn anew in each step."""
    return quickly([torch.rand_like(values) for values in importances], share)


def smallest(importances: list[Tensor], share: float) -> list[Tensor]:
    """The least important entries."""
    return quickly([-values for values in importances], share)


def without_factor(parameter, gradient, critical, noise_rate, decay) -> Tensor:
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


# The runs ---------------------------------------------------------------------------------------


def run(rule: str, tau: object, noise_: tuple, part: str = "", **more) -> dict:
    """Return what decides a run, without its seed."""
    fitted = {"lr": 0.05, "momentum": 0.9, "own_momentum": 0.0} | more
    what = {"rule": rule, "tau": tau, "part": part} | fitted
    return what | dict(zip(("noise", "rate"), noise_, strict=True))


def main_table() -> Iterator[dict]:
    """Cross entropy, the decay of the l1 norm alone, and both rules with the true rate."""
    for noise_ in NOISES:
        yield run("cross-entropy", "", noise_)
        yield run("paper", 0.0, noise_)
        yield from (run(rule, noise_[1], noise_) for rule in ("paper", "code"))


def grid() -> Iterator[dict]:
    """Every assumed rate for every symmetric noise; what the main table has is not made twice."""
    there = list(main_table())
    for noise_, tau in itertools.product(NOISES[:3], TAUS):
        if (one := run("code", tau, noise_)) not in there:
            yield one


def paper_grid() -> Iterator[dict]:
    """Every assumed rate for one noise with the paper's rule."""
    there = list(main_table())
    for tau in TAUS:
        if (one := run("paper", tau, MAIN)) not in there:
            yield one


def parts() -> Iterator[dict]:
    """What mask and factor are worth, each without the other, where CDR holds memorization off."""
    for part in ("factor alone", "random mask", "smallest", "mask alone"):
        yield run("code", 0.8, MAIN, part)
    yield run("cross-entropy", "", MAIN, lr=0.01)
    # The factor makes the gradient five times smaller and leaves the decay: so does this.
    yield run("code", 0.0, MAIN, "decay 0.005", lr=0.01)


def momentum() -> Iterator[dict]:
    """No momentum (the learning rate ten times as large, so that steps are), or one of its own."""
    for rule in ("code", "paper"):
        yield run(rule, 0.4, MAIN, momentum=0.0, lr=0.5)
        yield run(rule, 0.4, MAIN, momentum=0.0, own_momentum=0.9)


TABLES = {
    "main": main_table,
    "grid": grid,
    "parts": parts,
    "momentum": momentum,
    "paper-grid": paper_grid,
}


class Watched:
    """A mask that notes which entries were critical at least once."""

    def __init__(self, mask) -> None:
        """Count nothing yet."""
        self.mask, self.union, self.shares = mask, None, []

    def __call__(self, importances: list[Tensor], share: float) -> list[Tensor]:
        """Mask, and note."""
        masks = self.mask(importances, share)
        if self.union is None:
            self.union = [torch.zeros_like(mask) for mask in masks]
        for union, mask in zip(self.union, masks, strict=True):
            union |= mask
        return masks

    def end_epoch(self) -> None:
        """Keep the share that was critical so far."""
        if self.union is not None:
            self.shares.append(torch.cat([mask.flatten() for mask in self.union]).float().mean())


def make(what: dict) -> tuple[object, Watched]:
    """Return a fresh method, and its watched mask."""
    pieces = dict(PARTS[what["part"]])
    watched = Watched(pieces.pop("mask", quickly))
    if what["rule"] == "cross-entropy":
        return CrossEntropy(), watched
    method = CDR(
        what["tau"],
        mode=what["rule"],
        momentum=what["own_momentum"],
        mask=watched,
        **{"decay": DECAY} | pieces,
    )
    return method, watched


def measure(data, what: dict) -> dict:
    """Train once and return the row."""
    seed = what["seed"]
    noisy = noise.inject(data, what["noise"], what["rate"], seed=seed)
    method, watched = make(what)
    watch = EarlyStopping(method, noisy, seed=seed)

    def look(history) -> None:
        watch(history)
        watched.end_epoch()

    options = {"lr": what["lr"], "momentum": what["momentum"], "seed": seed, "on_epoch": look}
    history = fit(
        method,
        watch.training_part,
        epochs=EPOCHS,
        progress=False,
        **options,
        device="cpu",
    )
    shares = watched.shares or [None]
    row = results.summary(history) | {
        "chosen": f"{watch.chosen(history):.4f}",
        "stopped_at": watch.best_epoch,
        "validation": f"{max(watch.accuracies):.4f}",
        "critical_first": "" if shares[0] is None else f"{shares[0]:.4f}",
        "critical_ever": "" if shares[0] is None else f"{shares[-1]:.4f}",
    }
    return what | {"data": data.name, "decay": getattr(method, "decay", 0.0)} | row


def main() -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    measure_one = functools.partial(measure, datasets.load("digits"))
    for name in sys.argv[1:] or TABLES:
        runs = itertools.product(SEEDS, list(TABLES[name]()))
        table.fill((what | {"seed": seed} for seed, what in runs), measure_one)


if __name__ == "__main__":
    main()
