"""One run at a time, in a thread of its own. No drawing, no Jupyter here."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from .compute import OnEpoch
from .state import Run

Train = Callable[[Any, threading.Event, OnEpoch], Any]  # settings, stop, on_epoch -> history
MAX_RATE = 10  # drawings a second: more the eye does not need, and the browser has to decode each
MAX_SHARE = 0.2  # of the training time may go into drawing


class Pace:
    """Decides when the next drawing is worth its price.

    Drawing takes time away from training. The next drawing waits until it fits into ``MAX_SHARE``
    of the training time so far, and at least ``1 / MAX_RATE`` seconds; the first one comes at once,
    since a first point is what the eye waits for. The price of the final drawing, which always
    comes, is set aside.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start the clock."""
        self.clock = clock
        self.began = self._latest = clock()
        self.drawings = 0
        self.drawing_time = 0.0
        # Of the cheapest drawing: only the first of its kind lays out the figure.
        self._price = float("inf")

    @property
    def training_time(self) -> float:
        """Seconds since the start that did not go into drawing."""
        return self.clock() - self.began - self.drawing_time

    def due(self) -> bool:
        """Say whether to draw now."""
        if self.drawings == 0:
            return True
        spent = self.drawing_time + 2 * self._price  # this one and the final one
        rested = self.clock() - self._latest >= 1 / MAX_RATE
        return rested and spent <= MAX_SHARE * self.training_time

    def draw(self, action: Callable[[], None]) -> None:
        """Draw, and note what it cost."""
        begin = self.clock()
        try:
            action()
        finally:
            self._latest = self.clock()
            self.drawing_time += self._latest - begin
            self._price = min(self._price, self._latest - begin)
            self.drawings += 1


class Runner:
    """Trains runs one after the other; a new one stops the old one.

    Args:
        train: called as ``train(settings, stop, on_epoch)``; returns the history.
        on_change: called with the run in the training thread: at the first point, as often as the
            pace allows, and once more when the run has ended.
        on_end: called with the run before that last time.
    """

    def __init__(
        self, train: Train, on_change: Callable[[Run], None], on_end: Callable[[Run], None]
    ) -> None:
        """Start nothing yet."""
        self.train, self.on_change, self.on_end = train, on_change, on_end
        self.pace = Pace()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """A run is on in the background."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, run: Run) -> None:
        """Train in the background and return at once."""
        self.stop()
        self._stop = threading.Event()
        # The new thread waits for the old one, not the caller: two runs never train at once, and no
        # cell is ever busy.
        arguments = (run, self._stop, self._thread)
        self._thread = threading.Thread(
            target=self._work, args=arguments, name="nlcourse-run", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask the run to end at its next step."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the run in the background; return whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.running

    def blocking(self, run: Run) -> None:
        """Train in the caller's thread; the ■ button ends it and keeps its history."""
        self.stop()
        self.wait()
        self._stop = threading.Event()
        self._work(run, self._stop, None)

    def _work(self, run: Run, stop: threading.Event, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        self.pace = pace = Pace()

        def on_epoch(history: Any) -> None:
            run.history = history
            if len(history) < run.settings.epochs and pace.due():
                pace.draw(lambda: self.on_change(run))

        try:
            # Stopped before its first step (Start pressed twice): nothing to train.
            if not stop.is_set():
                run.history = self.train(run.settings, stop, on_epoch)
        except KeyboardInterrupt:
            run.history.stopped = "interrupted"
        except Exception as error:
            # Nobody sees the traceback of a thread: it is kept with the run and shown in the panel.
            run.error, run.trace = error, "".join(traceback.format_exception(error))
            run.history = getattr(error, "history", run.history)
        self.on_end(run)
        pace.draw(lambda: self.on_change(run))


class LatestOnly:
    """Does one thing in the background, again whenever it was asked for in the meantime.

    A moving slider asks faster than a picture is drawn. What it asked for in between is skipped;
    what it asked for last is always done.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        """Start nothing yet."""
        self.action = action
        self._thread = ThreadPoolExecutor(1, "nlcourse-draw")
        self._asked: Future[None] | None = None

    def ask(self) -> None:
        """Have it done soon, and return at once."""
        if self._asked is not None:
            self._asked.cancel()  # unless it is being done
        self._asked = self._thread.submit(self._act)

    def _act(self) -> None:
        try:
            self.action()
        except Exception:  # an executor keeps it to itself; nobody would see why nothing is drawn
            traceback.print_exc()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was asked for is done; return whether it is."""
        return self._asked is None or not wait([self._asked], timeout).not_done
