"""Which noise is memorized soonest: labels by people, or labels drawn from the people's matrix?

    python benchmarks/_human_noise.py results/human_noise_cifar10.csv

Needs CIFAR-10 and CIFAR-10N (``NLCOURSE_DATA``). 3,000 images, a small CNN, 12 epochs, five seeds,
three kinds of labels at the rate of the human ones ("worse", about 40 %): the people's own; labels
drawn from the matrix of these people, class by class (the same pattern, but no image is harder than
another); and symmetric noise. One row a run. The name begins with _ so that `nlcourse bench`, which
needs no downloads, leaves it out. Shown in lesson 03.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
import platform
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402 - the number of threads comes first

from nlcourse import datasets, models, noise  # noqa: E402
from nlcourse.methods import CrossEntropy  # noqa: E402
from nlcourse.training import fit  # noqa: E402

SIZE, TEST, EPOCHS, SEEDS = 3000, 1000, 12, range(5)
KINDS = ("human", "human matrix", "symmetric")
COMMAND = "python benchmarks/_human_noise.py results/human_noise_cifar10.csv"


def labelled(data, kind: str, seed: int):
    """Return the data set with the labels of a kind, at the rate of the human ones."""
    if kind == "human":
        return data
    matrix = noise.observed_matrix(data.labels, data.true_labels, 10)
    if kind == "symmetric":
        matrix = noise.symmetric_matrix(10, data.noise_rate)
    generator = torch.Generator().manual_seed(seed)
    return data.with_labels(noise.corrupt(data.true_labels, matrix, generator))


def measure(data, kind: str, seed: int) -> dict[str, object]:
    """Train one network and return its row."""
    noisy = labelled(data.subset(SIZE, seed=seed), kind, seed)
    network = functools.partial(models.small_cnn, width=16)
    history = fit(
        CrossEntropy(), noisy, network=network, epochs=EPOCHS, lr=0.05, seed=seed, progress=False
    )
    shares = history["wrong_as_given"]
    return {
        "kind": kind,
        "seed": seed,
        "noise_rate": f"{noisy.noise_rate:.4f}",
        "memorized_first_5": f"{sum(shares[:5]) / 5:.4f}",
        "memorized_last": f"{shares[-1]:.4f}",
        "seen_through_best": f"{max(history['wrong_as_true']):.4f}",
        "test_best": f"{history.best('test_accuracy'):.4f}",
        "test_last": f"{history.last['test_accuracy']:.4f}",
        "epochs": EPOCHS,
        "images": SIZE,
        "command": COMMAND,
        "device": platform.machine() + " CPU, 1 thread",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "commit": _commit(),
    }


def _commit() -> str:
    ask = ("git", "describe", "--always", "--dirty")
    return subprocess.run(ask, capture_output=True, text=True).stdout.strip()


def main(target: str) -> None:
    """Write one row a run, each as soon as it is there."""
    torch.set_num_threads(1)
    data = datasets.load("cifar10n", kind="worse", download=False)
    data = dataclasses.replace(
        data, test_images=data.test_images[:TEST], test_labels=data.test_labels[:TEST]
    )
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for seed in SEEDS:
            for kind in KINDS:
                row = measure(data, kind, seed)
                writer = writer or csv.DictWriter(file, row, lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
                file.flush()
                print({key: row[key] for key in list(row)[:8]}, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
