"""Measure joint optimization at classroom scale, beside cross entropy: lesson 09's tables.

    python results/classroom_joint.py [results/classroom_joint.csv]

Digits, the classroom MLP, SGD, five seeds, one thread. Each run adds a row as soon as it ends; runs
that the file already holds are left out, so the command can be stopped and called again. The
settings are the same for every noise; no seed is chosen. Label recovery is measured here, beside
the method, which knows no true label: the share of training examples whose current label (its
largest entry) is the true one; for cross entropy, which changes no label, the share predicted as
the true class, as in the paper.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import csv  # noqa: E402 - the numbers of threads come first
import functools  # noqa: E402
import itertools  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from torch.optim.lr_scheduler import MultiStepLR  # noqa: E402

from nlcourse import datasets, noise  # noqa: E402
from nlcourse.methods import CrossEntropy, Method  # noqa: E402
from nlcourse.methods.joint import (  # noqa: E402
    CLASSROOM_SETTINGS,
    FromSoftLabels,
    JointOptimization,
)
from nlcourse.training import fit  # noqa: E402

ROOT = Path(__file__).parents[1]
SEEDS = range(5)
LR, EPOCHS = CLASSROOM_SETTINGS["lr"], CLASSROOM_SETTINGS["epochs"]
WEIGHTS = {name: CLASSROOM_SETTINGS[name] for name in ("alpha", "beta", "begin", "average")}
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
COLUMNS = [
    "method", "data", "noise", "rate", "wrong", "seed", "epochs", "best", "last",
    "mean_of_last_ten", "recovery", "recovery_best", "memorized", "loss_epoch_10", "seconds",
    "device", "settings", "versions", "commit",
]  # fmt: skip
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
    began, recovered = time.perf_counter(), []

    def recover(history) -> None:
        if hasattr(method, "current_labels"):
            right = method.current_labels.argmax(dim=1) == noisy.true_labels
            recovered.append(right.float().mean().item())

    history = fit(
        method, noisy, epochs=EPOCHS, lr=LR, seed=seed, device="cpu", progress=False,
        on_epoch=recover, **options,
    )  # fmt: skip
    recovered = recovered or history["true_accuracy"]
    return {
        "method": name,
        "data": noisy.name,
        "wrong": f"{noisy.noise_rate:.4f}",
        "seed": seed,
        "epochs": EPOCHS,
        "best": f"{history.best('test_accuracy'):.4f}",
        "last": f"{history.last['test_accuracy']:.4f}",
        "mean_of_last_ten": f"{history.mean_last('test_accuracy', 10):.4f}",
        "recovery": f"{recovered[-1]:.4f}",
        "recovery_best": f"{max(recovered):.4f}",
        "memorized": f"{history.last['wrong_as_given']:.4f}",
        "loss_epoch_10": f"{history['train_loss'][9]:.4f}",
        "seconds": f"{time.perf_counter() - began:.1f}",
        "device": f"{platform.machine()} CPU, 1 thread",
        "settings": f"{history.settings['method']} {history.settings['optimizer']}",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "commit": commit(),
    }


def rows(data, kind: str, rate: float, names: list[str], seed: int, done: set):
    """Yield the missing rows of one data set; the second step follows the run that it needs."""
    missing = [name for name in names if (name, kind, str(rate), str(seed)) not in done]
    if not missing:
        return
    noisy = corrupted(data, kind, rate, seed)
    for name in missing:
        if name == SECOND:
            continue
        method = CrossEntropy() if name == PLAIN else JointOptimization(**WEIGHTS | VARIANTS[name])
        found = [measure(name, method, noisy, seed)]
        if name == JOINT and SECOND in missing:
            # The paper divides the rate by ten after a third and two thirds of the second step.
            drops = functools.partial(MultiStepLR, milestones=[EPOCHS // 3, 2 * EPOCHS // 3])
            after = FromSoftLabels(method.current_labels)
            found.append(measure(SECOND, after, noisy, seed, schedule=drops))
        yield from ({"noise": kind, "rate": rate} | row for row in found)


def commit() -> str:
    """Return the commit, with a plus where files differ from it."""
    call = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()


def main(path: Path) -> None:
    """Add the rows that are missing."""
    torch.set_num_threads(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            done = {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}
    data = datasets.load("digits")
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not done:
            table.writeheader()
        # Seeds inside: a stopped command leaves whole tables.
        for (kind, rate, names), seed in itertools.product(PLAN, SEEDS):
            for row in rows(data, kind, rate, names, seed, done):
                table.writerow(row)
                file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results" / "classroom_joint.csv")
