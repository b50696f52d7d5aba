"""What is each part of Co-teaching worth? The recorded table of lesson 07.

    python results/co_teaching_variants.py

Digits, the classroom MLP, SGD, 30 epochs, one thread. Eight seeds for pair flip, five for symmetric
noise; a run that the table already holds is left out. Seeds are taken as they come.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.experiments import results
from nlcourse.methods import CoTeaching, CrossEntropy, Method
from nlcourse.methods.co_teaching import forget_rate, small_loss_indices
from nlcourse.training import Options, fit

RUNS = [("pairflip", 0.45, range(8)), ("symmetric", 0.5, range(5))]
KEY = ("method", "noise", "rate", "seed")


class OneNetwork(Method):
    """The schedule and the selection of Co-teaching with a single network."""

    def __init__(self, noise_rate: float) -> None:
        """Keep the assumed noise rate."""
        super().__init__()
        self.noise_rate = noise_rate

    def loss(self, batch):
        """Return the mean loss of the network's own small-loss examples."""
        losses = F.cross_entropy(self.network(batch.images), batch.labels, reduction="none")
        share = forget_rate(self.epoch, self.noise_rate, ramp_epochs=10)
        kept = small_loss_indices(losses.detach(), share)
        self.mark_selected(0, batch.index[kept])
        return losses[kept].mean()


def no_ramp(epoch, noise_rate, ramp_epochs, exponent):
    """Drop the full share from the first epoch on."""
    return noise_rate


VARIANTS = {
    "cross entropy": lambda rate: CrossEntropy(),
    "one network": OneNetwork,
    "two, no exchange": lambda rate: CoTeaching(rate, cross=False),
    "two, crossed": lambda rate: CoTeaching(rate),
    "crossed, no ramp": lambda rate: CoTeaching(rate, forget_rate=no_ramp),
}


def planned() -> Iterator[dict]:
    """Yield every run."""
    for kind, rate, seeds in RUNS:
        for seed in seeds:
            for name in VARIANTS:
                yield dict(zip(KEY, (name, kind, rate, seed), strict=True))


def measure(data, run: Mapping) -> dict:
    """Train once and return the row."""
    rate, seed = run["rate"], run["seed"]
    spoiled = noise.inject(data, run["noise"], rate, seed=seed)
    method = VARIANTS[run["method"]](rate)
    options = {
        "epochs": 30,
        "lr": 0.05,
        "seed": seed,
        "device": "cpu",
        "options": Options(batch_size=64),
    }
    history = fit(method, spoiled, **options)
    row = run | {"data": data.name} | results.summary(history)
    return row | {"label_precision": f"{history.last['label_precision']:.4f}"}


def main() -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    table.fill(planned(), functools.partial(measure, datasets.load("digits")))


if __name__ == "__main__":
    main()
