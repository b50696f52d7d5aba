"""A plan: which runs fill a table. From a small TOML file, or made in Python beside the table.

The runs of a TOML file are settings x methods x kinds of noise x rates x seeds: recipes of
``recipes.toml``. What else can vary (the pieces of an ablation) is a plan in Python, as those of
``results/``.
"""

from __future__ import annotations

import itertools
import re
import runpy
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from .. import datasets
from ..base import expect, expect_one_of
from ..noise import AS_IT_IS, KINDS
from . import recipes
from .runs import Run, measure

KEY = ("setting", "method", "data", "examples", "noise", "rate", "seed", "epochs")
LISTS = ("setting", "methods", "noise", "rates")  # of which one alone needs no brackets
NOISE = re.compile(rf"{AS_IT_IS}|({'|'.join(KINDS)})( 0?\.\d+| 0)?")  # "asymmetric 0.4"


@dataclass(frozen=True)
class Plan:
    """What is to be run, and where the rows go."""

    table: Path  # the CSV file that gets the rows
    key: tuple[str, ...]  # its columns that tell one run from another
    runs: Sequence[Run]  # in their order, each with the values of the key
    # Makes a run and returns its row, or several. A table takes of a row the columns that it has; a
    # new one takes all.
    measure: Callable[..., Any]
    checkpoints: Path | None = None  # a folder for runs that are not finished, for `measure`


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
    if _counts(seeds := values.get("seeds")):
        values["seeds"] = list(range(seeds))
    _check(values)
    table = path.parent / values["table"] if "table" in values else path.with_suffix(".csv")
    kept = table.with_suffix(".checkpoints") if values.get("checkpoints") else None
    return Plan(table, KEY, tuple(_runs(values)), measure, checkpoints=kept)


def _check(values: Mapping[str, Any]) -> None:
    for name in values:
        expect_one_of("key", name, _CHECKS)
    for name in ("methods", "noise", "seeds"):
        expect(name in values, f"`{name}` as {_CHECKS[name][1]}", "none: it is missing")
    for name, value in values.items():
        check, expected = _CHECKS[name]
        if name not in (*LISTS, "seeds"):
            holds = check(value)
        else:
            holds = isinstance(value, list) and all(map(check, value))
            holds = holds and len(set(value)) == len(value) >= (name != "rates")
        expect(holds, f"`{name}` as {expected}", repr(value))
    known = {method for setting in values["setting"] for method in recipes.names(setting)}
    for method in set(values["methods"]) - known:
        recipes.find(values["setting"][0], method)  # complains, before anything is trained


def _runs(values: Mapping[str, Any]) -> Iterator[Run]:
    noises = [noise for kind in values["noise"] for noise in _with_rates(kind, values["rates"])]
    wanted = itertools.product(values["seeds"], values["setting"], noises, values["methods"])
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


def _counts(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 1


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {  # of a value, or of each in a list
    "setting": (
        lambda one: one in recipes.settings(),
        f"one or several out of {', '.join(recipes.settings())}",
    ),
    "methods": (lambda one: isinstance(one, str), "a list of different names of recipes"),
    "noise": (
        lambda one: isinstance(one, str) and NOISE.fullmatch(one) is not None,
        f"a list of different kinds out of {', '.join((*KINDS, AS_IT_IS))}, with or without a rate "
        '("asymmetric 0.4")',
    ),
    "rates": (
        lambda one: type(one) in (int, float) and 0 <= one < 1,
        "a list of different numbers in [0, 1), for example [0.2, 0.4]",
    ),
    "seeds": (
        lambda one: type(one) is int and one >= 0,
        "a whole number from 1 (how many) or a list of different ones from 0",
    ),
    "data": (
        lambda one: one in datasets.NAMES,
        "the name of a data set (`nlcourse data` lists them)",
    ),
    "subset": (_counts, "a number of training images, from 1"),
    "epochs": (_counts, "a whole number from 1"),
    "table": (
        lambda one: isinstance(one, str) and one.endswith(".csv"),
        "a file name that ends in .csv, seen from this file",
    ),
    "checkpoints": (lambda one: isinstance(one, bool), "true or false"),
}
