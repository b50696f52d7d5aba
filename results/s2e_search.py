"""Search Co-teaching's schedule as S2E does, at classroom scale: lesson 13 quotes it.

    python results/s2e_search.py

Digits, the classroom MLP, 60 epochs. 200 training images are held out with their **true** labels,
which S2E needs and no method of the course gets. Six rounds of five curves are tried; then the best
of them on the held-out images is trained with fresh seeds, beside Co-teaching that is told the true
noise rate. All rows are scored on the test images; the search never sees them.
"""

import dataclasses
import time
from pathlib import Path

import torch

from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan
from nlcourse.lessons.l13.s2e import drop_share, schedule, search
from nlcourse.methods import CoTeaching

HELD_OUT = 200
KEY = ("method", "noise", "rate", "seed")
RECIPE = recipes.find("classroom", "cross-entropy")
EPOCHS = RECIPE.epochs


def train(data, told, run, seed, **pieces):
    """Train Co-teaching once, with its own schedule or another; return history and row."""
    recipe = RECIPE.but(method=lambda: CoTeaching(told, **pieces))
    history, row = runs.train(recipe, {**run, "seed": seed}, data, device="cpu")
    return history, row | run


def split(noisy):
    """Return the data without the held-out images, and the same with these as test set."""
    rest, out = slice(HELD_OUT, None), slice(HELD_OUT)
    kept = {name: getattr(noisy, name)[rest] for name in ("images", "labels", "true_labels")}
    part = dataclasses.replace(noisy, **kept)
    checked = {"test_images": noisy.images[out], "test_labels": noisy.true_labels[out]}
    return part, dataclasses.replace(part, **checked)


def measure(run):
    """Train plain Co-teaching, or search the schedule and train with it."""
    part, checked = split(runs.corrupted(RECIPE.load(), run))
    told, seed = part.noise_rate, run["seed"]
    if run["method"] != "s2e":
        row = train(part, told, run, seed + 100)[1]
        return row | dict.fromkeys(("validation", "search_seconds", "largest_share_dropped"), "")

    def score(numbers):
        tried, _ = train(checked, told, run, seed, forget_rate=schedule(numbers, EPOCHS))
        return tried.mean_last("test_accuracy", 10)

    begin = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    found = search(score, rounds=6, draws=5, generator=generator)
    spent = time.perf_counter() - begin
    shares = [drop_share(found.best, epoch, EPOCHS) for epoch in range(EPOCHS)]
    row = train(part, told, run, seed + 100, forget_rate=schedule(found.best, EPOCHS))[1]
    return row | {
        "validation": f"{found.best_score:.4f}",
        "search_seconds": f"{spent:.1f}",
        "largest_share_dropped": f"{max(shares):.4f}",
    }


RUNS = [
    dict(zip(KEY, (name, "symmetric", 0.4, seed), strict=True))
    for seed in range(5)
    for name in ("co-teaching, told the rate", "s2e")
]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    runner.carry_out(PLAN)
