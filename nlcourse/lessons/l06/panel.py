"""The explorer of lesson 06: how hard a loss pulls at an example, and the training it leads to.

It is :class:`Explorer` with one more picture on top, which follows the menu and the sliders of the
loss while they move. Training still waits for Start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from ...methods import losses
from ...methods.robust import RobustLoss
from ...panels import plots, render
from ...panels.compute import MethodChoice, Parameter, check_choice
from ...panels.explorer import Explorer
from ...panels.view import html

PLAIN = functools.partial(F.cross_entropy, reduction="none")
POINTS = torch.tensor([0.002, *(0.02 * step for step in range(1, 50)), 0.998], dtype=torch.float64)
REFERENCES = {"cross entropy": PLAIN, "mean absolute error": losses.mean_absolute_error}


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

    def as_method(self) -> MethodChoice:
        """Return the training with this loss."""
        return MethodChoice(self.name, functools.partial(RobustLoss, self.loss), self.parameters)


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
        first: name of the loss that is chosen at the start, when it is not the first.
        options: further arguments of :class:`Explorer`.

    Raises:
        ValueError: a setting that the panel does not have.
    """

    def __init__(
        self, choices: Sequence[LossChoice] = LOSSES, *, first: str = "", **options
    ) -> None:
        """Build the panel and draw the first pull."""
        self.losses = {choice.name: choice.loss for choice in choices}
        super().__init__(methods=[choice.as_method() for choice in choices], **options)
        if first:
            check_choice("`first`", first, self.losses)
            self.controls["method"].value = first
        self.pull = html("nlcourse-pull")
        self.view.insert(self.pull, above=self.view.buttons)
        self.controls["method"].observe(lambda change: self._show_pull(), "value")
        for group in self.view.parameters.values():
            for widget in group.values():
                widget.continuous_update = True  # drawing the pull takes no training
                widget.observe(lambda change: self._show_pull(), "value")
        self._show_pull()

    def pull_figure(self, **changes) -> Figure:
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
    name: str, loss: Callable[..., Tensor], parameters: Mapping[str, object] | None = None
) -> Figure:
    """Draw how hard a loss pulls, between cross entropy and the mean absolute error in grey.

    Args:
        name: of the loss, with its parameters.
        loss: one value an example.
        parameters: further arguments of the loss.
    """
    words = f"pull against the label's probability p: {name}"
    figure, (axes,) = plots.new_figure(width=9, height=2.6, title=words)
    x = POINTS.tolist()
    told = []
    for label, other in REFERENCES.items():
        values = losses.label_pull(other, POINTS).tolist()
        dash = "-" if other is PLAIN else "--"
        axes.plot(x, values, color=render.GHOST, linestyle=dash, linewidth=2, label=label)
        told.append(plots.line_in_words(label, values, x, "p"))
    values = losses.label_pull(loss, POINTS, **(parameters or {})).tolist()
    axes.plot(x, values, color=plots.COLOURS["blue"], linewidth=3, label="this loss")
    told.insert(0, plots.line_in_words(name, values, x, "p"))
    axes.set_xlabel("probability p of the label", fontsize=plots.FONT)
    axes.set_ylabel("pull at its logit", fontsize=plots.FONT)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(1.05, 1.1 * max(values)))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", fontsize=plots.SMALL_FONT, frameon=False)
    figure.alt_text = f"The {words}. {' '.join(told)}"
    return figure
