"""What a panel remembers: runs, the goal, its verdict. No drawing, training or Jupyter here."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Any, ClassVar, Generic, TypeVar

from ..training.history import History

MAX_TRIES = 12  # rows of the trace
MAX_STORED = 24  # finished runs kept, so that the same settings need no second training

S = TypeVar("S", bound=Any)  # the settings of a panel: frozen, with `in_words()` and `epochs`
H = TypeVar("H", bound=Any)  # what came of them: as long as its finished epochs


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run; equal settings give equal curves.

    Attributes:
        dataset: name of the data.
        noise_kind: how the labels (or images) are corrupted.
        noise_rate: share of the corrupted examples, 0..1.
        lr: learning rate.
        method: name of the method.
        parameters: what the method was made with, as (name, value) pairs.
        options: further settings of the training, as (name, value) pairs.
        epochs: passes through the data.
        seed: of noise and training.
    """

    dataset: str
    noise_kind: str
    noise_rate: float
    lr: float
    method: str
    parameters: tuple[tuple[str, object], ...] = ()
    options: tuple[tuple[str, object], ...] = ()
    epochs: int = 30
    seed: int = 0

    def in_words(self) -> str:
        """Return one line such as ``digits, symmetric 40 %, lr 0.05, cross-entropy, 30 epochs``."""
        return (
            f"{self.dataset}, {self.noise_kind} {100 * self.noise_rate:.0f} %, lr {self.lr:.3g}, "
            f"{self.method_in_words()}, {self.epochs} epochs"
        )

    def method_in_words(self) -> str:
        """Return the method, its parameters and the options."""
        told = [f"{spoken(name)} {_value(value)}" for name, value in self.parameters]
        method = f"{self.method} ({', '.join(told)})" if told else self.method
        return method + "".join(f", {spoken(name)} {_value(v)}" for name, v in self.options)


@dataclass(frozen=True)
class Goal:
    """A task for the panel.

    Attributes:
        text: what to reach, in a sentence.
        judge: called with the finished :class:`Run`; returns whether the goal is reached and a
            sentence that says why.
    """

    text: str
    judge: Callable[[Any], tuple[bool, str]]


@dataclass(repr=False, eq=False)
class Run(Generic[S, H]):
    """One try: what was set, what came of it. Each panel says what that is for its own tries.

    Attributes:
        settings: what was set.
        number: 1, 2, ... in the order of the tries.
        history: the finished epochs; grows while the run is on.
        reached: whether the goal is reached; None without a verdict.
        verdict: the goal's sentence, or why there is none.
        error: what ended the run, or None.
        trace: the error's traceback as text.
        running: the run is on.
        draw: how its panel draws it.
        noun: what a try is called.
    """

    settings: S
    number: int = 0
    history: H = field(default_factory=History)  # type: ignore[assignment]
    reached: bool | None = None
    verdict: str = ""
    error: BaseException | None = None
    trace: str = ""
    running: bool = False
    draw: Callable[[Any], Any] | None = None

    noun: ClassVar[str] = "Try"

    @property
    def finished(self) -> bool:
        """All epochs were trained."""
        return not self.running and self.error is None and len(self.history) >= self.settings.epochs

    @property
    def figure(self) -> Any:
        """A fresh static figure of this run, for ``plots.show``."""
        if self.draw is None:
            raise ValueError("Expected a run of a panel, got one that nobody can draw")
        return self.draw(self)

    @property
    def where(self) -> str:
        """How far it came: ``epoch 3``."""
        return f"epoch {len(self.history)}"

    def heading(self) -> str:
        """Return what the caption calls this run: ``Try 2, epoch 3 of 30``."""
        return f"{self.noun} {self.number}, {self.where} of {self.settings.epochs}"

    def best(self) -> tuple[float, int]:
        """Return the highest test accuracy (0..1) and its epoch."""
        values = self.history["test_accuracy"]
        top = max(range(len(values)), key=values.__getitem__)
        return values[top], top + 1

    def summary(self) -> str:
        """Say in a sentence or two where the curves stand."""
        if not len(self.history):
            return "no epoch finished yet"
        last, (best, epoch) = self.history.last, self.best()
        words = (
            f"test accuracy {100 * last['test_accuracy']:.1f} % "
            f"(highest {100 * best:.1f} % at epoch {epoch})"
        )
        if not isnan(last["wrong_as_given"]):
            words += f", {100 * last['wrong_as_given']:.0f} % of the wrong labels memorized"
        if not isnan(last["label_precision"]):
            words += f", label precision {100 * last['label_precision']:.0f} %"
        return words

    def __repr__(self) -> str:
        """Say what was tried and what came of it."""
        return f"Run {self.number}: {self.settings.in_words()}: {self.summary()}"


class State:
    """The tries of a panel, bounded in number.

    Attributes:
        goal: what to reach, or None.
        draw: how a run is drawn.
        tries: the latest runs, oldest first.
        current: the run on the figure, or None.
        run_type: what a try is; a panel with other settings has one of its own.
        max_ghosts: earlier runs that stay on the figure: more cannot be told apart.
    """

    run_type: type[Run] = Run
    max_ghosts = 6

    def __init__(
        self, goal: Goal | None = None, draw: Callable[[Any], object] | None = None
    ) -> None:
        """Start without tries."""
        self.goal, self.draw = goal, draw
        self.tries: deque[Run] = deque(maxlen=MAX_TRIES)
        self.current: Run | None = None
        self._stored: OrderedDict[object, Run] = OrderedDict()
        self._count = 0

    @property
    def ghosts(self) -> list[Run]:
        """Earlier runs that stay on the figure, oldest first."""
        earlier = [run for run in self.tries if run is not self.current and len(run.history)]
        return earlier[-self.max_ghosts :]

    def begin(self, settings: object) -> Run:
        """Make the next try the current one."""
        self._count += 1
        self.current = self.run_type(settings, self._count, running=True, draw=self.draw)
        self.tries.append(self.current)
        return self.current

    def recall(self, settings: object) -> Run | None:
        """Make a stored finished run with these settings the current one, if there is any."""
        run = self._stored.get(settings)
        if run is not None:
            self._stored.move_to_end(settings)
            if run not in self.tries:
                self.tries.append(run)
            self.current = run
        return run

    def end(self, run: Run) -> None:
        """Judge a run that has ended and store it when it is whole."""
        run.running = False
        if run.finished:
            run.reached, run.verdict = self.judge(run)
            self._stored[run.settings] = run
            while len(self._stored) > MAX_STORED:
                self._stored.popitem(last=False)
        elif run.error is None:
            run.verdict = f"stopped after {run.where}: no verdict"
        else:
            run.verdict = "ended by an error"

    def clear(self) -> None:
        """Forget tries and ghosts. Stored runs stay: they only save time."""
        self.tries.clear()
        self.current = None

    def forget(self) -> None:
        """Forget everything, stored runs too."""
        self.clear()
        self._stored.clear()

    def judge(self, run: Run) -> tuple[bool | None, str]:
        """Return whether a run reaches the goal, or None, and a sentence."""
        if self.goal is None:
            return None, ""
        try:
            reached, verdict = self.goal.judge(run)
            return bool(reached), verdict
        except Exception as error:  # a judge is a lesson's code: its slip must not end the panel
            return None, f"the goal's judge failed: {type(error).__name__}: {error}"


def pairs(values: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """Return a mapping as sorted pairs, so that it can be part of a key."""
    return tuple(sorted(values.items()))


def spoken(name: str) -> str:
    """Return a parameter's name for people.

    >>> spoken("ramp_epochs")
    'ramp epochs'
    """
    return name.replace("_", " ")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
