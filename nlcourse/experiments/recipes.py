"""The settings of every method, from ``recipes.toml``: what the papers used, what a class uses.

    recipe = recipes.find("classroom", "elr", noise="symmetric", rate=0.4)
    history = recipe.train(data, seed=0)

The file says how a recipe is written; here it becomes a method, a network, an optimizer and a
schedule.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler

from .. import noise
from ..base import Method
from ..datasets.augment import Augment
from ..methods import METHODS, losses
from ..training.history import History
from ..training.loop import Options
from ..training.networks import NETWORKS

FILE = Path(__file__).with_name("recipes.toml")
MEASURED = "measured"  # a noise rate that is read off the data
NESTED = ("arguments", "optimizer")  # what a narrower line changes entry by entry
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}


@dataclass(frozen=True)
class Recipe:
    """All that decides a run but the data's noise and the seed.

    Attributes:
        setting: the table of the file: "classroom", "cifar10", ...
        name: of the recipe in that table.
        method: its name in ``METHODS``.
        arguments: of the method, as the file has them.
        data: name of the data set.
        subset: training images, or None for all.
        network: a name of ``NETWORKS``.
        network_arguments: of that network, beside the shape of the images and the classes.
        epochs: passes through the training set.
        batch_size: examples in a batch.
        optimizer: ``kind`` and its numbers.
        schedule: ``kind`` and its numbers; empty for a constant learning rate.
        augment: arguments of :class:`~nlcourse.training.batches.Augment`; empty for none.
        compiled: as in ``training.fit``.
        source: where the numbers come from.
    """

    setting: str
    name: str
    method: str
    data: str
    network: str
    epochs: int
    batch_size: int
    optimizer: Mapping[str, object]
    arguments: Mapping[str, object] = field(default_factory=dict)
    schedule: Mapping[str, object] = field(default_factory=dict)
    augment: Mapping[str, object] = field(default_factory=dict)
    network_arguments: Mapping[str, object] = field(default_factory=dict)
    subset: int | None = None
    compiled: bool | str = False
    source: str = ""

    def load(self):
        """Return the recipe's data set without noise, or its part of it, as :func:`load` does."""
        return load(self.data, self.subset)

    def make_method(self, data, kind: str | None = None, rate: float | None = None) -> Method:
        """Return a fresh method.

        Args:
            data: the data set with given labels, for a noise rate that is measured.
            kind: of the noise, for a method that is told the true matrix.
            rate: of the noise, likewise.

        Raises:
            ValueError: the method wants the true matrix, and this noise has none.
        """
        arguments = dict(self.arguments)
        for name, value in arguments.items():
            if isinstance(value, str) and value.endswith(" %"):
                arguments[name] = round(float(value[:-2]) / 100 * self.epochs)
        if arguments.get("noise_rate") == MEASURED:
            arguments["noise_rate"] = known_rate(data)
        if "loss" in arguments:
            name = arguments["loss"]
            arguments["loss"] = getattr(losses, name, None) or getattr(F, name)
        if arguments.get("matrix") == "true":
            arguments["matrix"] = noise.transition_matrix(data, kind, rate)
        return METHODS[self.method](**arguments)

    def options(self) -> dict[str, object]:
        """Return the arguments of ``training.fit`` for this recipe."""
        numbers = dict(self.optimizer)
        make = OPTIMIZERS[numbers.pop("kind")]
        network = self.network
        if self.network_arguments:
            network = functools.partial(NETWORKS[network], **self.network_arguments)
        return {
            "network": network,
            "epochs": self.epochs,
            "schedule": make_schedule(self.schedule, self.epochs),
            "options": Options(
                batch_size=self.batch_size,
                optimizer=functools.partial(make, **numbers),
                augment=Augment(**self.augment) if self.augment else None,
                compiled=self.compiled,
            ),
        }

    def train(
        self, data, *, seed: int = 0, kind: str | None = None, rate: float | None = None, **options
    ) -> History:
        """Train once on a data set with given labels.

        Args:
            data: the data set.
            seed: of the run.
            kind: of the noise, for a method that is told the true matrix.
            rate: of the noise, likewise.
            options: further arguments of ``training.fit``; they overrule the recipe.
        """
        from ..training import fit

        # What is told in shares of the run are shares of the run that is made.
        method = replace(self, epochs=options.get("epochs", self.epochs)).make_method(
            data, kind, rate
        )
        own = self.options()
        rare = {field.name for field in fields(Options)} & options.keys()
        own["options"] = replace(own["options"], **{name: options.pop(name) for name in rare})
        return fit(method, data, seed=seed, **own | options)


def load(name: str, subset: int | None = None):
    """Return a data set without noise; the last two stay in memory, for queues of runs.

    Args:
        name: of the data set.
        subset: training images, or None for all.
    """
    from ..datasets.files import data_root

    return _load(name, subset, data_root(None))


@functools.lru_cache(maxsize=2)
def _load(name: str, subset: int | None, root: Path):
    from .. import datasets

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
    table = _setting(setting)
    return tuple(_setting(table.get("like", setting))["methods"])


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
    table = _setting(setting)
    known = names(setting)
    if name not in known:
        raise ValueError(
            f"Expected a recipe of {setting!r} out of {', '.join(known)}, got {name!r}"
        )
    own = dict(_setting(table.get("like", setting))["methods"][name])
    when = own.pop("when", {})
    values = {key: value for key, value in table.items() if key not in ("methods", "like")}
    exact = f"{noise} {rate:g}" if rate is not None else None
    for layer in (own, when.get(noise, {}), when.get(exact, {})):
        values = _overrule(values, layer)
    return Recipe(setting=setting, name=name, **{"method": name} | values)


def _overrule(values: dict, layer: Mapping) -> dict:
    merged = values | dict(layer)
    for key in NESTED:
        if (
            key in values
            and key in layer
            and layer[key].get("kind") in (None, values[key].get("kind"))
        ):
            merged[key] = dict(values[key]) | dict(layer[key])
    return merged


@functools.cache
def _read() -> dict:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def _setting(name: str) -> dict:
    if name not in _read():
        raise ValueError(f"Expected a setting out of {', '.join(_read())}, got {name!r}")
    return _read()[name]


def known_rate(data) -> float:
    """Return the data's noise rate, for a method that has to be told it.

    Raises:
        ValueError: nobody knows the true labels, so nobody can measure it.
    """
    if math.isnan(data.noise_rate):
        raise ValueError(
            f"Expected a noise rate for {data.name}, whose true labels are unknown: give the "
            "method one, for example a guess from lesson 05"
        )
    return data.noise_rate


def make_schedule(what: Mapping[str, object], epochs: int) -> Callable | None:
    """Return what ``fit`` takes as `schedule`.

    Args:
        what: ``kind`` and its numbers, as in the file; empty for none.
        epochs: of the run.

    Raises:
        ValueError: an unknown kind.
    """
    if not what:
        return None
    if what["kind"] not in _SCHEDULES:
        raise ValueError(
            f"Expected a schedule out of {', '.join(_SCHEDULES)}, got {what['kind']!r}"
        )
    return functools.partial(_SCHEDULES[what["kind"]], epochs=epochs, what=what)


def _milestones(optimizer, epochs: int, what: Mapping):
    return lr_scheduler.MultiStepLR(optimizer, list(what["epochs"]), gamma=what["factor"])


def _linear(optimizer, epochs: int, what: Mapping):
    begin = what["begin"]

    def factor(epoch: int) -> float:
        return min(1.0, (epochs - epoch) / (epochs - begin))

    return lr_scheduler.LambdaLR(optimizer, factor)


def _restarts(optimizer, epochs: int, what: Mapping):
    return lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, what["period"], eta_min=what["lowest"]
    )


def _one_cycle(optimizer, epochs: int, what: Mapping):
    # Stepped once an epoch, like all schedules of the course.
    highest = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=epochs + 1, pct_start=what["warm_up"], cycle_momentum=False
    )


def _exponential(optimizer, epochs: int, what: Mapping):
    return lr_scheduler.ExponentialLR(optimizer, what["factor"])


_SCHEDULES = {
    "milestones": _milestones,
    "linear": _linear,
    "restarts": _restarts,
    "one-cycle": _one_cycle,
    "exponential": _exponential,
}
