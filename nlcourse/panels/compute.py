"""What a panel trains: methods, noise and the run itself. No drawing, no Jupyter here."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch

from .. import datasets, noise, training
from ..base import Method, expect_one_of
from ..datasets import Dataset
from ..methods import METHODS
from ..methods.co_teaching import crossed_losses, own_losses
from ..methods.mixmatch import confidence_penalty
from ..training.history import History
from .state import Settings

OnEpoch = Callable[[Any], None]
Corruption = Callable[[Any, float, int], Any]
NoiseKinds = str | Mapping[str, Corruption] | Iterable[str | Mapping[str, Corruption]]

KEPT_DATA = 3  # corrupted versions of the data kept: enough to go back and forth, little memory


@dataclass(frozen=True)
class Parameter:
    """A number or a switch that a panel offers.

    Attributes:
        name: what it is called, in the trace and in ``try_out``.
        default: its first value; a bool makes a checkbox, an int a slider of whole numbers.
        low: lowest value.
        high: highest value.
        step: between neighbours; for a logarithmic slider in powers of ten.
        log: a logarithmic slider.
        label: what stands beside it; the name when left out.
        percent: show 0..1 as a percentage.
        argument: the argument's name, where it differs from `name`: "noise_rate" of a panel is that
            of the data, so a method that wants to be told a noise rate has another name for it
            here.
        pieces: the method's own piece that "off" and "on" of a checkbox stand for.
    """

    name: str
    default: float | int | bool
    low: float = 0.0
    high: float = 1.0
    step: float = 0.05
    log: bool = False
    label: str = ""
    percent: bool = False
    argument: str = ""
    pieces: tuple[Any, Any] | None = None


@dataclass(frozen=True)
class Menu:
    """A choice of names that a panel offers; the first one is chosen at the start."""

    name: str
    options: tuple[str, ...]
    label: str = ""


@dataclass(frozen=True)
class MethodChoice:
    """A method on offer: its name, how to make it, and the parameters that get a control.

    Attributes:
        name: what the menu shows.
        make: called with the parameters by name; returns a fresh :class:`~nlcourse.methods.Method`.
        parameters: the controls.
        fit_options: fixed arguments of ``training.fit``, for example ``{"network": "small-cnn"}``.
    """

    name: str
    make: Callable[..., Method]
    parameters: tuple[Parameter, ...] = ()
    fit_options: Mapping[str, object] = field(default_factory=dict, hash=False)

    def build(self, values: Mapping[str, object]) -> Method:
        """Return a fresh method with these values of its parameters."""
        told = {}
        for one in self.parameters:
            if one.name in values:
                value: Any = values[one.name]
                told[one.argument or one.name] = one.pieces[value] if one.pieces else value
        return self.make(**told)


PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "co-teaching": (
        Parameter("assumed_noise_rate", 0.4, 0.0, 0.9, 0.05, percent=True, argument="noise_rate"),
        Parameter("ramp_epochs", 10, 1, 30, 1, label="ramp, epochs"),
        Parameter(
            "cross",
            True,
            label="cross the two selections",
            argument="losses",
            pieces=(own_losses, crossed_losses),
        ),
    ),
    "dividemix": (
        Parameter("warm_up", 5, 1, 30, 1, label="warm-up, epochs"),
        Parameter("threshold", 0.5, 0.05, 0.95, 0.05, label="threshold tau"),
        Parameter("lambda_u", 25.0, 0.0, 150.0, 5.0, label="lambda_u"),
        Parameter(
            "penalty",
            False,
            label="confidence penalty",
            argument="penalize",
            pieces=(None, confidence_penalty),
        ),
    ),
    "cdr": (
        Parameter("assumed_noise_rate", 0.4, 0.0, 0.9, 0.05, percent=True, argument="noise_rate"),
        Parameter("decay", 1e-3, 0.0, 0.005, 5e-4),
    ),
    "aum": (
        Parameter("find_epochs", 15, 2, 60, 1, label="epochs to find"),
        Parameter("percentile", 99.0, 50.0, 100.0, 1.0),
    ),
    "curriculum": (
        Parameter("initial_epochs", 10, 1, 30, 1, label="first network, epochs"),
        Parameter("stage_epochs", 10, 1, 30, 1, label="stage, epochs"),
    ),
    "mentornet": (
        Parameter("percentile", 0.7, 0.05, 1.0, 0.05),
        Parameter("burn_in", 11, 0, 54, 1, label="burn-in, epochs"),
    ),
    "iterative-cv": (
        Parameter("rounds", 2, 1, 4, 1),
        Parameter("round_epochs", 8, 1, 50, 1, label="a round, epochs"),
    ),
    "attentive-feature-mixup": (
        Parameter("lambda_", 0.75, 0.0, 1.0, 0.05, label="lambda, mixed loss"),
        Parameter("mix_labels", True, label="mix the labels, too"),
    ),
    "self-learning": (
        Parameter("alpha", 0.5, 0.0, 1.0, 0.05, label="alpha, corrected labels"),
        Parameter("warm_up", 10, 1, 30, 1, label="warm-up, epochs"),
    ),
}
"""Which parameters of the package's methods get a control. A new method adds a line here."""


def method_choice(name: str, **pieces: object) -> MethodChoice:
    """Return a method of the package for a panel, with some of its pieces replaced.

    Args:
        name: a key of ``methods.METHODS``.
        pieces: further arguments of the method, for example ``select=small_loss_indices`` written
            by a student.

    Raises:
        ValueError: no method has that name.
    """
    expect_one_of("methods", name, METHODS)
    return MethodChoice(name, functools.partial(METHODS[name], **pieces), PARAMETERS.get(name, ()))


def noise_choices(kinds: NoiseKinds) -> dict[str, Corruption]:
    """Return the functions behind the menu of noise kinds.

    Args:
        kinds: names out of ``noise.KINDS`` (or "none": the data as they are), and mappings from a
            new name to a function ``(dataset, rate, seed) -> dataset``.

    Raises:
        ValueError: a name that is no kind of noise.
    """
    choices: dict[str, Corruption] = {}
    for kind in [kinds] if isinstance(kinds, (str, Mapping)) else kinds:
        if isinstance(kind, Mapping):
            choices |= kind
        elif kind == noise.AS_IT_IS:
            choices[kind] = lambda dataset, rate, seed: dataset
        else:
            expect_one_of("noise_kinds", kind, (*noise.KINDS, noise.AS_IT_IS))
            choices[kind] = functools.partial(_inject, kind)
    return choices


def _inject(kind: str, dataset: Dataset, rate: float, seed: int) -> Dataset:
    return noise.inject(dataset, kind, rate, seed=seed)


def settled(value: float) -> float:
    """Return a slider's value without the dust of its steps, which are floats.

    0.15000000000000002 and 0.15 are one setting, and one stored run.

    >>> settled(0.1 + 0.05)
    0.15
    """
    return float(f"{value:.6g}")


class Trainer:
    """Turns settings into a trained run.

    Args:
        data: the data sets on offer: name -> data set, or None to load it by its name when it is
            needed.
        noise: name -> function ``(dataset, rate, seed) -> dataset``.
        methods: the methods on offer.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        noise: Mapping[str, Corruption],
        methods: Iterable[MethodChoice] = (),
    ) -> None:
        """Load nothing yet."""
        self.data, self.noise = dict(data), dict(noise)
        self.methods = {choice.name: choice for choice in methods}
        self._kept: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._lock = threading.RLock()

    def corrupted(self, settings: Any) -> Any:
        """Return the data set with the noise of the settings; the latest ones are kept."""
        name, kind = settings.dataset, settings.noise_kind
        key = (name, kind, settings.noise_rate, settings.seed)
        with self._lock:
            if key not in self._kept:
                if self.data[name] is None:
                    self.data[name] = load(name)
                clean = self.data[name]
                self._kept[key] = self.noise[kind](clean, settings.noise_rate, settings.seed)
                while len(self._kept) > KEPT_DATA:
                    self._kept.popitem(last=False)
            return self._kept[key]

    def __call__(self, settings: Settings, stop: threading.Event, on_epoch: OnEpoch) -> History:
        """Train as the settings say, in the thread of the caller.

        Args:
            settings: what to train.
            stop: ends the run at the next step when set.
            on_epoch: called with the history after each epoch.
        """
        choice = self.methods[settings.method]
        told: dict[str, Any] = {**choice.fit_options, **dict(settings.options)}
        return training.fit(
            choice.build(dict(settings.parameters)),
            self.corrupted(settings),
            epochs=settings.epochs,
            lr=settings.lr,
            seed=settings.seed,
            progress=False,
            on_epoch=on_epoch,
            options=training.Options(stop=stop),
            **told,
        )


_LOADED: WeakValueDictionary[str, Dataset] = WeakValueDictionary()


def load(dataset: str | Dataset) -> Dataset:
    """Return a data set by its name; panels that show the same one share it.

    Args:
        dataset: a name of ``datasets.NAMES``, or a data set, which is returned as it is.
    """
    if not isinstance(dataset, str):
        return dataset
    loaded = _LOADED.get(dataset)
    if loaded is None:
        loaded = _LOADED[dataset] = datasets.load(dataset)
    return loaded


def warm_up() -> None:
    """Take one step of SGD on nothing.

    The first step in a process makes torch import its compiler, for a second or more. Done before
    somebody presses Start, nobody waits for it. Zeros instead of a network: no random number is
    drawn, so no cell's result changes.
    """
    import tqdm.auto  # noqa: F401 - `fit` imports it, and it brings half of Jupyter

    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.0, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
