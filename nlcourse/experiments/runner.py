"""The one runner: makes the runs of a plan that its table does not hold yet.

    nlcourse experiment docs/sweep.toml
    nlcourse experiment results/reproduced.toml --budget 9m
    python results/classroom_elr.py

Each row is added as soon as its run ends, so what was stopped, killed or extended goes on where it
was. Runs are made here, by several processes of this machine, each with a device of its own, or by
a Dask cluster: all through joblib. Only this process writes the table.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from . import results
from .plan import Plan
from .runs import Row, Run

PATIENCE = 10  # seconds to wait for a Dask scheduler

Answer = tuple[Run, list[Row] | None, str]  # run, its rows, and what went wrong
_taken: dict[Path, FileLock] = {}  # the lock of the device that this process has in a call


class RunnerError(RuntimeError):
    """The runs cannot go on: no scheduler answers, or a process died."""


@dataclass
class Outcome:
    """What came of a plan."""

    added: int = 0  # rows that are new in the table
    left: int = 0  # runs that the time was too short for
    failed: dict[str, str] = field(default_factory=dict)  # run, in words -> why it has no row


def in_words(run: Run) -> str:
    """Name a run in a line."""
    return ", ".join(f"{name} {value}" for name, value in run.items() if value != "")


def missing(plan: Plan) -> list[Run]:
    """Return the runs that the table does not hold, each once."""
    table = results.Table(plan.table, plan.key)
    return list({table.key_of(run): run for run in plan.runs if run not in table}.values())


def carry_out(
    plan: Plan,
    *,
    devices: Sequence[str] = (),
    scheduler: str | None = None,
    budget: float | None = None,
    progress: bool = True,
    on_row: Callable[[Row], None] | None = None,
) -> Outcome:
    """Make the runs that the table does not hold yet.

    Args:
        plan: what to run.
        devices: for example ``["cuda:0", "cuda:1"]``: a process on each, one run at a time. Left
            out: all GPUs when there are several, else this process alone.
        scheduler: address of a Dask scheduler, for example "tcp://10.0.0.1:8786"; its workers need
            nlcourse and one thread each (``dask worker ... --nthreads 1``), and see the folder of
            the checkpoints if there is one.
        budget: seconds, after which no run begins; with checkpoints those that are on end, too.
        progress: show a bar with the time left.
        on_row: called with every new row, after it is in the table.

    Raises:
        RunnerError: no scheduler answers, or a process was killed. All rows so far are kept.
        TableInUse: another process adds rows to this table.
    """
    devices = list(devices) or find_devices()
    deadline = None if budget is None else time.time() + budget
    measure = plan.measure
    if plan.checkpoints is not None:
        here = progress and len(devices) < 2 and scheduler is None
        limits: dict[str, Any] = {"checkpoints": plan.checkpoints, "deadline": deadline}
        measure = functools.partial(measure, **limits, progress=here)
    table, outcome = results.Table(plan.table, plan.key), Outcome()
    with table.held():
        todo = missing(plan)
        done = len(plan.runs) - len(todo)
        bar = tqdm(total=len(plan.runs), initial=done, unit="run", disable=not progress)
        with bar, contextlib.closing(_answers(todo, measure, deadline, devices, scheduler)) as made:
            for run, rows, why in made:
                if why:
                    outcome.failed[in_words(run)] = why
                elif rows is None:
                    outcome.left += 1
                    continue
                for row in rows or []:
                    if row not in table:  # what comes from a cluster may come twice
                        table.add({name: row[name] for name in table.columns or row if name in row})
                        outcome.added += 1
                        if on_row is not None:
                            on_row(row)
                bar.update()
    return outcome


def find_devices() -> list[str]:
    """Return the GPUs when there are several to share the runs, else nothing."""
    count = torch.cuda.device_count()
    if count < 2 or os.environ.get("NLCOURSE_DEVICE"):
        return []
    return [f"cuda:{number}" for number in range(count)]


def _answers(
    todo: Sequence[Run],
    measure: Callable[..., Any],
    deadline: float | None,
    devices: Sequence[str],
    scheduler: str | None,
) -> Generator[Answer, None, None]:
    """Yield what becomes of each run, in the order in which they end."""
    before = os.environ.get("NLCOURSE_DEVICE")
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folder as locks, _backend(scheduler, len(devices)) as processes:
        attempt = functools.partial(_attempt, measure, deadline, devices, Path(locks))
        # One run at a time: a run is minutes, and what has not begun need not begin after Ctrl-C.
        pool = Parallel(processes, return_as="generator_unordered", batch_size=1)
        try:
            yield from pool(delayed(attempt)(run) for run in todo)
        except BrokenProcessPool as error:
            raise RunnerError(
                "A process that made runs was killed (out of memory?). The rows so far are kept: "
                "the same command goes on from them"
            ) from error
        finally:  # where this process was the only one
            os.environ.pop("NLCOURSE_DEVICE", None)
            os.environ.update({"NLCOURSE_DEVICE": before} if before else {})


@contextlib.contextmanager
def _backend(scheduler: str | None, processes: int) -> Iterator[int]:
    """Tell joblib where to run; give the number of processes."""
    if scheduler is None:
        with parallel_config("loky"):
            yield max(processes, 1)
        return
    try:
        from dask import distributed
    except ImportError:
        raise RunnerError("Dask is missing: pip install -e '.[cluster]'") from None
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise RunnerError(f"No Dask scheduler answers at {scheduler}: {error}") from None
    with client, parallel_config("dask", client=client):
        yield -1


def _attempt(
    measure: Callable[..., Any],
    deadline: float | None,
    devices: Sequence[str],
    folder: Path,
    run: Run,
) -> Answer:
    """Make one run, in whatever process; one that fails must not keep the others from running."""
    if deadline is not None and time.time() >= deadline:
        return run, None, ""
    _take_device(devices, folder)
    try:
        rows = measure(run)
    except Exception as error:
        return run, None, f"{type(error).__name__}: {error}"
    if rows is None:
        return run, None, ""
    own = results.provenance()
    del own["command"]  # that of the process which writes the table
    return run, [row | own | row for row in (rows if isinstance(rows, list) else [rows])], ""


def _take_device(devices: Sequence[str], folder: Path) -> None:
    """Let ``fit`` train on a device that no other process of this call has.

    A process keeps the lock of its device as long as it lives; the system takes it back from one
    that was killed.
    """
    for number, device in enumerate(devices):
        if folder not in _taken:
            with contextlib.suppress(Timeout):
                lock = FileLock(folder / str(number))
                lock.acquire(timeout=0)
                _taken[folder] = lock
                os.environ["NLCOURSE_DEVICE"] = device
