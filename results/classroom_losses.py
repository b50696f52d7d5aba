"""Which loss resists which noise, and what does it cost on clean labels? Lesson 06's table.

    python results/classroom_losses.py

Digits, the classroom MLP, SGD, 50 epochs, five seeds, one thread; about half an hour. Each run adds
a row as soon as it ends, and runs that the file already holds are left out: stop it and call it
again as you like. The parameters of the losses are those of their papers; the weights of l1 and l2
and the epochs before the estimate are ours, set once. No seed is chosen by a result.

Learning rate, batch and epochs are the same for all but the determinant. It needs large batches
and, after ten epochs of cross entropy, a hundredth of the learning rate. Its batches have 260
images, so that the last one of an epoch is not tiny. Some of its runs still fall apart.

"forward, true matrix" and "backward, true matrix" are told the matrix that the labels were drawn
with. "early stopping" trains with cross entropy on 90 % of the noisy training data and takes the
epoch that is best on the other 10 %, whose labels are as noisy: its number is `chosen`.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.nn import functional as F

from nlcourse import datasets, losses, noise
from nlcourse.experiments import results
from nlcourse.methods import CrossEntropy, ForwardCorrection, RobustLoss, TruncatedGCE
from nlcourse.methods.mixup import Mixup
from nlcourse.training import Options, fit
from nlcourse.training.early_stopping import EarlyStopping

SEEDS = range(5)
EPOCHS = 50
FIT = {"lr": 0.05, "momentum": 0.9, "options": Options(batch_size=64)}
NOISES = [
    ("symmetric", 0.0),
    ("symmetric", 0.2),
    ("symmetric", 0.4),
    ("symmetric", 0.6),
    ("asymmetric", 0.4),
]
WARM_UP = 10  # epochs of cross entropy before the determinant
KEY = ("method", "noise", "rate", "seed")


def large_batches_then_slowly() -> dict:
    """Return the settings of the determinant."""

    def factor(epoch: int) -> float:
        return 1.0 if epoch < WARM_UP else 0.01

    return {
        "batch_size": 260,  # 1297 = 4 * 260 + 257: no small batch at the end
        "schedule": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
    }


# Name -> (how to make the method from the true matrix, what it needs from `fit`).
METHODS = {
    "cross entropy": (lambda matrix: CrossEntropy(), {}),
    "early stopping": (lambda matrix: CrossEntropy(), {}),
    "l2": (lambda matrix: CrossEntropy(), {"weight_decay": 5e-3}),
    "l1": (lambda matrix: RobustLoss(F.cross_entropy, l1=1e-4), {}),
    "label smoothing": (lambda matrix: RobustLoss(F.cross_entropy, label_smoothing=0.1), {}),
    "bootstrap, soft": (lambda matrix: RobustLoss(losses.bootstrap_cross_entropy, beta=0.95), {}),
    "bootstrap, hard": (
        lambda matrix: RobustLoss(losses.bootstrap_cross_entropy, beta=0.8, hard=True),
        {},
    ),
    "mixup, alpha 1": (lambda matrix: Mixup(1.0), {}),
    "mixup, alpha 8": (lambda matrix: Mixup(8.0), {}),
    "MAE": (lambda matrix: RobustLoss(losses.mean_absolute_error), {}),
    "GCE": (lambda matrix: RobustLoss(losses.generalized_cross_entropy, q=0.7), {}),
    # The paper: epoch 40 of 120, then every 10 epochs; here the same parts of the run.
    "GCE, truncated": (lambda matrix: TruncatedGCE(start=EPOCHS // 3, every=EPOCHS // 12), {}),
    "SCE": (lambda matrix: RobustLoss(losses.symmetric_cross_entropy, alpha=0.1, beta=1.0), {}),
    "NCE + MAE": (lambda matrix: RobustLoss(losses.active_passive_loss), {}),
    "NCE + RCE": (lambda matrix: RobustLoss(losses.active_passive_loss, passive="rce"), {}),
    "DMI": (
        lambda matrix: RobustLoss(losses.determinant_mutual_information, warm_up=WARM_UP),
        large_batches_then_slowly(),
    ),
    "forward, true matrix": (lambda matrix: ForwardCorrection(matrix), {}),
    "forward, estimated": (lambda matrix: ForwardCorrection(), {}),
    "backward, true matrix": (
        lambda matrix: RobustLoss(losses.backward_corrected_cross_entropy, matrix=matrix),
        {},
    ),
}


def planned() -> Iterator[dict]:
    """Yield every run, seed by seed: a stopped command leaves whole tables."""
    for seed, (kind, rate), name in itertools.product(SEEDS, NOISES, METHODS):
        yield dict(zip(KEY, (name, kind, rate, seed), strict=True))


def measure(data, run: Mapping) -> dict:
    """Train once and return the row; a run that diverged has what it had until then."""
    name, kind, rate, seed = (run[each] for each in KEY)
    noisy = noise.inject(data, kind, rate, seed=seed)
    make, more = METHODS[name]
    method, watch = make(noise.transition_matrix(data, kind, rate)), None
    options = {"epochs": EPOCHS, "seed": seed, "progress": False, "device": "cpu"} | FIT | more
    if name == "early stopping":
        options["on_epoch"] = watch = EarlyStopping(method, noisy, seed=seed)
        noisy = watch.training_part
    history, ended = results.trained(fit, method, noisy, **options)
    return (run | {"data": data.name} | results.summary(history)) | {
        "chosen": "" if watch is None or ended else f"{watch.chosen(history):.4f}",
        "settings": described(method, history) + (ended and f", {ended}"),
    }


def described(method, history) -> str:
    """Return the method's settings in a few words, without the hundred numbers of a matrix."""
    words = getattr(method, "described", history.settings["method"])
    return re.sub(r"\[\[.*\]\]", "true matrix", words)


def main() -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    table.fill(planned(), functools.partial(measure, datasets.load("digits")))


if __name__ == "__main__":
    main()
