"""Several small networks trained as one: a whole sweep over noise rates and seeds in one go.

A step of a small network is mostly waiting: each of its matrix products is over before the next one
is called. Sixteen networks of one shape are therefore stacked, weight upon weight, and take each
step together: ``(S, batch, in) @ (S, in, out)``. Every network keeps its own labels, its own first
weights, its own order of the examples and its own learning rate, so that it learns what it would
have learned alone in ``fit``. Shown in a panel of lesson 01.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import expect
from ..datasets import Dataset
from ..methods import CrossEntropy
from .batches import Images
from .checkpoint import describe
from .device import find_device, name_of, one_thread_for_small, own_random_state
from .history import COLUMNS, History
from .loop import BUILDING, Options, StopRequested, noting_stops, progress_bar
from .measure import accuracy_shares
from .networks import NetworkMaker, network_maker

# Images times networks: what their hidden layers need stays in the cache.
PREDICTED_AT_ONCE = 16_384

OnEpoch = Callable[[list[History]], None]


class StackedMLP:
    """Networks such as ``networks.mlp`` makes, all of one shape, without dropout, as one.

    Their weights are copied; :meth:`unstack` copies them back.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Stack weight upon weight."""
        shapes = [_shapes(network) for network in networks]
        expect(all(each == shapes[0] for each in shapes), "networks of one shape", shapes)
        layers = zip(*(_linear_layers(network) for network in networks), strict=True)
        # (S, in, out) where a Linear layer has (out, in): products then need no transposing.
        self.layers = [
            (
                nn.Parameter(torch.stack([one.weight.detach().T for one in copies])),
                nn.Parameter(torch.stack([one.bias.detach() for one in copies])[:, None]),
            )
            for copies in layers
        ]

    def parameters(self) -> list[nn.Parameter]:
        """Return weights ``(S, in, out)`` and biases ``(S, 1, out)``, layer by layer."""
        return [parameter for layer in self.layers for parameter in layer]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits ``(S, b, C)`` of a batch ``(S, b, pixels)`` for each network."""
        for number, (weights, biases) in enumerate(self.layers):
            images = torch.baddbmm(biases, images.relu_() if number else images, weights)
        return images

    @torch.no_grad()
    def unstack(self, networks: Sequence[nn.Module]) -> None:
        """Copy the weights into networks of the same shape."""
        for number, network in enumerate(networks):
            for layer, (weights, biases) in zip(_linear_layers(network), self.layers, strict=True):
                layer.weight.copy_(weights[number].T)
                layer.bias.copy_(biases[number, 0])


@dataclass(frozen=True, eq=False)
class StackedRun:
    """What one of the runs has of its own.

    Attributes:
        data: with given labels; the data of all runs may differ in these alone.
        seed: of the first weights and the order of the examples.
        lr: learning rate.
        method: its ``network`` holds the trained weights in the end.
    """

    data: Dataset
    seed: int = 0
    lr: float = 0.05
    method: CrossEntropy = field(default_factory=CrossEntropy)


def fit_stacked(
    runs: Sequence[StackedRun],
    *,
    epochs: int = 30,
    weight_decay: float = 0.0,
    network: str | NetworkMaker = "mlp",
    device: torch.device | str | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> list[History]:
    """Train one small network a run, all at once, with cross entropy and SGD.

    Each equals ``fit(run.method, run.data, seed=run.seed, lr=run.lr, ...)`` but for the rounding of
    sums, in a fraction of the time. All is computed in float32, on a GPU too, where ``fit`` chooses
    bfloat16. A run that diverges ends alone: its history says so in ``stopped``, the others go on.

    Args:
        runs: at least one.
        epochs: passes through the training set, from 1.
        weight_decay: l2 penalty of SGD.
        network: "mlp", or a callable ``(image_shape, num_classes) -> network`` that makes an
            ``nn.Sequential`` of Flatten, Linear and ReLU.
        device: where to train; found when left out.
        progress: show a bar when it takes longer than two seconds.
        on_epoch: called with the histories after every epoch, in this thread.
        options: `batch_size`, `momentum` and `stop` count here, the others have to be left out.

    Returns:
        One history a run. ``seconds`` of a row is the time of the epoch divided by the runs.

    Raises:
        ValueError: a setting out of its range, data with different images, or a network that cannot
            be stacked.
    """
    _check(runs, epochs, options)
    device = find_device(device)
    common: dict[str, object] = {
        "network": describe(network),
        "epochs": epochs,
        "device": device.type,
        "batch_size": options.batch_size,
        "momentum": options.momentum,
        "weight_decay": weight_decay,
    }
    with own_random_state(device, 0), one_thread_for_small(runs[0].data.images, device):
        stack = _Stack(runs, network_maker(network, runs[0].data), device, options, weight_decay)
        common["computed_on"] = name_of(device)
        for run, history in zip(runs, stack.histories, strict=True):
            history.settings = common | {"data": run.data.name, "seed": run.seed, "lr": run.lr}
        return _train(stack, epochs, progress, on_epoch)


def _train(stack: _Stack, epochs: int, progress: bool, on_epoch: OnEpoch | None) -> list[History]:
    """Train until the last epoch or a stop; the histories survive both."""
    histories, done = stack.histories, 0
    bar = progress_bar(epochs, 0, progress, unit="epoch")
    try:
        with noting_stops(histories, epochs):
            while done < epochs and not all(history.stopped for history in histories):
                stack.train_epoch(done)
                done += 1
                bar.update()
                if on_epoch is not None:
                    on_epoch(histories)
    finally:
        bar.close()
        stack.finish()
    return histories


class _Stack:
    """What the runs share and what each of them has of its own."""

    def __init__(
        self,
        runs: Sequence[StackedRun],
        make_network: Callable[[], nn.Module],
        device: torch.device,
        options: Options,
        weight_decay: float,
    ) -> None:
        self.runs, self.options, self.weight_decay = runs, options, weight_decay
        first = runs[0].data
        for run in runs:
            with BUILDING:  # as `fit` does: another thread may draw from torch's global state
                torch.manual_seed(run.seed)
                run.method.build(make_network, len(first.labels), first.num_classes)
        self.model = StackedMLP([run.method.to(device).network for run in runs])
        self.generators = [torch.Generator(device).manual_seed(run.seed) for run in runs]
        self.velocities = [torch.zeros_like(each) for each in self.model.parameters()]
        self.rates = torch.tensor([run.lr for run in runs], device=device)[:, None, None]
        self.images, self.test_images = (
            Images(part, first.mean, first.std, device)
            for part in (first.images, first.test_images)
        )
        self.given = torch.stack([run.data.labels for run in runs]).to(device)
        self.true, self.test_labels = first.true_labels.to(device), first.test_labels.to(device)
        self.histories = [History() for _ in runs]

    def train_epoch(self, epoch: int) -> None:
        """Train all networks for one epoch, measure them and add a row to each history."""
        began, stop = time.perf_counter(), self.options.stop
        examples = self.given.shape[1]
        orders = torch.stack(
            [torch.randperm(examples, generator=g, device=g.device) for g in self.generators]
        )
        labels = self.given.gather(1, orders).split(self.options.batch_size, dim=1)
        total = torch.zeros(len(self.runs), device=self.given.device)
        for index, given in zip(orders.split(self.options.batch_size, dim=1), labels, strict=True):
            if stop is not None and stop.is_set():
                raise StopRequested
            total.add_(self._step(index, given), alpha=index.shape[1])
        measured = self._measure() | {"train_loss": total / examples}
        rows = zip(*(column.tolist() for column in measured.values()), strict=True)
        seconds = (time.perf_counter() - began) / len(self.runs)
        for number, values in enumerate(rows):
            row = dict(zip(measured, values, strict=True)) | {"seconds": seconds}
            self._add(number, row | {"epoch": epoch + 1, "lr": self.runs[number].lr})

    def _step(self, index: Tensor, labels: Tensor) -> Tensor:
        """Take a step of SGD with each network on its batch ``(S, b)``; return the losses."""
        images = self.images.get(index.flatten()).view(*index.shape, -1)
        # Classes in the middle, (S, C, b): a softmax over neighbouring numbers takes three times as
        # long.
        logits = self.model(images).mT
        losses = F.cross_entropy(logits, labels, reduction="none").mean(1)
        # No network has a weight in another's loss: the gradient of the sum is each one's own.
        gradients = torch.autograd.grad(losses.sum(), self.model.parameters())
        # SGD with momentum, as torch has it, with a learning rate for each network.
        with torch.no_grad():
            moves = zip(self.model.parameters(), self.velocities, gradients, strict=True)
            for weights, velocity, gradient in moves:
                if self.weight_decay:
                    gradient = gradient.add(weights, alpha=self.weight_decay)
                velocity.mul_(self.options.momentum).add_(gradient)
                weights.addcmul_(velocity, self.rates, value=-1)
        return losses.detach()

    def _measure(self) -> dict[str, Tensor]:
        true = self.true.expand_as(self.given)
        shares = accuracy_shares(self._predict(self.images), self.given, true)
        right = self._predict(self.test_images) == self.test_labels
        return shares | {"test_accuracy": right.float().mean(1)}

    @torch.no_grad()
    def _predict(self, images: Images) -> Tensor:
        """Return the predicted class of every image by every network, int64 ``(S, n)``."""
        size = max(1, PREDICTED_AT_ONCE // len(self.runs))
        parts = (images.get(slice(at, at + size)) for at in range(0, len(images), size))
        wide = (part.flatten(1).expand(len(self.runs), -1, -1) for part in parts)
        return torch.cat([self.model(part).argmax(2) for part in wide], dim=1)

    def _add(self, number: int, row: dict[str, float]) -> None:
        history = self.histories[number]
        if history.stopped:
            return
        if math.isfinite(row["train_loss"]):
            history.rows.append(dict.fromkeys(COLUMNS, math.nan) | row)
        else:
            history.stopped = (
                f"diverged in epoch {row['epoch']}, at learning rate {row['lr']:g}: "
                f"the training loss is {row['train_loss']}"
            )

    def finish(self) -> None:
        """Hand the trained weights to the methods."""
        for run in self.runs:
            run.method.eval()
        self.model.unstack([run.method.network for run in self.runs])


def _shapes(network: nn.Module) -> list[tuple[int, ...]]:
    layers, linear = list(network.children()), _linear_layers(network)
    wanted = [nn.Flatten, *[nn.Linear, nn.ReLU] * len(linear)][: 2 * len(linear)]
    expect(
        len(linear) > 0
        and [type(layer) for layer in layers] == wanted
        and all(layer.bias is not None for layer in linear),
        "networks of Flatten, then Linear (with bias) with a ReLU between each two, such as 'mlp'",
        ", ".join(type(layer).__name__ for layer in layers),
        "train others one after the other with `fit`",
    )
    return [tuple(layer.weight.shape) for layer in linear]


def _linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def _check(runs: Sequence[StackedRun], epochs: int, options: Options) -> None:
    expect(bool(runs), "at least one run in `runs`", "none")
    expect(epochs >= 1, "`epochs` of at least 1", epochs)
    expect(options.batch_size >= 1, "`batch_size` of at least 1", options.batch_size)
    used = {"batch_size": options.batch_size, "momentum": options.momentum, "stop": options.stop}
    other = "`options` with `batch_size`, `momentum` and `stop` alone"
    expect(options == Options(**used), other, options)  # type: ignore[arg-type]
    for run in runs:
        expect(run.lr > 0 and math.isfinite(run.lr), "a learning rate `lr` above 0", run.lr)
        kind = type(run.method)
        expect(kind is CrossEntropy, "methods that are CrossEntropy", kind.__name__)
        why = "they have other images, true labels or test sets"
        both = f"{runs[0].data!r} and {run.data!r}"
        same = _same_but_labels(runs[0].data, run.data)
        expect(same, "data sets that differ in their given labels only", both, why)


def _same_but_labels(one: Dataset, other: Dataset) -> bool:
    if (one.mean, one.std, one.num_classes) != (other.mean, other.std, other.num_classes):
        return False
    names = ("images", "true_labels", "test_images", "test_labels")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a is b or (a.shape == b.shape and torch.equal(a, b)) for a, b in pairs)
