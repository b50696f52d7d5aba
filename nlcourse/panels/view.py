"""The face of every panel: sliders, menus, buttons and four pieces of HTML.

All that knows ipywidgets is here.

Only HTML widgets show results: no Output widget and no ``clear_output``, which mix up what comes
from threads. Every part carries a class (``nlcourse-start``, ...) by which tests and style sheets
find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log10

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"

from ..base import expect, expect_one_of
from .compute import Menu, Parameter
from .state import spoken

WIDE = {"description_width": "9.5em"}
CONTROL_WIDTH = "33em"  # two columns beside each other on a laptop


def control(entry: Parameter | Menu) -> W.Widget:
    """Return the control of one setting: a menu, a checkbox, or a slider.

    Sliders report a value when they are let go, not on the way (``continuous_update=False``).
    """
    common = {
        "description": entry.label or spoken(entry.name),
        "style": WIDE,
        "layout": W.Layout(width=CONTROL_WIDTH),
    }
    if isinstance(entry, Menu):
        widget = W.Dropdown(options=entry.options, value=entry.options[0], **common)
    elif isinstance(entry.default, bool):
        widget = W.Checkbox(value=entry.default, indent=True, **common)
    else:
        common |= {"value": entry.default, "step": entry.step, "continuous_update": False}
        if entry.log:
            low, high = log10(entry.low), log10(entry.high)
            widget = W.FloatLogSlider(min=low, max=high, readout_format=".3g", **common)
        else:
            whole = isinstance(entry.default, int)
            form = "d" if whole else (".0%" if entry.percent else ".3g")
            kind = W.IntSlider if whole else W.FloatSlider
            widget = kind(min=entry.low, max=entry.high, readout_format=form, **common)
    widget.add_class(f"nlcourse-{entry.name.replace('_', '-')}")
    return widget


def controls(
    entries: Iterable[Parameter | Menu], first: Mapping[str, object]
) -> dict[str, W.Widget]:
    """Return the controls of some settings by name.

    Args:
        entries: the settings.
        first: other first values than the settings' own, by name.

    Raises:
        ValueError: a first value that the control does not have.
    """
    widgets = {entry.name: control(entry) for entry in entries}
    for entry in entries:
        value = first.get(entry.name)
        if isinstance(entry, Menu) and value is not None:
            expect_one_of(entry.name, value, entry.options)
        elif isinstance(entry, Parameter) and isinstance(value, (int, float)):
            fits = entry.low <= value <= entry.high
            expect(fits, f"`{entry.name}` in [{entry.low:g}, {entry.high:g}]", value)
        if value is not None:
            widgets[entry.name].value = value
    return widgets


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
        parameters: those of each method's parameters, by its name.
        hidden: names of controls that are not shown.
        buttons: Start, Stop and Clear.
    """

    def __init__(
        self,
        controls: Mapping[str, W.Widget],
        parameters: Mapping[str, Mapping[str, W.Widget]],
        *,
        hidden: Iterable[str],
        buttons: Sequence[W.Button],
    ) -> None:
        """Put the widgets together."""
        self.controls, self.parameters, self.hidden = controls, parameters, set(hidden)
        self.start, self.stop, self.clear = buttons
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

    def _shown(self, widgets: Mapping[str, W.Widget]) -> list[W.Widget]:
        return [widget for name, widget in widgets.items() if name not in self.hidden]

    def _show_parameters(self) -> None:
        chosen = self.parameters[self.controls["method"].value]
        self.parameter_box.children = self._shown(chosen)


def row_of(widgets: Iterable[W.Widget]) -> W.Box:
    """Return widgets beside each other, in more lines than one where the panel is narrow."""
    return W.Box(list(widgets), layout=W.Layout(display="flex", flex_flow="row wrap"))


def button(
    label: str,
    icon: str,
    name: str,
    action: Callable[[], object] = lambda: None,
    style: str = "",
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
