"""Measure joint optimization at classroom scale, beside cross entropy: lesson 09's tables.

    python results/classroom_joint.py

Digits, the classroom MLP, SGD, five seeds, one thread. Each run adds a row as soon as it ends; runs
that the file already holds are left out, so the command can be stopped and called again. The
settings are the same for every noise; no seed is chosen. Label recovery is measured here, beside
the method, which knows no true label: the share of training examples whose current label (its
largest entry) is the true one; for cross entropy, which changes no label, the share predicted as
the true class, as in the paper.
"""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path

import torch
from torch.optim.lr_scheduler import MultiStepLR

from nlcourse import datasets, noise
from nlcourse.experiments import recipes, results
from nlcourse.methods import CrossEntropy, Method
from nlcourse.methods.joint import FromSoftLabels, JointOptimization
from nlcourse.training import fit

SEEDS = range(5)
RECIPE = recipes.find("classroom", "joint-optimization")
LR, EPOCHS, WEIGHTS = RECIPE.optimizer["lr"], RECIPE.epochs, dict(RECIPE.arguments)
PLAIN, JOINT, SECOND = "cross entropy", "joint, soft", "joint, second step"
VARIANTS: dict[str, dict] = {
    JOINT: {},
    "joint, hard": {"update": "hard"},
    "joint, hard, 50 an epoch": {"update": 50},
    "joint, without L_p": {"alpha": 0.0},
    "joint, without L_e": {"beta": 0.0},
    "joint, without both": {"alpha": 0.0, "beta": 0.0},
    "joint, beta 4": {"beta": 4.0},
    "joint, beta 4, without L_p": {"alpha": 0.0, "beta": 4.0},
}
PSEUDO, AS_MANY = "k-means", "symmetric, as many as k-means"
NO_RATE = math.nan  # clusters give as many wrong labels as they give
INCLUDING = "symmetric-including-true"  # the paper's kind
PLAN: list[tuple[str, float, list[str]]] = [
    ("symmetric", 0.4, [PLAIN, *VARIANTS, SECOND]),
    *(("symmetric", rate, [PLAIN, JOINT, SECOND, "joint, hard"]) for rate in (0.2, 0.6)),
    ("asymmetric", 0.4, [PLAIN, JOINT, SECOND, "joint, hard"]),
    ("symmetric", 0.8, [PLAIN, JOINT, "joint, without L_p"]),
    *((kind, NO_RATE, [PLAIN, JOINT]) for kind in (PSEUDO, AS_MANY)),
    *((INCLUDING, rate, [PLAIN, JOINT, SECOND]) for rate in (0.5, 0.7, 0.9)),
]
KEY = ("method", "noise", "rate", "seed")


def corrupted(data, kind: str, rate: float, seed: int):
    """Return the data set with given labels of a kind."""
    if kind == PSEUDO:
        return clustered(data, seed)
    if kind == AS_MANY:
        return noise.inject(data, "symmetric", clustered(data, seed).noise_rate, seed=seed)
    return noise.inject(data, kind, rate, seed=seed)


def clustered(data, seed: int):
    """Label every image by its cluster (k-means, as many as classes), named after its majority."""
    from sklearn.cluster import KMeans

    means = KMeans(data.num_classes, n_init=10, random_state=seed)
    cluster = torch.from_numpy(means.fit_predict(data.images.flatten(1).numpy())).long()
    labels = torch.empty_like(data.labels)
    for place in range(data.num_classes):
        inside = cluster == place
        labels[inside] = data.true_labels[inside].mode().values
    return data.with_labels(labels)


def measure(name: str, method: Method, noisy, seed: int, **options) -> dict:
    """Train once and return the row; the method keeps its labels."""
    recovered = []

    def recover(history) -> None:
        if hasattr(method, "current_labels"):
            right = method.current_labels.argmax(dim=1) == noisy.true_labels
            recovered.append(right.float().mean().item())

    history = fit(method, noisy, epochs=EPOCHS, lr=LR, seed=seed, progress=False, on_epoch=recover, **options, device="cpu")  # fmt: skip
    recovered = recovered or history["true_accuracy"]
    row = {"method": name, "data": noisy.name, "wrong": f"{noisy.noise_rate:.4f}", "seed": seed}
    return (row | results.summary(history)) | {
        "recovery": f"{recovered[-1]:.4f}",
        "recovery_best": f"{max(recovered):.4f}",
        "loss_epoch_10": f"{history['train_loss'][9]:.4f}",
        "settings": f"{history.settings['method']} {history.settings['optimizer']}",
    }


def rows(data, kind: str, rate: float, names: list[str], seed: int, done: results.Table):
    """Yield the missing rows of one data set; the second step follows the run that it needs."""
    missing = [name for name in names if (name, kind, rate, seed) not in done]
    if not missing:
        return
    noisy = corrupted(data, kind, rate, seed)
    for name in names:
        # The second step needs the labels of the first, also when the table has that already.
        if name == SECOND or not {name, SECOND if name == JOINT else name} & set(missing):
            continue
        method = CrossEntropy() if name == PLAIN else JointOptimization(**WEIGHTS | VARIANTS[name])
        found = [measure(name, method, noisy, seed)]
        if name == JOINT and SECOND in missing:
            # The paper divides the rate by ten after a third and two thirds of the second step.
            drops = functools.partial(MultiStepLR, milestones=[EPOCHS // 3, 2 * EPOCHS // 3])
            after = FromSoftLabels(method.current_labels)
            found.append(measure(SECOND, after, noisy, seed, schedule=drops))
        yield from (
            {"noise": kind, "rate": rate} | row for row in found if row["method"] in missing
        )


def main() -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    data = datasets.load("digits")
    with table.held():
        # Seeds inside: a stopped command leaves whole tables.
        for (kind, rate, names), seed in itertools.product(PLAN, SEEDS):
            for row in rows(data, kind, rate, names, seed, table):
                table.add(row)


if __name__ == "__main__":
    main()
