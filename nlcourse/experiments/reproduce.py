"""The papers' tables, as a queue of runs that takes a time budget.

    nlcourse reproduce --budget 9m

Every run is a recipe of the papers (``recipes.toml``) on one kind and rate of noise. A finished run
adds a row to ``results/reproduced.csv``; a run that the budget cuts short keeps its checkpoint and
goes on from its last finished epoch the next time. The order of the queue puts first what answers
most: one noise for all methods before the next noise.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import noise
from ..datasets import photographs as real_sets
from . import recipes, results

SETTINGS = ("cifar10-fast", "cifar10")
METHODS = (
    "elr", "cross-entropy", "dividemix", "co-teaching", "cdr", "joint-optimization", "elr-plus",
)  # fmt: skip
# Symmetric noise that may redraw the true class, as in the tables of Tanaka et al., ELR and
# DivideMix. Co-teaching and CDR never redraw it: their 40 % is our 44.4 %.
SYMMETRIC = "symmetric-including-true"
NOISES = (
    (SYMMETRIC, 0.4), ("asymmetric", 0.4), (SYMMETRIC, 0.2), (SYMMETRIC, 0.6), (SYMMETRIC, 0.8),
    (SYMMETRIC, 0.5),
)  # fmt: skip
KEY = ("setting", "method", "noise", "rate", "seed", "examples", "epochs")
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Job:
    """One run of the queue.

    Attributes:
        recipe: what to train.
        noise: kind of noise.
        rate: of the noise.
        seed: of labels and run.
    """

    recipe: recipes.Recipe
    noise: str
    rate: float
    seed: int = 0

    def __str__(self) -> str:
        """Name it as the table does."""
        return f"{self.recipe.setting} {self.recipe.name}, {self.noise} {self.rate:g}, {self.seed}"


def seconds(text: str) -> float:
    """Return the seconds of a time like ``90s``, ``9m`` or ``1.5h``.

    Raises:
        ValueError: the text is no such time.

    >>> seconds("9m")
    540.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or float(found[1]) == 0:
        raise ValueError(f"Expected a time like 90s, 9m or 1.5h, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def queue(
    settings: Sequence[str] = SETTINGS,
    methods: Sequence[str] | None = None,
    noises: Sequence[tuple[str, float]] = NOISES,
    seeds: Sequence[int] = (0,),
) -> Iterator[Job]:
    """Yield the runs in their order; a setting without a recipe for a method leaves it out.

    Left out, the methods are those of :data:`METHODS` that one of the settings has a recipe for.
    Photographs with wrong labels of their own keep them: there the noise is "none".

    Raises:
        ValueError: no setting has a recipe for one of the methods.
    """
    known = {setting: recipes.names(setting) for setting in settings}
    there = {name for names in known.values() for name in names}
    methods = [name for name in METHODS if name in there] if methods is None else methods
    for method in methods:
        if method not in there:
            raise ValueError(
                f"Expected methods with a recipe in {', '.join(settings)}, got {method!r}"
            )
    for seed, setting in itertools.product(seeds, settings):
        data = recipes.find(setting, known[setting][0]).data
        own = ((noise.AS_IT_IS, 0.0),) if data in real_sets.NAMES else noises
        for (kind, rate), method in itertools.product(own, methods):
            if method in known[setting]:
                recipe = recipes.find(setting, method, noise=kind, rate=rate)
                yield Job(recipe, kind, rate, seed)


def run(
    jobs: Sequence[Job],
    table: results.Table,
    checkpoints: Path,
    *,
    budget: float | None = None,
    data=None,
    subset: int | None = None,
    epochs: int | None = None,
    device: str | None = None,
    progress: bool = True,
    say=print,
) -> int:
    """Work through the queue until it or the budget ends.

    Args:
        jobs: the queue.
        table: where finished runs go; runs that it holds are left out.
        checkpoints: folder for runs that are not finished.
        budget: seconds, or None for no end.
        data: a data set without noise in place of each recipe's own.
        subset: so many training images of it, for a first try; all when left out.
        epochs: in place of each recipe's own; for a first try.
        device: where to train; found when left out.
        progress: show a bar a run.
        say: told a line a run.

    Returns:
        The number of runs that are still to be done.

    Raises:
        KeyboardInterrupt: somebody interrupted a run; its checkpoint is kept.
    """
    end = None if budget is None else time.monotonic() + budget
    left = 0
    for job in jobs:
        clean = data if data is not None else job.recipe.load()
        clean = clean if subset is None else clean.subset(subset)
        length = epochs or job.recipe.epochs
        key = _key(job, len(clean.labels), length)
        if tuple(key.values()) in table:
            continue
        if end is not None and time.monotonic() >= end:
            left += 1
            continue
        checkpoint = checkpoints / (
            re.sub(r"[^\w.-]+", "_", "-".join(map(str, key.values()))) + ".pt"
        )
        row = _train(job, clean, length, end, checkpoint, device, progress, say)
        if row is None:
            left += 1
            continue
        table.add(key | row)
        checkpoint.unlink(missing_ok=True)
    return left


def _key(job: Job, examples: int, epochs: int) -> dict:
    recipe = job.recipe
    values = (recipe.setting, recipe.name, job.noise, job.rate, job.seed, examples, epochs)
    return dict(zip(KEY, values, strict=True))


def _train(job, clean, epochs, end, checkpoint, device, progress, say) -> dict | None:
    """Train one run; None when the time was up before it ended."""
    noisy = clean
    if job.noise != noise.AS_IT_IS:
        noisy = noise.inject(clean, job.noise, job.rate, seed=job.seed)
    say(f"{job}: {epochs} epochs" + (", going on" if checkpoint.exists() else ""))
    with _alarm(end) as stop:
        options = {"device": device, "progress": progress, "checkpoint": checkpoint, "stop": stop}
        told = {"seed": job.seed, "kind": job.noise, "rate": job.rate, "epochs": epochs}
        history, ended = results.trained(job.recipe.train, noisy, **told, **options)
    if history.stopped:
        say(f"  {history.stopped}: its checkpoint is kept, the next call goes on")
        if not stop.is_set():  # Ctrl-C, not the end of the budget: no other run begins
            raise KeyboardInterrupt
        return None
    measured = results.summary(history)
    del measured["epochs"]  # the key says how many were wanted
    say(f"  best {float(measured['best']):.2%}, last {float(measured['last']):.2%} {ended}")
    row = {"data": clean.name, "network": job.recipe.network}
    row["precision"] = history.settings["precision"]
    return row | measured | {"ended": ended}


@contextlib.contextmanager
def _alarm(end: float | None):
    """Give an event that is set when the time is up."""
    stop = threading.Event()
    if end is None:
        yield stop
        return
    timer = threading.Timer(max(end - time.monotonic(), 0.0), stop.set)
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
