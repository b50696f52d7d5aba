"""Every method of the course beside cross entropy, in one table: lesson 13's board.

    python results/classroom_methods.py                         # digits, five seeds
    python results/classroom_methods.py mnist --seeds 1         # a part of real MNIST
    python results/classroom_methods.py fashion-mnist --seeds 1

Settings: nlcourse/recipes.toml, the same for every noise; no seed is chosen and nothing is chosen
by a test accuracy of these runs. One thread a run. Each run adds a row as soon as it ends, and runs
that the file already holds are left out: stop it and call it again as you like. The real sets are
read from NLCOURSE_DATA.

Methods that need the noise rate get the true one, and "forward-true" and "backward-true" the true
matrix: in earnest nobody has either. Instance-dependent noise has no one matrix, so these two are
missing there. FixMatch learns from a few labels that are right, and so is no method for this table.
A run that diverged keeps what it had until then; `ended` says so.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from nlcourse import noise
from nlcourse.experiments import recipes, results

NOISES = {
    "classroom": [
        ("symmetric", 0.4),
        ("symmetric", 0.2),
        ("symmetric", 0.6),
        ("asymmetric", 0.4),
        ("symmetric", 0.8),
        ("pairflip", 0.45),
        ("instance", 0.4),
    ],
    "mnist": [("symmetric", 0.4), ("asymmetric", 0.4), ("symmetric", 0.2), ("symmetric", 0.6)],
}
NOISES["fashion-mnist"] = NOISES["mnist"]
LEFT_OUT = ("fixmatch",)
KEY = ("method", "noise", "rate", "seed")
SELECTION = ("label_precision", "label_recall", "label_recovery")


def planned(setting: str, seeds: int) -> Iterator[dict]:
    """Yield every run: a noise at a time, a seed at a time, so that what stands can be compared."""
    names = [name for name in recipes.names(setting) if name not in LEFT_OUT]
    for (kind, rate), seed, name in itertools.product(NOISES[setting], range(seeds), names):
        told_matrix = recipes.find(setting, name).arguments.get("matrix") == "true"
        if not (kind == "instance" and told_matrix):
            yield dict(zip(KEY, (name, kind, rate, seed), strict=True))


def measure(setting: str, data, run: Mapping) -> dict:
    """Train once, say how it went and return the row."""
    name, kind, rate, seed = (run[each] for each in KEY)
    recipe = recipes.find(setting, name, noise=kind, rate=rate)
    noisy = noise.inject(data, kind, rate, seed=seed)
    options = {"seed": seed, "kind": kind, "rate": rate, "device": "cpu", "progress": False}
    history, ended = results.trained(recipe.train, noisy, **options)
    row = {"method": name, "data": data.name, "examples": len(noisy.labels)}
    row |= {"noise": kind, "rate": rate, "wrong_labels": f"{noisy.noise_rate:.4f}", "seed": seed}
    row |= results.summary(history)
    print(name, kind, rate, seed, row["best"], row["last"], row["seconds"], flush=True)
    last = history.last if len(history) else dict.fromkeys(SELECTION, math.nan)
    row |= {name: f"{last[name]:.4f}" for name in SELECTION}
    row |= {"ended": ended}
    settings = history.settings
    told = ("method", "network", "optimizer", "schedule", "batch_size")
    return row | {"settings": "; ".join(f"{key} {settings.get(key)}" for key in told)}


def main() -> None:
    """Add the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("setting", nargs="?", default="classroom", choices=list(NOISES))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(__file__).parent
    table = results.Table(folder / f"{options.setting.replace('-', '_')}_methods.csv", KEY)
    data = recipes.find(options.setting, "cross-entropy").load()
    measure_one = functools.partial(measure, options.setting, data)
    table.fill(planned(options.setting, options.seeds), measure_one)


if __name__ == "__main__":
    main()
