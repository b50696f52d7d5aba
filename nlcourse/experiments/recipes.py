"""The settings of every method, from ``recipes.toml``: what the papers used, what a class uses.

    recipe = recipes.find("classroom", "elr", noise="symmetric", rate=0.4)
    history = recipe.train(data, seed=0)

The file says how a recipe is written; here it becomes a method, a network, an optimizer and a
schedule.
"""

from __future__ import annotations

import functools
import math
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler

from .. import datasets, noise
from ..base import Method, expect, expect_one_of
from ..datasets import Dataset
from ..datasets.augment import Augment
from ..datasets.files import data_root
from ..methods import METHODS, losses
from ..training import History, Options, fit
from ..training.loop import ScheduleMaker
from ..training.networks import NETWORKS, NetworkMaker

FILE = Path(__file__).with_name("recipes.toml")
MEASURED = "measured"  # a noise rate that is read off the data
NESTED = ("arguments", "optimizer")  # what a narrower line changes entry by entry
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}

Values = Mapping[str, Any]  # as TOML has them


class FitArguments(TypedDict, total=False):
    """What a recipe gives to ``training.fit``, and what may be said beside it."""

    epochs: int
    network: str | NetworkMaker
    schedule: ScheduleMaker | None
    device: torch.device | str | None
    progress: bool
    on_epoch: Callable[[History], None] | None
    options: Options


@dataclass(frozen=True)
class Recipe:
    """All that decides a run but the data's noise and the seed."""

    setting: str  # the table of the file: "classroom", "cifar10", ...
    name: str  # in that table
    method: str | Callable[..., Method]  # a name of METHODS; or what makes one, which no file has
    data: str  # name of the data set
    network: str  # a name of NETWORKS
    epochs: int
    batch_size: int
    optimizer: Values  # `kind` and its numbers
    arguments: Values = field(default_factory=dict)  # of the method, as the file has them
    schedule: Values = field(default_factory=dict)  # `kind` and its numbers; empty: constant
    augment: Values = field(default_factory=dict)  # arguments of `Augment`; empty for none
    network_arguments: Values = field(default_factory=dict)  # beside image shape and classes
    subset: int | None = None  # training images; None for all
    compiled: bool | str = False  # as in `training.Options`
    source: str = ""  # where the numbers come from

    def but(self, **changes: Any) -> Recipe:
        """Return the recipe with other values; `arguments` and `optimizer` entry by entry."""
        return Recipe(**_overrule(vars(self), changes))

    def load(self) -> Dataset:
        """Return the recipe's data set, or its part of it, without noise.

        The last two stay in memory, for queues of runs.
        """
        return _load(self.data, self.subset, data_root(None))

    def make_method(
        self, data: Dataset, kind: str | None = None, rate: float | None = None
    ) -> Method:
        """Return a fresh method.

        Args:
            data: the data set with given labels, for a noise rate that is measured.
            kind: of the noise, for a method that is told the true matrix.
            rate: of the noise, likewise.

        Raises:
            ValueError: the method wants the true matrix, and this noise has none; or the noise
                rate, and nobody knows it.
        """
        arguments = dict(self.arguments)
        for name, value in arguments.items():
            if isinstance(value, str) and value.endswith(" %"):
                arguments[name] = round(float(value[:-2]) / 100 * self.epochs)
        if arguments.get("noise_rate") == MEASURED:
            why = "give the method one, for example a guess from lesson 05"
            wanted = f"a noise rate for {data.name}, whose true labels are unknown"
            expect(not math.isnan(data.noise_rate), wanted, "none", why)
            arguments["noise_rate"] = data.noise_rate
        if isinstance(loss := arguments.get("loss"), str):
            arguments["loss"] = getattr(losses, loss, None) or getattr(F, loss)
        if isinstance(arguments.get("matrix"), str):  # "true"
            arguments["matrix"] = noise.transition_matrix(data, kind or "", rate or 0.0)
        make = METHODS[self.method] if isinstance(self.method, str) else self.method
        if isinstance(piece := arguments.get("penalize"), str):
            arguments["penalize"] = getattr(sys.modules[make.__module__], piece)
        return make(**arguments)

    def options(self) -> FitArguments:
        """Return the arguments of ``training.fit`` for this recipe."""
        numbers = dict(self.optimizer)
        make = OPTIMIZERS[numbers.pop("kind")]
        network: str | NetworkMaker = self.network
        if self.network_arguments:
            network = functools.partial(NETWORKS[self.network], **self.network_arguments)
        rare = Options(
            batch_size=self.batch_size,
            optimizer=functools.partial(make, **numbers),
            augment=Augment(**self.augment) if self.augment else None,
            compiled=self.compiled,
        )
        schedule = make_schedule(self.schedule, self.epochs)
        return {"network": network, "epochs": self.epochs, "schedule": schedule, "options": rare}

    def train(
        self,
        data: Dataset,
        *,
        seed: int = 0,
        kind: str | None = None,
        rate: float | None = None,
        **more: Unpack[FitArguments],
    ) -> History:
        """Train once on a data set with given labels.

        Args:
            data: the data set.
            seed: of the run.
            kind: of the noise, as for `make_method`.
            rate: likewise.
            more: further arguments of ``training.fit``; they overrule the recipe, `options` as a
                whole (``dataclasses.replace(recipe.options()["options"], checkpoint=...)``).
        """
        # What is told in shares of the run are shares of the run that is made.
        as_long = replace(self, epochs=more.get("epochs", self.epochs))
        own: FitArguments = {**self.options(), **more}
        return fit(as_long.make_method(data, kind, rate), data, seed=seed, **own)


@functools.lru_cache(maxsize=2)
def _load(name: str, subset: int | None, root: Path) -> Dataset:
    data = datasets.load(name, root=root)
    return data if subset is None else data.subset(subset)


def settings() -> tuple[str, ...]:
    """Return the names of all settings."""
    return tuple(_read())


def names(setting: str) -> tuple[str, ...]:
    """Return the names of a setting's recipes, in the order of the file."""
    return tuple(_methods(setting))


def find(setting: str, name: str, *, noise: str | None = None, rate: float | None = None) -> Recipe:
    """Return a recipe; some differ with the kind of noise, or with its rate.

    Raises:
        ValueError: there is no such setting or recipe; the message names those that there are.
    """
    known = _methods(setting)
    expect_one_of(f"recipe of {setting!r}", name, known)
    own = dict(known[name])
    when = own.pop("when", {})
    values = {
        key: value for key, value in _setting(setting).items() if key not in ("methods", "like")
    }
    exact = f"{noise} {rate:g}" if rate is not None else None
    for layer in (own, when.get(noise, {}), when.get(exact, {})):
        values = _overrule(values, layer)
    return Recipe(setting=setting, name=name, **{"method": name} | values)


def _overrule(values: Values, layer: Values) -> dict[str, Any]:
    merged = {**values, **layer}
    for key in NESTED:
        old, new = values.get(key, {}), layer.get(key, {})
        if new.get("kind") in (None, old.get("kind")):
            merged[key] = {**old, **new}
    return merged


@functools.cache
def _read() -> dict[str, dict[str, Any]]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def _setting(name: str) -> dict[str, Any]:
    expect_one_of("setting", name, _read())
    return _read()[name]


def _methods(setting: str) -> dict[str, dict[str, Any]]:
    return _setting(_setting(setting).get("like", setting))["methods"]


def make_schedule(what: Values, epochs: int) -> ScheduleMaker | None:
    """Return what ``fit`` takes as `schedule`, from its ``kind`` and numbers in the file."""
    if not what:
        return None
    expect_one_of("schedule", what["kind"], SCHEDULES)
    return SCHEDULES[what["kind"]](what, epochs)


def _linear(what: Values, epochs: int) -> ScheduleMaker:
    def factor(at: int) -> float:
        return min(1.0, (epochs - at) / (epochs - what["begin"]))

    return functools.partial(lr_scheduler.LambdaLR, lr_lambda=factor)


def _one_cycle(what: Values, epochs: int) -> ScheduleMaker:
    # Stepped once an epoch, like all schedules of the course.
    numbers = {"total_steps": epochs + 1, "pct_start": what["warm_up"], "cycle_momentum": False}
    return lambda optimizer: lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], **numbers
    )


SCHEDULES: dict[str, Callable[[Values, int], ScheduleMaker]] = {
    "milestones": lambda what, _: functools.partial(
        lr_scheduler.MultiStepLR, milestones=what["epochs"], gamma=what["factor"]
    ),
    "linear": _linear,
    "restarts": lambda what, _: functools.partial(
        lr_scheduler.CosineAnnealingWarmRestarts, T_0=what["period"], eta_min=what["lowest"]
    ),
    "one-cycle": _one_cycle,
    "exponential": lambda what, _: functools.partial(
        lr_scheduler.ExponentialLR, gamma=what["factor"]
    ),
}
