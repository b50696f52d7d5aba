"""A cell that runs again: its new panel takes the place of the old one."""

import sys
import time
from types import SimpleNamespace

import ipywidgets as W  # noqa: N812
import pytest
from ipywidgets.widgets.widget import _instances

from nlcourse.lessons.l03.panel import NoiseExplorer
from nlcourse.lessons.l04.panel import LinearExplorer
from nlcourse.panels import Explorer, place


@pytest.fixture
def cell(monkeypatch):
    """A notebook: sets the running cell and the number of its execution."""
    monkeypatch.setattr(place, "_IN_CELL", {})
    here = {"at": None}
    monkeypatch.setattr(place, "running_cell", lambda: here["at"])

    def run(name, execution):
        here["at"] = (name, execution)

    return run


def quick():
    return Explorer(epochs=2)


def closed(panel):
    return panel.box.comm is None


def test_the_panel_of_an_earlier_execution_is_closed(cell):
    cell("a", 1)
    first = quick()
    first.try_out()
    assert "<img" in first.picture.value
    cell("a", 2)
    second = quick()
    assert closed(first)
    assert first.picture.value == ""
    assert first.tries == []
    assert not closed(second)
    second.close()


def test_panels_of_one_execution_and_of_other_cells_stay(cell):
    cell("a", 1)
    one, other = quick(), quick()
    cell("b", 2)
    third = quick()
    assert not any(map(closed, (one, other, third)))
    cell("a", 3)
    fourth = quick()
    assert [closed(panel) for panel in (one, other, third, fourth)] == [True, True, False, False]
    third.close(), fourth.close()


def test_a_run_ends_when_its_cell_runs_again(cell):
    cell("a", 1)
    first = Explorer(epochs=2000)
    first.start()
    cell("a", 2)
    second = quick()
    began = time.perf_counter()
    assert first.wait(20)
    assert time.perf_counter() - began < 10  # it would have taken minutes
    second.close()


@pytest.mark.parametrize("make", [quick, LinearExplorer, NoiseExplorer])
def test_nothing_of_a_closed_panel_is_left_with_ipywidgets(make):
    before = set(_instances)
    panel = make()
    assert len(set(_instances) - before) > 10
    panel.close()
    left = [_instances[key] for key in set(_instances) - before]
    assert left == []
    panel.close()  # a second time does no harm


def test_a_closed_panel_still_answers(cell):
    panel = quick()
    panel.close()
    assert panel.try_out().history.best() > 0.3


def fake_shell(monkeypatch, shell):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


def test_the_cell_is_named_by_the_front_end(monkeypatch):
    parent = {"metadata": {"cellId": "abc"}}
    shell = SimpleNamespace(get_parent=lambda: parent, execution_count=7)
    fake_shell(monkeypatch, shell)
    assert place.running_cell() == ("abc", 7)
    parent["metadata"] = {}  # nbclient names no cells
    assert place.running_cell() is None


@pytest.mark.parametrize("shell", [None, SimpleNamespace(execution_count=1)])
def test_outside_of_a_notebook_there_is_no_cell(monkeypatch, shell):
    fake_shell(monkeypatch, shell)
    assert place.running_cell() is None
    monkeypatch.delitem(sys.modules, "IPython")
    assert place.running_cell() is None


def test_out_does_not_hold_what_was_replaced(cell, monkeypatch):
    cell("a", 1)
    first, other = quick(), object()
    names = {"Out": {3: first, 5: other}, "_3": first, "_5": other}
    fake_shell(monkeypatch, SimpleNamespace(user_ns=names))
    cell("a", 2)
    quick().close()
    assert names == {"Out": {5: other}, "_5": other}


def test_widgets_are_emptied():
    panel = quick()
    assert isinstance(panel.picture, W.HTML)
    panel.close()
    assert panel.status.value == ""
