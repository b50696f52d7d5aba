"""Which noise is memorized soonest: labels by people, or labels drawn from the people's matrix?

    python results/human_noise_cifar10.py

Needs CIFAR-10 and CIFAR-10N (``NLCOURSE_DATA``). 3,000 images, a small CNN, 12 epochs, five seeds,
three kinds of labels at the rate of the human ones ("worse", about 40 %): the people's own; labels
drawn from the matrix of these people, class by class (the same pattern, but no image is harder than
another); and symmetric noise. Each run adds a row as soon as it ends; runs that the file already
holds are left out. Shown in lessons 03 and 13.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from nlcourse import datasets, noise
from nlcourse.experiments import results
from nlcourse.methods import CrossEntropy
from nlcourse.training import Options, fit
from nlcourse.training import networks as models

SIZE, TEST, EPOCHS, SEEDS = 3000, 1000, 12, range(5)
KINDS = ("human", "human matrix", "symmetric")
KEY = ("kind", "seed")
COMMAND = "python results/human_noise_cifar10.py"


def labelled(data, kind: str, seed: int):
    """Return the data set with the labels of a kind, at the rate of the human ones."""
    if kind == "human":
        return data
    matrix = noise.observed_matrix(data.labels, data.true_labels, 10)
    if kind == "symmetric":
        matrix = noise.symmetric_matrix(10, data.noise_rate)
    generator = torch.Generator().manual_seed(seed)
    return data.with_labels(noise.corrupt(data.true_labels, matrix, generator))


def planned() -> Iterator[dict]:
    """Yield every run."""
    for seed, kind in itertools.product(SEEDS, KINDS):
        yield dict(zip(KEY, (kind, seed), strict=True))


def measure(data, run: Mapping) -> dict[str, object]:
    """Train one network, say how it went and return its row."""
    kind, seed = run["kind"], run["seed"]
    noisy = labelled(data.subset(SIZE, seed=seed), kind, seed)
    network = functools.partial(models.small_cnn, width=16)
    options = {
        "epochs": EPOCHS,
        "lr": 0.05,
        "seed": seed,
        "progress": False,
        "device": "cpu",
    }
    # Not every processor has bfloat16: in float32 the next machine comes closest to this table.
    history = fit(
        CrossEntropy(), noisy, network=network, **options, options=Options(precision="float32")
    )
    told = results.summary(history)
    shares = history["wrong_as_given"]
    row = run | {
        "noise_rate": f"{noisy.noise_rate:.4f}",
        "memorized_first_5": f"{sum(shares[:5]) / 5:.4f}",
        "memorized_last": f"{shares[-1]:.4f}",
        "seen_through_best": f"{max(history['wrong_as_true']):.4f}",
        "test_best": told["best"],
        "test_last": told["last"],
        "epochs": EPOCHS,
        "images": SIZE,
        "command": COMMAND,
        "device": told["device"],
    }
    print(row, flush=True)
    return row


def main() -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    data = datasets.load("cifar10n", kind="worse", download=False)
    data = dataclasses.replace(
        data, test_images=data.test_images[:TEST], test_labels=data.test_labels[:TEST]
    )
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    table.fill(planned(), functools.partial(measure, data))


if __name__ == "__main__":
    main()
