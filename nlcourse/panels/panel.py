"""What all panels have in common: their parts on the screen, and what Start or a slider does.

A panel says which controls it has, what it computes from their values (its *settings*), what its
tries look like and how they are told. Nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as W  # noqa: N812 - read aloud as "widgets"

from ..base import expect_one_of
from . import place, plots, render
from .compute import settled
from .runner import LatestOnly, Runner, Train
from .state import Goal, Run, State
from .view import View, button


class Panel:
    """Goal, controls, buttons, status, picture and table, one below the other.

    Attributes:
        controls: the widgets of the settings, by name.
        fixed: settings without a control, by name.
        settings_type: made from the values of both.
        state_type: what the panel remembers.
        caption: of the table of tries.
    """

    controls: Mapping[str, W.Widget]
    fixed: Mapping[str, Any] = {}
    settings_type: Callable[..., Any]
    state_type: type[State] = State
    caption = "Your tries"

    def __init__(self, view: View, goal: Goal | None) -> None:
        """Hold the parts; the panel shows them when it is ready to draw."""
        self.state, self.view = self.state_type(goal, self._draw), view
        self.goal, self.status, self.box = view.goal, view.status, view.box
        # "figure" and "tries" of a panel are what a caller asks for, not widgets.
        self.picture, self.table = view.figure, view.tries
        self._drawing = threading.RLock()  # the worker and the cell may draw at the same time
        place.take(self)

    @property
    def settings(self) -> Any:
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

    def try_out(self, **changes: Any) -> Any:
        """Make a try with the settings of the controls but for some changes, and wait for it.

        The panel follows live. The ■ button ends it cleanly: what was trained is kept and returned.

        Args:
            changes: values of controls (or of other settings) by name, such as ``noise_rate=0.2``,
                ``method="co-teaching"``, or a parameter of the method.

        Returns:
            The run, with its ``history`` and a static ``figure`` for ``plots.show``.

        Raises:
            ValueError: a setting that the panel does not have.
            Exception: whatever ended the run; the panel shows it, too.
        """
        return self._try(self._changed(changes))

    def figure(self) -> plots.DescribedFigure:
        """Return what the panel shows as a static figure, with earlier tries in grey.

        Raises:
            ValueError: nothing was tried yet.
        """
        run = self.run
        if run is None:
            raise ValueError(self._nothing())
        return self._draw(run, self.state.ghosts)

    def clear(self) -> None:
        """Forget the tries."""
        self.state.clear()
        self._show()

    def close(self) -> None:
        """Take the panel off the screen for good; another has its place."""
        self.state.forget()
        self.view.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = self.box._repr_mimebundle_(**kwargs)
        data: dict[str, Any] = bundle[0] if isinstance(bundle, tuple) else bundle
        # What a reader sees where no kernel runs (GitHub, nbviewer).
        data["text/plain"] = "A live panel: run the notebook in JupyterLab to use it."
        return data

    def _changed(self, changes: Mapping[str, Any]) -> Any:
        """Return the settings of the controls with some changes."""
        return self.settings_type(**self._values(self.controls, changes))

    def _values(
        self, controls: Mapping[str, W.Widget], changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return values of controls, and the fixed ones, with some changes."""
        for name, value in changes.items():
            expect_one_of("settings", name, (*controls, *self.fixed))
            if isinstance(controls.get(name), W.Dropdown):
                expect_one_of(name, value, controls[name].options)
        values = {**self.fixed, **{name: w.value for name, w in controls.items()}, **changes}
        return {n: settled(v) if isinstance(v, float) else v for n, v in values.items()}

    def _try(self, settings: Any) -> Run:
        """Return the try of some settings, made now or stored."""
        raise NotImplementedError

    def _draw(self, run: Any, ghosts: Sequence[Any] = ()) -> plots.DescribedFigure:
        """Return the figure of a run with earlier ones in grey."""
        raise NotImplementedError

    def _cells(self, run: Any) -> dict[str, str]:
        """Return what the table says of a try, by column; a panel without a table says nothing."""
        return {}

    def _picture(self) -> str:
        """Return picture, alternative text and caption as HTML."""
        raise NotImplementedError

    def _status(self, note: str) -> str:
        """Return the status line as HTML."""
        raise NotImplementedError

    def _nothing(self) -> str:
        """Say why there is no figure."""
        return "Nothing was tried yet: press Start or call `try_out()` first"

    def _table(self) -> str:
        rows, current = self.tries, -1
        judged = self.state.goal is not None or any(run.verdict for run in rows)
        told = []
        for place_, run in enumerate(rows):
            current = place_ if run is self.run else current
            row = {"try": f"► {run.number}" if run is self.run else str(run.number)}
            row |= self._cells(run)
            if judged:
                verdict = run.verdict or ("running" if run.running else "")
                row["verdict"] = render.marked(run, verdict)
            told.append(row)
        return render.table_html(self.caption, told, "try", current)

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

    The same settings again show the stored run. A panel says in ``_charts`` what its runs look
    like.

    Args:
        view: its widgets.
        goal: what to reach, or None.
        train: called as ``train(settings, stop, on_epoch)``; returns the history.

    Attributes:
        first: how a first try is made.
        recalled: what is said of a stored run.
        busy: what is said while a run is on.
        again: what to do after an error.
        size: height of the figure in inches, and the share of it below the axes.
    """

    first = "Choose settings, then press Start."
    recalled = "These settings were trained before:"
    busy = "Training … Stop ends it at once."
    again = "Change the settings and press Start again."
    size = (4.3, 0.32)

    def __init__(self, view: View, goal: Goal | None, train: Train) -> None:
        """Train nothing yet."""
        super().__init__(view, goal)
        self.runner = Runner(train, self._show_run, self.state.end)

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

    def _buttons(self) -> list[W.Button]:
        return [
            button("Start", "play", "nlcourse-start", self.start, "success"),
            button("Stop", "stop", "nlcourse-stop", self.stop),
            button("Clear tries", "eraser", "nlcourse-clear", self.clear),
        ]

    def _try(self, settings: Any) -> Run:
        run = self._recall(settings)
        if run is None:
            run = self._begin(settings)
            self.runner.blocking(run)
        if run.error is not None:
            raise run.error
        return run

    def _recall(self, settings: Any) -> Run | None:
        run = self.state.recall(settings)
        if run is not None:
            self.runner.stop()
            self._show(self.recalled)
        return run

    def _begin(self, settings: Any) -> Run:
        run = self.state.begin(settings)
        self._say()
        return run

    def _charts(self, run: Any, ghosts: Sequence[Any]) -> list[render.Chart]:
        """Return the charts of a run, or of none yet, with earlier ones in grey."""
        raise NotImplementedError

    def _draw(self, run: Any, ghosts: Sequence[Any] = ()) -> plots.DescribedFigure:
        charts, (height, bottom) = self._charts(run, ghosts), self.size
        title = run.settings.in_words() if run is not None else "No try yet"
        figure = render.draw(charts, title=title, height=height, bottom=bottom)
        figure.alt_text = render.alt_text(run, ghosts, charts)
        return figure

    def _picture(self) -> str:
        run, ghosts = self.run, self.state.ghosts  # once: another thread may begin a run or clear
        figure = self._draw(run, ghosts)
        return render.image_html(
            plots.png(figure), figure.alt_text, **self._below(run, len(ghosts))
        )

    def _below(self, run: Run | None, ghosts: int) -> dict[str, Any]:
        """Return the caption of the picture, and whether it is about to change."""
        if run is None:
            return {"caption": self.first}
        words = f"{run.heading()}: {run.summary()}.{render.in_grey(ghosts)}"
        return {"caption": words, "busy": run.running}

    def _status(self, note: str) -> str:
        run = self.run
        if run is None:
            return render.status_html(note)
        if run.running:
            return render.status_html(note or self.busy)
        if run.error is not None:
            return render.status_html(f"{render.error_words(run)} {self.again}", run.trace)
        words = render.marked(run, run.verdict or "Done.", long=True)
        return render.status_html(f"{note} {words[0].upper()}{words[1:]}".strip())

    def _show_run(self, run: Run) -> None:
        """Show how a run is doing; called in its thread."""
        if run is self.run:
            self._show()


class InstantPanel(Panel):
    """A panel whose picture follows the controls while they move; a button makes it a try.

    Nothing is trained: what there is to see takes a moment. A try is kept when the student says so:
    a slider on its way would fill any trace.

    Args:
        controls: the widgets of the settings, by name.
        goal: what to reach, or None.
        keep: the button.
    """

    def __init__(self, controls: Mapping[str, W.Widget], goal: Goal | None, keep: W.Button) -> None:
        """Draw the first picture."""
        self.controls, self.keep_button = controls, keep
        keep.on_click(lambda _: self.keep())
        self.clear_button = button("Clear tries", "eraser", "nlcourse-clear", self.clear)
        super().__init__(View(controls.values(), buttons=(keep, self.clear_button)), goal)
        self._worker = LatestOnly(self._look)
        for widget in controls.values():
            widget.continuous_update = True
            widget.observe(lambda change: self._worker.ask(), "value")
        self._look()

    def keep(self) -> Run | None:
        """Make a try of what the controls say, and judge it; None if it is not possible."""
        self.wait()
        return self._try(self.settings) if self.run is not None else None

    def clear(self) -> None:
        """Forget the tries that were kept."""
        with self._drawing:
            self.state.clear()
            self._look()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the picture has caught up, at most `timeout` seconds; return whether."""
        return self._worker.wait(timeout)

    def _compute(self, settings: Any) -> Any:
        """Return what comes of some settings, a ``history``.

        Raises:
            ValueError: they are not possible.
        """
        raise NotImplementedError

    def _try(self, settings: Any) -> Run:
        with self._drawing:
            run = self.state.recall(settings)
            if run is None:
                history = self._compute(settings)  # what is not possible is no try
                run = self.state.begin(settings)
                run.history = history
                self.state.end(run)
            self._show()
            return run

    def _look(self) -> None:
        """Show what the controls say: the kept try that says the same, or a new one."""
        with self._drawing:
            settings = self.settings
            kept = [run for run in self.tries if run.settings == settings]
            try:
                now = kept[0] if kept else self._unkept(settings)
            except ValueError as error:
                self.state.current = None
                self._say(f"Not possible: {error}. Move a slider.")
                return
            self.state.current = now
            self._show()

    def _unkept(self, settings: Any) -> Run:
        return self.state.run_type(settings, history=self._compute(settings), draw=self._draw)

    def _nothing(self) -> str:
        return "These settings are not possible: see the panel's status line"

    def _picture(self) -> str:
        run = self.run
        caption = f"{run.settings.in_words()}: {run.summary()}." if run else self._nothing()
        return render.picture_html(self.figure(), caption)

    def _status(self, note: str) -> str:
        run = self.run
        if run is None or not run.number:
            wait = f"Move the controls; press {self.keep_button.description} to have it judged."
            return render.status_html(note or wait)
        judged = render.marked(run, run.verdict or run.summary(), long=True)
        return render.status_html(f"Try {run.number} is kept. {judged}")
