"""A sweep: methods x kinds of noise x rates x seeds, from a small TOML file.

    nlcourse sweep docs/sweep.toml

Every run is a recipe (``recipes.toml``) on one noise with one seed and becomes one row of a table
as soon as it ends. Runs that the table holds are not made again, so a sweep that was stopped,
killed or extended goes on where it was. It runs here, on several devices of this machine (a process
each), or on a Dask cluster; only this process writes the table.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import multiprocessing
import os
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from ..noise import AS_IT_IS, KINDS
from . import recipes, results

KEY = ("setting", "method", "data", "examples", "noise", "rate", "seed", "epochs")
PATIENCE = 10  # seconds to wait for a Dask scheduler
NO_DASK = "Dask is missing: pip install -e '.[cluster]'"

_ONE_AT_A_TIME = threading.Lock()  # two runs in one process would share torch's random state


class SweepError(RuntimeError):
    """A sweep cannot go on: no scheduler answers, or a process died."""


@dataclass(frozen=True)
class SweepRun:
    """One run: all that decides its row, as plain values that travel to another machine.

    Attributes:
        setting: of ``recipes.toml``.
        method: name of a recipe of that setting.
        noise: a kind of ``noise.KINDS``, or "none".
        rate: share of the corrupted labels.
        seed: of labels and run.
        data: name of the data set.
        subset: training images, or None for all.
        epochs: passes through the training set.
    """

    setting: str
    method: str
    noise: str
    rate: float
    seed: int
    data: str
    subset: int | None
    epochs: int

    @property
    def key(self) -> tuple:
        """What tells its row from the others, in the order of :data:`KEY`."""
        examples = self.subset or "all"
        return (
            self.setting, self.method, self.data, examples, self.noise, self.rate, self.seed,
            self.epochs,
        )  # fmt: skip

    def __str__(self) -> str:
        """Name it in a line."""
        return f"{self.method}, {self.noise} {100 * self.rate:g} %, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """What a TOML file asks for. See :func:`read` for the keys.

    Attributes:
        runs: all runs, those of the first seed first.
        table: the CSV file that gets the rows.
    """

    runs: tuple[SweepRun, ...]
    table: Path


@dataclass
class Outcome:
    """What came of a sweep.

    Attributes:
        added: rows that are new in the table.
        failed: run -> why it has no row.
    """

    added: int = 0
    failed: dict[SweepRun, str] = field(default_factory=dict)


# Reading the file --------------------------------------------------------------------------------


def read(path: str | Path) -> Plan:
    """Read a sweep's file.

    Keys: ``methods`` (names of recipes), ``noise`` (kinds, or "none"), ``rates``, ``seeds`` (a
    list, or how many from 0); and if wanted ``setting`` ("classroom"), ``data``, ``subset``,
    ``epochs`` (else those of the recipe) and ``table`` (else the file's name with ``.csv``).

    Raises:
        ValueError: no such file, no TOML, or a key or value that is not right; the message names
            file, key and what was expected.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"Cannot read the sweep {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from None
    try:
        return _plan(values, path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _plan(values: Mapping[str, object], path: Path) -> Plan:
    unknown = [name for name in values if name not in _CHECKS]
    if unknown:
        close = difflib.get_close_matches(unknown[0], _CHECKS, n=1)
        meant = f"; did you mean `{close[0]}`?" if close else ""
        raise ValueError(f"Expected keys out of {', '.join(_CHECKS)}, got `{unknown[0]}`{meant}")
    missing = [name for name in ("methods", "noise", "rates", "seeds") if name not in values]
    if missing:
        raise ValueError(f"`{missing[0]}` is missing: {_CHECKS[missing[0]][1]}")
    for name, value in values.items():
        check, expected = _CHECKS[name]
        if not check(value):
            raise ValueError(f"Expected `{name}` as {expected}, got {value!r}")
    table = path.with_suffix(".csv")
    if "table" in values:
        table = path.parent / str(values["table"])
    return Plan(tuple(_runs(values)), table)


def _runs(values: Mapping) -> Iterator[SweepRun]:
    setting = values.get("setting", "classroom")
    for method in values["methods"]:
        recipes.find(setting, method)  # complains about unknown names before anything is trained
    seeds = values["seeds"]
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    # A kind "none" has no rates: one run of it a seed.
    noises = [
        (kind, float(rate))
        for kind in values["noise"]
        for rate in ([0.0] if kind == AS_IT_IS else values["rates"])
    ]
    for seed, (kind, rate), method in itertools.product(seeds, noises, values["methods"]):
        recipe = recipes.find(setting, method, noise=kind, rate=rate)
        data = values.get("data", recipe.data)
        # The part of the data that a recipe takes is meant for the recipe's own data.
        subset = values.get("subset", recipe.subset if data == recipe.data else None)
        epochs = values.get("epochs", recipe.epochs)
        yield SweepRun(setting, method, kind, rate, seed, data, subset, epochs)


def _is_whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_rate(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value < 1


def _list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    def is_list(value: object) -> bool:
        good = isinstance(value, list) and bool(value) and all(check(each) for each in value)
        return good and len(set(value)) == len(value)

    return is_list


def _is_known_data(value: object) -> bool:
    from ..datasets import NAMES

    return value in NAMES


_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "setting": (lambda value: value in recipes.settings(), "the name of a setting in recipes.toml"),
    "methods": (
        _list_of(lambda value: isinstance(value, str)),
        'a list of different recipes, for example ["cross-entropy", "elr"]',
    ),
    "noise": (
        _list_of(lambda value: value in (*KINDS, AS_IT_IS)),
        f"a list of different kinds out of {', '.join((*KINDS, AS_IT_IS))}",
    ),
    "rates": (_list_of(_is_rate), "a list of different numbers in [0, 1), for example [0.2, 0.4]"),
    "seeds": (
        lambda value: _is_whole(value, 1) or _list_of(lambda one: _is_whole(one, 0))(value),
        "a whole number from 1 (how many) or a list of different ones from 0",
    ),
    "data": (_is_known_data, "the name of a data set (`nlcourse data` lists them)"),
    "subset": (lambda value: _is_whole(value, 1), "a number of training images, from 1"),
    "epochs": (lambda value: _is_whole(value, 1), "a whole number from 1"),
    "table": (
        lambda value: isinstance(value, str) and value.endswith(".csv"),
        "a file name that ends in .csv, seen from this file",
    ),
}


# One run ------------------------------------------------------------------------------------------


def measure(run: SweepRun) -> dict[str, object]:
    """Train once and return the row, with the device and versions of this machine.

    A run that diverges has a row too: what it reached until then, ``ended`` says when.
    """
    from .. import noise

    with _ONE_AT_A_TIME:
        data = recipes.load(run.data, run.subset)
        if run.noise != AS_IT_IS:
            data = noise.inject(data, run.noise, run.rate, seed=run.seed)
        kind = None if run.noise == AS_IT_IS else run.noise
        recipe = recipes.find(run.setting, run.method, noise=run.noise, rate=run.rate)
        options = {"seed": run.seed, "epochs": run.epochs, "progress": False}
        history, ended = results.trained(recipe.train, data, kind=kind, rate=run.rate, **options)
        key = dict(zip(KEY, run.key, strict=True))
        # The summary, which ends the sweep after Ctrl-C, knows the device better.
        row = key | {"network": recipe.network} | results.provenance() | results.summary(history)
        # The key once more: its epochs are those that were wanted.
        return row | key | {"ended": ended}


# All runs -----------------------------------------------------------------------------------------


def sweep(
    plan: Plan,
    *,
    devices: Sequence[str] | None = None,
    scheduler: str | None = None,
    progress: bool = True,
    on_row: Callable[[dict], None] | None = None,
) -> Outcome:
    """Make the runs that the table does not hold yet.

    Args:
        plan: what to run.
        devices: for example ``["cuda:0", "cuda:1"]``: a process on each, one run at a time. Left
            out: all GPUs when there are several, else this process alone.
        scheduler: address of a Dask scheduler, for example "tcp://10.0.0.1:8786"; its workers need
            nlcourse and one thread each (``dask worker ... --nthreads 1``).
        progress: show a bar with the time left.
        on_row: called with every new row, after it is in the table.

    Raises:
        SweepError: no scheduler answers, or a process was killed. All rows so far are kept.
        TableInUse: another process adds rows to this table.
    """
    table = results.Table(plan.table, KEY)
    with table.held():
        return _make(plan, table, devices, scheduler, progress, on_row)


def _make(plan: Plan, table: results.Table, devices, scheduler, progress, on_row) -> Outcome:
    todo = [run for run in plan.runs if run.key not in table]
    outcome = Outcome()
    devices = list(devices) if devices else find_devices()
    with _bar(len(plan.runs), len(plan.runs) - len(todo), progress) as bar:
        for run, answer in _answers(todo, devices, scheduler):
            if isinstance(answer, Exception):
                outcome.failed[run] = f"{type(answer).__name__}: {answer}"
            elif run.key not in table:  # what comes from a cluster may come twice
                table.add(answer)
                outcome.added += 1
                bar.set_postfix_str(f"{run}: {float(answer['last']):.1%}", refresh=False)
                if on_row is not None:
                    on_row(answer)
            bar.update()
    return outcome


Answers = Iterator[tuple[SweepRun, "dict | Exception"]]


def _answers(todo: Sequence[SweepRun], devices: Sequence[str], scheduler: str | None) -> Answers:
    if not todo:
        return iter(())
    if scheduler is not None:
        return _on_dask(todo, scheduler)
    return _on_devices(todo, devices) if devices else _here(todo)


def find_devices() -> list[str]:
    """Return the GPUs when there are several to share the runs, else nothing."""
    import torch

    count = torch.cuda.device_count()
    if count < 2 or os.environ.get("NLCOURSE_DEVICE"):
        return []
    return [f"cuda:{number}" for number in range(count)]


def _here(todo: Sequence[SweepRun]) -> Answers:
    for run in todo:
        try:
            yield run, measure(run)
        except Exception as error:  # one run that fails must not keep the others from running
            yield run, error


def _on_devices(todo: Sequence[SweepRun], devices: Sequence[str]) -> Answers:
    """Yield what a process a device makes of the runs."""
    # Spawned: a forked process cannot use CUDA.
    context = multiprocessing.get_context("spawn")
    free = context.Queue()
    for device in devices:
        free.put(device)
    pool = ProcessPoolExecutor(len(devices), context, initializer=_take_device, initargs=(free,))
    with pool:
        futures = {pool.submit(measure, run): run for run in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], _answer(future)
        except BrokenProcessPool as error:
            raise SweepError(
                "A process of the sweep was killed (out of memory?). The rows so far are kept: "
                "the same command goes on from them"
            ) from error
        finally:  # when the caller leaves early, what has not begun need not begin
            pool.shutdown(wait=False, cancel_futures=True)


def _take_device(free) -> None:
    os.environ["NLCOURSE_DEVICE"] = free.get()  # `fit` trains where this says


def _answer(future) -> dict | Exception:
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:
        return error


def _on_dask(todo: Sequence[SweepRun], address: str) -> Answers:
    """Yield what the workers of a cluster make of the runs.

    When a worker dies, Dask gives its runs to the others.
    """
    try:
        from dask import distributed
    except ImportError:
        raise SweepError(NO_DASK) from None
    with _client(distributed, address) as client:
        # Not pure: a result that the cluster still holds from before is not the answer of today's
        # code. No retries: what fails once, fails again; a lost worker is no failure.
        futures = {client.submit(measure, run, pure=False): run for run in todo}
        for future in distributed.as_completed(list(futures)):
            yield futures[future], _answer(future)
            future.release()


def _client(distributed, address: str):
    try:
        return distributed.Client(address, timeout=PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise SweepError(f"No Dask scheduler answers at {address}: {error}") from None


@contextlib.contextmanager
def _bar(total: int, done: int, wanted: bool):
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=done, unit="run", disable=not wanted) as bar:
        yield bar
