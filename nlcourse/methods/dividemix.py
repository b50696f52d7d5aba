"""DivideMix: decide which labels are right, and treat the other images as if they had none.

Li, Socher and Hoi 2020, "DivideMix: Learning with Noisy Labels as Semi-supervised Learning" (arXiv
2002.07394); their code: LiJunnan1992/DivideMix. The semi-supervised part is MixMatch (Berthelot et
al. 2019, arXiv 1905.02249). Explained in lesson 11.

Symbols of the paper: w, the probability that a label is right; tau, from which w on it is believed;
M, views (augmentations) of each image; T, the temperature of sharpening; alpha, of mixup; lambda_u,
the weight of the unlabelled part; lambda_r = 1, that of the prior term.

Where paper and code differ we follow the code:

* the squared error of the unlabelled part is the mean over batch **and** classes, a C-th of the
  paper's squared norm: lambda_u = 25 in the code is 2.5 with ten classes in the paper's formula;
* lambda_u grows along a line over 16 epochs from the end of the warm-up, in fractions of an epoch;
* labels are refined by the network in training, which is in training mode then; its peer, which
  helps to guess, is in evaluation mode (``label_in_eval=True`` puts both there);
* both divisions are computed before any network moves; then one trains, then the other;
* losses are averaged over the last 5 epochs at 90 % noise only: ``average_losses``, off by default;
* two networks predict with the sum of their logits.

Where we leave both:

* the code's epoch has as many steps as the *labelled* set has batches, so the more labels look
  wrong, the shorter it is. ``steps`` sets another number. The last batch is filled up from a new
  shuffle instead of being smaller;
* the code crashes when a division is empty. Here a network without labelled examples does an epoch
  of warm-up, one without unlabelled examples learns from the labelled ones alone;
* the code writes the logarithm of a softmax, where 0 * log 0 is no number; here it is finite;
* the code seeds neither the mixture nor mixup; here both are;
* in the warm-up both networks see the same batches.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method, Step, TrainingData
from .mixup import draw_pairing, draw_share, label_rows, mix_pairs

CHUNK = 2048  # images in one look at the whole training set
SUM_TOLERANCE = 0.02  # bfloat16 rounds
# Of the mixture, as in the code. The losses lie in 0..1: no hill is narrower than 0.022.
MIXTURE = {"n_components": 2, "max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}


# Dividing ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixture:
    """Two bell curves over losses between 0 and 1; the first has the smaller mean.

    Attributes:
        means: where their tops lie.
        deviations: their standard deviations.
        weights: their shares, summing to 1.
    """

    means: tuple[float, float]
    deviations: tuple[float, float]
    weights: tuple[float, float]

    def densities(self, losses: np.ndarray) -> np.ndarray:
        """Return both weighted curves at normalised losses ``(n,)``, as ``(2, n)``."""
        mean, deviation, weight = (
            np.array(part)[:, None] for part in (self.means, self.deviations, self.weights)
        )
        bells = np.exp(-0.5 * ((losses[None] - mean) / deviation) ** 2)
        return weight * bells / (deviation * math.sqrt(2 * math.pi))


def normalised(losses: Tensor) -> Tensor:
    """Stretch losses ``(n,)`` to 0..1: the smallest becomes 0, the largest 1; equal ones all 0."""
    if not len(losses):
        return losses
    low, high = losses.min(), losses.max()
    return (losses - low) / torch.where(high > low, high - low, torch.ones_like(high))


def fit_mixture(losses: Tensor, *, seed: int = 0) -> tuple[Mixture, Tensor]:
    """Fit two bell curves to the losses and say to which one each belongs.

    Args:
        losses: float ``(n,)``, n of at least 2, finite, not all equal.
        seed: of scikit-learn's first guess.

    Returns:
        The curves (on the scale of :func:`normalised`), and ``(n,)``: the probability that a loss
        comes from the one with the smaller mean.

    Raises:
        ValueError: losses that are not such.
    """
    _check_losses(losses)
    if len(losses) < 2 or not bool(losses.max() > losses.min()):
        raise ValueError("Expected at least two different `losses` to fit two curves to")
    from sklearn.mixture import GaussianMixture  # half a second, and only this method needs it

    values = normalised(losses.detach().double()).cpu().numpy()[:, None]
    mixture = GaussianMixture(random_state=seed, **MIXTURE)
    with _quiet():
        mixture.fit(values)
    order = mixture.means_[:, 0].argsort()  # scikit-learn numbers them as they come
    parts = (mixture.means_[:, 0], np.sqrt(mixture.covariances_[:, 0, 0]), mixture.weights_)
    curves = Mixture(*(tuple(part[order].tolist()) for part in parts))
    posterior = torch.from_numpy(mixture.predict_proba(values)[:, order[0]])
    return curves, posterior.to(losses.device, losses.dtype)


def clean_probability(losses: Tensor, *, seed: int = 0) -> Tensor:
    """w: the probability of each label to be right, judged by its loss.

    Two bell curves are fitted to the losses, stretched to 0..1. A label is right if its loss comes
    from the curve with the smaller mean.

    Args:
        losses: float ``(n,)``, cross entropy of each training example on its given label.
        seed: of scikit-learn's first guess.

    Returns:
        ``(n,)``, in 0..1. Where all losses are equal no label stands out, and all get 1.

    Raises:
        ValueError: losses that are no vector or not finite.

    >>> clean_probability(torch.tensor([0.1, 0.2, 0.1, 3.0, 3.1, 2.9])).round()
    tensor([1., 1., 1., 0., 0., 0.])
    """
    _check_losses(losses)
    if len(losses) < 2 or not bool(losses.max() > losses.min()):
        return torch.ones_like(losses)
    return fit_mixture(losses, seed=seed)[1]


def co_divide(
    clean_by_first: Tensor, clean_by_second: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Return which examples each network may use with their label: those its **peer** believes.

    Args:
        clean_by_first: float ``(n,)``, w as the first network sees it.
        clean_by_second: float ``(n,)``, w as the second network sees it.
        threshold: tau; a label is believed where w is larger.

    Returns:
        Two masks ``(n,)``: the labelled set of the first network and that of the second.
    """
    return clean_by_second > threshold, clean_by_first > threshold


def own_divide(
    clean_by_first: Tensor, clean_by_second: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Leave the exchange out: each network uses its own division (for comparison)."""
    return clean_by_first > threshold, clean_by_second > threshold


# Labels -----------------------------------------------------------------------------------------


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Make rows more decided: ``p_c^(1/T) / sum_k p_k^(1/T)``.

    T = 1 changes nothing; T towards 0 leaves the largest entry alone.

    Args:
        probabilities: float ``(n, C)``, rows summing to 1; zeros are fine.
        temperature: T, above 0.

    Returns:
        ``(n, C)``, rows summing to 1.

    Raises:
        ValueError: a temperature that is not above 0 and finite, or rows that do not sum to 1
            (looked at on the processor only, since a GPU would have to be waited for).

    >>> sharpen(torch.tensor([[0.6, 0.3, 0.1]]), 0.5)
    tensor([[0.7826, 0.1957, 0.0217]])
    """
    _check_temperature(temperature)
    _check_rows(probabilities)
    # As a softmax of log p / T no power can underflow, and log 0 = -inf stays 0.
    return (probabilities.log() / temperature).softmax(dim=1)


def co_refine(
    labels: Tensor, clean_probability: Tensor, probabilities: Tensor, temperature: float
) -> Tensor:
    """Refine believed labels: ``sharpen(w y + (1 - w) p)``; the less believed, the more of p.

    Args:
        labels: int64 ``(n,)``, or rows ``(n, C)`` that sum to 1.
        clean_probability: w, float ``(n,)`` in 0..1.
        probabilities: p, float ``(n, C)``, the network's mean prediction over the views.
        temperature: T, above 0.

    Returns:
        ``(n, C)``, rows summing to 1, without gradient.

    Raises:
        ValueError: sizes that do not fit, w outside 0..1, rows that do not sum to 1.

    >>> co_refine(torch.tensor([0]), torch.tensor([0.5]), torch.tensor([[0.2, 0.8]]), 1.0)
    tensor([[0.6000, 0.4000]])
    """
    if clean_probability.shape != probabilities.shape[:1]:
        raise ValueError(
            "Expected `clean_probability` (n,) and `probabilities` (n, C), got "
            f"{tuple(clean_probability.shape)} and {tuple(probabilities.shape)}"
        )
    _check_rows(probabilities)
    _check_weights(clean_probability)
    rows = label_rows(labels, probabilities.shape[1]).to(probabilities)
    w = clean_probability[:, None].to(probabilities)
    return sharpen((w * rows + (1 - w) * probabilities).detach(), temperature)


def co_guess(probabilities: Sequence[Tensor] | Tensor, temperature: float) -> Tensor:
    """Guess labels for images without one: the mean of several predictions, sharpened.

    Args:
        probabilities: several times ``(n, C)``, of both networks and all views; a list, or one
            tensor ``(m, n, C)``.
        temperature: T, above 0.

    Returns:
        ``(n, C)``, rows summing to 1, without gradient.

    Raises:
        ValueError: no prediction at all, or rows that do not sum to 1.

    >>> co_guess([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])], 1.0)
    tensor([[0.7500, 0.2500]])
    """
    if not len(probabilities):
        raise ValueError("Expected at least one prediction in `probabilities`, got none")
    together = torch.stack(tuple(probabilities)).detach()
    return sharpen(together.mean(dim=0), temperature)


# Losses -----------------------------------------------------------------------------------------


def semi_supervised_loss(
    logits: Tensor, rows: Tensor, num_labelled: int, lambda_u: float
) -> Tensor:
    """L_X + lambda_u L_U: cross entropy on the labelled images, squared error on the others.

    The squared error is bounded, and so a wrong guess cannot do as much harm as under a logarithm.

    Args:
        logits: float ``(n, C)`` of a mixed batch, the labelled images first.
        rows: float ``(n, C)``, mixed labels and guesses, summing to 1.
        num_labelled: how many images at the front are labelled, 0..n.
        lambda_u: weight of the unlabelled part, from 0.

    Returns:
        A scalar: the mean cross entropy of the labelled plus lambda_u times the mean squared error
        (over images and classes) of the others. A part without images counts 0.
    """
    if not 0 <= num_labelled <= len(logits):
        raise ValueError(f"Expected `num_labelled` in 0..{len(logits)}, got {num_labelled}")
    loss = logits.sum() * 0  # where a part is empty its mean would be 0 / 0
    if num_labelled:
        loss = loss + F.cross_entropy(logits[:num_labelled], rows[:num_labelled])
    if num_labelled < len(logits):
        p = logits[num_labelled:].softmax(dim=1)
        loss = loss + lambda_u * F.mse_loss(p, rows[num_labelled:])
    return loss


def confidence_penalty(logits: Tensor) -> Tensor:
    """``mean_i sum_c p_c log p_c``: minus the entropy; added to a loss it punishes being sure.

    Args:
        logits: float ``(n, C)``.

    Returns:
        A scalar in -log C .. 0, finite however sure the network is.
    """
    log_p = logits.log_softmax(dim=1)
    return (log_p.exp() * log_p).sum(dim=1).mean()


def unsupervised_weight(epochs_since: float, lambda_u: float, ramp_epochs: float) -> float:
    """lambda_u after some epochs (with fractions) since the warm-up: a line from 0, then constant.

    Raises:
        ValueError: negative epochs, or a ramp of no length.
    """
    if epochs_since < 0 or ramp_epochs <= 0:
        raise ValueError(
            f"Expected `epochs_since` from 0 and `ramp_epochs` above 0, got {epochs_since} and "
            f"{ramp_epochs}"
        )
    return lambda_u * min(epochs_since / ramp_epochs, 1.0)


# The method -------------------------------------------------------------------------------------


class DivideMix(Method):
    """DivideMix (algorithm 1 of the paper), each part of which can be left out.

    The defaults are the paper's for CIFAR-10 at 50 and 80 % symmetric noise. For other noise it
    takes another `lambda_u` (see ``recipes.toml``), for 90 % `threshold` 0.6 and
    `average_losses` 5, for asymmetric noise the `penalty`.

    After an epoch ``losses`` and ``clean``, both ``(2, N)``, hold what each network saw at its
    start, and ``selected`` the labelled set of each.

    Args:
        warm_up: epochs of cross entropy before the first division, from 1.
        threshold: tau, in 0..1.
        temperature: T of the sharpening, above 0.
        alpha: of mixup, from 0; 0 mixes nothing.
        lambda_u: weight of the unlabelled part, from 0.
        ramp_epochs: over which lambda_u is reached.
        views: M, augmented copies of each image; without augmentation they are equal.
        steps: of an epoch, for each network; 0 takes as many as the labelled set has batches.
        average_losses: over how many epochs losses are averaged before the mixture is fitted.
        penalty: adds the confidence penalty to the warm-up: for asymmetric noise.
        cross: False lets each network use its own division.
        refine: False takes the labels of the labelled set as they are.
        guess: False drops the unlabelled set.
        both_guess: False lets each network guess alone.
        prior: False leaves the prior term out.
        label_in_eval: refine and guess with the network in evaluation mode.
        mixture: from losses to w; a student's own fits here, and for the next six.
        divide: from w of both to the labelled set of each.
        refine_labels: as :func:`co_refine`.
        guess_labels: as :func:`co_guess`, called with one tensor ``(m, n, C)``.
        mix: as :func:`~nlcourse.methods.mixup.mix_pairs`.
        objective: as :func:`semi_supervised_loss`.
        penalize: as :func:`confidence_penalty`.

    Raises:
        ValueError: a setting out of its range.
    """

    num_networks = 2

    def __init__(
        self,
        *,
        warm_up: int = 10,
        threshold: float = 0.5,
        temperature: float = 0.5,
        alpha: float = 4.0,
        lambda_u: float = 25.0,
        ramp_epochs: float = 16,
        views: int = 2,
        steps: int = 0,
        average_losses: int = 1,
        penalty: bool = False,
        cross: bool = True,
        refine: bool = True,
        guess: bool = True,
        both_guess: bool = True,
        prior: bool = True,
        label_in_eval: bool = False,
        mixture: Callable[[Tensor], Tensor] = clean_probability,
        divide: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]] = co_divide,
        refine_labels: Callable[[Tensor, Tensor, Tensor, float], Tensor] = co_refine,
        guess_labels: Callable[[Tensor, float], Tensor] = co_guess,
        mix: Callable[..., tuple[Tensor, Tensor]] = mix_pairs,
        objective: Callable[[Tensor, Tensor, int, float], Tensor] = semi_supervised_loss,
        penalize: Callable[[Tensor], Tensor] = confidence_penalty,
    ) -> None:
        """Check the settings; what is kept of each example comes with :meth:`build`."""
        super().__init__()
        _check_counts(warm_up=warm_up, views=views, average_losses=average_losses)
        if not 0 <= threshold <= 1:
            raise ValueError(f"Expected `threshold` in 0..1, got {threshold}: w is a probability")
        if not (0 <= lambda_u < math.inf and steps >= 0):
            raise ValueError(f"Expected `lambda_u` and `steps` from 0, got {lambda_u} and {steps}")
        _check_temperature(temperature)
        draw_share(alpha, torch.Generator())  # checks alpha
        unsupervised_weight(0, lambda_u, ramp_epochs)
        self.warm_up, self.threshold, self.temperature = warm_up, threshold, temperature
        self.alpha, self.lambda_u, self.ramp_epochs = alpha, lambda_u, ramp_epochs
        self.views, self.steps, self.average_losses = views, steps, average_losses
        self.penalty, self.cross, self.refine, self.guess = penalty, cross, refine, guess
        self.both_guess, self.prior, self.label_in_eval = both_guess, prior, label_in_eval
        self.mixture, self.divide = mixture, divide if cross else own_divide
        self.refine_labels, self.guess_labels, self.mix = refine_labels, guess_labels, mix
        self.objective, self.penalize = objective, penalize

    def build(self, make_network: Callable, num_examples: int, num_classes: int) -> None:
        """Make the networks and room for the losses: buffers, so that a checkpoint holds them."""
        super().build(make_network, num_examples, num_classes)
        self.register_buffer("losses", torch.zeros(2, num_examples))
        self.register_buffer("clean", torch.ones(2, num_examples))
        self.register_buffer("past", torch.zeros(self.average_losses, 2, num_examples))

    def forward(self, images: Tensor) -> Tensor:
        """Return class probabilities ``(n, C)`` from the mean of both networks' logits."""
        logits = torch.stack([network(images) for network in self.networks])
        return logits.mean(dim=0).softmax(dim=1)

    def train_epoch(self, data: TrainingData, step: Step) -> None:
        """Warm up at first; later divide, then train one network and then the other."""
        self._measure(data)
        if self.epoch < self.warm_up:
            for number in range(2):
                self.mark_selected(number, torch.arange(len(data.labels)))
            for batch in data:
                step(self._warm_up_loss, batch)
            return
        sets = self.divide(*self.clean, self.threshold)
        # The peer's w goes with the peer's division.
        weights = self.clean.flip(0) if self.cross else self.clean
        for number, labelled in enumerate(sets):
            self._train_network(number, labelled, weights[number], data, step)

    # The division ---

    def _measure(self, data: TrainingData) -> None:
        """Keep each network's losses on all training examples, and w from them."""
        modes = [network.training for network in self.networks]
        self.networks.eval()
        for number, network in enumerate(self.networks):
            self.losses[number] = _all_losses(network, data)
        for network, mode in zip(self.networks, modes, strict=True):
            network.train(mode)
        flat = torch.stack([normalised(losses) for losses in self.losses])
        self.past = torch.cat((flat[None], self.past[:-1]))
        known = min(self.epoch + 1, self.average_losses)
        averaged = self.past[:known].mean(dim=0)
        for number in range(2):
            self.clean[number] = self.mixture(averaged[number]).to(self.clean)

    def _warm_up_loss(self, batch: Batch) -> Tensor:
        """Cross entropy of both, with the penalty where it is wanted."""
        total = 0
        for network in self.networks:
            logits = network(batch.images)
            total = total + F.cross_entropy(logits, batch.labels)
            if self.penalty:
                total = total + self.penalize(logits)
        return total

    # One network's epoch ---

    def _train_network(
        self, number: int, labelled: Tensor, weights: Tensor, data: TrainingData, step: Step
    ) -> None:
        """Train one network for an epoch with its labelled and its unlabelled set."""
        trusted, doubted = labelled.nonzero().flatten(), (~labelled).nonzero().flatten()
        if not len(trusted):
            self._train_without_division(number, data, step)
            return
        self.mark_selected(number, trusted)
        steps = self.steps or -(-len(trusted) // data.batch_size)
        draw = (steps, data.batch_size, self.generator)
        first, second = endless(trusted, *draw), endless(doubted, *draw)
        for done, (index, other) in enumerate(zip(first, second, strict=True)):
            since = self.epoch - self.warm_up + done / steps
            loss = functools.partial(
                self._mixmatch_loss,
                number=number,
                weights=weights,
                other=other,
                data=data,
                since=since,
            )
            step(loss, data.batch(index))

    def _train_without_division(self, number: int, data: TrainingData, step: Step) -> None:
        # No label is believed: there is nothing to refine and nothing to guess from.
        self.mark_selected(number, torch.arange(len(data.labels)))

        def loss(batch: Batch) -> Tensor:
            return F.cross_entropy(self.networks[number](batch.images), batch.labels)

        for batch in data:
            step(loss, batch)

    def _mixmatch_loss(
        self, batch: Batch, *, number: int, weights: Tensor, other: Tensor, data, since: float
    ) -> Tensor:
        """L_X + lambda_u L_U + L_reg of one network on one labelled and one unlabelled batch."""
        network = self.networks[number]
        views = [batch.images, *self._views(batch.index, data, self.views - 1)]
        rows = self._labels(number, views, batch, weights[batch.index])
        targets = [rows] * len(views)
        if self.guess and len(other):
            other_views = self._views(other, data, self.views)
            targets += [self._guesses(number, other_views)] * len(other_views)
            views += other_views
        num_labelled = self.views * len(batch.index)
        images, rows = torch.cat(views), torch.cat(targets)
        share, partner = draw_pairing(len(images), self.alpha, self.generator, images.device)
        images, rows = self.mix(images, rows, partner, share)
        logits = network(images)
        weight = unsupervised_weight(since, self.lambda_u, self.ramp_epochs)
        if num_labelled < len(rows):
            loss = self.objective(logits, rows, num_labelled, weight)
        else:  # nothing is doubted, and a mean over nothing would be no number
            loss = F.cross_entropy(logits, rows)
        return loss + even_prior_loss(logits.softmax(dim=1)) if self.prior else loss

    def _views(self, index: Tensor, data, count: int) -> list[Tensor]:
        return [data.batch(index).images for _ in range(count)]

    def _labels(self, number: int, views: list[Tensor], batch: Batch, w: Tensor) -> Tensor:
        """Return the rows for the labelled images: refined by this network alone."""
        if not self.refine:
            return F.one_hot(batch.labels, self.num_classes).float()
        network = self.networks[number]
        p = self._predicted(network, views, training=not self.label_in_eval).mean(dim=0)
        return self.refine_labels(batch.labels, w, p, self.temperature)

    def _guesses(self, number: int, views: list[Tensor]) -> Tensor:
        """Return the rows for the unlabelled images: guessed by both networks."""
        own, peer = self.networks[number], self.networks[1 - number]
        said = [self._predicted(own, views, training=not self.label_in_eval)]
        if self.both_guess:
            said.append(self._predicted(peer, views, training=False))
        return self.guess_labels(torch.cat(said), self.temperature)

    @torch.no_grad()
    def _predicted(self, network: nn.Module, views: list[Tensor], *, training: bool) -> Tensor:
        """Return predictions of all views in one pass, float ``(M, n, C)``, without gradient."""
        before = network.training
        network.train(training)
        p = network(torch.cat(views)).softmax(dim=1)
        network.train(before)
        return p.view(len(views), -1, self.num_classes)


# Small pieces -----------------------------------------------------------------------------------


def even_prior_loss(probabilities: Tensor) -> Tensor:
    """L_reg: KL from an even prior to the mean prediction; L_p of joint optimization.

    Args:
        probabilities: float ``(n, C)``, rows summing to 1.

    Returns:
        A scalar from 0, with gradient, finite where a class is never predicted.
    """
    mean = probabilities.mean(dim=0)
    mean = mean.clamp(min=torch.finfo(mean.dtype).tiny)
    return -(mean.log() + math.log(len(mean))).mean()


def endless(
    index: Tensor, steps: int, size: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yield `steps` batches of `size` examples, shuffled anew each time all have been used.

    Args:
        index: int64 ``(k,)``, the examples; with none all batches are empty.
        steps: how many batches.
        size: examples in each.
        generator: of the run, on the device of `index`.
    """
    if not len(index):
        yield from (index for _ in range(steps))
        return
    rounds = -(-steps * size // len(index))
    # The shuffles of a whole epoch at once: no step has to ask whether the set is used up.
    order = torch.cat(
        [
            torch.randperm(len(index), generator=generator, device=index.device)
            for _ in range(rounds)
        ]
    )
    yield from index[order[: steps * size]].split(size)


@torch.no_grad()
def _all_losses(network: nn.Module, data: TrainingData) -> Tensor:
    """Cross entropy of every example on its given label, without augmentation, ``(N,)``."""
    parts = []
    for at in range(0, len(data.labels), CHUNK):
        some = slice(at, at + CHUNK)
        logits = network(data.images(some))
        parts.append(F.cross_entropy(logits, data.labels[some], reduction="none"))
    return torch.cat(parts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence one warning: ten rounds may be too few to converge, and are meant to be enough."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _check_losses(losses: Tensor) -> None:
    if losses.dim() != 1 or not losses.is_floating_point():
        raise ValueError(
            f"Expected `losses` as floats of shape (n,), got {losses.dtype} {tuple(losses.shape)}: "
            "use reduction='none'"
        )
    if not bool(losses.isfinite().all()):
        raise ValueError("Expected finite `losses`, got some that are infinite or no number")


def _check_temperature(temperature: float) -> None:
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(
            f"Expected a finite `temperature` above 0, got {temperature}: p is raised to 1/T"
        )


def _check_rows(probabilities: Tensor) -> None:
    if probabilities.dim() != 2:
        raise ValueError(
            f"Expected `probabilities` of shape (n, C), got {tuple(probabilities.shape)}"
        )
    if probabilities.device.type != "cpu":
        return
    off = (probabilities.detach().sum(dim=1) - 1).abs()
    # Written so that nan is refused, too.
    if not (bool((off <= SUM_TOLERANCE).all()) and bool((probabilities >= 0).all())):
        raise ValueError(
            "Expected `probabilities` with rows of numbers from 0 that sum to 1: is a softmax "
            "missing?"
        )


def _check_weights(weights: Tensor) -> None:
    if weights.device.type == "cpu" and not bool(((weights >= 0) & (weights <= 1)).all()):
        raise ValueError("Expected `clean_probability` in 0..1: it is a probability")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"Expected `{name}` of at least 1, got {value}")
