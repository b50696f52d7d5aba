"""The one training loop of the course.

``fit(method, data)`` goes through the data epoch by epoch, measures after each, and returns a
:class:`History`. It knows no method by name: a method says what its loss is (see
``methods/base.py``), and never meets a true label. Explained in lesson 00.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..base import Batch, Method, training_step
from ..datasets.augment import Augment
from ..datasets.dataset import UNKNOWN, Dataset
from .acceleration import SMALL_IMAGE, accelerate, fastest_precision, fused, name_of
from .batches import Batches, Images
from .history import COLUMNS, History
from .networks import NETWORKS

__all__ = ["DivergedError", "History", "Options", "find_device", "fit", "predict"]

PREDICT_BATCH = 2048  # large enough to keep a device busy, small enough for a laptop's memory
PREDICT_VALUES = PREDICT_BATCH * 3 * 32 * 32  # photographs are predicted fewer at a time
PROGRESS_DELAY = 2.0  # seconds: shorter runs show no bar

BUILDING = threading.Lock()
_SETTING = threading.Lock()  # held while what all threads share is read and set again
_FOUND: dict[object, list] = {}  # the random states that the runs now on found, the first run first

OptimizerMaker = Callable[[list], torch.optim.Optimizer]
ScheduleMaker = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
NetworkMaker = Callable[[tuple[int, int, int], int], nn.Module]


class DivergedError(RuntimeError):
    """The loss is no finite number any more. What was measured before is kept in ``.history``."""

    def __init__(self, message: str, history: History) -> None:
        """Keep the finished epochs beside the message."""
        super().__init__(message)
        self.history = history


class StopRequested(Exception):  # noqa: N818 - a signal, not an error
    """Leaves an epoch when somebody pressed Stop."""


def find_device() -> torch.device:
    """Return CUDA or MPS when torch can use it, else the CPU; NLCOURSE_DEVICE overrules."""
    if chosen := os.environ.get("NLCOURSE_DEVICE"):
        return torch.device(chosen)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


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
    if epochs < 1:
        raise ValueError(f"Expected `epochs` of at least 1, got {epochs}")
    optimizer = options.optimizer
    if optimizer is None:
        if not (lr > 0 and math.isfinite(lr)):
            raise ValueError(f"Expected a learning rate `lr` above 0, got {lr}")
        optimizer = functools.partial(
            torch.optim.SGD, lr=lr, momentum=options.momentum, weight_decay=weight_decay
        )
    device = torch.device(device) if device is not None else find_device()
    make_network = network_maker(network, data)
    settings = {
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
        chosen = options.precision or fastest_precision(made, data.images, device)
        compiled = device.type == "cuda" and options.compiled
        return accelerate(made, device, chosen, compiled=compiled)

    with own_random_state(device, seed), one_thread_for_small(data.images, device):
        run = _Run(
            method,
            data,
            make_fast_network,
            optimizer,
            schedule,
            options.augment,
            options.batch_size,
            device,
            seed,
        )
        settings["precision"] = getattr(method.network, "precision", "float32")
        run.history.settings = settings | {"epochs": epochs, "computed_on": name_of(device)}
        if options.checkpoint is not None:
            more = {"examples": _fingerprint(data), "pieces": _pieces(method)}
            run.resume(Path(options.checkpoint), settings | more)
        return _train(run, epochs, progress, options.checkpoint, options.stop, on_epoch)


def _train(run: _Run, epochs: int, progress: bool, checkpoint, stop, on_epoch) -> History:
    """Train until the last epoch, a stop or a divergence; the history survives all three."""
    history = run.history
    bar = progress_bar(epochs * len(run.batches), len(history) * len(run.batches), progress)
    try:
        with noting_stops([history], epochs):
            while len(history) < epochs:
                run.train_epoch(stop, bar)
                accuracy = f"test accuracy {100 * history.last['test_accuracy']:.1f} %"
                bar.n = len(history) * len(run.batches)
                bar.set_postfix_str(accuracy, refresh=False)
                if checkpoint is not None:
                    run.save(Path(checkpoint))
                if on_epoch is not None:
                    on_epoch(history)
    finally:
        run.method.eval()
        bar.close()
    return history


@contextlib.contextmanager
def noting_stops(histories: Iterable[History], epochs: int):
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
        self, method, data, make_network, optimizer, schedule, augment, batch_size, device, seed
    ) -> None:
        self.device = device
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
            batch_size=batch_size,
            generator=self.generator,
            augment=augment,
        )
        self.measure = _Measure(data, images, device)
        self.history = History()

    def train_epoch(self, stop: threading.Event | None, bar) -> None:
        """Train one epoch, measure it and add a row to the history."""
        began = time.perf_counter()
        method, epoch = self.method, len(self.history)
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

    def save(self, path: Path) -> None:
        """Renew the checkpoint. A kill in the middle leaves the old one whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "settings": self._settings,
            "rows": self.history.rows,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "generator": self.generator.get_state(),
            "random_state": _random_state(self.device),
        }
        unfinished = path.with_name(path.name + ".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def resume(self, path: Path, settings: dict) -> None:
        """Go on from the checkpoint if there is one, and refuse that of another run."""
        self._settings = settings
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            there = state["settings"]
        except Exception as error:
            raise ValueError(f"{path} is no checkpoint of nlcourse, or damaged: {error}") from error
        pieces = settings["pieces"]
        if "pieces" not in there and all("=nlcourse." in piece for piece in pieces):
            there["pieces"] = pieces  # made before they were noted; another's would be refused
        for name, here in settings.items():
            if there.get(name) != here:
                raise ValueError(
                    f"The checkpoint {path} belongs to another run: its {name} is "
                    f"{there.get(name)}, this run's is {here}. Choose another file, or delete "
                    "that one to begin again."
                )
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        _set_random_state(self.device, state["random_state"])
        self.history.rows = state["rows"]


class _Measure:
    """Measures a method after an epoch. The only place that knows true labels."""

    def __init__(self, data, images: Images, device: torch.device) -> None:
        self.images = images
        self.test_images = Images(data.test_images, data.mean, data.std, device)
        self.given = data.labels.to(device)
        self.true = data.true_labels.to(device)
        self.test_labels = data.test_labels.to(device)
        self.known = self.true != UNKNOWN
        self.wrong = self.known & (self.given != self.true)
        self.right = self.known & (self.given == self.true)

    def __call__(self, method: Method) -> dict[str, float]:
        method.eval()
        shares = accuracy_shares(predict(method, self.images), self.given, self.true)
        right = predict(method, self.test_images) == self.test_labels
        shares["test_accuracy"] = _share(right)
        if method.selects:
            chosen = method.selected
            right = chosen & self.right
            shares["label_precision"] = right.sum() / (chosen & self.known).sum()
            shares["label_recall"] = right.sum() / (self.right.sum() * len(chosen))
        labels = getattr(method, "current_labels", None)
        if labels is not None:
            shares["label_recovery"] = _share(labels.argmax(dim=1) == self.true, self.known)
        # One wait for the device an epoch, for all numbers together.
        measured = torch.stack(list(shares.values())).tolist()
        return dict(zip(shares, measured, strict=True))


def accuracy_shares(predicted: Tensor, given: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Count what became of the training examples: the shares of a history's row.

    Args:
        predicted: int64 ``(..., n)``, the predicted classes of one network or of several.
        given: int64 of the same shape, the given labels.
        true: int64 of the same shape, the true labels; UNKNOWN ones count neither as right nor as
            wrong.

    Returns:
        Six of the :data:`~.history.COLUMNS`, each ``(...)``; nan where none is known.
    """
    known = true != UNKNOWN
    as_given, as_true, wrong = predicted == given, predicted == true, known & (given != true)
    return {
        "given_accuracy": _share(as_given),
        "true_accuracy": _share(as_true, known),
        "clean_accuracy": _share(as_true, known & ~wrong),
        "wrong_as_true": _share(as_true, wrong),
        "wrong_as_given": _share(as_given, wrong),
        "wrong_as_other": _share(~as_true & ~as_given, wrong),
    }


def _share(flags: Tensor, among: Tensor | None = None) -> Tensor:
    if among is None:
        return flags.float().mean(-1)
    return (flags & among).sum(-1) / among.sum(-1)  # nan when there is none


@torch.no_grad()
def predict(method: nn.Module, images: Images) -> Tensor:
    """Return the predicted class of every image, int64 ``(n,)``, without augmentation.

    The method stays in the mode it is in; call ``method.eval()`` first.
    """
    size = max(1, min(PREDICT_BATCH, PREDICT_VALUES // math.prod(images.shape[1:])))
    chunks = range(0, len(images), size)
    return torch.cat([method(images.get(slice(at, at + size))).argmax(dim=1) for at in chunks])


def network_maker(network: str | NetworkMaker, data) -> Callable[[], nn.Module]:
    """Return a callable without arguments that makes a fresh network for a data set."""
    if isinstance(network, str):
        if network not in NETWORKS:
            raise ValueError(f"No network is called {network!r}; there are {', '.join(NETWORKS)}")
        network = NETWORKS[network]
    return functools.partial(network, data.image_shape, data.num_classes)


def progress_bar(total: int, done: int, wanted: bool, unit: str = "step"):
    """Return a bar with the time left that shows itself only when it takes a while."""
    # Imported here: the core needs no tqdm to import, and a run without a bar none at all.
    from tqdm.auto import tqdm

    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        delay=PROGRESS_DELAY,
        leave=False,
        disable=not wanted,
        mininterval=0.2,
    )


@contextlib.contextmanager
def own_random_state(device: torch.device, seed: int):
    """Give the run its own global random state (dropout draws from it) and put the old one back.

    A run that ends while a later one is on hands what it found to that one: when two overlap, the
    last to end puts back what was there before the first.
    """
    run = object()
    with _SETTING:
        _FOUND[run] = [(device, _random_state(device))]
    torch.manual_seed(seed)
    try:
        yield
    finally:
        with _SETTING:
            later = list(_FOUND)[list(_FOUND).index(run) + 1 :]
            found = _FOUND.pop(run)
            if later:
                _FOUND[later[0]] += found
            else:
                for where, state in found:
                    _set_random_state(where, state)


@contextlib.contextmanager
def one_thread_for_small(images: Tensor, device: torch.device):
    """Train on small images with one processor thread, then put the old number back.

    A batch of 8 x 8 digits is too little work to share. On two idle cores a second thread saves a
    fifth of the MLP's time (a third of the small CNN's), but as soon as other programs want the
    cores the two threads mostly wait for each other, and a run takes ten times as long or more: a
    bad trade on a laptop in class. One thread also gives the same numbers whatever the number of
    cores. The setting is that of the calling thread: a panel's run does not change the notebook's.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and images[0].numel() <= SMALL_IMAGE:
        _set_own_threads(1)
    try:
        yield
    finally:
        _set_own_threads(before)


def _set_own_threads(count: int) -> None:
    """Set the processor threads of the calling thread, and of no other.

    torch's setter also changes the default of threads that begin later: a new thread puts it back.
    """
    if count == torch.get_num_threads():
        return
    with _SETTING, ThreadPoolExecutor(1) as new_thread:
        default = new_thread.submit(torch.get_num_threads).result()
        torch.set_num_threads(count)
        new_thread.submit(torch.set_num_threads, default).result()


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(device)
    return state


def _set_random_state(device: torch.device, state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type in state and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type], device)


def describe(value) -> str:
    """Return a name for a setting that is the same in every process (a repr holds addresses)."""
    if isinstance(value, functools.partial):
        arguments = [repr(value) for value in value.args]
        arguments += [f"{name}={describe(value)}" for name, value in value.keywords.items()]
        return f"{describe(value.func)}({', '.join(arguments)})"
    if isinstance(value, Method):
        plain = {
            name: setting
            for name, setting in vars(value).items()
            if isinstance(setting, (bool, int, float, str))
            and name not in ("training", "epoch", "selects", "num_classes")
        }
        arguments = ", ".join(f"{name}={setting!r}" for name, setting in plain.items())
        return f"{type(value).__name__}({arguments})"
    return getattr(value, "__qualname__", None) or repr(value)


def _pieces(method: Method) -> list[str]:
    """Name the functions that a method was given: ``CoTeaching(select=mine)`` is another run."""
    found = {name: piece for name, piece in vars(method).items() if callable(piece)}
    for name, piece in found.items():
        if isinstance(piece, functools.partial):
            found[name] = f"partial.{describe(piece)}"
        else:
            named = piece if hasattr(piece, "__qualname__") else type(piece)
            found[name] = f"{named.__module__}.{named.__qualname__}"
    return [f"{name}={piece}" for name, piece in found.items()]


def _fingerprint(data) -> str:
    """Return a short checksum of what the run learns from."""
    # Images on a memory map are too many to be read; they carry a checksum of what they are.
    digest = hashlib.sha256(data.images_key.encode())
    for tensor in (data.labels,) if data.images_key else (data.images, data.labels):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
