"""Which labels are probably wrong? Rankings, how good they are, and a list to work on.

In all of this module a **higher score is more suspicious**, so that one number orders the examples
whatever it comes from: minus the AUM, a loss, doubt in the given label. Explained in lesson 08.

* margins over the training (AUM, Pleiss et al. 2020, arXiv 2001.10528; ``methods/aum.py``);
* predictions by networks that have not seen the example, and on them confident learning (Northcutt
  et al. 2021, arXiv 1911.00068) by the authors' library cleanlab, which is optional;
* prototypes and density in a network's features (``methods/self_learning.py``, ``curriculum.py``).
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base import Method, expect, expect_labels, expect_rows
from ...datasets import Dataset
from ...methods.aum import margins
from ...methods.cross_entropy import CrossEntropy
from ...methods.curriculum import local_density
from ...methods.self_learning import all_prototypes, class_scores
from ...training import History, fit
from ...training.batches import Images
from .watched import WatchedCrossEntropy

# Scores -----------------------------------------------------------------------------------------


class Film:
    """Keeps margins and losses of every epoch of `method`; give it to ``fit`` as `on_epoch`.

    Attributes:
        margins: list of float ``(N,)``, one an epoch, on the processor.
        losses: list of float ``(N,)``, the same.
    """

    def __init__(self, method: WatchedCrossEntropy) -> None:
        """Begin with an empty film."""
        self.method = method
        self.margins: list[Tensor] = []
        self.losses: list[Tensor] = []

    def __call__(self, history: History) -> None:
        """Keep what the method noted in the epoch that has just ended."""
        self.margins.append(self.method.last_margins.cpu().clone())
        self.losses.append(self.method.last_losses.cpu().clone())

    def aum(self, epochs: int | None = None) -> Tensor:
        """Return the mean margin ``(N,)`` over the first `epochs`, without the very first."""
        return _mean_from_second(self.margins, epochs)

    def mean_loss(self, epochs: int | None = None) -> Tensor:
        """Return the mean loss ``(N,)`` over the same epochs."""
        return _mean_from_second(self.losses, epochs)


def _mean_from_second(film: list[Tensor], epochs: int | None) -> Tensor:
    epochs = len(film) if epochs is None else epochs
    known = f"`epochs` from 2 to {len(film)}, as many as were filmed"
    expect(2 <= epochs <= len(film), known, epochs, "the first epoch does not count")
    return torch.stack(film[1:epochs]).mean(dim=0)


def label_losses(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return minus the log of each given label's probability: ``(n,)``, from 0.

    Args:
        probabilities: float ``(n, C)``, rows sum to 1.
        labels: int64 ``(n,)``.
    """
    _expect_predictions(probabilities, labels)
    own = probabilities.gather(1, labels[:, None]).squeeze(1)
    return -own.clamp(min=torch.finfo(own.dtype).tiny).log()


def prototype_doubt(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return how much more an image resembles another class's prototypes than its own class's.

    Args:
        features: float ``(N, d)``.
        labels: int64 ``(N,)``, given.
        num_classes: C.

    Returns:
        ``(N,)``; above 0 where the corrected label differs from the given one.
    """
    prototypes = all_prototypes(features, labels, num_classes)
    return -margins(class_scores(features, prototypes), labels)


def density_doubt(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the share of its class that does *not* lie close to an image: ``(N,)`` in 0..1.

    A share, so that images of large and small classes can stand in one ranking.
    """
    doubt = torch.ones(len(labels), device=labels.device)
    for label in range(num_classes):
        members = (labels == label).nonzero().squeeze(1)
        if len(members) > 1:
            doubt[members] -= local_density(features[members]) / (len(members) - 1)
    return doubt


# Predictions on what a network has not seen -----------------------------------------------------


def out_of_sample_probabilities(
    data: Dataset,
    *,
    folds: int = 5,
    make_method: Callable[[], Method] = CrossEntropy,
    seed: int = 0,
    **settings: Any,
) -> Tensor:
    """Predict every training image by a method that was trained without it.

    The set is split into `folds` parts with equal shares of the given labels. Each part is
    predicted by a fresh method that has learned from the others.

    Args:
        data: its true labels are not used.
        folds: number of parts, from 2.
        make_method: returns a fresh method.
        seed: of the split and the trainings.
        settings: of :func:`nlcourse.training.fit`: epochs, lr, network, ...

    Returns:
        float32 ``(N, C)`` on the processor, rows sum to 1.

    Raises:
        ValueError: `folds` below 2, or above the number of examples of a class.
        KeyboardInterrupt: somebody stopped a training.
    """
    # Imported here: scikit-learn takes half a second.
    from sklearn.model_selection import StratifiedKFold

    given = data.labels.cpu()
    rarest = int(given.bincount()[given.unique()].min())
    known = f"`folds` from 2 to {rarest}, the size of the rarest class"
    expect(2 <= folds <= rarest, known, folds)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    found = torch.zeros(len(given), data.num_classes)
    for parts in split.split(np.zeros(len(given)), given.numpy()):
        seen, rest = map(torch.as_tensor, parts)
        method = make_method()
        history = fit(method, _part(data, seen), seed=seed, **({"progress": False} | settings))
        if history.stopped:  # what half a training predicts must not pass for the whole
            raise KeyboardInterrupt(history.stopped)
        found[rest] = _predict(method, data.images[rest], data)
    return found


@torch.no_grad()
def _predict(method: Method, images: Tensor, data: Dataset) -> Tensor:
    device = next(method.parameters()).device
    normalised = Images(images, data.mean, data.std, device)
    parts = torch.arange(len(images), device=device).split(2048)
    return torch.cat([method.eval()(normalised.get(part)).cpu() for part in parts])


def confident_learning(labels: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Find label errors by confident learning, with the library cleanlab.

    For each pair of classes (i, j) cleanlab counts the examples with given label i whose
    probability of j is above what is usual for j. From these counts it estimates how many labels
    are wrong, class by class, and flags that many, the most doubtful ones.

    Args:
        labels: int64 ``(n,)``, given.
        probabilities: float ``(n, C)``, **out of sample**: from networks that have not learned
            these labels.

    Returns:
        Flags, bool ``(n,)``, and scores, float ``(n,)``: one minus the probability of the given
        label, cleanlab's "self confidence".

    Raises:
        ImportError: cleanlab is not installed.
    """
    _expect_predictions(probabilities, labels)
    try:
        from cleanlab import filter as filtering
        from cleanlab import rank as ranking
    except ImportError as error:
        raise ImportError(
            "Confident learning needs the library cleanlab: "
            "pip install 'nlcourse[suspects]', or pip install cleanlab"
        ) from error
    arrays = labels.cpu().numpy(), probabilities.double().cpu().numpy()
    flags = filtering.find_label_issues(*arrays, filter_by="prune_by_noise_rate", n_jobs=1)
    quality = ranking.get_label_quality_scores(*arrays, method="self_confidence")
    return torch.as_tensor(flags), 1 - torch.as_tensor(quality)


# How good is it ---------------------------------------------------------------------------------


def average_precision(scores: Tensor, is_wrong: Tensor) -> tuple[float, float]:
    """Return average precision and area under the ROC curve of a ranking, by scikit-learn.

    A ranking without any sense has an average precision of about the noise rate and an area of
    0.5; a perfect one has 1 and 1.

    Raises:
        ValueError: scores that are no numbers, or labels that are all right or all wrong.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    shapes = f"{tuple(scores.shape)} and {tuple(is_wrong.shape)}"
    fits = scores.dim() == 1 and scores.shape == is_wrong.shape
    expect(fits, "`scores` and `is_wrong` (n,)", shapes)
    finite = bool(scores.isfinite().all())
    expect(finite, "finite `scores`", "some that are infinite or no numbers")
    expect(bool(is_wrong.any()), "some wrong labels to look for", "none")
    expect(not bool(is_wrong.all()), "some right labels", "only wrong ones")
    wrong, values = is_wrong.cpu(), scores.cpu()
    return float(average_precision_score(wrong, values)), float(roc_auc_score(wrong, values))


def precision_and_recall(flags: Tensor, is_wrong: Tensor) -> tuple[float, float]:
    """Return which share of the flagged is wrong, and which share of the wrong is flagged.

    Both are bool ``(n,)``; nan where nothing is flagged or nothing is wrong.

    >>> flags, is_wrong = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    >>> precision_and_recall(flags, is_wrong)
    (0.5, 1.0)
    """
    fits = flags.shape == is_wrong.shape and flags.dtype == torch.bool
    wanted = f"`flags` as bool {tuple(is_wrong.shape)}, one an example"
    expect(fits, wanted, f"{flags.dtype} {tuple(flags.shape)}")
    hits, flagged, wrong = (int(these.sum()) for these in (flags & is_wrong, flags, is_wrong))
    return (hits / flagged if flagged else float("nan"), hits / wrong if wrong else float("nan"))


def most_suspicious(scores: Tensor, share: float) -> Tensor:
    """Flag the ``round(share * n)`` examples with the highest scores: bool ``(n,)``.

    Among equals the earlier ones are taken.
    """
    expect(0 <= share <= 1, "`share` in [0, 1]", share)
    order = scores.argsort(descending=True, stable=True)
    flags = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    flags[order[: round(share * len(scores))]] = True
    return flags


def without(data: Dataset, flags: Tensor) -> Dataset:
    """Return the data set without the flagged training examples."""
    expect(not bool(flags.all()), "some examples to be left", "all of them flagged")
    return _part(data, (~flags).nonzero().squeeze(1))


def _part(data: Dataset, index: Tensor) -> Dataset:
    index = index.to(data.labels.device)
    parts = {name: getattr(data, name)[index] for name in ("images", "labels", "true_labels")}
    return dataclasses.replace(data, **parts)


# The list ---------------------------------------------------------------------------------------


def suspect_list(
    labels: Tensor,
    scores: Tensor,
    *,
    flags: Tensor | None = None,
    probabilities: Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> list[dict[str, object]]:
    """Return the suspects as rows, the most suspicious first.

    Args:
        labels: int64 ``(n,)``, given.
        scores: float ``(n,)``, higher is more suspicious.
        flags: bool ``(n,)``, whom to list; everybody when left out.
        probabilities: float ``(n, C)``: the most probable *other* class becomes the suggestion.
        class_names: in place of the numbers of the classes.

    Returns:
        Rows with ``rank`` (from 1), ``position`` in the data set (from 0), ``given_label``,
        ``suggested_label`` (with `probabilities`) and ``score``.
    """
    shapes = f"{tuple(scores.shape)} for {tuple(labels.shape)}"
    expect(scores.shape == labels.shape, "one score an example", shapes)
    told = {"given_label": labels}
    if probabilities is not None:
        _expect_predictions(probabilities, labels)
        told["suggested_label"] = probabilities.scatter(1, labels[:, None], -1.0).argmax(dim=1)
    order = scores.argsort(descending=True, stable=True)
    chosen = order if flags is None else order[flags[order]]
    rows = []
    for rank, position in enumerate(chosen.tolist(), start=1):
        classes = {column: int(each[position]) for column, each in told.items()}
        named = {column: class_names[c] if class_names else c for column, c in classes.items()}
        score = {"score": round(float(scores[position]), 4)}
        rows.append({"rank": rank, "position": position} | named | score)
    return rows


def save_suspects(path: str | Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write the rows of :func:`suspect_list` as CSV, for a spreadsheet; return the path."""
    expect(len(rows) > 0, "at least one suspect to write", "none")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


def _expect_predictions(probabilities: Tensor, labels: Tensor) -> None:
    expect_rows("probabilities", probabilities)
    expect_labels("labels", labels, probabilities.shape[1], len(probabilities))
