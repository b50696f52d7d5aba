"""Several small networks trained as one: a whole sweep over noise rates and seeds in one go.

A step of a small network is mostly waiting: each of its matrix products is over before the next one
is called. Sixteen networks of one shape are therefore stacked, weight upon weight, and take each
step together: ``(S, batch, in) @ (S, in, out)``. Every network keeps its own labels, its own first
weights, its own order of the examples and its own learning rate, so that it learns what it would
have learned alone in ``fit``. Shown in the panel :class:`~nlcourse.panels.NoiseSweep`.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..methods import CrossEntropy
from .acceleration import name_of
from .batches import Images
from .history import COLUMNS, History
from .loop import (
    BUILDING,
    NetworkMaker,
    StopRequested,
    accuracy_shares,
    describe,
    find_device,
    network_maker,
    noting_stops,
    one_thread_for_small,
    own_random_state,
    progress_bar,
)

LAYERS = (nn.Flatten, nn.Linear, nn.ReLU)
PREDICTED_AT_ONCE = (
    16_384  # images times networks: what their hidden layers need stays in the cache
)

OnEpoch = Callable[[list[History]], None]


class StackedMLP:
    """Networks of Linear and ReLU layers, all of one shape, as one.

    Args:
        networks: at least one ``nn.Sequential`` such as ``models.mlp`` makes, without dropout.
            Their weights are copied; :meth:`unstack` copies them back.

    Raises:
        ValueError: a network with other layers, or of another shape than the first.
    """

    def __init__(self, networks: Sequence[nn.Sequential]) -> None:
        """Stack weight upon weight."""
        shapes = [_shapes(network) for network in networks]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError("Expected networks of one shape: the same layers, the same widths")
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
        """Return the logits of every network, float ``(S, b, C)``.

        Args:
            images: float ``(S, b, pixels)``, a batch for each of the S networks.
        """
        values = images
        for number, (weights, biases) in enumerate(self.layers):
            values = values.relu_() if number else values
            values = torch.baddbmm(biases, values, weights)
        return values

    @torch.no_grad()
    def unstack(self, networks: Sequence[nn.Sequential]) -> None:
        """Copy the weights into networks of the same shape."""
        for number, network in enumerate(networks):
            for layer, (weights, biases) in zip(_linear_layers(network), self.layers, strict=True):
                layer.weight.copy_(weights[number].T)
                layer.bias.copy_(biases[number, 0])


def fit_stacked(
    data_sets: Sequence,
    *,
    seeds: Sequence[int],
    methods: Sequence[CrossEntropy] | None = None,
    network: str | NetworkMaker = "mlp",
    epochs: int = 30,
    lr: float | Sequence[float] = 0.05,
    batch_size: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    device: torch.device | str | None = None,
    progress: bool = True,
    stop: threading.Event | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[History]:
    """Train one small network on each data set, all at once, with cross entropy and SGD.

    Run number i equals ``fit(CrossEntropy(), data_sets[i], seed=seeds[i], lr=lr[i], ...)`` but for
    the rounding of sums, in a fraction of the time. All is computed in float32, on a GPU too, where
    ``fit`` chooses bfloat16.

    A run that diverges ends alone: its history says so in ``stopped``, the others go on.

    Args:
        data_sets: one a run; they may differ in their given labels only, as `noise.inject` makes
            them from one data set.
        seeds: one a run: its first weights and the order of its examples.
        methods: where the trained networks are wanted, one method a run; its ``network`` holds them
            in the end.
        network: "mlp", or a callable ``(image_shape, num_classes) -> network`` that makes an
            ``nn.Sequential`` of Flatten, Linear and ReLU.
        epochs: passes through the training set, from 1.
        lr: learning rate, one for all or one a run.
        batch_size: examples in a batch of each network.
        momentum: of SGD.
        weight_decay: l2 penalty of SGD.
        device: where to train; found when left out.
        progress: show a bar when it takes longer than two seconds.
        stop: ends all runs at the next step when somebody sets it.
        on_epoch: called with the histories after every epoch, in this thread.

    Returns:
        One history a run. ``seconds`` of a row is the time of the epoch divided by the runs.

    Raises:
        ValueError: a setting out of its range, data sets with different images, or a network that
            cannot be stacked.
    """
    rates = [lr] * len(data_sets) if isinstance(lr, (int, float)) else list(lr)
    methods = [CrossEntropy() for _ in data_sets] if methods is None else list(methods)
    _check(data_sets, seeds, rates, methods, epochs, batch_size)
    device = torch.device(device) if device is not None else find_device()
    make_network = network_maker(network, data_sets[0])
    with (
        own_random_state(device, 0),
        one_thread_for_small(data_sets[0].images, device),
    ):
        options = {"batch_size": batch_size, "momentum": momentum, "weight_decay": weight_decay}
        stack = _Stack(data_sets, seeds, rates, methods, make_network, device, **options)
        common = {"network": describe(network), "epochs": epochs, "device": device.type} | options
        common["computed_on"] = name_of(device)
        for number, history in enumerate(stack.histories):
            own = {"data": data_sets[number].name, "seed": seeds[number], "lr": rates[number]}
            history.settings = common | own
        return _train(stack, epochs, progress, stop, on_epoch)


def _train(stack: _Stack, epochs: int, progress: bool, stop, on_epoch) -> list[History]:
    """Train until the last epoch or a stop; the histories survive both."""
    histories, done = stack.histories, 0
    bar = progress_bar(epochs, 0, progress, unit="epoch")
    try:
        with noting_stops(histories, epochs):
            while done < epochs and not all(history.stopped for history in histories):
                stack.train_epoch(done, stop)
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
        self, data_sets, seeds, rates, methods, make_network, device,
        *, batch_size: int, momentum: float, weight_decay: float,
    ) -> None:  # fmt: skip
        self.methods = methods
        self.batch_size, self.momentum, self.weight_decay = batch_size, momentum, weight_decay
        for method, seed in zip(methods, seeds, strict=True):
            with BUILDING:  # as `fit` does: another thread may draw from torch's global state
                torch.manual_seed(seed)
                method.build(make_network, len(data_sets[0].labels), data_sets[0].num_classes)
        self.model = StackedMLP([method.to(device).network for method in methods])
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.velocities = [torch.zeros_like(each) for each in self.model.parameters()]
        self.rates = torch.tensor(rates, device=device)[:, None, None]
        first = data_sets[0]
        parts = (first.images, first.test_images)
        images = [Images(part, first.mean, first.std, device) for part in parts]
        self.images, self.test_images = images
        self.given = torch.stack([data.labels for data in data_sets]).to(device)
        self.true, self.test_labels = first.true_labels.to(device), first.test_labels.to(device)
        self.histories = [History() for _ in data_sets]
        self.lr = rates

    def train_epoch(self, epoch: int, stop: threading.Event | None) -> None:
        """Train all networks for one epoch, measure them and add a row to each history."""
        began = time.perf_counter()
        examples = self.given.shape[1]
        orders = torch.stack(
            [torch.randperm(examples, generator=g, device=g.device) for g in self.generators]
        )
        labels = self.given.gather(1, orders).split(self.batch_size, dim=1)
        total = torch.zeros(len(self.lr), device=self.given.device)
        for index, given in zip(orders.split(self.batch_size, dim=1), labels, strict=True):
            if stop is not None and stop.is_set():
                raise StopRequested
            total.add_(self._step(index, given), alpha=index.shape[1])
        measured = self._measure() | {"train_loss": total / examples}
        rows = zip(*(column.tolist() for column in measured.values()), strict=True)
        seconds = (time.perf_counter() - began) / len(self.lr)
        for number, values in enumerate(rows):
            row = dict(zip(measured, values, strict=True)) | {"seconds": seconds}
            self._add(number, row | {"epoch": epoch + 1, "lr": self.lr[number]})

    def _step(self, index: Tensor, labels: Tensor) -> Tensor:
        """Take one step of SGD with every network; return the losses, ``(S,)``.

        Args:
            index: int64 ``(S, b)``, the batch of each network.
            labels: int64 ``(S, b)``, the given labels.
        """
        images = self.images.get(index.flatten()).view(*index.shape, -1)
        # Classes in the middle, (S, C, b): a softmax over neighbouring numbers takes three times as
        # long.
        logits = self.model(images).mT
        losses = F.cross_entropy(logits, labels, reduction="none").mean(1)
        # No network has a weight in another's loss: the gradient of the sum is each one's own.
        gradients = torch.autograd.grad(losses.sum(), self.model.parameters())
        self._descend(gradients)
        return losses.detach()

    @torch.no_grad()
    def _descend(self, gradients: Sequence[Tensor]) -> None:
        """SGD with momentum, as torch has it, with a learning rate for each network."""
        for weights, velocity, gradient in zip(
            self.model.parameters(), self.velocities, gradients, strict=True
        ):
            if self.weight_decay:
                gradient = gradient.add(weights, alpha=self.weight_decay)
            velocity.mul_(self.momentum).add_(gradient)
            weights.addcmul_(velocity, self.rates, value=-1)

    def _measure(self) -> dict[str, Tensor]:
        true = self.true.expand_as(self.given)
        shares = accuracy_shares(self._predict(self.images), self.given, true)
        right = self._predict(self.test_images) == self.test_labels
        return shares | {"test_accuracy": right.float().mean(1)}

    @torch.no_grad()
    def _predict(self, images: Images) -> Tensor:
        """Return the predicted class of every image by every network, int64 ``(S, n)``."""
        size = max(1, PREDICTED_AT_ONCE // len(self.lr))
        parts = (images.get(slice(at, at + size)) for at in range(0, len(images), size))
        return torch.cat(
            [self.model(part.flatten(1).expand(len(self.lr), -1, -1)).argmax(2) for part in parts],
            dim=1,
        )

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
        for method in self.methods:
            method.eval()
        self.model.unstack([method.network for method in self.methods])


def _shapes(network: nn.Module) -> list[tuple]:
    layers = list(network) if isinstance(network, nn.Sequential) else [network]
    for layer in layers:
        if not isinstance(layer, LAYERS) or (isinstance(layer, nn.Linear) and layer.bias is None):
            raise ValueError(
                "Expected networks of Flatten, Linear (with bias) and ReLU layers, such as 'mlp', "
                f"got one with {layer}: train those one after the other with `fit`"
            )
    inside = [type(layer) for layer in layers[1:]]
    if inside != [nn.Linear, *[nn.ReLU, nn.Linear] * (len(inside) // 2)]:
        raise ValueError(
            "Expected networks of Flatten, then Linear layers with a ReLU between each two, such "
            f"as 'mlp', got {', '.join(type(layer).__name__ for layer in layers)}"
        )
    return [tuple(layer.weight.shape) for layer in _linear_layers(network)]


def _linear_layers(network: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]


def _check(data_sets, seeds, rates, methods, epochs: int, batch_size: int) -> None:
    if not data_sets:
        raise ValueError("Expected at least one data set in `data_sets`")
    for name, values in (("seeds", seeds), ("lr", rates), ("methods", methods)):
        if len(values) != len(data_sets):
            raise ValueError(
                f"Expected one of `{name}` for each of the {len(data_sets)} data sets, got "
                f"{len(values)}"
            )
    if epochs < 1 or batch_size < 1:
        raise ValueError(
            f"Expected `epochs` and `batch_size` of at least 1, got {epochs} and {batch_size}"
        )
    if not all(rate > 0 and math.isfinite(rate) for rate in rates):
        raise ValueError(f"Expected learning rates `lr` above 0, got {rates}")
    for method in methods:
        if type(method) is not CrossEntropy:
            raise ValueError(f"Expected methods that are CrossEntropy, got {type(method).__name__}")
    for one, other in itertools.pairwise(data_sets):
        if not _same_but_labels(one, other):
            raise ValueError(
                "Expected data sets that differ in their given labels only, got "
                f"{one!r} and {other!r} with other images, true labels or test sets"
            )


def _same_but_labels(one, other) -> bool:
    if (one.mean, one.std, one.num_classes) != (other.mean, other.std, other.num_classes):
        return False
    names = ("images", "true_labels", "test_images", "test_labels")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a is b or (a.shape == b.shape and torch.equal(a, b)) for a, b in pairs)
