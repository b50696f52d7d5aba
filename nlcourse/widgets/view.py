"""The face of a panel: sliders, menus, buttons and four pieces of HTML.

All that knows ipywidgets is here.

Only HTML widgets show results: no Output widget and no ``clear_output``, which mix up what comes
from threads. Every part carries a class (``nlcourse-start``, ...) by which tests and style sheets
find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import log10

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"

from .compute import MethodChoice, Parameter

WIDE = {"description_width": "9.5em"}
CONTROL_WIDTH = "33em"  # two columns beside each other on a laptop


def control(parameter: Parameter) -> W.Widget:
    """Return the control of one parameter: a checkbox, or a slider.

    Sliders report a value when they are let go, not on the way (``continuous_update=False``).
    """
    label = parameter.label or parameter.name.replace("_", " ")
    common = {"description": label, "style": WIDE, "layout": W.Layout(width=CONTROL_WIDTH)}
    if isinstance(parameter.default, bool):
        widget = W.Checkbox(value=parameter.default, indent=True, **common)
    elif parameter.log:
        widget = W.FloatLogSlider(
            value=parameter.default,
            base=10,
            min=log10(parameter.low),
            max=log10(parameter.high),
            step=parameter.step,
            readout_format=".3g",
            continuous_update=False,
            **common,
        )
    else:
        kind = W.IntSlider if isinstance(parameter.default, int) else W.FloatSlider
        form = "d" if kind is W.IntSlider else (".0%" if parameter.percent else ".3g")
        widget = kind(
            value=parameter.default,
            min=parameter.low,
            max=parameter.high,
            step=parameter.step,
            readout_format=form,
            continuous_update=False,
            **common,
        )
    widget.add_class(f"nlcourse-{parameter.name.replace('_', '-')}")
    return widget


def menu(name: str, label: str, options: Sequence[str], value: str) -> W.Dropdown:
    """Return a menu of names."""
    widget = W.Dropdown(
        options=list(options),
        value=value,
        description=label,
        style=WIDE,
        layout=W.Layout(width=CONTROL_WIDTH),
    )
    widget.add_class(f"nlcourse-{name}")
    return widget


class View:
    """The widgets of a panel and where they stand.

    Args:
        controls: the widgets of the settings, by name, in the order of the panel.
        hidden: names of controls that are not shown.
        methods: the methods on offer; the parameters of the chosen one are shown.
        on_start: called when Start is pressed.
        on_stop: called when Stop is pressed.
        on_clear: called when "Clear tries" is pressed.
    """

    def __init__(
        self,
        controls: dict[str, W.Widget],
        *,
        hidden: Iterable[str],
        methods: Sequence[MethodChoice],
        on_start: Callable[[], None],
        on_stop: Callable[[], None],
        on_clear: Callable[[], None],
    ) -> None:
        """Build the widgets; nothing is displayed yet."""
        self.controls = controls
        self.hidden = set(hidden)
        self.parameters = {
            choice.name: {p.name: control(p) for p in choice.parameters} for choice in methods
        }
        self.start = button("Start", "play", "nlcourse-start", on_start, "success")
        self.stop = button("Stop", "stop", "nlcourse-stop", on_stop)
        self.clear = button("Clear tries", "eraser", "nlcourse-clear", on_clear)
        self.goal, self.status, self.figure, self.tries = (
            html(f"nlcourse-{name}") for name in ("goal", "status", "figure", "tries")
        )
        self.box = self._lay_out()
        controls["method"].observe(lambda change: self._show_parameters(), "value")
        self._show_parameters()

    def _lay_out(self) -> W.VBox:
        wrap = W.Layout(display="flex", flex_flow="row wrap")
        shown = [widget for name, widget in self.controls.items() if name not in self.hidden]
        self.parameter_box = W.Box(layout=wrap)
        buttons = W.HBox([self.start, self.stop, self.clear])
        box = W.VBox(
            [
                self.goal,
                W.Box(shown, layout=wrap),
                self.parameter_box,
                buttons,
                self.status,
                self.figure,
                self.tries,
            ]
        )
        box.add_class("nlcourse-explorer")
        return box

    def _show_parameters(self) -> None:
        chosen = self.parameters[self.controls["method"].value]
        self.parameter_box.children = tuple(
            widget for name, widget in chosen.items() if name not in self.hidden
        )


def button(
    label: str, icon: str, name: str, action: Callable[[], object], style: str = ""
) -> W.Button:
    """Return a button with an icon; `name` is its class."""
    widget = W.Button(description=label, icon=icon, button_style=style)
    widget.add_class(name)
    widget.on_click(lambda _: action())
    return widget


def html(name: str) -> W.HTML:
    """Return an empty piece of HTML as wide as the panel; `name` is its class."""
    widget = W.HTML(layout=W.Layout(width="100%"))
    widget.add_class(name)
    return widget
