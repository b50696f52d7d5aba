"""What every method shares: it owns its networks and says what one epoch does."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..batches import Batch

Step = Callable[[Callable[[Batch], Tensor], Batch], None]


class Method(nn.Module):
    """A way to learn from labels some of which are wrong.

    A simple method defines :meth:`loss` and nothing else. One with its own dance (label updates, a
    split of the data) overrides :meth:`train_epoch`. Whatever has to survive a stopped run
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

    def __init__(self) -> None:
        """Make a method without networks; :meth:`build` adds them."""
        super().__init__()
        self.epoch = 0
        self.generator: torch.Generator | None = None
        self.networks = nn.ModuleList()

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
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

    def train_epoch(self, batches: Iterable[Batch], step: Step) -> None:
        """Go once through the data.

        Args:
            batches: the shuffled batches of this epoch.
            step: ``step(loss, batch)`` computes the loss, backpropagates
                and updates the weights.
        """
        for batch in batches:
            step(self.loss, batch)

    def change_gradients(self) -> None:
        """Change the gradients between the backward pass and the optimizer's step.

        Nothing is changed unless a method says so here; CDR does.
        """

    def mark_selected(self, network: int, index: Tensor) -> None:
        """Note the examples that a network learns from, so that they can be measured later."""
        self.selects = True
        self.selected[network, index] = True

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)``: the mean over the networks."""
        return torch.stack([network(images).softmax(dim=1) for network in self.networks]).mean(0)
