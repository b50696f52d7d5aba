"""Joint optimization: learn the weights and the labels in turn.

Tanaka et al. 2018, "Joint Optimization Framework for Learning with Noisy Labels" (arXiv
1803.11364); their code: DaikiTanaka-UT/JointOptimization. Explained in lesson 09.

Step 1, :class:`JointOptimization`: train at a high constant learning rate, first with the given
labels, then with labels that are the network's own predictions, averaged over some epochs. Step 2,
:class:`FromSoftLabels`: a fresh network learns from the labels that step 1 ended with.

Where paper and code differ, or leave a choice:

* L_c and L_p are the paper's divergences in full. The code drops the entropy of the labels from
  L_c and that of the prior from L_p: both are constant in the weights, so the gradients agree and
  only the printed loss differs;
* a new label is the mean of the last ten epochs' predictions (paper and code), and these are the
  code's: what the network said in training, on the augmented image, before the step that it led
  to. No second pass over the data is made;
* labels change for the first time at the end of epoch `begin`, from the epochs ``begin - average +
  1 .. begin``, as in the code;
* L_p takes the mean prediction of the batch for that of the data set, as in both; with many more
  classes than examples in a batch that is no good estimate, as the paper says;
* hard updates of only the k most different labels: the paper does not say how it measures
  *different*; here it is the loss itself, KL(label || prediction).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData

SUM_TOLERANCE = 1e-3  # how far a row of probabilities may be from 1: half precision stays below it


def prior_loss(probabilities: Tensor, prior: Tensor) -> Tensor:
    """L_p: how far the mean prediction is from the classes' prior, KL(prior || mean).

    ``sum_j p_j log(p_j / mean_j)`` (equations 10 and 11). It keeps the network from the cheap way
    out, one class for everything. The authors' code drops ``sum_j p_j log p_j``, a constant.

    Args:
        probabilities: float ``(n, C)``, predictions of a batch, rows summing to 1.
        prior: float ``(C,)``, the share of each class among the true labels, summing to 1.

    Returns:
        A scalar, at least 0, with gradient.

    Raises:
        ValueError: wrong shapes, or rows or a prior that do not sum to 1.

    >>> one_class = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> even = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> prior = torch.tensor([0.5, 0.5])
    >>> prior_loss(even, prior).item(), prior_loss(one_class, prior).item() > 10
    (0.0, True)
    """
    _check_probabilities(probabilities)
    _check_prior(prior, probabilities.shape[1])
    return _prior_loss(probabilities, prior)


def entropy_loss(probabilities: Tensor) -> Tensor:
    """L_e: mean entropy of the predictions, ``-1/n sum_i sum_j s_ij log s_ij``.

    Small when every prediction is sure of one class. It keeps soft labels from staying diffuse.

    Args:
        probabilities: float ``(n, C)``, rows summing to 1.

    Returns:
        A scalar between 0 and log C, with gradient.

    Raises:
        ValueError: not a matrix, or rows that do not sum to 1.

    >>> entropy_loss(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).item()  # half of log 2
    0.3465735...
    """
    _check_probabilities(probabilities)
    return _entropy_loss(probabilities)


def soft_labels(probabilities: Tensor) -> Tensor:
    """Return the new labels of the soft update: the predictions themselves (equation 9).

    Args:
        probabilities: float ``(n, C)``, rows summing to 1.

    Returns:
        The same numbers ``(n, C)``, in memory of their own and without gradient.

    Raises:
        ValueError: not a matrix, or rows that do not sum to 1.
    """
    _check_probabilities(probabilities)
    return probabilities.detach().clone()


def hard_labels(probabilities: Tensor) -> Tensor:
    """Return the new labels of the hard update: 1 for the likeliest class, else 0 (equation 8).

    Args:
        probabilities: float ``(n, C)``, rows summing to 1.

    Returns:
        One-hot rows ``(n, C)`` in the dtype of the input; among equals the first class wins.

    Raises:
        ValueError: not a matrix, or rows that do not sum to 1.

    >>> hard_labels(torch.tensor([[0.2, 0.5, 0.3]]))
    tensor([[0., 1., 0.]])
    """
    _check_probabilities(probabilities)
    return _hard_labels(probabilities)


def most_different_hard_labels(labels: Tensor, probabilities: Tensor, count: int) -> Tensor:
    """Return the labels after a hard update of the `count` most different ones (figure 4).

    How different a label is from the prediction is their divergence KL(label || prediction).

    Args:
        labels: float ``(n, C)``, the labels now.
        probabilities: float ``(n, C)``, rows summing to 1.
        count: how many labels may change; more than n means all.

    Returns:
        New labels ``(n, C)``.
    """
    difference = _divergence(labels, _log(probabilities))
    chosen = difference.argsort(descending=True, stable=True)[:count]
    new = labels.clone()
    new[chosen] = _hard_labels(probabilities[chosen])
    return new


def next_labels(
    labels: Tensor, predictions: Tensor, finished: int, begin: int, average: int
) -> Tensor:
    """Return the labels for the next epoch: the mean of the last epochs' predictions.

    During early learning the labels stay as they are.

    Args:
        labels: float ``(n, C)``, the labels of the epoch that has just ended.
        predictions: float ``(t, n, C)``, training-time predictions of the latest epochs, newest
            last.
        finished: epochs finished so far: 1 after the first.
        begin: the epoch after which labels change for the first time.
        average: how many of the latest epochs to average.

    Returns:
        `labels` as long as ``finished < begin``, else the mean over the last `average` epochs.
    """
    if finished < begin:
        return labels
    return predictions[-average:].mean(dim=0)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_c: the mean divergence KL(label || prediction) (equations 6 and 7).

    Args:
        logits: float ``(n, C)``.
        labels: float ``(n, C)``, rows summing to 1. With one-hot rows this is cross entropy. The
            authors' code drops ``sum_j y_ij log y_ij``, a constant.

    Returns:
        A scalar, at least 0, with gradient through the logits.
    """
    return _divergence(labels, logits.log_softmax(dim=1)).mean()


class JointOptimization(Method):
    """Step 1 of joint optimization (algorithm 1 of the paper).

    Give `fit` a high constant learning rate: a low one memorizes before the labels get better.

    Args:
        alpha: weight of L_p.
        beta: weight of L_e.
        begin: the epoch after which labels change for the first time, at least `average`.
        average: epochs whose predictions make a label.
        update: "soft", "hard", or a number k: a hard update of the k most different labels only; or
            a function from averaged predictions ``(N, C)`` to labels ``(N, C)``.
        prior: ``(C,)``, share of each class among the true labels; all equal when left out.
        prior_loss: L_p; a student's own fits here.
        entropy_loss: L_e; a student's own fits here.
        next_labels: when labels change and to what; a student's own fits here.

    Attributes:
        current_labels: float ``(N, C)``, the labels now; zeros for examples not met yet.

    Raises:
        ValueError: a setting is out of its range.
    """

    current_labels: Tensor
    recorded: Tensor

    # The defaults of the losses leave out the checks of the public ones: a softmax sums to 1, and
    # looking at the numbers would make the processor wait for the GPU at every step.
    def __init__(
        self,
        alpha: float = 1.2,
        beta: float = 0.8,
        *,
        begin: int = 70,
        average: int = 10,
        update: str | int | Callable[[Tensor], Tensor] = "soft",
        prior: Tensor | None = None,
        prior_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        entropy_loss: Callable[[Tensor], Tensor] | None = None,
        next_labels: Callable[..., Tensor] = next_labels,
    ) -> None:
        """Check the settings; memory for the labels comes with :meth:`build`."""
        super().__init__()
        _check_settings(alpha, beta, begin, average, update)
        if prior is not None:
            _check_prior(prior, len(prior))
        self.alpha = alpha
        self.beta = beta
        self.begin = begin
        self.average = average
        self.update = update
        self.given_prior = prior
        self.prior_loss = prior_loss or _prior_loss
        self.entropy_loss = entropy_loss or _entropy_loss
        self.next_labels = next_labels

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make a fresh network and room for labels and predictions.

        Raises:
            ValueError: a prior for another number of classes.
        """
        super().build(make_network, num_examples, num_classes)
        prior = self.given_prior
        if prior is None:
            prior = torch.full((num_classes,), 1 / num_classes)
        _check_prior(prior, num_classes)
        # Buffers: a checkpoint holds them, so a stopped run goes on with its labels.
        self.register_buffer("prior", prior.float())
        self.register_buffer("current_labels", torch.zeros(num_examples, num_classes))
        # A ring: epoch t writes over epoch t - average.
        self.register_buffer("recorded", torch.zeros(self.average, num_examples, num_classes))

    def loss(self, batch: Batch) -> Tensor:
        """Return L = L_c + alpha L_p + beta L_e (equation 5), and note the predictions."""
        if self.epoch == 0:  # labels come with the batches: every example is met once an epoch
            given = F.one_hot(batch.labels, self.num_classes).float()
            self.current_labels[batch.index] = given
        logits = self.network(batch.images)
        s = logits.softmax(dim=1)
        self.recorded[self.epoch % self.average, batch.index] = s.detach()
        loss_c = label_loss(logits, self.current_labels[batch.index])
        loss_p = self.prior_loss(s, self.prior)
        loss_e = self.entropy_loss(s)
        return loss_c + self.alpha * loss_p + self.beta * loss_e

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Update the weights on the labels, then the labels."""
        super().train_epoch(data, step)
        finished = self.epoch + 1
        latest = range(finished)[-self.average :]
        predictions = torch.stack([self.recorded[epoch % self.average] for epoch in latest])
        labels = self.next_labels(
            self.current_labels, predictions, finished, self.begin, self.average
        )
        if finished >= self.begin:
            labels = self._updated(torch.as_tensor(labels))
        self.current_labels.copy_(torch.as_tensor(labels))  # students may answer in numpy

    def _updated(self, estimates: Tensor) -> Tensor:
        if callable(self.update):
            return self.update(estimates)
        if self.update == "soft":
            return estimates
        if self.update == "hard":
            return _hard_labels(estimates)
        return most_different_hard_labels(self.current_labels, estimates, self.update)


class FromSoftLabels(Method):
    """Step 2: a fresh network learns from fixed labels, with L_c alone.

    Args:
        labels: float ``(N, C)``, rows summing to 1, in the order of the training set; for example
            ``joint.current_labels`` of a finished :class:`JointOptimization`.

    Raises:
        ValueError: rows that do not sum to 1.
    """

    current_labels: Tensor

    def __init__(self, labels: Tensor) -> None:
        """Keep a copy of the labels."""
        super().__init__()
        _check_probabilities(labels, "labels")
        self.register_buffer("current_labels", labels.detach().clone().float())

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make a fresh network.

        Raises:
            ValueError: labels for other data.
        """
        super().build(make_network, num_examples, num_classes)
        if self.current_labels.shape != (num_examples, num_classes):
            raise ValueError(
                f"Expected `labels` of shape ({num_examples}, {num_classes}) for these data, got "
                f"{tuple(self.current_labels.shape)}"
            )

    def loss(self, batch: Batch) -> Tensor:
        """Return L_c on the fixed labels; the labels of the batch are not used."""
        return label_loss(self.network(batch.images), self.current_labels[batch.index])


# The functions above without their checks -------------------------------------------------------


def _prior_loss(probabilities: Tensor, prior: Tensor) -> Tensor:
    return _divergence(prior, _log(probabilities.mean(dim=0)))


def _entropy_loss(probabilities: Tensor) -> Tensor:
    return -(probabilities * _log(probabilities)).sum(dim=1).mean()


def _hard_labels(probabilities: Tensor) -> Tensor:
    rows, classes = probabilities.shape
    return F.one_hot(probabilities.argmax(dim=1), classes).to(probabilities.dtype)


def _divergence(target: Tensor, log_probabilities: Tensor) -> Tensor:
    """KL(target || probabilities) along the last dimension; 0 log 0 is 0."""
    return (torch.xlogy(target, target) - target * log_probabilities).sum(dim=-1)


def _log(probabilities: Tensor) -> Tensor:
    # A probability that has underflowed to 0 would give inf, and nan as a gradient.
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


# Bad input ---------------------------------------------------------------------------------------


def _check_probabilities(probabilities: Tensor, name: str = "probabilities") -> None:
    if probabilities.dim() != 2:
        raise ValueError(f"Expected `{name}` of shape (n, C), got {tuple(probabilities.shape)}")
    if len(probabilities) and not _sums_to_one(probabilities):
        raise ValueError(
            f"Expected `{name}` with rows of numbers from 0 that sum to 1: is a softmax missing?"
        )


def _check_prior(prior: Tensor, num_classes: int) -> None:
    if prior.shape != (num_classes,):
        raise ValueError(
            f"Expected `prior` of shape ({num_classes},), a number a class, got "
            f"{tuple(prior.shape)}"
        )
    if not _sums_to_one(prior):
        raise ValueError(
            f"Expected `prior` with numbers from 0 that sum to 1, got sum {prior.sum():g}: it is "
            "the share of each class"
        )


def _sums_to_one(values: Tensor) -> bool:
    sums = values.detach().sum(dim=-1)
    return bool((values >= 0).all()) and bool(((sums - 1).abs() <= SUM_TOLERANCE).all())


def _check_settings(
    alpha: float, beta: float, begin: int, average: int, update: str | int | Callable
) -> None:
    if alpha < 0 or beta < 0:
        raise ValueError(f"Expected `alpha` and `beta` of at least 0, got {alpha} and {beta}")
    if average < 1:
        raise ValueError(f"Expected `average` of at least 1 epoch, got {average}")
    if begin < average:
        raise ValueError(
            f"Expected `begin` of at least `average`, got {begin} and {average}: the first new "
            "labels are a mean over that many epochs"
        )
    number = isinstance(update, int) and not isinstance(update, bool) and update >= 1
    if not (number or callable(update) or update in ("soft", "hard")):
        raise ValueError(
            f"Expected `update` 'soft', 'hard', a number of labels from 1 or a function, got "
            f"{update!r}"
        )
