"""The explorer of lesson 06: how hard a loss pulls at an example, and the training it leads to.

It is :class:`Explorer` with one more picture on top, which follows the menu and the sliders of the
loss while they move. Training still waits for Start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...methods import losses
from ...methods.robust import RobustLoss
from ...panels import plots, render
from ...panels.compute import MethodChoice, Parameter
from ...panels.explorer import Explorer
from ...panels.view import html

PLAIN = functools.partial(F.cross_entropy, reduction="none")
POINTS = torch.tensor([0.002, *(0.02 * step for step in range(1, 50)), 0.998], dtype=torch.float64)
REFERENCES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "cross entropy": (PLAIN, "-"),
    "mean absolute error": (losses.mean_absolute_error, "--"),
}


@dataclass(frozen=True)
class LossChoice:
    """A loss on offer.

    Attributes:
        name: what the menu shows.
        loss: called as ``loss(logits, labels, **parameters)``, one value an example; a student's
            own fits here.
        parameters: those that get a slider.
    """

    name: str
    loss: Callable[..., Tensor]
    parameters: tuple[Parameter, ...] = ()


LOSSES = (
    LossChoice("cross entropy", PLAIN),
    LossChoice("mean absolute error", losses.mean_absolute_error),
    LossChoice(
        "generalized cross entropy",
        losses.generalized_cross_entropy,
        (Parameter("q", 0.3, 0.0, 1.0, 0.05),),
    ),
    LossChoice(
        "symmetric cross entropy",
        losses.symmetric_cross_entropy,
        (
            Parameter("alpha", 0.1, 0.0, 2.0, 0.05, label="alpha, cross entropy"),
            Parameter("beta", 1.0, 0.0, 2.0, 0.05, label="beta, reverse"),
        ),
    ),
)


class LossExplorer(Explorer):
    """A panel with the pull of a loss on top and the training below.

    Args:
        choices: the losses on offer; the first is chosen at the start.
        options: further arguments of :class:`Explorer`; ``method`` names another loss to begin
            with.

    Raises:
        ValueError: a setting that the panel does not have.
    """

    def __init__(self, choices: Sequence[LossChoice] = LOSSES, **options: Any) -> None:
        """Build the panel and draw the first pull."""
        self.losses = {choice.name: choice.loss for choice in choices}
        methods = [
            MethodChoice(one.name, functools.partial(RobustLoss, one.loss), one.parameters)
            for one in choices
        ]
        super().__init__(methods=methods, **options)
        self.pull = html("nlcourse-pull")
        self.view.insert(self.pull, above=self.view.buttons)
        moved = [widget for group in self.parameters.values() for widget in group.values()]
        for widget in moved:
            widget.continuous_update = True  # drawing the pull takes no training
        for widget in (self.controls["method"], *moved):
            widget.observe(lambda change: self._show_pull(), "value")
        self._show_pull()

    def pull_figure(self, **changes: Any) -> plots.DescribedFigure:
        """Return the pull of the controls' loss as a static figure.

        Args:
            changes: as in :meth:`try_out`.

        Raises:
            ValueError: a setting that the panel does not have.
        """
        settings = self._changed(changes)
        parameters = dict(settings.parameters)
        return draw_pull(settings.method_in_words(), self.losses[settings.method], parameters)

    def _show_pull(self) -> None:
        with self._drawing:
            self.pull.value = render.picture_html(self.pull_figure())


def draw_pull(
    name: str, loss: Callable[..., Tensor], parameters: Mapping[str, Any] | None = None
) -> plots.DescribedFigure:
    """Draw how hard a loss pulls, between cross entropy and the mean absolute error in grey.

    Args:
        name: of the loss, with its parameters.
        loss: one value an example.
        parameters: further arguments of the loss.
    """
    words = f"pull against the label's probability p: {name}"
    figure, (axes,) = plots.new_figure(width=9, height=2.6, title=words)
    x = POINTS.numpy()
    told = []
    for label, (other, dash) in REFERENCES.items():
        values = losses.label_pull(other, POINTS).numpy()
        plots.curve(axes, label, values, (render.GHOST, dash, ""), x)
        told.append(plots.line_in_words(label, values, x, "p"))
    values = losses.label_pull(loss, POINTS, **(parameters or {})).numpy()
    plots.curve(axes, "this loss", values, ("blue", "-", ""), x, linewidth=3)
    told.insert(0, plots.line_in_words(name, values, x, "p"))
    plots.label_axes(axes, "probability p of the label", "pull at its logit")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(1.05, 1.1 * values.max()))
    axes.legend(loc="upper right", fontsize=plots.SMALL_FONT, frameon=False)
    figure.alt_text = f"The {words}. {' '.join(told)}"
    return figure
