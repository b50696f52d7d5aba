"""How well do rankings find wrong labels, and what does it bring? Lesson 08's table.

    python results/classroom_suspects.py

Digits, the classroom MLP, SGD, five seeds, one thread. A run is one noise and seed; each of its
rows is a ranking or a method.

Rankings (average precision, area under the ROC curve; precision and recall at a threshold):

* AUM, the mean loss and the last loss come from one training of 30 epochs with cross entropy. "AUM,
  fake class" comes from the method of that name, with its percentile. Losses have no threshold of
  their own: they are told the noise rate ("told": 1) and flag that share.
* "confident learning" and "out-of-sample loss" look at predictions out of five-fold
  cross-validation, 30 epochs a fold, "..., 10 epochs" at those after 10; cleanlab sets the
  threshold of the first, the second is told the rate.
* "prototypes" and "density" look at the features of the same training after 10 epochs, since that
  is when their methods begin; prototypes flag whose label they would change, density flags the
  lowest of its three subsets.

Methods (test accuracy; label precision and recall of what was learned from in the last epoch; label
recovery): 60 epochs with lr 0.05 each; AUM has 30 epochs before that to find its suspects, and 60
on the rest. "confident learning, retrained" and "oracle" are cross entropy on what cleanlab left,
and on the right labels. No number was set by a test accuracy: 30 epochs for AUM are half of the
training, as in its paper; the 10 epochs before first features are where the classroom's cross
entropy begins to memorize in lessons 00 and 10.
"""

import itertools
from pathlib import Path

import torch

from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan
from nlcourse.lessons.l08 import suspects
from nlcourse.lessons.l08.watched import WatchedCrossEntropy
from nlcourse.methods import CrossEntropy
from nlcourse.methods.aum import AUM
from nlcourse.methods.curriculum import CurriculumNet, density_subsets
from nlcourse.methods.features import all_features
from nlcourse.methods.self_learning import SelfLearning
from nlcourse.training.batches import Images
from nlcourse.training.device import name_of

NOISES = [("symmetric", 0.2), ("symmetric", 0.4), ("symmetric", 0.6), ("asymmetric", 0.4)]
EPOCHS, FIND, EARLY = 60, 30, 10
KEY = ("what", "noise", "rate", "seed")
RECIPE = recipes.find("classroom", "cross-entropy")
SCORES = ("average_precision", "auc", "told", "flagged", "precision", "recall")
LABELS = ("label_precision", "label_recall", "label_recovery")
SUMMARY = ("epochs", "best", "last", "mean_of_last_ten", "memorized", "seconds")
LAST = "confident learning, 10 epochs, retrained"  # the last row of a noise and seed


def train(method, data, run, epochs=EPOCHS, on_epoch=None):
    """Train; return accuracies, and what is known of the labels."""
    recipe = RECIPE.but(method=lambda: method, epochs=epochs)
    _, row = runs.train(recipe, run, data, on_epoch=on_epoch, device="cpu")
    return row | {name: "" if row[name] == "nan" else row[name] for name in LABELS}


def rankings(noisy, run):
    """Yield name, scores, and flags where the ranking has a threshold of its own."""
    method, early = WatchedCrossEntropy(), []
    film, images = suspects.Film(method), Images(noisy.images, noisy.mean, noisy.std)

    def look(history):
        film(history)
        if len(history) == EARLY:
            early.append(all_features(method.network, images.get, len(images)))

    train(method, noisy, run, FIND, look)
    yield "AUM", -film.aum(), None
    yield "mean loss", film.mean_loss(), None
    yield "last loss", film.losses[-1], None
    told = early[0], noisy.labels, noisy.num_classes
    doubt = suspects.prototype_doubt(*told)
    yield "prototypes", doubt, doubt > 0
    yield "density", suspects.density_doubt(*told), density_subsets(*told) == 2
    for epochs, name in ((FIND, ""), (EARLY, ", 10 epochs")):
        settings = {"epochs": epochs, "lr": 0.05, "device": "cpu"}
        p = suspects.out_of_sample_probabilities(noisy, seed=run["seed"], **settings)
        flags, doubt = suspects.confident_learning(noisy.labels, p)
        yield "confident learning" + name, doubt, flags
        yield "out-of-sample loss" + name, suspects.label_losses(p, noisy.labels), None


def judged(noisy, scores, flags):
    """Return how good a ranking is, with four digits."""
    told = flags is None
    flags = suspects.most_suspicious(scores, noisy.noise_rate) if told else flags
    precise, area = suspects.average_precision(scores, noisy.is_wrong)
    precision, recall = suspects.precision_and_recall(flags, noisy.is_wrong)
    numbers = (precise, area, float(told), flags.float().mean().item(), precision, recall)
    return {name: f"{value:.4f}" for name, value in zip(SCORES, numbers, strict=True)}


def retrained(noisy, flags, run):
    """Return the row of cross entropy on what is left, and how right its labels are."""
    right = (~flags & ~noisy.is_wrong).sum().item()
    precision, recall = right / (~flags).sum().item(), right / (~noisy.is_wrong).sum().item()
    row = train(CrossEntropy(), suspects.without(noisy, flags), run)
    return row | {"label_precision": f"{precision:.4f}", "label_recall": f"{recall:.4f}"}


def found(noisy, run):
    """Yield every row of one noise and seed: its name and its numbers."""
    flagged = {}
    for name, scores, flags in rankings(noisy, run):
        flagged[name] = flags
        yield name, judged(noisy, scores, flags)
    yield "cross-entropy", train(CrossEntropy(), noisy, run)
    aum = AUM(FIND)
    yield "aum", train(aum, noisy, run, FIND + EPOCHS)
    yield "AUM, fake class", judged(noisy, -aum.aum(), aum.suspects)
    yield "curriculum", train(CurriculumNet(EARLY), noisy, run)
    yield "self-learning", train(SelfLearning(warm_up=EARLY), noisy, run)
    yield "oracle", retrained(noisy, noisy.is_wrong, run)
    for name in ("confident learning", "confident learning, 10 epochs"):
        yield f"{name}, retrained", retrained(noisy, flagged[name], run)


def measure(run):
    """Return all rows of one noise and seed."""
    torch.set_num_threads(1)
    noisy = runs.corrupted(RECIPE.load(), run)
    empty = dict.fromkeys((*SCORES, *SUMMARY, *LABELS, "settings"), "")
    empty |= {**run, "data": noisy.name, "device": name_of("cpu")}
    return [{**empty, **numbers, "what": name} for name, numbers in found(noisy, run)]


RUNS = [
    dict(zip(KEY, (LAST, *noise, seed), strict=True))
    for seed, noise in itertools.product(range(5), NOISES)
]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    runner.carry_out(PLAN)
