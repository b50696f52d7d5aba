"""One run: a recipe on one kind and rate of noise with one seed, and the row that comes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from .. import noise
from ..datasets import Dataset
from ..training import History
from . import recipes, results
from .recipes import FitArguments, Recipe

Run = Mapping[str, Any]  # the values of a plan's key
Row = dict[str, Any]

SELECTION = ("label_precision", "label_recall", "label_recovery")
_ONE_AT_A_TIME = threading.Lock()  # two runs in one process would share torch's random state


def corrupted(data: Dataset, run: Run) -> Dataset:
    """Return the data set with the labels of a run."""
    if run["noise"] == noise.AS_IT_IS:
        return data
    return noise.inject(data, run["noise"], run["rate"], seed=run["seed"])


def train(
    recipe: Recipe, run: Run, data: Dataset | None = None, **more: Unpack[FitArguments]
) -> tuple[History, Row]:
    """Train once; return the history and all that a table may have of it.

    A run that diverges has a row too: what it reached until then, ``ended`` says when.

    Args:
        recipe: what to train.
        run: noise, rate and seed, and what else its row begins with.
        data: with given labels; when left out the recipe's, with the noise of the run.
        more: as for ``Recipe.train``.
    """
    noisy = corrupted(recipe.load(), run) if data is None else data
    told = {"seed": run["seed"], "kind": run["noise"], "rate": run["rate"]}
    history, ended = results.trained(recipe.train, noisy, **told, **{"progress": False, **more})
    settings, summary = history.settings, results.summary(history)
    last = history.last if len(history) else dict.fromkeys(SELECTION, float("nan"))
    return history, {
        **run,
        "data": noisy.name,
        "examples": len(noisy.labels),
        "network": recipe.network,
        "precision": settings.get("precision", ""),
        "optimizer": settings.get("optimizer", ""),
        "wrong_labels": f"{noisy.noise_rate:.4f}",
        **summary,
        **{name: f"{last[name]:.4f}" for name in SELECTION},
        "ended": ended,
        "settings": settings.get("method", ""),
    }


def measure(
    run: Run,
    *,
    checkpoints: Path | None = None,
    deadline: float | None = None,
    progress: bool = False,
) -> Row | None:
    """Make a run of a TOML plan.

    Args:
        run: the values of ``plan.KEY``.
        checkpoints: folder for runs that are not finished.
        deadline: as ``time.time()`` tells it; a run that it cuts short keeps its checkpoint.
        progress: show a bar.

    Returns:
        Its row; None where the time was up before it ended.
    """
    recipe = recipes.find(run["setting"], run["method"], noise=run["noise"], rate=run["rate"])
    subset = None if run["examples"] == "all" else run["examples"]
    recipe = recipe.but(data=run["data"], subset=subset, epochs=run["epochs"])
    path = None
    if checkpoints is not None:
        name = "-".join(str(value) for value in run.values())
        path = checkpoints / (re.sub(r"[^\w.-]+", "_", name) + ".pt")
    with _ONE_AT_A_TIME, alarm(deadline) as stop:
        options = dataclasses.replace(recipe.options()["options"], checkpoint=path, stop=stop)
        try:
            _, row = train(recipe, run, progress=progress, options=options)
        except KeyboardInterrupt:
            if stop.is_set():
                return None
            raise  # Ctrl-C, not the end of the time: no other run begins
    if path is not None:
        path.unlink(missing_ok=True)
    return {**row, **run}  # its epochs and examples are those that were wanted


@contextlib.contextmanager
def alarm(deadline: float | None) -> Iterator[threading.Event]:
    """Give an event that is set when the time is up."""
    stop = threading.Event()
    if deadline is None:
        yield stop
        return
    timer = threading.Timer(max(deadline - time.time(), 0.0), stop.set)
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
