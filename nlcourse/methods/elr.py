"""Early-learning regularization: hold on to what the network believed before it memorized.

Liu, Niles-Weed, Razavian and Fernandez-Granda 2020, "Early-Learning Regularization Prevents
Memorization of Noisy Labels" (arXiv 2007.00151); their code: shengliu66/ELR. Explained in lesson
10.

Symbols of the paper: p, probabilities of an example; t, its target, a running mean of p; beta, how
slowly t moves; lambda, the weight of the regularizer; gamma, how slowly averaged weights move.

Where paper and code differ in ELR we follow the code: p is clamped to [1e-4, 1 - 1e-4]; the target
takes in the clamped p divided by its sum, without gradient, and moves **before** the regularizer
looks at it; the regularizer sees the clamped p.

Where they differ in ELR+:

* the averaged weights move after the step, as in the code (the paper's box has them first);
* they start as the network itself: the paper starts at 0, the code at a second random network. Both
  then need a ramp; ours is the code's simpler one, ``min(1 - 1 / (k + 1), gamma)``;
* the averages cover the weights alone; statistics of batch norm are the copy's own (code);
* all networks learn from the same given labels. In the code each has a loader of its own that draws
  the noise anew, so that two networks together see more true labels than one;
* one step moves both networks; the paper's box lets the second wait for an epoch of the first;
* lambda is constant (paper); the code lets it grow for CIFAR-100. The labels of CIFAR-100 are not
  rewritten by the targets (appendix F);
* predictions are the mean of the networks' probabilities; the code takes the mean of their logits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from .mixup import draw_pairing, draw_share, mix_pairs

CLAMP = 1e-4  # probabilities are kept this far from 0 and 1, as in the code
SUM_TOLERANCE = 0.02  # 100 clamped probabilities may sum to 1.01, and bfloat16 rounds


# Targets ----------------------------------------------------------------------------------------


def update_targets(targets: Tensor, index: Tensor, probabilities: Tensor, beta: float) -> Tensor:
    """Temporal ensembling: ``t <- beta t + (1 - beta) p`` for the examples of a batch.

    After k visits with the same p a target that began at 0 is ``(1 - beta^k) p``: there is no
    correction for the start.

    Args:
        targets: float ``(N, C)``, one row an example of the training set; left as it is.
        index: int64 ``(n,)``, the rows that move, in any order, each at most once.
        probabilities: float ``(n, C)``, row k belongs to example ``index[k]``.
        beta: in [0, 1): the share of the old target that stays.

    Returns:
        A new tensor ``(N, C)``. No gradient flows through it.

    Raises:
        ValueError: `beta` outside [0, 1), shapes that do not fit, an index that is repeated or
            outside 0..N-1, or probabilities that do not sum to 1.

    >>> update_targets(torch.zeros(2, 2), torch.tensor([1]), torch.tensor([[0.25, 0.75]]), 0.5)
    tensor([[0.0000, 0.0000],
            [0.1250, 0.3750]])
    """
    _check_beta(beta)
    if targets.dim() != 2 or probabilities.shape != (len(index), targets.shape[1]):
        raise ValueError(
            "Expected `targets` (N, C), `index` (n,) and `probabilities` (n, C), got "
            f"{tuple(targets.shape)}, {tuple(index.shape)} and {tuple(probabilities.shape)}"
        )
    _check_index(index, len(targets))
    _check_rows(probabilities)
    p = probabilities.detach().to(targets.dtype)
    return _move(targets.detach().clone(), index, p, beta)


def _move(targets: Tensor, index: Tensor, probabilities: Tensor, beta: float) -> Tensor:
    """Do what `update_targets` does in the table itself, without checks that wait for a GPU."""
    rows = beta * targets.index_select(0, index) + (1 - beta) * probabilities
    return targets.index_copy_(0, index, rows)


def clamped(probabilities: Tensor) -> Tensor:
    """Keep probabilities off 0 and 1, so that the regularizer and its slope stay finite."""
    return probabilities.clamp(CLAMP, 1 - CLAMP)


# The loss and its gradient ----------------------------------------------------------------------


def regularizer(probabilities: Tensor, targets: Tensor) -> Tensor:
    """``log(1 - <p, t>)`` of each example: the smaller, the better p agrees with t.

    Args:
        probabilities: float ``(n, C)``; clamp them first where the network may be sure.
        targets: float ``(n, C)``, no gradient flows into them.

    Returns:
        ``(n,)``, at most 0. Where ``1 - <p, t>`` is below what the dtype can tell from 0, the log
        of that least value.

    Raises:
        ValueError: shapes that differ, or probabilities that do not sum to 1.

    >>> regularizer(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 1.0]]))
    tensor([-0.6931])
    """
    _check_pair(probabilities, targets)
    return _log_of_rest(probabilities, targets)


def _log_of_rest(probabilities: Tensor, targets: Tensor) -> Tensor:
    return _rest(probabilities, targets).log()


def _rest(p: Tensor, t: Tensor) -> Tensor:
    return (1 - (p * t.detach()).sum(dim=1)).clamp(min=torch.finfo(p.dtype).eps)


def regularizer_gradient(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return g of Lemma 2: the slope of ``log(1 - <p, t>)`` in the logits behind p.

    ``g_c = p_c / (1 - <p, t>) * sum_k (t_k - t_c) p_k``, and since p sums to 1 the sum is
    ``<p, t> - t_c``. The coefficient of an example in the gradient of ELR is ``p - y + lambda g``.

    Args:
        probabilities: float ``(n, C)``.
        targets: float ``(n, C)``.

    Returns:
        ``(n, C)``; each row sums to 0.

    Raises:
        ValueError: shapes that differ, or probabilities that do not sum to 1.

    >>> regularizer_gradient(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 1.0]]))
    tensor([[ 0.5000, -0.5000]])
    """
    _check_pair(probabilities, targets)
    p, t = probabilities, targets
    agreement = (p * t).sum(dim=1, keepdim=True)
    return p * (agreement - t) / _rest(p, t)[:, None]


def elr_loss(logits: Tensor, labels: Tensor, targets: Tensor, lambda_: float) -> Tensor:
    """Cross entropy plus lambda times the mean regularizer (equation 6 of the paper).

    Args:
        logits: float ``(n, C)``.
        labels: int64 ``(n,)``, or rows ``(n, C)`` that sum to 1 where labels were mixed.
        targets: float ``(n, C)``, of the examples of this batch; no gradient flows into them.
        lambda_: weight of the regularizer, from 0.

    Returns:
        A scalar. It may well be negative: a sure network that agrees with its targets has a
        regularizer of about -6.9 with 10 classes, -4.6 with 100 (the clamp stops it there).
    """
    p = clamped(logits.softmax(dim=1))
    return F.cross_entropy(logits, labels) + lambda_ * _log_of_rest(p, targets).mean()


# The methods ------------------------------------------------------------------------------------


class ELR(Method):
    """Early-learning regularization with one network.

    The defaults are the paper's for CIFAR-10 with symmetric noise; for asymmetric noise it takes
    beta 0.9 and lambda 1, for CIFAR-100 beta 0.9 and lambda 7.

    Args:
        beta: how slowly the targets move, in [0, 1).
        lambda_: weight of the regularizer, from 0; 0 is cross entropy.
        update: moves the targets; a student's own fits here.
        objective: the loss of a batch; a student's own fits here.
    """

    def __init__(
        self,
        beta: float = 0.7,
        lambda_: float = 3.0,
        *,
        update: Callable[[Tensor, Tensor, Tensor, float], Tensor] = _move,
        objective: Callable[[Tensor, Tensor, Tensor, float], Tensor] = elr_loss,
    ) -> None:
        """Check the settings; the targets come with :meth:`build`."""
        super().__init__()
        _check_beta(beta)
        _check_lambda(lambda_)
        self.beta = beta
        self.lambda_ = lambda_
        self.update = update
        self.objective = objective

    def build(self, make_network: Callable, num_examples: int, num_classes: int) -> None:
        """Make the network, and targets of 0: a buffer, so that a checkpoint holds them."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("targets", torch.zeros(num_examples, num_classes))

    def loss(self, batch: Batch) -> Tensor:
        """Move the batch's targets towards the predictions, then return the loss."""
        logits = self.network(batch.images)
        self.targets = self.update(self.targets, batch.index, _predicted(logits), self.beta)
        targets = self.targets.index_select(0, batch.index)
        return self.objective(logits, batch.labels, targets, self.lambda_)


class ELRPlus(Method):
    """ELR+: two networks, averaged weights and mixup around ELR (algorithm 2 of the paper).

    The target of each network follows what the other's averaged weights say about the unmixed
    images. Each of the three parts can be left out; without all three this is ELR.

    Args:
        beta: how slowly the targets move, in [0, 1).
        lambda_: weight of the regularizer, from 0.
        gamma: how slowly the averaged weights move, in [0, 1).
        alpha: of mixup's ``Beta(alpha, alpha)``, from 0 (no mixing).
        networks: 2, or 1: then a network's own (averaged) predictions make its target.
        weight_averaging: False lets the targets follow the current weights.
        mixup: False learns from the images as they are.
        update: moves the targets; a student's own fits here.
        objective: the loss of a batch; a student's own fits here.
        average: moves the averaged weights; a student's own fits here.
    """

    def __init__(
        self,
        beta: float = 0.7,
        lambda_: float = 3.0,
        *,
        gamma: float = 0.997,
        alpha: float = 1.0,
        networks: int = 2,
        weight_averaging: bool = True,
        mixup: bool = True,
        update: Callable[[Tensor, Tensor, Tensor, float], Tensor] = _move,
        objective: Callable[[Tensor, Tensor, Tensor, float], Tensor] = elr_loss,
        average: Callable[[Tensor, Tensor, int, float], Tensor] | None = None,
    ) -> None:
        """Check the settings; targets and averages come with :meth:`build`."""
        super().__init__()
        _check_beta(beta)
        _check_lambda(lambda_)
        _check_gamma(gamma)
        draw_share(alpha, torch.Generator())  # checks alpha
        if networks not in (1, 2):
            raise ValueError(f"Expected `networks` to be 1 or 2, got {networks}")
        self.beta, self.lambda_ = beta, lambda_
        self.gamma, self.alpha = gamma, alpha
        self.num_networks = networks
        self.weight_averaging = weight_averaging
        self.mixup = mixup
        self.update, self.objective = update, objective
        self.average = average or average_weights

    def build(self, make_network: Callable, num_examples: int, num_classes: int) -> None:
        """Make the networks, their averaged copies and a table of targets for each."""
        super().build(make_network, num_examples, num_classes)
        size = (self.num_networks, num_examples, num_classes)
        self.register_buffer("targets", torch.zeros(size))
        copies = map(frozen_copy, self.networks) if self.weight_averaging else ()
        self.averages = nn.ModuleList(copies)

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of the networks' losses; they share no weight, so each has its own."""
        return sum(self._loss_of(number, batch) for number in range(self.num_networks))

    def _loss_of(self, number: int, batch: Batch) -> Tensor:
        teachers = self.averages if self.weight_averaging else self.networks
        peer = teachers[self.num_networks - 1 - number]  # with one network: itself
        with torch.no_grad():
            p = _predicted(peer(batch.images))
        table = self.targets[number]
        table.copy_(self.update(table, batch.index, p, self.beta))  # nothing to do for `_move`
        images, labels, targets = batch.images, batch.labels, table.index_select(0, batch.index)
        if self.mixup:
            images, labels, targets = self._mixed(images, labels, targets)
        logits = self.networks[number](images)
        return self.objective(logits, labels, targets, self.lambda_)

    def _mixed(self, images: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Mix each example with a partner; images, label rows and targets in the same way."""
        share, partner = draw_pairing(len(images), self.alpha, self.generator, images.device)
        rows = torch.cat((F.one_hot(labels, self.num_classes), targets), dim=1)
        images, rows = mix_pairs(images, rows, partner, share)
        return images, *rows.split(self.num_classes, dim=1)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Go once through the data; after each step the averaged weights follow."""
        done = self.epoch * len(data)
        for number, batch in enumerate(data):
            step(self.loss, batch)
            self._follow(done + number)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        for averaged, network in zip(self.averages, self.networks, strict=False):
            kept = dict(averaged.named_buffers())
            for name, weights in network.named_parameters():
                kept[name].copy_(self.average(kept[name], weights, step, self.gamma))


# Averaged weights -------------------------------------------------------------------------------


def average_weights(average: Tensor, weights: Tensor, step: int, gamma: float) -> Tensor:
    """Move averaged weights towards the current ones: ``g average + (1 - g) weights``.

    ``g = min(1 - 1 / (step + 1), gamma)``, as in the code: 0 in the first step, so that nothing is
    left of the start, and until g reaches `gamma` the average is the plain mean of all weights so
    far.

    Args:
        average: float, any shape; left as it is.
        weights: of the same shape, after the step.
        step: 0 in the first step of the training, 1 in the second, ...
        gamma: in [0, 1): the share of the old average that stays in the long run.

    Raises:
        ValueError: shapes that differ, `gamma` outside [0, 1), or a negative `step`.

    >>> average_weights(torch.tensor([1.0]), torch.tensor([4.0]), step=2, gamma=0.9)
    tensor([2.])
    """
    _check_gamma(gamma)
    if average.shape != weights.shape:
        raise ValueError(
            "Expected `average` and `weights` of one shape, got "
            f"{tuple(average.shape)} and {tuple(weights.shape)}"
        )
    if step < 0:
        raise ValueError(f"Expected `step` of at least 0, got {step}")
    return torch.lerp(weights.detach(), average, min(1 - 1 / (step + 1), gamma))


def frozen_copy(network: nn.Module) -> nn.Module:
    """Copy a network with buffers in place of its parameters.

    So the copy is saved with the method and moves with it to a device, but no optimizer finds it.
    """
    frozen = copy.deepcopy(network)
    for module in frozen.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach().clone())
    return frozen


# Small pieces -----------------------------------------------------------------------------------


def _predicted(logits: Tensor) -> Tensor:
    """Probabilities as the targets take them in: clamped, summing to 1, without gradient."""
    p = clamped(logits.detach().softmax(dim=1))
    return p / p.sum(dim=1, keepdim=True)


def _check_beta(beta: float) -> None:
    if not 0 <= beta < 1:
        raise ValueError(
            f"Expected `beta` in [0, 1), got {beta}: it is the share of the old target that stays"
        )


def _check_gamma(gamma: float) -> None:
    if not 0 <= gamma < 1:
        raise ValueError(
            f"Expected `gamma` in [0, 1), got {gamma}: it is the share of the old average that "
            "stays"
        )


def _check_lambda(lambda_: float) -> None:
    if not 0 <= lambda_ < math.inf:
        raise ValueError(f"Expected `lambda_` of at least 0 and finite, got {lambda_}")


def _check_index(index: Tensor, size: int) -> None:
    if not len(index):
        return
    if index.min() < 0 or index.max() >= size:
        raise ValueError(
            f"Expected `index` in 0..{size - 1}, got {index.min().item()} to {index.max().item()}"
        )
    if len(index.unique()) < len(index):
        raise ValueError("Expected every example at most once in `index`, got one repeated")


def _check_pair(probabilities: Tensor, targets: Tensor) -> None:
    if probabilities.dim() != 2 or probabilities.shape != targets.shape:
        raise ValueError(
            "Expected `probabilities` and `targets` of one shape (n, C), got "
            f"{tuple(probabilities.shape)} and {tuple(targets.shape)}"
        )
    _check_rows(probabilities)


def _check_rows(probabilities: Tensor) -> None:
    off = (probabilities.detach().sum(dim=1) - 1).abs()
    # Written so that nan is refused, too.
    if not (bool((off <= SUM_TOLERANCE).all()) and bool((probabilities >= 0).all())):
        raise ValueError(
            "Expected `probabilities` with rows of numbers from 0 on that sum to 1, got sums from "
            f"{probabilities.sum(dim=1).min().item():.4g} to "
            f"{probabilities.sum(dim=1).max().item():.4g}: apply a softmax to logits"
        )
