"""What everything stands on: what a method is, what it is given, and how arguments are checked.

Only torch is imported here: this file and that of a method are all that another project needs.
"""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """What a method sees of the data: never the true labels.

    Attributes:
        images: float32 ``(b, channels, height, width)``, normalised.
        labels: int64 ``(b,)``, the given labels.
        index: int64 ``(b,)``, the position of each example in the training set.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple's own method of that name is not missed


MakeNetwork = Callable[[], nn.Module]
Step = Callable[[Callable[[Batch], Tensor], Batch], None]
"""``step(loss, batch)`` computes the loss, backpropagates and moves the weights."""


class TrainingData(Protocol):
    """All that a method is given of the data. The training loop's own is ``training.Batches``.

    Iterating goes once through the training set, in shuffled batches with random changes to the
    images; ``len`` is their number.

    Attributes:
        labels: int64 ``(N,)``, the given labels, on the device.
        batch_size: examples in a batch (the last one takes what is left).
    """

    labels: Tensor
    batch_size: int

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        ...

    def batch(self, index: Tensor, augment: Any = None) -> Batch:
        """Return the examples at `index`, int64 ``(b,)``, with fresh random changes.

        Args:
            index: positions in the training set.
            augment: other random changes than the data's own.
        """
        ...

    def images(self, index: Tensor | slice) -> Tensor:
        """Return the images at `index` as they are: float32, normalised."""
        ...


class Method(nn.Module):
    """A way to learn from labels some of which are wrong.

    A simple method defines :meth:`loss` and nothing else. One that changes labels or splits the
    data overrides :meth:`train_epoch`. Whatever has to survive a stopped run
    (averaged targets, say) is a buffer, so that it lands in the checkpoint by itself. True labels
    never reach a method.

    A method that changes labels keeps them as a buffer ``current_labels``, float ``(N, C)``: the
    training loop then measures how many of them are true.

    Attributes:
        num_networks: how many networks the method trains.
        epoch: 0 in the first epoch, 1 in the second, ...; set by the training loop.
        generator: the run's source of random numbers, on its device; set by the training loop.
        networks: the networks, built by :meth:`build`. They take float32 images and return float32
            logits, whatever they compute in.
    """

    num_networks = 1
    num_classes: int
    selected: Tensor
    selects: bool

    def __init__(self) -> None:
        """Make a method without networks; :meth:`build` adds them."""
        super().__init__()
        self.epoch = 0
        self.generator: torch.Generator | None = None
        self.networks = nn.ModuleList()

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make fresh networks.

        A method that keeps something for each example makes room for it here.

        Args:
            make_network: returns a new, randomly initialised network each time.
            num_examples: N, size of the training set.
            num_classes: C.
        """
        self.epoch = 0
        self.num_classes = num_classes
        self.networks = nn.ModuleList(make_network() for _ in range(self.num_networks))
        # One row a network: which examples it learned from in this epoch. Measured outside, after
        # the epoch.
        self.register_buffer(
            "selected", torch.zeros(self.num_networks, num_examples, dtype=torch.bool), False
        )
        self.selects = False

    @property
    def network(self) -> nn.Module:
        """The first network (the only one of most methods)."""
        return self.networks[0]

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch: a scalar, whose gradient makes the step."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a `loss(batch)` or its own `train_epoch`"
        )

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Go once through the data.

        Args:
            data: the training set with its given labels.
            step: ``step(loss, batch)`` computes the loss, backpropagates and moves the weights.
        """
        for batch in data:
            step(self.loss, batch)

    def change_gradients(self) -> None:
        """Change the gradients between the backward pass and the optimizer's step.

        Nothing is changed unless a method says so here; CDR does.
        """

    def mark_selected(self, network: int, index: Tensor, which: Tensor | bool = True) -> None:
        """Note the examples that a network learns from, so that they can be measured later.

        With a mask, `which` of those at `index`, nothing waits for the GPU.
        """
        self.selects = True
        self.selected[network, index] |= which

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)``: the mean over the networks."""
        return torch.stack([network(images).softmax(dim=1) for network in self.networks]).mean(0)


# Arguments from outside -------------------------------------------------------------------------

ROUNDED = 0.02  # how far rows may be from summing to 1: bfloat16 rounds, and ELR clamps 100 classes
EXACT = 1e-5  # for matrices that somebody wrote down: a forgotten class is farther off
_here = threading.local()


@contextlib.contextmanager
def training_step() -> Iterator[None]:
    """Look at no values of tensors in here: that would make every step wait for the GPU.

    The training loop holds this around an epoch. What comes in has passed the border by then.
    """
    before = getattr(_here, "training", False)
    _here.training = True
    try:
        yield
    finally:
        _here.training = before


def expect(holds: bool, what: str, got: object, why: str = "") -> None:
    """Raise ``ValueError("Expected `beta` in [0, 1), got 1.2: why")`` unless it holds.

    >>> expect(0 <= 1.2 < 1, "`beta` in [0, 1)", 1.2)
    Traceback (most recent call last):
    ValueError: Expected `beta` in [0, 1), got 1.2
    """
    if not holds:
        raise ValueError(f"Expected {what}, got {got}" + (f": {why}" if why else ""))


def expect_one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is none of the choices; name those that there are, and the nearest."""
    known = [str(choice) for choice in choices]
    if str(value) not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        why = f"did you mean {near[0]!r}?" if near else ""
        expect(False, f"`{name}` out of {', '.join(known)}", repr(value), why)


def expect_floats(name: str, values: object) -> None:
    """Refuse what is no tensor of floats."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"Expected `{name}` as a tensor of floats, got {got}")


def expect_rows(
    name: str, rows: Tensor, tolerance: float = ROUNDED, why: str = "is a softmax missing?"
) -> None:
    """Refuse what is no matrix whose rows are probabilities: from 0, summing to 1."""
    expect_floats(name, rows)
    expect(rows.dim() == 2, f"`{name}` of shape (n, C)", tuple(rows.shape))
    if getattr(_here, "training", False) or not rows.numel():
        return
    sums, low = rows.detach().sum(dim=1), rows.detach().min()
    # Written so that nan is refused, too.
    if not (bool((sums - 1).abs().max() <= tolerance) and bool(low >= 0)):
        got = f"sums from {sums.min():.4g} to {sums.max():.4g}, numbers from {low:.4g}"
        expect(False, f"`{name}` with rows of numbers from 0 on that sum to 1", got, why)


def expect_labels(
    name: str, labels: Tensor, num_classes: int, length: int | None = None, lowest: int = 0
) -> None:
    """Refuse what is no int64 vector (of that length) of classes from 0 (or `lowest`) to C - 1."""
    dtype = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
    if dtype != torch.int64:
        raise TypeError(
            f"Expected `{name}` as an int64 tensor of class numbers, got {dtype}: convert with "
            "torch.as_tensor(labels).long()"
        )
    fits = labels.dim() == 1 and length in (None, len(labels))
    size = "n" if length is None else length
    why = "one class number an example, no one-hot rows"
    expect(fits, f"`{name}` of shape ({size},)", tuple(labels.shape), why)
    if getattr(_here, "training", False) or not len(labels):
        return
    low, high = (value.item() for value in labels.aminmax())
    known = f"`{name}` from 0 to {num_classes - 1} ({num_classes} classes)"
    expect(low >= lowest and high < num_classes, known, f"{low} to {high}")


def expect_index(name: str, index: Tensor, size: int) -> None:
    """Refuse positions outside 0 to size - 1, and those that are repeated."""
    if getattr(_here, "training", False) or not len(index):
        return
    low, high = (value.item() for value in index.aminmax())
    expect(low >= 0 and high < size, f"`{name}` in 0..{size - 1}", f"{low} to {high}")
    unique = len(index.unique()) == len(index)
    expect(unique, f"every example at most once in `{name}`", "one repeated")
