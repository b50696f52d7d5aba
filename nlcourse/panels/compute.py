"""What a panel trains: methods, noise and the run itself. No drawing, no Jupyter here."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch

from ..base import Method
from ..methods import METHODS
from ..training.history import History
from .state import Settings

OnEpoch = Callable[[History], None]
Corruption = Callable[[object, float, int], object]

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


@dataclass(frozen=True)
class MethodChoice:
    """A method on offer: its name, how to make it, and the parameters that get a control.

    Attributes:
        name: what the menu shows.
        make: called with the parameters by name; returns a fresh :class:`~nlcourse.methods.Method`.
        parameters: the controls.
    """

    name: str
    make: Callable[..., Method]
    parameters: tuple[Parameter, ...] = ()

    def build(self, values: Mapping[str, object]) -> Method:
        """Return a fresh method with these values of its parameters."""
        names = {
            parameter.name: parameter.argument or parameter.name for parameter in self.parameters
        }
        return self.make(**{names[name]: value for name, value in values.items()})


PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "co-teaching": (
        Parameter("assumed_noise_rate", 0.4, 0.0, 0.9, 0.05, percent=True, argument="noise_rate"),
        Parameter("ramp_epochs", 10, 1, 30, 1, label="ramp, epochs"),
        Parameter("cross", True, label="cross the two selections"),
    ),
    "dividemix": (
        Parameter("warm_up", 5, 1, 30, 1, label="warm-up, epochs"),
        Parameter("threshold", 0.5, 0.05, 0.95, 0.05, label="threshold tau"),
        Parameter("lambda_u", 25.0, 0.0, 150.0, 5.0, label="lambda_u"),
        Parameter("penalty", False, label="confidence penalty"),
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


def method_choice(name: str, **pieces) -> MethodChoice:
    """Return a method of the package for a panel, with some of its pieces replaced.

    Args:
        name: a key of ``methods.METHODS``.
        pieces: further arguments of the method, for example ``select=small_loss_indices`` written
            by a student.

    Raises:
        ValueError: no method has that name.
    """
    check_choice("a method", name, METHODS)
    return MethodChoice(name, functools.partial(METHODS[name], **pieces), PARAMETERS.get(name, ()))


def noise_choices(
    kinds: Iterable[str | Mapping[str, Corruption]] | Mapping[str, Corruption],
) -> dict[str, Corruption]:
    """Return the functions behind the menu of noise kinds.

    Args:
        kinds: names out of ``noise.KINDS`` (or "none": the data as they are), and mappings from a
            new name to a function ``(dataset, rate, seed) -> dataset``.

    Raises:
        ValueError: a name that is no kind of noise.
    """
    from .. import noise

    choices: dict[str, Corruption] = {}
    for kind in [kinds] if isinstance(kinds, (str, Mapping)) else kinds:
        if isinstance(kind, Mapping):
            choices |= kind
        elif kind == noise.AS_IT_IS:
            choices[kind] = lambda dataset, rate, seed: dataset
        else:
            check_choice("noise kinds", kind, (*noise.KINDS, noise.AS_IT_IS))
            choices[kind] = functools.partial(_inject, kind)
    return choices


def check_choice(what: str, name: object, known: Iterable[str]) -> None:
    """Check that a name is among those that a panel knows.

    Args:
        what: what the names are, for the error.
        name: the one that was given.
        known: the names.

    Raises:
        ValueError: it is not.
    """
    known = tuple(known)
    if name not in known:
        raise ValueError(f"Expected {what} out of {', '.join(known)}, got {name!r}")


def settled(value: float) -> float:
    """Return a slider's value without the dust of its steps, which are floats.

    0.15000000000000002 and 0.15 are one setting, and one stored run.

    >>> settled(0.1 + 0.05)
    0.15
    """
    return float(f"{value:.6g}")


def _inject(kind: str, dataset, rate: float, seed: int):
    from .. import noise

    return noise.inject(dataset, kind, rate, seed=seed)


class Trainer:
    """Turns settings into a trained run.

    Args:
        data: the data sets on offer: name -> data set, or None to load it by its name when it is
            needed.
        noise: name -> function ``(dataset, rate, seed) -> dataset``.
        methods: the methods on offer.
        fit_options: fixed arguments of ``training.fit``, for example ``network="small-cnn"``.
    """

    def __init__(
        self,
        data: Mapping[str, object],
        noise: Mapping[str, Corruption],
        methods: Iterable[MethodChoice],
        fit_options: Mapping[str, object] | None = None,
    ) -> None:
        """Load nothing yet."""
        self.data = dict(data)
        self.noise = dict(noise)
        self.methods = {choice.name: choice for choice in methods}
        self.fit_options = dict(fit_options or {})
        self._kept: OrderedDict[tuple, object] = OrderedDict()
        self._lock = threading.RLock()

    def dataset(self, name: str):
        """Return a data set without noise, loaded at most once."""
        with self._lock:
            if self.data[name] is None:
                self.data[name] = load(name)
            return self.data[name]

    def corrupted(self, settings: Settings):
        """Return the data set with the noise of the settings; the latest ones are kept."""
        key = (settings.dataset, settings.noise_kind, settings.noise_rate, settings.seed)
        with self._lock:
            if key not in self._kept:
                clean = self.dataset(settings.dataset)
                corrupt = self.noise[settings.noise_kind]
                self._kept[key] = corrupt(clean, settings.noise_rate, settings.seed)
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
        from .. import training

        data = self.corrupted(settings)
        method = self.methods[settings.method].build(dict(settings.parameters))
        options = self.fit_options | dict(settings.options)
        return training.fit(
            method,
            data,
            epochs=settings.epochs,
            lr=settings.lr,
            seed=settings.seed,
            progress=False,
            on_epoch=on_epoch,
            **options,
            options=training.Options(stop=stop),
        )


_LOADED: WeakValueDictionary[str, object] = WeakValueDictionary()


def load(dataset):
    """Return a data set by its name; panels that show the same one share it.

    Args:
        dataset: a name of ``datasets.NAMES``, or a data set, which is returned as it is.
    """
    if not isinstance(dataset, str):
        return dataset
    from .. import datasets

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
    optimizer.zero_grad()
    parameter.sum().backward()
    optimizer.step()
