"""What all panels have in common: their parts on the screen, and the run behind Start.

A panel adds its settings, what it trains, its figure and its words.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"
from matplotlib.figure import Figure

from . import place, render
from .compute import check_choice
from .runner import Runner, Train
from .state import Run, State
from .view import View, button


class Panel:
    """Goal, controls, buttons, status, picture and table, one below the other.

    A panel says what it is set to in ``_changed``, and how it looks in ``_picture``, ``_status``
    and ``_table``.

    Args:
        state: what it remembers.
        view: its widgets.
    """

    controls: Mapping[str, W.Widget]

    def __init__(self, state: State, view: View) -> None:
        """Hold the parts; the panel shows them when it is ready to draw."""
        self.state, self.view = state, view
        self.goal, self.status, self.box = view.goal, view.status, view.box
        # "figure" and "tries" of a panel are what a caller asks for, not widgets.
        self.picture, self.table = view.figure, view.tries
        self._drawing = threading.RLock()  # the worker and the cell may draw at the same time
        place.take(self)

    @property
    def settings(self) -> Hashable:
        """What the controls say now."""
        return self._changed({})

    @property
    def run(self) -> Run | None:
        """The try on the panel."""
        return self.state.current

    @property
    def tries(self) -> list[Run]:
        """The latest tries, oldest first."""
        return list(self.state.tries)

    def clear(self) -> None:
        """Forget the tries."""
        self.state.clear()
        self._show()

    def close(self) -> None:
        """Take the panel off the screen for good; another has its place."""
        self.state.forget()
        self.view.close()

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = self.box._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        # What a reader sees where no kernel runs (GitHub, nbviewer).
        data["text/plain"] = "A live panel: run the notebook in JupyterLab to use it."
        return data

    def _changed(self, changes: Mapping[str, object]) -> Hashable:
        """Return the settings of the controls with some changes."""
        raise NotImplementedError

    def _values(self, changes: Mapping[str, object], /, **others: object) -> dict[str, object]:
        """Return the controls' values, and others that have no control here, with some changes."""
        for name in changes:
            check_choice("settings", name, (*self.controls, *others))
        values = {name: widget.value for name, widget in self.controls.items()}
        return others | values | dict(changes)

    def _picture(self) -> str:
        """Return picture, alternative text and caption as HTML."""
        raise NotImplementedError

    def _status(self, note: str) -> str:
        """Return the status line as HTML."""
        raise NotImplementedError

    def _table(self) -> str:
        """Return the table of tries as HTML; a panel without a table leaves it empty."""
        return ""

    def _show(self, note: str = "") -> None:
        self._show_picture()
        self.table.value = self._table()
        self._say(note)

    def _show_picture(self) -> None:
        with self._drawing:
            self.picture.value = self._picture()

    def _say(self, note: str = "") -> None:
        self.goal.value = render.goal_html(self.state.goal)
        self.status.value = self._status(note)


class RunPanel(Panel):
    """A panel whose tries are runs: Start trains in the background, Stop ends it.

    The same settings again show the stored run. A panel draws its runs in ``_draw`` and describes
    them in ``_caption``.

    Args:
        state: what it remembers.
        view: its widgets.
        train: called as ``train(settings, stop, on_epoch)``; returns the history.
    """

    RECALLED = "These settings were trained before:"
    FIRST = "press Start"  # how a first try is made

    def __init__(self, state: State, view: View, train: Train) -> None:
        """Train nothing yet."""
        super().__init__(state, view)
        self.runner = Runner(train, self._show_run, state.end)

    def start(self) -> None:
        """Train with the settings of the controls in the background, or show the stored run.

        A run that is on is stopped.
        """
        settings = self.settings
        if self._recall(settings) is None:
            self.runner.start(self._begin(settings))

    def stop(self) -> None:
        """End the run at its next step and keep its curve."""
        self.runner.stop()
        if self.runner.running:
            self._say("Stopping …")

    def clear(self) -> None:
        """Stop, and forget the tries and their ghosts."""
        self.runner.stop()
        super().clear()

    def close(self) -> None:
        """End the run and take the panel off the screen for good; another has its place."""
        self.runner.stop()
        super().close()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the run, at most `timeout` seconds; return whether it has ended."""
        return self.runner.wait(timeout)

    def figure(self) -> Figure:
        """Return what the panel shows as a static figure, with earlier tries in grey.

        Raises:
            ValueError: nothing was tried yet.
        """
        run = self.run
        if run is None:
            raise ValueError(f"Nothing was tried yet: {self.FIRST} or call `try_out()` first")
        return self._draw(run, self.state.ghosts)

    def _buttons(self) -> list[W.Button]:
        return [
            button("Start", "play", "nlcourse-start", self.start, "success"),
            button("Stop", "stop", "nlcourse-stop", self.stop),
            button("Clear tries", "eraser", "nlcourse-clear", self.clear),
        ]

    def _try(self, settings: Hashable) -> Run:
        """Return the run of some settings, trained in the caller's thread or stored.

        Raises:
            Exception: whatever ended the run; the panel shows it, too.
        """
        run = self._recall(settings)
        if run is None:
            run = self._begin(settings)
            self.runner.blocking(run)
        if run.error is not None:
            raise run.error
        return run

    def _recall(self, settings: Hashable) -> Run | None:
        run = self.state.recall(settings)
        if run is not None:
            self.runner.stop()
            self._show(self.RECALLED)
        return run

    def _begin(self, settings: Hashable) -> Run:
        run = self.state.begin(settings)
        self._say()
        return run

    def _draw(self, run: Run | None, ghosts: Sequence[Run]) -> Figure:
        """Return the figure of a run with earlier ones in grey."""
        raise NotImplementedError

    def _caption(self, run: Run | None, ghosts: int) -> str:
        """Return what stands below the picture of a run and a number of earlier ones."""
        raise NotImplementedError

    def _picture(self) -> str:
        run, ghosts = self.run, self.state.ghosts  # once: another thread may begin a run or clear
        figure, caption = self._draw(run, ghosts), self._caption(run, len(ghosts))
        return render.picture_html(figure, caption, busy=run is not None and run.running)

    def _status(self, note: str) -> str:
        return render.status_html(self.run, note)

    def _show_run(self, run: Run) -> None:
        """Show how a run is doing; called in its thread."""
        if run is self.run:
            self._show()
