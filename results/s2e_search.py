"""Search Co-teaching's schedule as S2E does, at classroom scale: lesson 13 quotes it.

    python results/s2e_search.py

Digits, the classroom MLP, 60 epochs. 200 training images are held out with their **true** labels,
which S2E needs and no method of the course gets. Six rounds of five curves are tried; then the best
of them on the held-out images is trained with fresh seeds, beside Co-teaching that is told the true
noise rate. All rows are scored on the test images; the search never sees them.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path

import torch

from nlcourse import datasets, noise
from nlcourse.experiments import results
from nlcourse.lessons.l13.s2e import drop_share, schedule, search
from nlcourse.methods import CoTeaching
from nlcourse.training import Options, fit

SEEDS = range(5)
NOISES = (("symmetric", 0.4),)
HELD_OUT = 200
ROUNDS, DRAWS = 6, 5
EPOCHS = 60
KEY = ("method", "noise", "rate", "seed")


def train(data, noise_rate: float, seed: int, curve=None):
    """Train Co-teaching once, with its own schedule or another."""
    pieces = {} if curve is None else {"forget_rate": curve}
    method = CoTeaching(noise_rate, **pieces)
    history = fit(
        method,
        data,
        epochs=EPOCHS,
        lr=0.05,
        seed=seed,
        progress=False,
        device="cpu",
        options=Options(batch_size=64),
    )
    if history.stopped:  # Ctrl-C: half a run is no try
        raise KeyboardInterrupt
    return history


def score(checked, told: float, seed: int, numbers) -> float:
    """Return the mean of the last ten accuracies on the held-out images, which are its test set."""
    return train(checked, told, seed, schedule(numbers, EPOCHS)).mean_last("test_accuracy", 10)


def split(noisy):
    """Return the data without the held-out images, and the same with these as test set."""
    rest, out = slice(HELD_OUT, None), slice(HELD_OUT)
    part = dataclasses.replace(
        noisy,
        images=noisy.images[rest],
        labels=noisy.labels[rest],
        true_labels=noisy.true_labels[rest],
    )
    checked = dataclasses.replace(
        part, test_images=noisy.images[out], test_labels=noisy.true_labels[out]
    )
    return part, checked


def measure(kind: str, rate: float, seed: int):
    """Yield the row of plain Co-teaching and that of the searched schedule."""
    part, checked = split(noise.inject(datasets.load("digits"), kind, rate, seed=seed))
    told = part.noise_rate
    row = {"noise": kind, "rate": rate, "seed": seed, "data": part.name}
    plain = train(part, told, seed + 100)
    begin = time.perf_counter()
    found = search(
        lambda numbers: score(checked, told, seed, numbers),
        rounds=ROUNDS,
        draws=DRAWS,
        generator=torch.Generator().manual_seed(seed),
    )
    spent = f"{time.perf_counter() - begin:.1f}"
    best = train(part, told, seed + 100, schedule(found.best, EPOCHS))
    shares = [drop_share(found.best, epoch, EPOCHS) for epoch in range(EPOCHS)]
    for name, history, more in (
        ("co-teaching, told the rate", plain, ("", "", "")),
        ("s2e", best, (f"{found.best_score:.4f}", spent, f"{max(shares):.4f}")),
    ):
        columns = ("validation", "search_seconds", "largest_share_dropped")
        yield (
            {"method": name}
            | row
            | dict(zip(columns, more, strict=True))
            | results.summary(history)
        )


def main() -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    with table.held():
        for seed, (kind, rate) in itertools.product(SEEDS, NOISES):
            if ("s2e", kind, rate, seed) not in table:
                for row in measure(kind, rate, seed):
                    if tuple(row[name] for name in KEY) not in table:
                        table.add(row)


if __name__ == "__main__":
    main()
