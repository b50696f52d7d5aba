"""Measures of memorization: loss sensitivity, its Gini coefficient, critical samples, time to fit.

Arpit et al. 2017, "A Closer Look at Memorization in Deep Networks" (arXiv 1706.05394). Written from
the paper; it has no official code. Where the paper leaves a choice open, the docstring says which
one we take. Explained in lesson 02.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ...base import Method, expect, expect_labels
from ...datasets import Dataset
from ...training import Options, fit
from ...training.history import History

BATCH = 1024  # images that are measured at once
# The paper's search on the 0..255 scale: a step of 0.25 and noise of 0.2 in a box of 0.3.
STEP_SHARE, NOISE_SHARE = 0.25 / 0.3, 0.2 / 0.3

Network = Callable[[Tensor], Tensor]
Radius = float | Tensor
Sensitivity = Callable[[Network, Tensor, Tensor], Tensor]
Move = Callable[[Tensor, Tensor, Tensor, Tensor, Radius, Radius], Tensor]


# ---------------------------------------------------------------- loss sensitivity


def loss_sensitivity(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """Return how strongly the loss of each example depends on its pixels.

    g_x = || d loss(network(x), y) / d x ||_1, at the weights as they are, in evaluation mode.

    The paper's own g_x differs: there the derivative goes through the SGD updates in which x took
    part, and so measures what having trained on x has done to the loss
    (:func:`unrolled_loss_sensitivity`). That takes a second derivative through the whole training;
    this one a single backward pass. Both are small for an example that has nothing left to teach.
    To average over training, as the paper does, use :class:`Watch`.

    Args:
        network: maps images to logits ``(n, C)``.
        images: floating ``(n, channels, height, width)``, scaled as the network wants them.
        labels: int64 ``(n,)``.

    Returns:
        ``(n,)``, not negative.

    Raises:
        ValueError: no images, or labels that do not fit.
        TypeError: images that are not floating, or a method in place of a network.

    Source: equation of section 3.2 (without the unrolling). Explained in lesson 02.
    """
    _check_images(network, images)
    expect_labels("labels", labels, 2**31, len(images))
    with _evaluating(network), torch.enable_grad():
        parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        return torch.cat([_input_gradient(network, x, y).abs().flatten(1).sum(1) for x, y in parts])


def _input_gradient(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    # The sum keeps the examples apart: the gradient of each image is that of its own loss.
    loss = F.cross_entropy(network(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def unrolled_loss_sensitivity(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    lr: float,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the paper's g_x after some steps: what training on x has done to the loss.

    Plain SGD runs from the weights of `network`, and the mean loss after the last step is
    differentiated with respect to the pixels **through all the updates**. The pixels act through
    the weights alone. The memory grows with `steps`: keep network and data small (the paper: 1,000
    images, two layers of 16 units). `network` itself stays as it is.

    Args:
        network: maps images to logits ``(n, C)``; its weights are the start.
        images: floating ``(n, channels, height, width)``.
        labels: int64 ``(n,)``.
        steps: SGD updates, from 1.
        lr: learning rate.
        batch_size: examples in a batch.
        generator: of the order of the examples.

    Returns:
        ``(n,)``; exactly 0 for an example that no step has met.

    Raises:
        ValueError: a number of steps, learning rate or batch size out of range, or as
            :func:`loss_sensitivity`.
    """
    _check_images(network, images)
    expect_labels("labels", labels, 2**31, len(images))
    if steps < 1 or batch_size < 1 or not lr > 0:
        raise ValueError(
            "Expected `steps` and `batch_size` from 1 and `lr` above 0, got "
            f"{steps}, {batch_size} and {lr}"
        )
    pixels = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        weights = {k: p.detach().clone().requires_grad_() for k, p in network.named_parameters()}
        for index in _endless_batches(images, batch_size, steps, generator):
            loss = F.cross_entropy(functional_call(network, weights, pixels[index]), labels[index])
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {k: w - lr * s for (k, w), s in zip(weights.items(), slopes, strict=True)}
        final = F.cross_entropy(functional_call(network, weights, images.detach()), labels)
        return torch.autograd.grad(final, pixels)[0].abs().flatten(1).sum(1)


def _endless_batches(
    images: Tensor, size: int, steps: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    while steps > 0:
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in order.split(size)[:steps]:
            yield index
            steps -= 1


def gini(values: Tensor) -> float:
    """Return the Gini coefficient: how unequally a total is shared out.

    0 when all values are equal, (n - 1) / n when one example has everything. With the values in
    rising order, G = 2 sum_i i x_i / (n sum_i x_i) - (n + 1) / n, which is half the mean distance
    of two values divided by their mean.

    Args:
        values: ``(n,)``, not negative.

    Raises:
        ValueError: no values, negative ones, or some that are not finite.

    Example:
        >>> gini(torch.tensor([1.0, 1.0, 1.0, 1.0])), gini(torch.tensor([0.0, 0.0, 0.0, 5.0]))
        (0.0, 0.75)
    """
    values = torch.as_tensor(values).detach().double()
    if values.dim() != 1 or not len(values):
        raise ValueError(f"Expected `values` of shape (n,) with n from 1, got {values.shape}")
    if not (torch.isfinite(values) & (values >= 0)).all():
        raise ValueError("Expected finite `values` of at least 0: the Gini coefficient shares out")
    largest = values.max()
    if largest == 0:
        return 0.0  # nothing to share: everybody has the same
    n = len(values)
    shares = (values / largest).sort().values  # scaled, so that no sum overflows or vanishes
    ranks = torch.arange(1, n + 1, dtype=shares.dtype, device=shares.device)
    coefficient = 2 * (ranks * shares).sum() / (n * shares.sum()) - (n + 1) / n
    return max(coefficient.item(), 0.0)  # rounding may leave -1e-17 for equal values


# ---------------------------------------------------------------- critical samples


def lass_step(
    moved: Tensor, images: Tensor, gradient: Tensor, kick: Tensor, radius: Radius, step: Radius
) -> Tensor:
    """Take one step of the search: uphill by sign, a random kick, and back into the box.

    Args:
        moved: ``(n, channels, height, width)``, where the search stands.
        images: same shape, where it started: the centre of the box.
        gradient: same shape, of the loss of the predicted class at `moved`.
        kick: same shape, the random part of the step.
        radius: half the side of the box.
        step: length of the step in each pixel.

    Returns:
        Where the search stands next.
    """
    moved = moved + step * gradient.sign() + kick
    return torch.minimum(torch.maximum(moved, images - radius), images + radius)


@dataclass(frozen=True, eq=False)
class Search:
    """How the adversarial neighbour is looked for.

    Attributes:
        step: in each pixel; the paper's 0.25 / 0.3 of the radius when left out.
        noise: standard deviation of the kick; the paper's 0.2 / 0.3 of the radius when left out.
        iterations: steps at most, from 1.
        single_step: one step straight to the corner of the box, without noise: fast, and finds
            fewer. `step`, `noise` and `iterations` then play no part.
        move: how one step is taken, as :func:`lass_step`.
    """

    step: Radius | None = None
    noise: Radius | None = None
    iterations: int = 100
    single_step: bool = False
    move: Move = lass_step

    def __post_init__(self) -> None:
        """Refuse lengths that are no lengths."""
        expect(self.iterations >= 1, "`iterations` of at least 1", self.iterations)
        for name in ("step", "noise"):
            if getattr(self, name) is not None:
                _check_size(name, getattr(self, name))


def critical_samples(
    network: Network,
    images: Tensor,
    radius: Radius,
    search: Search | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Say which images have an adversarial neighbour: one in the box that is classified otherwise.

    x is critical when some x' with max |x - x'| <= radius has another predicted class. Labels play
    no part. The search is the paper's Langevin adversarial sample search (LASS), for all images at
    once; those that are found drop out. It proves that an image is critical, never that it is not.

    The paper leaves open which output is differentiated, and where. We climb the loss of the
    *predicted* class, with its gradient taken anew at each place that the search reaches.

    Args:
        network: maps images to logits ``(n, C)`` with C from 2.
        images: floating ``(n, channels, height, width)``, scaled as the network wants them.
        radius: half the side of the box **on the scale of `images`**. A radius r on the 0..1 scale
            is r / std for normalised images, and r / 255 / std if it was given for 0..255. A tensor
            that broadcasts to an image, ``(channels, 1, 1)`` say, gives each channel its own.
        search: steps, noise, iterations; the paper's when left out.
        generator: of the noise, on the device of the images.

    Returns:
        bool ``(n,)``.

    Raises:
        ValueError: no images, a negative radius, step or noise, no iteration, a single class.
        TypeError: images that are not floating, or a method in place of a network.

    Source: section 4.2 and algorithm 1. Explained in lesson 02.
    """
    _check_images(network, images)
    _check_size("radius", radius)
    search = search or Search()
    if search.single_step:
        search = replace(search, step=radius, noise=0.0, iterations=1)
    step = radius * STEP_SHARE if search.step is None else search.step
    noise = radius * NOISE_SHARE if search.noise is None else search.noise
    search = replace(search, step=step, noise=noise)
    if not torch.as_tensor(radius > 0).any():  # nothing lies in the box but the image itself
        return torch.zeros(len(images), dtype=torch.bool, device=images.device)
    with _evaluating(network), torch.enable_grad():
        parts = [part.detach() for part in images.split(BATCH)]
        return torch.cat([_search(network, part, radius, search, generator) for part in parts])


def _search(
    network: Network,
    images: Tensor,
    radius: Radius,
    search: Search,
    generator: torch.Generator | None,
) -> Tensor:
    """Search in one batch of images."""
    assert search.step is not None
    assert search.noise is not None
    with torch.no_grad():
        predicted = network(images).argmax(dim=1)
    critical = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    left, moved = torch.arange(len(images), device=images.device), images
    for _ in range(search.iterations):
        gradient = _uphill(network, moved, predicted[left])
        kick = search.noise * torch.randn(
            moved.shape, generator=generator, dtype=moved.dtype, device=moved.device
        )
        moved = search.move(moved, images[left], gradient, kick, radius, search.step)
        with torch.no_grad():
            same = network(moved).argmax(dim=1) == predicted[left]
        critical[left[~same]] = True
        left, moved = left[same], moved[same]
        if not len(left):
            break
    return critical


def critical_sample_ratio(
    network: Network,
    images: Tensor,
    radius: Radius,
    search: Search | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """Return the share of images with an adversarial neighbour inside the box (CSR).

    A high ratio means that the decision boundaries run close to many images: the network has
    learned something complicated. The paper measures it on validation images. Arguments and errors
    are those of :func:`critical_samples`.
    """
    return critical_samples(network, images, radius, search, generator).double().mean().item()


def _uphill(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    """Return a gradient whose signs are those of the gradient of the loss of `classes`.

    The loss itself will not do: where the network is sure, 1 - p rounds to 0 in float32, and with
    it the direction away from the class. The log odds log((1 - p) / p) carry the same signs.
    """
    images = images.detach().requires_grad_()
    logits = network(images)
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(f"Expected logits of at least two classes, got {tuple(logits.shape)}")
    own = F.one_hot(classes, logits.shape[1]).bool()
    others = logits.masked_fill(own, -math.inf).logsumexp(dim=1)
    return torch.autograd.grad((others - logits[own]).sum(), images)[0]


# ---------------------------------------------------------------- as training goes on


class Watch:
    """Measure a network as it trains: ``watch = Watch(...)``, then ``fit(..., on_epoch=watch)``.

    Measuring does not change the run: no number is drawn from its random state.

    Args:
        method: the method that is trained; its first network is measured.
        images: the training images as the network sees them, ``(n, channels, height, width)``.
        labels: int64 ``(n,)``, the given labels.
        test_images: where the critical sample ratio is measured.
        radius: of the box, on the scale of the images.
        every: measure after each so many epochs; the first epoch always counts.
        search: of :func:`critical_sample_ratio`; its noise is the same at each epoch.
        measures: two functions, as :func:`loss_sensitivity` and as :func:`gini`.

    Attributes:
        rows: a dict for each measured epoch: epoch, csr, gini (of the sensitivities now) and
            mean_gini (of the sensitivities averaged over the measured epochs: the paper's).
        mean_sensitivity: ``(n,)``, that average.
    """

    def __init__(
        self,
        method: Method,
        images: Tensor,
        labels: Tensor,
        test_images: Tensor,
        *,
        radius: Radius,
        every: int = 1,
        search: Search | None = None,
        measures: tuple[Sensitivity, Callable[[Tensor], float]] = (loss_sensitivity, gini),
    ) -> None:
        """Measure nothing yet."""
        expect(every >= 1, "`every` of at least 1 epoch", every)
        self.method, self.images, self.labels = method, images, labels
        self.test_images, self.radius, self.every = test_images, radius, every
        self.search, (self.sensitivity, self.inequality) = search, measures
        self.rows: list[dict[str, float]] = []
        self.mean_sensitivity = torch.zeros(len(labels), device=labels.device)

    def __call__(self, history: History) -> None:
        """Measure, if it is time."""
        epoch = len(history)
        if epoch > 1 and epoch % self.every:
            return
        network = self.method.network
        now = torch.as_tensor(self.sensitivity(network, self.images, self.labels)).detach()
        mean, share = self.mean_sensitivity.to(now), 1 / (len(self.rows) + 1)
        self.mean_sensitivity = mean.lerp(now, share)
        generator = torch.Generator(self.test_images.device).manual_seed(0)
        ratio = critical_sample_ratio(
            network, self.test_images, self.radius, self.search, generator
        )
        row = {"epoch": epoch, "csr": ratio, "gini": float(self.inequality(now))}
        self.rows.append(row | {"mean_gini": float(self.inequality(self.mean_sensitivity))})

    def __getitem__(self, column: str) -> list[float]:
        """Return one column: epoch, csr, gini or mean_gini."""
        return [row[column] for row in self.rows]


def epochs_to_fit(
    method: Method,
    data: Dataset,
    *,
    accuracy: float = 1.0,
    max_epochs: int = 300,
    options: Options | None = None,
    **how: Any,
) -> float:
    """Train until the given labels are fitted, and return how many epochs that took.

    Args:
        method: what to train.
        data: the data set with given labels.
        accuracy: the share of given labels that counts as fitted, in (0, 1].
        max_epochs: give up after so many.
        options: of :func:`nlcourse.training.fit`, like the rest.
        how: ``lr``, ``seed``, ``network`` and so on.

    Returns:
        The first epoch after which it is reached; infinity when it never is.

    Raises:
        ValueError: an accuracy out of range, or as ``fit``.
    """
    expect(0 < accuracy <= 1, "`accuracy` in (0, 1]", accuracy)
    fitted = threading.Event()

    def look(history: History) -> None:
        if history.last["given_accuracy"] >= accuracy:
            fitted.set()

    options = replace(options or Options(), stop=fitted)
    how = {"progress": False, "epochs": max_epochs, "on_epoch": look, **how}
    history = fit(method, data, options=options, **how)
    return float(len(history)) if fitted.is_set() else math.inf


# ---------------------------------------------------------------- checks at the border


@contextlib.contextmanager
def _evaluating(network: Network) -> Iterator[None]:
    """Measure in evaluation mode; every part gets its own mode back afterwards."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _check_images(network: Network, images: Tensor) -> None:
    if isinstance(network, Method):
        raise TypeError(
            f"Expected a network that returns logits, got {type(network).__name__}, which returns "
            "probabilities: hand over its `.network`"
        )
    if not images.is_floating_point():
        raise TypeError(
            f"Expected floating `images`, scaled as the network wants them, got {images.dtype}"
        )
    what = "`images` of shape (n, channels, height, width) with n from 1"
    expect(images.dim() >= 2 and images.numel() > 0, what, tuple(images.shape))


def _check_size(name: str, value: Radius) -> None:
    sizes = torch.as_tensor(value)
    fits = bool((torch.isfinite(sizes) & (sizes >= 0)).all())
    why = "it is a distance on the scale of the images"
    expect(fits, f"a finite `{name}` of at least 0", value, why)
