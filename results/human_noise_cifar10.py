"""Which noise is memorized soonest: labels by people, or labels drawn from the people's matrix?

    python results/human_noise_cifar10.py

Needs CIFAR-10 and CIFAR-10N (``NLCOURSE_DATA``). 3,000 images, a small CNN, 12 epochs, five seeds,
three kinds of labels at the rate of the human ones ("worse", about 40 %): the people's own; labels
drawn from the matrix of these people, class by class (the same pattern, but no image is harder than
another); and symmetric noise. Shown in lessons 03 and 13.
"""

import dataclasses
import functools
from pathlib import Path

import torch

from nlcourse import datasets, noise
from nlcourse.experiments import results, runner
from nlcourse.experiments.plan import Plan
from nlcourse.methods import CrossEntropy
from nlcourse.training import Options, fit
from nlcourse.training.networks import small_cnn

SIZE, TEST, EPOCHS = 3000, 1000, 12
KEY = ("kind", "seed")


@functools.cache
def load():
    """Return CIFAR-10 with the people's labels and fewer test images."""
    data = datasets.load("cifar10n", kind="worse", download=False)
    few = {"test_images": data.test_images[:TEST], "test_labels": data.test_labels[:TEST]}
    return dataclasses.replace(data, **few)


def labelled(data, kind, seed):
    """Return the data set with the labels of a kind, at the rate of the human ones."""
    if kind == "human":
        return data
    matrix = noise.observed_matrix(data.labels, data.true_labels, 10)
    if kind == "symmetric":
        matrix = noise.symmetric_matrix(10, data.noise_rate)
    generator = torch.Generator().manual_seed(seed)
    return data.with_labels(noise.corrupt(data.true_labels, matrix, generator))


def measure(run):
    """Train one network and return its row."""
    noisy = labelled(load().subset(SIZE, seed=run["seed"]), run["kind"], run["seed"])
    told = {"epochs": EPOCHS, "lr": 0.05, "seed": run["seed"], "progress": False, "device": "cpu"}
    # Not every processor has bfloat16: in float32 the next machine comes closest to this table.
    told["options"] = Options(precision="float32")
    history = fit(CrossEntropy(), noisy, network=functools.partial(small_cnn, width=16), **told)
    row, shares = results.summary(history), history["wrong_as_given"]
    return {**run, **row} | {
        "noise_rate": f"{noisy.noise_rate:.4f}",
        "memorized_first_5": f"{sum(shares[:5]) / 5:.4f}",
        "memorized_last": f"{shares[-1]:.4f}",
        "seen_through_best": f"{max(history['wrong_as_true']):.4f}",
        "test_best": row["best"],
        "test_last": row["last"],
        "images": SIZE,
        "command": "python results/human_noise_cifar10.py",
    }


KINDS = ("human", "human matrix", "symmetric")
RUNS = [{"kind": kind, "seed": seed} for seed in range(5) for kind in KINDS]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    torch.set_num_threads(1)
    runner.carry_out(PLAN)
