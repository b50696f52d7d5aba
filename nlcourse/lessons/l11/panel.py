"""The explorer of lesson 11: the losses of all labels and the two curves fitted to them, live.

It is :class:`Explorer` with one more picture on top, drawn anew while the network trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from ...methods import DivideMix
from ...methods.gaussian_mixture import fit_mixture, normalised
from ...panels import plots, render
from ...panels.compute import PARAMETERS, MethodChoice, Trainer
from ...panels.explorer import Explorer
from ...panels.state import MAX_STORED, Run
from ...panels.view import html

BINS = np.linspace(0, 1, 41).tolist()
FINE = np.linspace(0, 1, 401)


@dataclass(frozen=True)
class Split:
    """What one epoch was divided by, as the first network saw it.

    Attributes:
        epoch: which epoch, from 1.
        losses: ``(N,)``, stretched to 0..1.
        clean: w, ``(N,)``.
        is_wrong: bool ``(N,)``, known to the picture alone.
        warm_up: the epoch belonged to the warm-up, so that nothing was divided yet.
        threshold: tau.
        area: AUC of w against the true answer; nan where no label is wrong.
    """

    epoch: int
    losses: Tensor
    clean: Tensor
    is_wrong: Tensor
    warm_up: bool
    threshold: float
    area: float

    @property
    def border(self) -> float:
        """The largest loss whose label is believed; nan when none is."""
        believed = self.losses[self.clean > self.threshold]
        return believed.max().item() if len(believed) else float("nan")

    def in_words(self) -> str:
        """Say how the split divides right from wrong labels."""
        believed = self.clean > self.threshold
        words = f"epoch {self.epoch}"
        if self.warm_up:
            words += " (warm-up)"
        words += f": {believed.float().mean():.0%} of the labels are believed"
        if bool(believed.any()):
            words += f", {(~self.is_wrong)[believed].float().mean():.0%} of those are right"
        return words + ("" if np.isnan(self.area) else f"; AUC {self.area:.3f}")


def split_of(method: DivideMix, is_wrong: Tensor, network: int = 0) -> Split:
    """Return what the epoch of a method that has just ended was divided by.

    Args:
        method: in training, or trained.
        is_wrong: bool ``(N,)``.
        network: 0 or 1.
    """
    losses, clean = method.losses[network].cpu(), method.clean[network].cpu()
    return Split(
        epoch=method.epoch + 1,
        losses=normalised(losses),
        clean=clean.clone(),
        is_wrong=is_wrong,
        warm_up=method.epoch < method.settings.warm_up,
        threshold=method.settings.threshold,
        area=area_under_curve(clean, ~is_wrong),
    )


def area_under_curve(scores: Tensor, positive: Tensor) -> float:
    """AUC: how often a positive example has the higher score of a pair, ties counting half.

    Args:
        scores: float ``(n,)``.
        positive: bool ``(n,)``; with none, or nothing else, the result is nan.
    """
    if not bool(positive.any()) or bool(positive.all()):
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive.numpy(), scores.numpy()))


def draw_split(split: Split) -> plots.DescribedFigure:
    """Draw the losses of right and wrong labels, both curves and the border between them.

    The curves are fitted to the losses of this epoch, without a look at which labels are wrong.
    """
    title = f"epoch {split.epoch}{' (warm-up)' * split.warm_up}, AUC {split.area:.3f}"
    figure, (axes,) = plots.new_figure(width=9, height=3.0, title=title)
    right, wrong = split.losses[~split.is_wrong].numpy(), split.losses[split.is_wrong].numpy()
    axes.hist(
        right, BINS, color=plots.COLOURS["sky"], hatch="//", edgecolor="white", label="right labels"
    )
    colour = plots.COLOURS["vermilion"]
    axes.hist(wrong, BINS, label="wrong labels", histtype="step", color=colour, linewidth=2)
    told = _draw_curves(axes, split)
    if not np.isnan(split.border):
        axes.axvline(split.border, color="#555555", linestyle=":", label="believed up to here")
        told += f" Labels are believed up to the loss {split.border:.2f}."
    axes.set_xlim(0, 1)
    plots.label_axes(axes, "loss, stretched to 0..1", "labels")
    axes.legend(loc="upper right", fontsize=plots.SMALL_FONT, frameon=False)
    figure.alt_text = (
        f"Histogram of the losses, {split.in_words()}. Median loss of the right labels "
        f"{_median(right)}, of the wrong ones {_median(wrong)}. {told}"
    )
    return figure


def _draw_curves(axes: Axes, split: Split) -> str:
    """Add the fitted curves, as high as the bars; return them in words."""
    if not bool(split.losses.max() > split.losses.min()):
        return "All losses are equal: there are no curves."
    mixture = fit_mixture(split.losses)[0]
    order = mixture.means_[:, 0].argsort()
    means, spreads = mixture.means_[order, 0], np.sqrt(mixture.covariances_[order, 0, 0])
    shares, scale = mixture.weights_[order], len(split.losses) * (BINS[1] - BINS[0])
    looks = (("blue", "-", "curve of small losses"), ("black", "--", "curve of large losses"))
    bars, highest = axes.get_ylim()[1], 0.0
    for k, (colour, dash, name) in enumerate(looks):
        bell = np.exp(-0.5 * ((FINE - means[k]) / spreads[k]) ** 2) / spreads[k]
        heights = scale * shares[k] * bell / np.sqrt(2 * np.pi)
        axes.plot(FINE, heights, dash, c=plots.COLOURS[colour], linewidth=2, label=name)
        highest = max(highest, heights.max())
    # A narrow curve may be much higher than its bars, which are what matters.
    axes.set_ylim(0, min(1.4 * bars, max(bars, 1.05 * highest)))
    return (
        f"The curve of small losses has its top at {means[0]:.2f} and holds {shares[0]:.0%} of the "
        f"labels, the other's top is at {means[1]:.2f}."
    )


def _median(values: np.ndarray) -> str:
    return f"{np.median(values):.2f}" if len(values) else "(there are none)"


class MixtureExplorer(Explorer):
    """A panel with the split of the labels on top and the training below.

    Args:
        pieces: arguments of :class:`~nlcourse.methods.DivideMix` that have no control, for example
            a student's own functions.
        options: further arguments of :class:`Explorer`.

    Raises:
        ValueError: a setting that the panel does not have.
    """

    def __init__(self, pieces: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Build the panel; the picture on top waits for the first epoch."""
        own = dict(pieces or {})
        *numbers, penalty = PARAMETERS["dividemix"]
        if "penalize" in own:  # a student's own stands behind the checkbox
            penalty = replace(penalty, pieces=(None, own.pop("penalize")))
        self.pieces = own
        self.splits: dict[int, Split] = {}
        self._method: DivideMix | None = None
        self.division = html("nlcourse-division")
        choice = MethodChoice("dividemix", self._make, (*numbers, penalty))
        options = {"methods": choice, "noise_kinds": ("symmetric", "asymmetric"), **options}
        super().__init__(**options)
        self.view.insert(self.division, above=self.picture)

    def split_figure(self) -> plots.DescribedFigure:
        """Return the split of the run on the panel, after its latest epoch, as a static figure.

        Raises:
            ValueError: nothing was trained yet.
        """
        split = self.split
        if split is None:
            raise ValueError("Nothing was tried yet: press Start or call `try_out()` first")
        return draw_split(split)

    @property
    def split(self) -> Split | None:
        """The latest split of the run on the panel."""
        return self.splits.get(self.run.number) if self.run is not None else None

    def _make(self, **values: Any) -> DivideMix:
        # Called in the thread of the run, just before it trains: runs never overlap.
        self._method = DivideMix(**self.pieces, **values)
        return self._method

    def _show_run(self, run: Run) -> None:
        if len(run.history) and self._method is not None:
            assert isinstance(self.trainer, Trainer)  # it was given no other
            is_wrong = self.trainer.corrupted(run.settings).is_wrong
            self.splits[run.number] = split_of(self._method, is_wrong)
            while len(self.splits) > MAX_STORED:
                self.splits.pop(next(iter(self.splits)))
        super()._show_run(run)

    def _show_picture(self) -> None:
        super()._show_picture()
        with self._drawing:
            split = self.split
            self.division.value = render.picture_html(draw_split(split)) if split else ""
