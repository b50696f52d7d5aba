"""Which labels are probably wrong? Rankings, thresholds, how good they are, and a list to work on.

In all of this module a **higher score is more suspicious**, so that one number orders the examples
whatever it comes from: minus the AUM, a loss, doubt in the given label. Explained in lesson 08.

* margins over the training: :class:`Film` (AUM, Pleiss et al. 2020, arXiv 2001.10528). The fake
  class and the method that retrains are in ``methods/aum.py``;
* predictions by networks that have not seen the example: :func:`out_of_sample_probabilities`, and
  on them confident learning (Northcutt et al. 2021, arXiv 1911.00068) by the authors' library
  cleanlab, which is optional;
* prototypes and density in a network's features: :func:`prototype_doubt`, :func:`density_doubt`
  (see ``methods/self_learning.py`` and ``methods/curriculum.py``).
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...base import Method
from ...methods.aum import AUM, WatchedCrossEntropy, flag_suspects, margins, threshold_sets
from ...methods.cross_entropy import CrossEntropy
from ...methods.curriculum import local_density
from ...methods.self_learning import all_prototypes, class_scores
from ...training.batches import Images
from ...training.history import History

__all__ = [
    "AUM",
    "Curve",
    "Film",
    "WatchedCrossEntropy",
    "average_precision",
    "confident_learning",
    "density_doubt",
    "flag_suspects",
    "label_losses",
    "margins",
    "most_suspicious",
    "out_of_sample_probabilities",
    "precision_and_recall",
    "precision_recall",
    "prototype_doubt",
    "save_suspects",
    "suspect_list",
    "threshold_sets",
    "without",
]

SUM_TOLERANCE = 1e-3  # float32 leaves 1e-6; logits miss it by far


# Watching a training ----------------------------------------------------------------------------


class Film:
    """Keeps margins and losses of every epoch; give it to ``fit`` as `on_epoch`.

    Args:
        method: the :class:`WatchedCrossEntropy` that is trained.

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
        """Return the mean margin ``(N,)`` over the first `epochs`, without the very first.

        Raises:
            ValueError: fewer than two epochs, or more than there are.
        """
        return torch.stack(self._counting(self.margins, epochs)).mean(dim=0)

    def mean_loss(self, epochs: int | None = None) -> Tensor:
        """Return the mean loss ``(N,)`` over the same epochs."""
        return torch.stack(self._counting(self.losses, epochs)).mean(dim=0)

    def _counting(self, film: list[Tensor], epochs: int | None) -> list[Tensor]:
        epochs = len(film) if epochs is None else epochs
        if not 2 <= epochs <= len(film):
            raise ValueError(
                f"Expected `epochs` from 2 to {len(film)}, as many as were filmed, got {epochs}: "
                "the first epoch does not count"
            )
        return film[1:epochs]


# Scores -----------------------------------------------------------------------------------------


def label_losses(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return minus the log of each given label's probability: ``(n,)``, from 0.

    Args:
        probabilities: float ``(n, C)``, rows sum to 1.
        labels: int64 ``(n,)``.

    Raises:
        ValueError: rows that are no probabilities.
    """
    _check_probabilities(probabilities, labels)
    own = probabilities.gather(1, labels[:, None]).squeeze(1)
    return -own.clamp(min=torch.finfo(own.dtype).tiny).log()


def prototype_doubt(features: Tensor, labels: Tensor, num_classes: int, **options) -> Tensor:
    """Return how much more an image resembles another class's prototypes than its own class's.

    Args:
        features: float ``(N, d)``.
        labels: int64 ``(N,)``, given.
        num_classes: C.
        options: of :func:`~nlcourse.methods.self_learning.all_prototypes`.

    Returns:
        ``(N,)``; above 0 where the corrected label differs from the given one.
    """
    prototypes = all_prototypes(features, labels, num_classes, **options)
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
    data,
    *,
    folds: int = 5,
    make_method: Callable[[], Method] = CrossEntropy,
    seed: int = 0,
    **options,
) -> Tensor:
    """Predict every training image by a method that was trained without it.

    The set is split into `folds` parts with equal shares of the given labels. Each part is
    predicted by a fresh method that has learned from the others.

    Args:
        data: a :class:`~nlcourse.datasets.Dataset`; its true labels are not used.
        folds: number of parts, from 2.
        make_method: returns a fresh method.
        seed: of the split and the trainings.
        options: of :func:`nlcourse.training.fit`: epochs, lr, network, ...

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
    if not 2 <= folds <= rarest:
        raise ValueError(
            f"Expected `folds` from 2 to {rarest}, the size of the rarest class, got {folds}"
        )
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    found = torch.zeros(len(given), data.num_classes)
    for seen, held_out in split.split(np.zeros(len(given)), given.numpy()):
        rest = torch.as_tensor(held_out)
        found[rest] = _predicted_by(make_method(), data, torch.as_tensor(seen), rest, seed, options)
    return found


@torch.no_grad()
def _predict(method: Method, images: Tensor, data) -> Tensor:
    device = next(method.parameters()).device
    normalised = Images(images, data.mean, data.std, device)
    parts = torch.arange(len(images), device=device).split(2048)
    return torch.cat([method.eval()(normalised.get(part)).cpu() for part in parts])


def _predicted_by(
    method: Method, data, seen: Tensor, rest: Tensor, seed: int, options: dict
) -> Tensor:
    from ...training import fit

    history = fit(method, _part(data, seen), seed=seed, **({"progress": False} | options))
    if history.stopped:  # what half a training predicts must not pass for the whole
        raise KeyboardInterrupt(history.stopped)
    return _predict(method, data.images[rest], data)


def _part(data, index: Tensor):
    index = index.to(data.labels.device)
    return dataclasses.replace(
        data,
        images=data.images[index],
        labels=data.labels[index],
        true_labels=data.true_labels[index],
    )


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
        ValueError: rows that are no probabilities.
    """
    _check_probabilities(probabilities, labels)
    filtering, ranking = _cleanlab()
    arrays = labels.cpu().numpy(), probabilities.double().cpu().numpy()
    flags = filtering.find_label_issues(*arrays, filter_by="prune_by_noise_rate", n_jobs=1)
    quality = ranking.get_label_quality_scores(*arrays, method="self_confidence")
    return torch.as_tensor(flags), 1 - torch.as_tensor(quality)


def _cleanlab():
    try:
        from cleanlab import filter as filtering
        from cleanlab import rank as ranking
    except ImportError as error:
        raise ImportError(
            "Confident learning needs the library cleanlab: "
            "pip install 'nlcourse[suspects]', or pip install cleanlab"
        ) from error
    return filtering, ranking


# How good is it ---------------------------------------------------------------------------------


class Curve(NamedTuple):
    """Precision and recall when more and more is thrown out.

    Attributes:
        thresholds: float64 ``(k,)``, descending scores.
        precision: float64 ``(k,)``: of those at or above the threshold, the share that is wrong.
        recall: float64 ``(k,)``: of all wrong labels, the share at or above the threshold.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def precision_recall(scores: Tensor, is_wrong: Tensor) -> Curve:
    """Return precision and recall at every threshold, by scikit-learn.

    Args:
        scores: float ``(n,)``, higher is more suspicious.
        is_wrong: bool ``(n,)``.

    Raises:
        ValueError: scores that are no numbers, or no wrong label among the examples.
    """
    from sklearn.metrics import precision_recall_curve

    _check_scores(scores, is_wrong)
    precision, recall, thresholds = precision_recall_curve(is_wrong.cpu(), scores.cpu())
    # scikit-learn begins with everybody and ends with a point of its own for nobody.
    return Curve(thresholds[::-1], precision[-2::-1], recall[-2::-1])


def average_precision(scores: Tensor, is_wrong: Tensor) -> tuple[float, float]:
    """Return average precision and area under the ROC curve of a ranking, by scikit-learn.

    A ranking without any sense has an average precision of about the noise rate and an area of
    0.5; a perfect one has 1 and 1.

    Raises:
        ValueError: scores that are no numbers, or labels that are all right or all wrong.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    _check_scores(scores, is_wrong)
    if bool(is_wrong.all()):
        raise ValueError("Expected some right labels, got only wrong ones")
    wrong, values = is_wrong.cpu(), scores.cpu()
    return float(average_precision_score(wrong, values)), float(roc_auc_score(wrong, values))


def precision_and_recall(flags: Tensor, is_wrong: Tensor) -> tuple[float, float]:
    """Return which share of the flagged is wrong, and which share of the wrong is flagged.

    Args:
        flags: bool ``(n,)``.
        is_wrong: bool ``(n,)``.

    Returns:
        Two numbers; nan where nothing is flagged or nothing is wrong.

    >>> flags, is_wrong = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    >>> precision_and_recall(flags, is_wrong)
    (0.5, 1.0)
    """
    if flags.shape != is_wrong.shape or flags.dtype != torch.bool:
        raise ValueError(
            f"Expected `flags` as bool {tuple(is_wrong.shape)}, one an example, got {flags.dtype} "
            f"{tuple(flags.shape)}"
        )
    hits = (flags & is_wrong).sum().item()
    return _share(hits, flags.sum().item()), _share(hits, is_wrong.sum().item())


def most_suspicious(scores: Tensor, share: float) -> Tensor:
    """Flag this share of the examples: those with the highest scores.

    Args:
        scores: float ``(n,)``.
        share: in [0, 1]; ``round(share * n)`` examples are flagged, among equals the earlier.

    Returns:
        bool ``(n,)``.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Expected `share` in [0, 1], got {share}")
    order = scores.argsort(descending=True, stable=True)
    flags = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    flags[order[: round(share * len(scores))]] = True
    return flags


def without(data, flags: Tensor):
    """Return the data set without the flagged training examples.

    Raises:
        ValueError: everything is flagged.
    """
    kept = (~flags).nonzero().squeeze(1)
    if not len(kept):
        raise ValueError("Expected some examples to be left, got all of them flagged")
    return _part(data, kept)


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
    if scores.shape != labels.shape:
        raise ValueError(
            f"Expected one score an example, got {tuple(scores.shape)} for {tuple(labels.shape)}"
        )
    other = None
    if probabilities is not None:
        _check_probabilities(probabilities, labels)
        other = probabilities.scatter(1, labels[:, None], -1.0).argmax(dim=1)

    def named(label: Tensor) -> object:
        return class_names[int(label)] if class_names is not None else int(label)

    order = scores.argsort(descending=True, stable=True)
    chosen = order if flags is None else order[flags[order]]
    rows = []
    for rank, position in enumerate(chosen.tolist(), start=1):
        row = {"rank": rank, "position": position, "given_label": named(labels[position])}
        if other is not None:
            row["suggested_label"] = named(other[position])
        rows.append(row | {"score": round(float(scores[position]), 4)})
    return rows


def save_suspects(path: str | Path, rows: Sequence[dict[str, object]]) -> Path:
    """Write the rows of :func:`suspect_list` as CSV, for a spreadsheet; return the path.

    Raises:
        ValueError: there is nothing to write.
    """
    if not rows:
        raise ValueError("Expected at least one suspect to write, got none")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


# Bad input --------------------------------------------------------------------------------------


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _check_scores(scores: Tensor, is_wrong: Tensor) -> None:
    if scores.dim() != 1 or scores.shape != is_wrong.shape:
        raise ValueError(
            "Expected `scores` and `is_wrong` (n,), got "
            f"{tuple(scores.shape)} and {tuple(is_wrong.shape)}"
        )
    if not bool(scores.isfinite().all()):
        raise ValueError("Expected finite `scores`, got some that are infinite or no numbers")
    if not bool(is_wrong.any()):
        raise ValueError("Expected some wrong labels to look for, got none")


def _check_probabilities(probabilities: Tensor, labels: Tensor) -> None:
    if probabilities.dim() != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            "Expected `probabilities` (n, C) and `labels` (n,), got "
            f"{tuple(probabilities.shape)} and {tuple(labels.shape)}"
        )
    off = (probabilities.sum(dim=1) - 1).abs()
    # Written so that nan is refused, too.
    if not (bool((off <= SUM_TOLERANCE).all()) and bool((probabilities >= 0).all())):
        raise ValueError(
            "Expected `probabilities` with rows of numbers from 0 that sum to 1: is a softmax "
            "missing?"
        )
