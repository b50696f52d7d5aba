"""The face of every panel: sliders, menus, buttons and four pieces of HTML.

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
        rows: the controls, a row for each group; a row breaks where the panel ends.
        buttons: what stands below the controls.
    """

    def __init__(self, *rows: Iterable[W.Widget], buttons: Sequence[W.Button]) -> None:
        """Put the widgets together; nothing is displayed yet."""
        self.goal, self.status, self.figure, self.tries = (
            html(f"nlcourse-{name}") for name in ("goal", "status", "figure", "tries")
        )
        self.buttons = W.HBox(buttons)
        controls = [row_of(row) for row in rows]
        self.box = W.VBox(
            [self.goal, *controls, self.buttons, self.status, self.figure, self.tries]
        )
        self.box.add_class("nlcourse-explorer")

    def insert(self, widget: W.Widget, *, above: W.Widget) -> None:
        """Put one more widget into the panel, above another."""
        parts = list(self.box.children)
        parts.insert(parts.index(above), widget)
        self.box.children = parts

    def close(self) -> None:
        """Empty and close all widgets: ipywidgets keeps what nobody closes for ever."""
        _close(self.box)


def _close(widget: W.Widget) -> None:
    """Close a widget and those that it holds: children, layout, style."""
    for value in widget.trait_values(sync=True).values():
        for held in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(held, W.Widget):
                _close(held)
    if isinstance(widget, W.HTML):
        widget.value = ""  # a notebook's Out remembers the panel, but needs no pictures
    widget.close()


class MethodView(View):
    """A panel on which the parameters of the chosen method follow the other controls.

    Args:
        controls: the widgets of the settings, by name, in the order of the panel.
        hidden: names of controls that are not shown.
        methods: the methods on offer.
        buttons: Start, Stop and Clear.
    """

    def __init__(
        self,
        controls: dict[str, W.Widget],
        *,
        hidden: Iterable[str],
        methods: Sequence[MethodChoice],
        buttons: Sequence[W.Button],
    ) -> None:
        """Build the parameters' widgets."""
        self.controls, self.hidden = controls, set(hidden)
        self.start, self.stop, self.clear = buttons
        self.parameters = {
            choice.name: {p.name: control(p) for p in choice.parameters} for choice in methods
        }
        super().__init__(self._shown(controls), buttons=buttons)
        self.parameter_box = row_of(())
        self.insert(self.parameter_box, above=self.buttons)
        controls["method"].observe(lambda change: self._show_parameters(), "value")
        self._show_parameters()

    def close(self) -> None:
        """Close what is hidden, too."""
        for widgets in (self.controls, *self.parameters.values()):
            for widget in widgets.values():
                _close(widget)
        super().close()

    def _shown(self, widgets: dict[str, W.Widget]) -> list[W.Widget]:
        return [widget for name, widget in widgets.items() if name not in self.hidden]

    def _show_parameters(self) -> None:
        chosen = self.parameters[self.controls["method"].value]
        self.parameter_box.children = self._shown(chosen)


def row_of(widgets: Iterable[W.Widget]) -> W.Box:
    """Return widgets beside each other, in more lines than one where the panel is narrow."""
    return W.Box(list(widgets), layout=W.Layout(display="flex", flex_flow="row wrap"))


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
