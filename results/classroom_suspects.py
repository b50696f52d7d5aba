"""How well do rankings find wrong labels, and what does it bring? Lesson 08's table.

    python results/classroom_suspects.py

Digits, the classroom MLP, SGD, five seeds, one thread. Each row is a ranking or a method on one
noise and seed; rows that the file already holds are left out, so the command can be stopped and
called again.

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

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from nlcourse import datasets, noise
from nlcourse.experiments import results
from nlcourse.lessons.l08 import suspects
from nlcourse.methods import CrossEntropy
from nlcourse.methods.aum import AUM, WatchedCrossEntropy
from nlcourse.methods.curriculum import CurriculumNet, density_subsets
from nlcourse.methods.features import all_features
from nlcourse.methods.self_learning import SelfLearning
from nlcourse.training import Options, fit
from nlcourse.training.acceleration import name_of
from nlcourse.training.batches import Images

SEEDS = range(5)
NOISES = [("symmetric", 0.2), ("symmetric", 0.4), ("symmetric", 0.6), ("asymmetric", 0.4)]
FIT = {
    "lr": 0.05,
    "progress": False,
    "device": "cpu",
    "options": Options(batch_size=64, momentum=0.9),
}
EPOCHS, FIND, EARLY = 60, 30, 10
KEY = ("what", "noise", "rate", "seed")
SCORES = ("average_precision", "auc", "told", "flagged", "precision", "recall")
LABELS = ("label_precision", "label_recall", "label_recovery")
SUMMARY = ("epochs", "best", "last", "mean_of_last_ten", "memorized", "seconds")
LAST = "confident learning, 10 epochs, retrained"  # the last row of a noise and seed


def watched(noisy, seed: int) -> tuple[suspects.Film, Tensor]:
    """Train once with cross entropy; return margins and losses, and the features on the way."""
    method = WatchedCrossEntropy()
    film = suspects.Film(method)
    images = Images(noisy.images, noisy.mean, noisy.std)
    early = []

    def look(history) -> None:
        film(history)
        if len(history) == EARLY:
            early.append(all_features(method.network, images.get, len(images)))

    if fit(method, noisy, epochs=FIND, seed=seed, on_epoch=look, **FIT).stopped:  # Ctrl-C
        raise KeyboardInterrupt
    return film, early[0]


def rankings(noisy, seed: int) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Yield name, scores, and flags where the ranking has a threshold of its own."""
    film, seen = watched(noisy, seed)
    yield "AUM", -film.aum(), None
    yield "mean loss", film.mean_loss(), None
    yield "last loss", film.losses[-1], None
    yield from from_features(seen, noisy)
    for epochs, name in ((FIND, ""), (EARLY, ", 10 epochs")):
        p = suspects.out_of_sample_probabilities(noisy, seed=seed, epochs=epochs, **FIT)
        flags, doubt = suspects.confident_learning(noisy.labels, p)
        yield "confident learning" + name, doubt, flags
        yield "out-of-sample loss" + name, suspects.label_losses(p, noisy.labels), None


def from_features(seen: Tensor, noisy) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the two rankings that look at features."""
    doubt = suspects.prototype_doubt(seen, noisy.labels, noisy.num_classes)
    yield "prototypes", doubt, doubt > 0
    sparse = density_subsets(seen, noisy.labels, noisy.num_classes) == 2
    yield "density", suspects.density_doubt(seen, noisy.labels, noisy.num_classes), sparse


def judged(noisy, scores: Tensor, flags: Tensor | None) -> dict[str, str]:
    """Return how good a ranking is, with four digits."""
    told = flags is None
    flags = suspects.most_suspicious(scores, noisy.noise_rate) if told else flags
    precise, area = suspects.average_precision(scores, noisy.is_wrong)
    precision, recall = suspects.precision_and_recall(flags, noisy.is_wrong)
    numbers = (precise, area, float(told), flags.float().mean().item(), precision, recall)
    return {name: f"{value:.4f}" for name, value in zip(SCORES, numbers, strict=True)}


def trained(method, noisy, seed: int, epochs: int = EPOCHS) -> dict[str, str]:
    """Train and return accuracies and what is known of the labels."""
    history = fit(method, noisy, epochs=epochs, seed=seed, **FIT)
    labels = {name: history.last[name] for name in LABELS}
    told = {name: "" if math.isnan(value) else f"{value:.4f}" for name, value in labels.items()}
    return results.summary(history) | told | {"settings": history.settings["method"]}


def kept_labels(noisy, flags: Tensor) -> dict[str, str]:
    """Return precision and recall of the labels that are left, for cross entropy on the rest."""
    right = (~flags & ~noisy.is_wrong).sum().item()
    precision = right / (~flags).sum().item()
    recall = right / (~noisy.is_wrong).sum().item()
    return {"label_precision": f"{precision:.4f}", "label_recall": f"{recall:.4f}"}


def measured(noisy, seed: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every row of one noise and seed: its name and its numbers."""
    flagged = {}
    for name, scores, flags in rankings(noisy, seed):
        flagged[name] = flags
        yield name, judged(noisy, scores, flags)
    yield "cross-entropy", trained(CrossEntropy(), noisy, seed)
    found = AUM(FIND)
    row = trained(found, noisy, seed, FIND + EPOCHS)
    yield "aum", row
    yield "AUM, fake class", judged(noisy, -found.aum(), found.suspects)
    yield "curriculum", trained(CurriculumNet(EARLY), noisy, seed)
    yield "self-learning", trained(SelfLearning(warm_up=EARLY), noisy, seed)
    cuts = {
        "oracle": noisy.is_wrong,
        "confident learning, retrained": flagged["confident learning"],
        LAST: flagged["confident learning, 10 epochs"],
    }
    for name, flags in cuts.items():
        yield name, retrained(noisy, flags, seed)


def retrained(noisy, flags: Tensor, seed: int) -> dict[str, str]:
    """Return the row of cross entropy on what is left."""
    rest = suspects.without(noisy, flags)
    return trained(CrossEntropy(), rest, seed) | kept_labels(noisy, flags)


def main() -> None:
    """Add the rows that are missing, seed by seed."""
    torch.set_num_threads(1)
    table = results.Table(Path(__file__).with_suffix(".csv"), KEY)
    data = datasets.load("digits")
    empty = dict.fromkeys((*SCORES, *SUMMARY, *LABELS, "settings"), "")
    empty["device"] = name_of("cpu")
    with table.held():
        for seed, (kind, rate) in itertools.product(SEEDS, NOISES):
            if (LAST, kind, rate, seed) in table:
                continue
            noisy = noise.inject(data, kind, rate, seed=seed)
            for name, numbers in measured(noisy, seed):
                key = dict(zip(KEY, (name, kind, rate, seed), strict=True))
                if tuple(key.values()) not in table:
                    table.add(key | {"data": data.name} | empty | numbers)


if __name__ == "__main__":
    main()
