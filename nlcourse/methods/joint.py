"""Joint optimization: learn the weights and the labels in turn.

Tanaka et al. 2018, "Joint Optimization Framework for Learning with Noisy Labels" (arXiv
1803.11364); their code: DaikiTanaka-UT/JointOptimization. Explained in lesson 09.

Symbols of the paper: s, predicted probabilities; y, labels as rows, both ``(n, C)``; p, the prior.
Step 2 is in soft_labels.py. Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, Step, TrainingData, expect, expect_rows


def divergence(target: Tensor, log_probabilities: Tensor) -> Tensor:
    """KL(target || probabilities) along the last dimension; 0 log 0 is 0."""
    return (torch.xlogy(target, target) - target * log_probabilities).sum(dim=-1)


def safe_log(probabilities: Tensor) -> Tensor:
    """Return the log; a probability that has underflowed to 0 gives no inf, and no nan as slope."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_c: mean KL(y || s) (equations 6 and 7); with one-hot rows y it is cross entropy."""
    return divergence(labels, logits.log_softmax(dim=1)).mean()


def prior_loss(probabilities: Tensor, prior: Tensor) -> Tensor:
    """L_p: KL(p || mean of s) (equations 10 and 11); large if one class is predicted for all."""
    expect_rows("probabilities", probabilities)
    shape, classes = tuple(prior.shape), probabilities.shape[1]
    expect(shape == (classes,), f"`prior` of shape ({classes},)", shape, "one number a class")
    expect_rows("prior", prior[None], why="it is the share of each class")
    return divergence(prior, safe_log(probabilities.mean(dim=0)))


def entropy_loss(probabilities: Tensor) -> Tensor:
    """L_e: mean entropy of the predictions s, 0 where each is sure of one class.

    >>> entropy_loss(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).item()  # half of log 2
    0.3465735...
    """
    expect_rows("probabilities", probabilities)
    return -(probabilities * safe_log(probabilities)).sum(dim=1).mean()


def soft_labels(probabilities: Tensor) -> Tensor:
    """Soft update: the new labels are the predictions themselves (equation 9)."""
    expect_rows("probabilities", probabilities)
    return probabilities.detach().clone()


def hard_labels(probabilities: Tensor) -> Tensor:
    """Hard update: one-hot rows of the likeliest class, the first among equals (equation 8).

    >>> hard_labels(torch.tensor([[0.2, 0.5, 0.3]]))
    tensor([[0., 1., 0.]])
    """
    expect_rows("probabilities", probabilities)
    classes = probabilities.shape[1]
    return F.one_hot(probabilities.argmax(dim=1), classes).to(probabilities.dtype)


def most_different_hard_labels(labels: Tensor, probabilities: Tensor, count: int) -> Tensor:
    """Hard update of only those `count` labels y with the greatest KL(y || s) (figure 4)."""
    differ = divergence(labels, safe_log(probabilities)).argsort(descending=True, stable=True)
    new = labels.clone()
    new[differ[:count]] = hard_labels(probabilities[differ[:count]])
    return new


def next_labels(
    labels: Tensor, predictions: Tensor, finished: int, begin: int, average: int
) -> Tensor:
    """Return the next epoch's labels: from epoch `begin` on the mean of `average` predictions.

    `predictions` ``(t, N, C)`` are those of the latest epochs, newest last; `finished` is 1 after
    the first epoch. A hard update is ``hard_labels(next_labels(...))``.
    """
    return labels if finished < begin else predictions[-average:].mean(dim=0)


class JointOptimization(Method):
    """Step 1 (algorithm 1 of the paper): at a constant learning rate too high to memorize.

    `begin` is the epoch after which labels change for the first time, each then being a mean over
    `average` epochs; `prior` is p, float ``(C,)``, all equal if left out. The other arguments are
    the pieces above. The labels, zero for examples not met yet, are in ``current_labels``.
    """

    current_labels: Tensor
    prior: Tensor
    recorded: Tensor

    def __init__(
        self,
        alpha: float = 1.2,
        beta: float = 0.8,
        *,
        begin: int = 70,
        average: int = 10,
        prior: Tensor | None = None,
        prior_loss: Callable[[Tensor, Tensor], Tensor] = prior_loss,
        entropy_loss: Callable[[Tensor], Tensor] = entropy_loss,
        next_labels: Callable[[Tensor, Tensor, int, int, int], Tensor] = next_labels,
    ) -> None:
        """Check the settings; room for the labels comes with :meth:`build`."""
        super().__init__()
        expect(alpha >= 0 and beta >= 0, "`alpha` and `beta` of at least 0", f"{alpha} and {beta}")
        expect(average >= 1, "`average` of at least 1 epoch", average)
        expect(begin >= average, "`begin` of at least `average`", f"{begin} and {average}")
        self.alpha, self.beta, self.begin, self.average = alpha, beta, begin, average
        self.prior_loss, self.entropy_loss, self.next_labels = prior_loss, entropy_loss, next_labels
        self.given_prior = prior

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make a network, and buffers (so a checkpoint has them) for labels and predictions."""
        super().build(make_network, num_examples, num_classes)
        even = torch.full((num_classes,), 1 / num_classes)
        prior = even if self.given_prior is None else self.given_prior.float()
        prior_loss(even[None], prior)  # refuses a prior for other classes
        self.register_buffer("prior", prior)
        self.register_buffer("current_labels", torch.zeros(num_examples, num_classes))
        self.register_buffer("recorded", torch.zeros(self.average, num_examples, num_classes))

    def loss(self, batch: Batch) -> Tensor:
        """Return L = L_c + alpha L_p + beta L_e (equation 5), and note the predictions."""
        if self.epoch == 0:  # labels come with the batches: every example is met once an epoch
            self.current_labels[batch.index] = F.one_hot(batch.labels, self.num_classes).float()
        logits = self.network(batch.images)
        s, y = logits.softmax(dim=1), self.current_labels[batch.index]
        self.recorded[self.epoch % self.average, batch.index] = s.detach()
        loss_p, loss_e = self.prior_loss(s, self.prior), self.entropy_loss(s)
        return label_loss(logits, y) + self.alpha * loss_p + self.beta * loss_e

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Update the weights on the labels, then the labels."""
        super().train_epoch(data, step)
        finished = self.epoch + 1
        predictions = self.recorded.roll(-finished, dims=0)[-finished:]  # a ring, newest last
        y = self.next_labels(self.current_labels, predictions, finished, self.begin, self.average)
        self.current_labels.copy_(y)
