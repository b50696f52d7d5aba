"""Is it the method or the setting? Those that fell below cross entropy on real MNIST, set anew.

    python results/mnist_settings.py

The classroom's settings are carried over to MNIST in `classroom_methods.py`. Some methods fall far
below cross entropy there. Here one setting is changed for each, in one run (seed 0), by a look at
the test accuracy: this shows what the cause is, not what is best. Read from NLCOURSE_DATA.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from nlcourse import noise
from nlcourse.experiments import recipes, results

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


def planned() -> Iterator[dict]:
    """Yield every run."""
    for name, kind, rate, changes in TRIES:
        for changed in changes:
            yield dict(zip(KEY, (name, kind, rate, json.dumps(changed), 0), strict=True))


def measure(clean, run: Mapping) -> dict:
    """Train once with some of the recipe's numbers changed; say how it went and return the row."""
    name, kind, rate, changed, seed = (run[each] for each in KEY)
    recipe = recipes.find("mnist", name, noise=kind, rate=rate)
    recipe = dataclasses.replace(
        recipe,
        **{part: dict(getattr(recipe, part)) | new for part, new in json.loads(changed).items()},
    )
    noisy = noise.inject(clean, kind, rate, seed=seed)
    options = {"seed": seed, "kind": kind, "rate": rate, "device": "cpu", "progress": False}
    history, ended = results.trained(recipe.train, noisy, **options)
    row = run | results.summary(history) | {"ended": ended}
    told = (row[part] for part in ("best", "last", "mean_of_last_ten"))
    print(name, kind, rate, changed, *told, flush=True)
    return row


def main() -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    clean = recipes.find("mnist", "cross-entropy").load()
    table.fill(planned(), functools.partial(measure, clean))


if __name__ == "__main__":
    main()
