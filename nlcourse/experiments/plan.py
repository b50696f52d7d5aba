"""A plan: which runs fill a table. From a small TOML file, or made in Python beside the table.

The runs of a TOML file are settings x methods x kinds of noise x rates x seeds: recipes of
``recipes.toml``. What else can vary (the pieces of an ablation) is a plan in Python, as those of
``results/``.
"""

from __future__ import annotations

import difflib
import itertools
import runpy
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import datasets
from ..base import expect
from ..noise import AS_IT_IS, KINDS
from . import recipes
from .runs import Run, measure

KEY = ("setting", "method", "data", "examples", "noise", "rate", "seed", "epochs")
LISTS = ("setting", "methods", "noise", "rates")  # of which one alone needs no brackets


@dataclass(frozen=True)
class Plan:
    """What is to be run, and where the rows go.

    Attributes:
        table: the CSV file that gets the rows.
        key: its columns that tell one run from another.
        runs: in their order, each with the values of the key.
        measure: makes a run and returns its row, or several. Of a row a table takes the columns
            that it has; a new one takes all.
        checkpoints: a folder for runs that are not finished, which `measure` then takes; or None.
    """

    table: Path
    key: tuple[str, ...]
    runs: Sequence[Run]
    measure: Callable[..., Any]
    checkpoints: Path | None = None


def read(path: str | Path, **overrule: object) -> Plan:
    """Read a plan: a Python file's ``PLAN``, or a TOML file.

    Keys of a TOML file: ``methods`` (names of recipes), ``noise`` (kinds, "none", or kinds with
    their own rate: "asymmetric 0.4"), ``rates`` (of the kinds without one), ``seeds`` (a list, or
    how many from 0); and if wanted ``setting`` ("classroom"; of several, each has those of the
    methods that it has recipes for), ``data``, ``subset``, ``epochs`` (else those of the recipe),
    ``table`` (else the file's name with ``.csv``) and ``checkpoints`` (true: a run that was stopped
    or killed goes on from its last epoch).

    Args:
        path: of the file.
        overrule: values in place of those in a TOML file.

    Raises:
        ValueError: no such file, no TOML, or a key or value that is not right; the message names
            file, key and what was expected.
    """
    path = Path(path)
    if path.suffix == ".py" and path.exists():
        expect(not overrule, "no other values for a plan in Python", ", ".join(overrule))
        return runpy.run_path(str(path))["PLAN"]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"Cannot read the plan {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from None
    try:
        return _plan(values | overrule, path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _plan(values: dict[str, Any], path: Path) -> Plan:
    values = {"setting": "classroom", "rates": []} | values
    for name in LISTS:
        if not isinstance(values.get(name, []), list):
            values[name] = [values[name]]
    _check(values)
    table = path.parent / values["table"] if "table" in values else path.with_suffix(".csv")
    kept = table.with_suffix(".checkpoints") if values.get("checkpoints") else None
    return Plan(table, KEY, tuple(_runs(values)), measure, checkpoints=kept)


def _check(values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in _CHECKS:
            close = difflib.get_close_matches(name, _CHECKS, n=1)
            why = f"did you mean `{close[0]}`?" if close else ""
            expect(False, f"keys out of {', '.join(_CHECKS)}", f"`{name}`", why)
    for name in ("methods", "noise", "seeds"):
        expect(name in values, f"`{name}` as {_CHECKS[name][1]}", "none: it is missing")
    for name, value in values.items():
        holds, expected = _CHECKS[name]
        expect(holds(value), f"`{name}` as {expected}", repr(value))
    known = {method for setting in values["setting"] for method in recipes.names(setting)}
    for method in set(values["methods"]) - known:
        recipes.find(values["setting"][0], method)  # complains, before anything is trained


def _runs(values: Mapping[str, Any]) -> Iterator[Run]:
    seeds = values["seeds"]
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    noises = [noise for kind in values["noise"] for noise in _with_rates(kind, values["rates"])]
    wanted = itertools.product(seeds, values["setting"], noises, values["methods"])
    for seed, setting, (kind, rate), method in wanted:
        if method not in recipes.names(setting):
            continue
        recipe = recipes.find(setting, method, noise=kind, rate=rate)
        data = values.get("data", recipe.data)
        # The part of the data that a recipe takes is meant for the recipe's own data.
        subset = values.get("subset", recipe.subset if data == recipe.data else None)
        epochs = values.get("epochs", recipe.epochs)
        told = (setting, method, data, subset or "all", kind, rate, seed, epochs)
        yield dict(zip(KEY, told, strict=True))


def _with_rates(noise: str, rates: Sequence[float]) -> list[tuple[str, float]]:
    kind, _, own = noise.partition(" ")
    if kind == AS_IT_IS:
        return [(kind, 0.0)]
    expect(bool(own or rates), f"`rates`, or a rate beside {kind!r} in `noise`", "none")
    return [(kind, float(rate)) for rate in ([own] if own else rates)]


def _whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _rate(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _noise(value: object) -> bool:
    kind, space, rate = value.partition(" ") if isinstance(value, str) else ("", "", "")
    if kind not in (*KINDS, AS_IT_IS):
        return False
    try:
        return not space or (kind != AS_IT_IS and _rate(float(rate)))
    except ValueError:
        return False


def _distinct(value: object, check: Callable[[object], bool], low: int = 1) -> bool:
    if not isinstance(value, list) or len(value) < low or not all(map(check, value)):
        return False
    return len(set(value)) == len(value)


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "setting": (
        lambda value: _distinct(value, lambda one: one in recipes.settings()),
        f"one or several out of {', '.join(recipes.settings())}",
    ),
    "methods": (
        lambda value: _distinct(value, lambda one: isinstance(one, str)),
        "a list of different names of recipes",
    ),
    "noise": (
        lambda value: _distinct(value, _noise),
        f"a list of different kinds out of {', '.join((*KINDS, AS_IT_IS))}, with or without a rate "
        '("asymmetric 0.4")',
    ),
    "rates": (
        lambda value: _distinct(value, _rate, low=0),
        "a list of different numbers in [0, 1), for example [0.2, 0.4]",
    ),
    "seeds": (
        lambda value: _whole(value, 1) or _distinct(value, lambda one: _whole(one, 0)),
        "a whole number from 1 (how many) or a list of different ones from 0",
    ),
    "data": (
        lambda value: value in datasets.NAMES,
        "the name of a data set (`nlcourse data` lists them)",
    ),
    "subset": (lambda value: _whole(value, 1), "a number of training images, from 1"),
    "epochs": (lambda value: _whole(value, 1), "a whole number from 1"),
    "table": (
        lambda value: isinstance(value, str) and value.endswith(".csv"),
        "a file name that ends in .csv, seen from this file",
    ),
    "checkpoints": (lambda value: isinstance(value, bool), "true or false"),
}
