"""Measure joint optimization at classroom scale, beside cross entropy: lesson 09's tables.

    python results/classroom_joint.py

Digits, the classroom MLP, SGD, five seeds, one thread. The settings are the same for every noise;
no seed is chosen. Label recovery is measured here, beside the method, which knows no true label:
the share of training examples whose current label (its largest entry) is the true one; for cross
entropy, which changes no label, the share predicted as the true class, as in the paper. The second
step trains the first anew, for the labels that it ends with.
"""

import functools
import math
from pathlib import Path

import torch
from sklearn.cluster import KMeans

from nlcourse import noise
from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan
from nlcourse.methods import CrossEntropy
from nlcourse.methods.joint import (
    JointOptimization,
    hard_labels,
    most_different_hard_labels,
    next_labels,
)
from nlcourse.methods.soft_labels import FromSoftLabels

RECIPE = recipes.find("classroom", "joint-optimization")
PLAIN, JOINT, SECOND = "cross entropy", "joint, soft", "joint, second step"


def all_hard(labels, predictions, *when):
    """Update all labels, and make them hard."""
    return hard_labels(next_labels(labels, predictions, *when))


def fifty_hard(labels, predictions, finished, begin, average):
    """Update the fifty labels that differ most."""
    if finished < begin:
        return labels
    return most_different_hard_labels(labels, predictions[-average:].mean(dim=0), 50)


VARIANTS = {
    JOINT: {},
    "joint, hard": {"next_labels": all_hard},
    "joint, hard, 50 an epoch": {"next_labels": fifty_hard},
    "joint, without L_p": {"alpha": 0.0},
    "joint, without L_e": {"beta": 0.0},
    "joint, without both": {"alpha": 0.0, "beta": 0.0},
    "joint, beta 4": {"beta": 4.0},
    "joint, beta 4, without L_p": {"alpha": 0.0, "beta": 4.0},
}
PSEUDO, AS_MANY = "k-means", "symmetric, as many as k-means"
NO_RATE = math.nan  # clusters give as many wrong labels as they give
INCLUDING = "symmetric-including-true"  # the paper's kind
WANTED = [
    ("symmetric", 0.4, [PLAIN, *VARIANTS, SECOND]),
    *(("symmetric", rate, [PLAIN, JOINT, SECOND, "joint, hard"]) for rate in (0.2, 0.6)),
    ("asymmetric", 0.4, [PLAIN, JOINT, SECOND, "joint, hard"]),
    ("symmetric", 0.8, [PLAIN, JOINT, "joint, without L_p"]),
    *((kind, NO_RATE, [PLAIN, JOINT]) for kind in (PSEUDO, AS_MANY)),
    *((INCLUDING, rate, [PLAIN, JOINT, SECOND]) for rate in (0.5, 0.7, 0.9)),
]
KEY = ("method", "noise", "rate", "seed")


def corrupted(data, run):
    """Return the data set with given labels of a kind."""
    if run["noise"] == PSEUDO:
        return clustered(data, run["seed"])
    if run["noise"] == AS_MANY:
        rate = clustered(data, run["seed"]).noise_rate
        return noise.inject(data, "symmetric", rate, seed=run["seed"])
    return runs.corrupted(data, run)


def clustered(data, seed):
    """Label every image by its cluster (k-means, as many as classes), named after its majority."""
    means = KMeans(data.num_classes, n_init=10, random_state=seed)
    cluster = torch.from_numpy(means.fit_predict(data.images.flatten(1).numpy())).long()
    labels = torch.empty_like(data.labels)
    for place in range(data.num_classes):
        inside = cluster == place
        labels[inside] = data.true_labels[inside].mode().values
    return data.with_labels(labels)


def measure(run):
    """Train once, the second step after the first."""
    noisy, method = corrupted(RECIPE.load(), run), CrossEntropy()
    if run["method"] != PLAIN:
        pieces = VARIANTS.get(run["method"], {})
        method = JointOptimization(**{**RECIPE.arguments, **pieces})
    if run["method"] != SECOND:
        return train(method, noisy, run)
    train(method, noisy, run)
    # The paper divides the rate by ten after a third and two thirds of the second step.
    drops = [RECIPE.epochs // 3, 2 * RECIPE.epochs // 3]
    milestones = functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=drops)
    return train(FromSoftLabels(method.current_labels), noisy, run, schedule=milestones)


def train(method, noisy, run, **more):
    """Train once; the method keeps its labels."""
    recovered = []

    def recover(history):
        if hasattr(method, "current_labels"):
            right = method.current_labels.argmax(dim=1) == noisy.true_labels
            recovered.append(right.float().mean().item())

    recipe = RECIPE.but(method=lambda **arguments: method)
    told = {"on_epoch": recover, "device": "cpu", **more}
    history, row = runs.train(recipe, run, noisy, **told)
    recovered = recovered or history["true_accuracy"]
    return row | {
        "wrong": row["wrong_labels"],
        "recovery": f"{recovered[-1]:.4f}",
        "recovery_best": f"{max(recovered):.4f}",
        "loss_epoch_10": f"{history['train_loss'][9]:.4f}",
        "settings": f"{row['settings']} {row['optimizer']}",
    }


RUNS = [  # seeds inside: a stopped command leaves whole tables
    dict(zip(KEY, (name, kind, rate, seed), strict=True))
    for kind, rate, names in WANTED
    for seed in range(5)
    for name in names
]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    runner.carry_out(PLAN)
