"""Which labels are probably wrong? Rankings, how good they are, and a list to work on.

Everywhere a **higher score is more suspicious**: minus the AUM (Pleiss et al. 2020, arXiv
2001.10528), a loss, doubt in the given label. Explained in lesson 08.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from ...methods.features import over_all
from ...methods.self_learning import all_prototypes, class_scores
from ...training import History, fit
from ...training.batches import Images
from .watched import WatchedCrossEntropy

# Scores -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Film:
    """Keeps margins and losses of every epoch; give it to ``fit`` as `on_epoch`."""

    method: WatchedCrossEntropy
    margins: list[Tensor] = field(default_factory=list)  # (N,) for each epoch, on the processor
    losses: list[Tensor] = field(default_factory=list)

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
    """Return minus the log of each given label's probability, ``(n,)``, from rows ``(n, C)``."""
    _expect_predictions(probabilities, labels)
    own = probabilities.gather(1, labels[:, None]).squeeze(1)
    return -own.clamp(min=torch.finfo(own.dtype).tiny).log()


def prototype_doubt(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return how much more an image resembles another class's prototypes than its own class's.

    From features ``(N, d)`` and given labels ``(N,)`` to ``(N,)``: above 0 where the corrected
    label differs from the given one.
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

    The set is split into `folds` parts with equal shares of the given labels; each is predicted by
    a fresh method that has learned from the others. True labels are not used. `settings` are those
    of :func:`nlcourse.training.fit`: epochs, lr, network, ...

    Returns float32 ``(N, C)`` on the processor, rows sum to 1. Raises KeyboardInterrupt when
    somebody stops a training.
    """
    from sklearn.model_selection import StratifiedKFold  # imported here: it takes half a second

    given = data.labels.cpu()
    rarest = int(given.bincount()[given.unique()].min())
    expect(2 <= folds <= rarest, f"`folds` from 2 to {rarest}, the size of the rarest class", folds)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    found = torch.zeros(len(given), data.num_classes)
    for _, part in split.split(np.zeros(len(given)), given.numpy()):
        unseen = torch.zeros(len(given), dtype=torch.bool)
        unseen[part] = True
        method = make_method()
        history = fit(method, without(data, unseen), seed=seed, **({"progress": False} | settings))
        if history.stopped:  # what half a training predicts must not pass for the whole
            raise KeyboardInterrupt(history.stopped)
        device = next(method.parameters()).device
        images = Images(data.images[unseen], data.mean, data.std, device)
        found[unseen] = over_all(method, method, images.get, len(images)).cpu()
    return found


def confident_learning(labels: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Find label errors by confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    For each pair of classes (i, j) its authors' library cleanlab, which is optional, counts the
    examples with given label i whose probability of j is above what is usual for j. From these
    counts it estimates how many labels are wrong, class by class, and flags that many, the most
    doubtful ones.

    The probabilities ``(n, C)`` must come from networks that have **not** learned these labels.
    Returns flags, bool ``(n,)``, and scores, float ``(n,)``: one minus the probability of the given
    label, cleanlab's "self confidence".
    """
    _expect_predictions(probabilities, labels)
    try:
        from cleanlab import filter as filtering
        from cleanlab import rank as ranking
    except ImportError as error:
        wanted = "pip install 'nlcourse[suspects]', or pip install cleanlab"
        raise ImportError(f"Confident learning needs the library cleanlab: {wanted}") from error
    arrays = labels.cpu().numpy(), probabilities.double().cpu().numpy()
    flags = filtering.find_label_issues(*arrays, filter_by="prune_by_noise_rate", n_jobs=1)
    quality = ranking.get_label_quality_scores(*arrays, method="self_confidence")
    return torch.as_tensor(flags), 1 - torch.as_tensor(quality)


# How good is it ---------------------------------------------------------------------------------


def average_precision(scores: Tensor, is_wrong: Tensor) -> tuple[float, float]:
    """Return average precision and area under the ROC curve of a ranking, by scikit-learn.

    A ranking without any sense has an average precision of about the noise rate and an area of
    0.5; a perfect one has 1 and 1.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    shapes = f"{tuple(scores.shape)} and {tuple(is_wrong.shape)}"
    fits = scores.dim() == 1 and scores.shape == is_wrong.shape
    expect(fits, "`scores` and `is_wrong` (n,)", shapes)
    expect(bool(scores.isfinite().all()), "finite `scores`", "some that are infinite or no numbers")
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
    """Flag the ``round(share * n)`` highest scores, bool ``(n,)``; of equal ones the earlier."""
    expect(0 <= share <= 1, "`share` in [0, 1]", share)
    order = scores.argsort(descending=True, stable=True)
    flags = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    flags[order[: round(share * len(scores))]] = True
    return flags


def without(data: Dataset, flags: Tensor) -> Dataset:
    """Return the data set without the flagged training examples."""
    expect(not bool(flags.all()), "some examples to be left", "all of them flagged")
    kept = ~flags.to(data.labels.device)
    parts = {name: getattr(data, name)[kept] for name in ("images", "labels", "true_labels")}
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

    A row has ``rank`` (from 1), ``position`` in the data set (from 0), ``given_label`` and
    ``score``; with `probabilities` ``(n, C)`` also ``suggested_label``, the most probable *other*
    class. `flags`, bool ``(n,)``, say whom to list: everybody when left out. `class_names` stand in
    place of the numbers of the classes.
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
        row: dict[str, object] = {"rank": rank, "position": position}
        for column, classes in told.items():
            label = int(classes[position])
            row[column] = class_names[label] if class_names else label
        rows.append(row | {"score": round(float(scores[position]), 4)})
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
