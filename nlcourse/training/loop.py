"""The one training loop of the course.

``fit(method, data)`` goes through the data epoch by epoch, measures after each, and returns a
:class:`History`. It knows no method by name: a method says what its loss is (``base.py``), and
never meets a true label. Explained in lesson 00.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..base import Batch, Method, expect, training_step
from ..datasets import Dataset
from ..datasets.augment import Augment
from . import checkpoint
from .acceleration import accelerate, fastest_precision, fused
from .batches import Batches, Images
from .checkpoint import describe
from .device import (
    find_device,
    name_of,
    one_thread_for_small,
    own_random_state,
    random_state,
    set_random_state,
)
from .history import COLUMNS, History
from .measure import Measure
from .networks import NetworkMaker, network_maker

if TYPE_CHECKING:
    from tqdm import tqdm

PROGRESS_DELAY = 2.0  # seconds: shorter runs show no bar
BUILDING = threading.Lock()  # first weights come from torch's global random state

OptimizerMaker = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
ScheduleMaker = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


class DivergedError(RuntimeError):
    """The loss is no finite number any more. What was measured before is kept in ``.history``."""

    def __init__(self, message: str, history: Any) -> None:
        """Keep what was measured: a `History`, or what another kind of descent records."""
        super().__init__(message)
        self.history = history


class StopRequested(Exception):  # noqa: N818 - a signal, not an error
    """Leaves an epoch when somebody pressed Stop."""


@dataclass(frozen=True)
class Options:
    """What is rarely set about a run: ``fit(method, data, options=Options(momentum=0.0))``.

    Attributes:
        optimizer: in place of SGD, a callable from parameters, for example
            ``functools.partial(torch.optim.Adam, lr=1e-3)``; `lr`, `momentum` and `weight_decay`
            are then not used.
        momentum: of SGD.
        batch_size: examples in a batch.
        augment: random changes to the training images.
        precision: "float32", or "bfloat16" for the networks' multiplications; when left out,
            what :func:`~.acceleration.fastest_precision` says. Digits are always learned in float32
            on a processor.
        compiled: let ``torch.compile`` work on the networks where the device is CUDA; a string is
            its mode ("reduce-overhead": CUDA graphs).
        checkpoint: a file that is renewed after every epoch and continued from when it is there.
        stop: an event that ends the run at the next step when somebody sets it.
    """

    optimizer: OptimizerMaker | None = None
    momentum: float = 0.9
    batch_size: int = 64
    augment: Augment | None = None
    precision: str | None = None
    compiled: bool | str = False
    checkpoint: str | Path | None = None
    stop: threading.Event | None = None


def fit(
    method: Method,
    data: Dataset,
    *,
    epochs: int = 30,
    lr: float = 0.05,
    seed: int = 0,
    weight_decay: float = 0.0,
    network: str | NetworkMaker = "mlp",
    schedule: ScheduleMaker | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    on_epoch: Callable[[History], None] | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> History:
    """Train a method on a data set with given labels and measure it after every epoch.

    The same seed gives the same numbers again on the same machine. Stopping (the ■ button) ends the
    run cleanly: finished epochs stay in the history, whose ``stopped`` says why. With
    ``options=Options(checkpoint=...)`` a run that was stopped or killed goes on from its last
    finished epoch and ends with the numbers of a run that was never interrupted.

    Args:
        method: what to train; it gets fresh networks.
        data: with given labels. Its true labels are used for measuring only.
        epochs: passes through the training set, from 1.
        lr: learning rate of SGD.
        seed: decides the first weights, the order of the examples and every other random choice.
        weight_decay: l2 penalty of SGD.
        network: a name of ``networks.NETWORKS``, or a callable ``(image_shape, num_classes) ->
            network``.
        schedule: a callable from the optimizer to a torch schedule that is stepped once an epoch.
        device: where to train; found by :func:`find_device` when left out.
        progress: show a bar with the time left when the run takes longer than two seconds.
        on_epoch: called with the history after every epoch, in this thread.
        options: what is rarely set.

    Returns:
        The history: one row an epoch. The trained networks are in ``method.networks``.

    Raises:
        DivergedError: the loss became infinite or no number.
        ValueError: a setting is out of its range, or the checkpoint belongs to another run.
    """
    expect(isinstance(method, nn.Module), "a method, such as `CrossEntropy()`", f"{method!r:.60}")
    expect(hasattr(data, "true_labels"), "a `Dataset`, as `datasets.load` gives", f"{data!r:.60}")
    expect(epochs >= 1, "`epochs` of at least 1", epochs)
    optimizer = options.optimizer
    if optimizer is None:
        expect(lr > 0 and math.isfinite(lr), "a learning rate `lr` above 0", lr)
        optimizer = functools.partial(
            torch.optim.SGD, lr=lr, momentum=options.momentum, weight_decay=weight_decay
        )
    device = find_device(device)
    make_network = network_maker(network, data)
    settings: dict[str, object] = {
        "method": describe(method),
        "network": describe(network),
        "data": data.name,
        "batch_size": options.batch_size,
        "optimizer": describe(optimizer),
        "schedule": describe(schedule),
        "augment": repr(options.augment),
        "seed": seed,
        "device": device.type,
    }

    def make_fast_network() -> nn.Module:
        made = make_network()
        precision = options.precision or fastest_precision(made, data.images, device)
        compiled = device.type == "cuda" and options.compiled
        return accelerate(made, device, precision, compiled=compiled)

    with own_random_state(device, seed), one_thread_for_small(data.images, device):
        run = _Run(method, data, make_fast_network, optimizer, schedule, options, device, seed)
        settings["precision"] = getattr(method.network, "precision", "float32")
        run.history.settings = settings | {"epochs": epochs, "computed_on": name_of(device)}
        if options.checkpoint is not None:
            more = {
                "examples": checkpoint.fingerprint(data),
                "pieces": checkpoint.pieces(method),
            }
            run.resume(settings | more)
        return _train(run, epochs, progress, on_epoch)


def _train(
    run: _Run, epochs: int, progress: bool, on_epoch: Callable[[History], None] | None
) -> History:
    """Train until the last epoch, a stop or a divergence; the history survives all three."""
    history = run.history
    bar = progress_bar(epochs * len(run.batches), len(history) * len(run.batches), progress)
    try:
        with noting_stops([history], epochs):
            while len(history) < epochs:
                run.train_epoch(bar)
                accuracy = f"test accuracy {100 * history.last['test_accuracy']:.1f} %"
                bar.n = len(history) * len(run.batches)
                bar.set_postfix_str(accuracy, refresh=False)
                run.save()
                if on_epoch is not None:
                    on_epoch(history)
    finally:
        run.method.eval()
        bar.close()
    return history


@contextlib.contextmanager
def noting_stops(histories: Iterable[History], epochs: int) -> Iterator[None]:
    """End the training where somebody stops it, and say so in each history that is still on."""
    try:
        yield
    except (StopRequested, KeyboardInterrupt) as request:
        how = "stopped" if isinstance(request, StopRequested) else "interrupted"
        for history in histories:
            history.stopped = history.stopped or f"{how} in epoch {len(history) + 1} of {epochs}"


class _Run:
    """Everything that one run moves: networks, optimizer, batches, random state, history."""

    def __init__(
        self,
        method: Method,
        data: Dataset,
        make_network: Callable[[], nn.Module],
        optimizer: OptimizerMaker,
        schedule: ScheduleMaker | None,
        options: Options,
        device: torch.device,
        seed: int,
    ) -> None:
        self.device, self.options = device, options
        self.generator = torch.Generator(device).manual_seed(seed)
        self.method = method
        with BUILDING:
            # Seeded here once more: a run in another thread may have drawn since.
            torch.manual_seed(seed)
            method.build(make_network, len(data.labels), data.num_classes)
        method.generator = self.generator
        method.to(device)
        self.optimizer = fused(optimizer(list(method.parameters())), device)
        self.schedule = schedule(self.optimizer) if schedule is not None else None
        images = Images(data.images, data.mean, data.std, device)
        self.batches = Batches(
            images,
            data.labels,
            batch_size=options.batch_size,
            generator=self.generator,
            augment=options.augment,
        )
        self.measure = Measure(data, images, device)
        self.history = History()

    def train_epoch(self, bar: tqdm[Any]) -> None:
        """Train one epoch, measure it and add a row to the history."""
        began = time.perf_counter()
        method, epoch, stop = self.method, len(self.history), self.options.stop
        method.epoch = epoch
        method.selected.zero_()
        method.train()
        # Losses add up on the device: reading one inside the epoch would make the processor wait
        # for it.
        total = torch.zeros((), device=self.device)
        seen = 0
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]

        def step(loss: Callable[[Batch], Tensor], batch: Batch) -> None:
            nonlocal seen
            if stop is not None and stop.is_set():
                raise StopRequested
            for parameter in parameters:
                parameter.grad = None  # what zero_grad() does, in a tenth of its time
            value = loss(batch)
            value.backward()
            method.change_gradients()
            self.optimizer.step()
            total.add_(value.detach(), alpha=len(batch.index))
            seen += len(batch.index)
            bar.update()

        lr = self.optimizer.param_groups[0]["lr"]
        with training_step():
            method.train_epoch(self.batches, step)
        train_loss = total.item() / max(seen, 1)
        if not math.isfinite(train_loss):
            raise DivergedError(
                f"The training loss is {train_loss} in epoch {epoch + 1}, at learning rate {lr:g}: "
                f"the run diverged. Try a smaller learning rate, for example {lr / 10:g}.",
                self.history,
            )
        if self.schedule is not None:
            self.schedule.step()
        row = dict.fromkeys(COLUMNS, math.nan) | self.measure(method)
        row |= {"epoch": epoch + 1, "lr": lr, "train_loss": train_loss}
        row["seconds"] = time.perf_counter() - began
        self.history.rows.append(row)

    def save(self) -> None:
        """Renew the checkpoint, if there is to be one."""
        if self.options.checkpoint is None:
            return
        state = {
            "settings": self._settings,
            "rows": self.history.rows,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "generator": self.generator.get_state(),
            "random_state": random_state(self.device),
        }
        checkpoint.save(Path(self.options.checkpoint), state)

    def resume(self, settings: dict[str, object]) -> None:
        """Go on from the checkpoint if there is one, and refuse that of another run."""
        self._settings = settings
        path = Path(self.options.checkpoint or "")
        if not path.is_file():
            return
        state = checkpoint.load(path, settings)
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        set_random_state(self.device, state["random_state"])
        self.history.rows = state["rows"]


def progress_bar(total: int, done: int, wanted: bool, unit: str = "step") -> tqdm[Any]:
    """Return a bar with the time left that shows itself only when it takes a while."""
    # Imported here: the core needs no tqdm to import, and a run without a bar none at all.
    from tqdm.auto import tqdm

    options: dict[str, Any] = {"delay": PROGRESS_DELAY, "leave": False, "mininterval": 0.2}
    return tqdm(total=total, initial=done, unit=unit, disable=not wanted, **options)
