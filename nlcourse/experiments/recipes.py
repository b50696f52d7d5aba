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
from torch.optim import Optimizer, lr_scheduler

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
    """All that decides a run but the data's noise and the seed.

    Attributes:
        setting: the table of the file: "classroom", "cifar10", ...
        name: of the recipe in that table.
        method: its name in ``METHODS``; or what makes one, which no file has.
        data: name of the data set.
        network: a name of ``NETWORKS``.
        epochs: passes through the training set.
        batch_size: examples in a batch.
        optimizer: ``kind`` and its numbers.
        arguments: of the method, as the file has them.
        schedule: ``kind`` and its numbers; empty for a constant learning rate.
        augment: arguments of :class:`~nlcourse.datasets.augment.Augment`; empty for none.
        network_arguments: of the network, beside the shape of the images and the classes.
        subset: training images, or None for all.
        compiled: as in ``training.Options``.
        source: where the numbers come from.
    """

    setting: str
    name: str
    method: str | Callable[..., Method]
    data: str
    network: str
    epochs: int
    batch_size: int
    optimizer: Values
    arguments: Values = field(default_factory=dict)
    schedule: Values = field(default_factory=dict)
    augment: Values = field(default_factory=dict)
    network_arguments: Values = field(default_factory=dict)
    subset: int | None = None
    compiled: bool | str = False
    source: str = ""

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
            arguments["noise_rate"] = _known_rate(data)
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
            kind: of the noise, for a method that is told the true matrix.
            rate: of the noise, likewise.
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
    """Return the names of a setting's recipes, in the order of the file.

    Raises:
        ValueError: there is no such setting.
    """
    return tuple(_methods(setting))


def find(setting: str, name: str, *, noise: str | None = None, rate: float | None = None) -> Recipe:
    """Return a recipe.

    Args:
        setting: "classroom", "mnist", "cifar10", ...
        name: of the recipe.
        noise: kind of noise; some recipes differ with it.
        rate: of that noise.

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


def _known_rate(data: Dataset) -> float:
    known = not math.isnan(data.noise_rate)
    why = "give the method one, for example a guess from lesson 05"
    expect(known, f"a noise rate for {data.name}, whose true labels are unknown", "none", why)
    return data.noise_rate


def make_schedule(what: Values, epochs: int) -> ScheduleMaker | None:
    """Return what ``fit`` takes as `schedule`.

    Args:
        what: ``kind`` and its numbers, as in the file; empty for none.
        epochs: of the run.

    Raises:
        ValueError: an unknown kind.
    """
    if not what:
        return None
    expect_one_of("schedule", what["kind"], _SCHEDULES)
    return functools.partial(_SCHEDULES[what["kind"]], epochs=epochs, what=what)


def _milestones(optimizer: Optimizer, epochs: int, what: Values) -> lr_scheduler.LRScheduler:
    return lr_scheduler.MultiStepLR(optimizer, list(what["epochs"]), gamma=what["factor"])


def _linear(optimizer: Optimizer, epochs: int, what: Values) -> lr_scheduler.LRScheduler:
    begin = what["begin"]
    return lr_scheduler.LambdaLR(optimizer, lambda at: min(1.0, (epochs - at) / (epochs - begin)))


def _restarts(optimizer: Optimizer, epochs: int, what: Values) -> lr_scheduler.LRScheduler:
    return lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, what["period"], eta_min=what["lowest"]
    )


def _one_cycle(optimizer: Optimizer, epochs: int, what: Values) -> lr_scheduler.LRScheduler:
    # Stepped once an epoch, like all schedules of the course.
    highest = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=epochs + 1, pct_start=what["warm_up"], cycle_momentum=False
    )


def _exponential(optimizer: Optimizer, epochs: int, what: Values) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ExponentialLR(optimizer, what["factor"])


_SCHEDULES = {
    "milestones": _milestones,
    "linear": _linear,
    "restarts": _restarts,
    "one-cycle": _one_cycle,
    "exponential": _exponential,
}
