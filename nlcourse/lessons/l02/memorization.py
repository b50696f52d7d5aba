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

from ...base import Method, expect, expect_floats, expect_labels
from ...datasets import Dataset
from ...training import Options, fit
from ...training.history import History

BATCH = 1024  # images that are measured at once
# The paper's search on the 0..255 scale: a step of 0.25 and noise of 0.2 in a box of 0.3.
STEP_SHARE, NOISE_SHARE = 0.25 / 0.3, 0.2 / 0.3

Network = Callable[[Tensor], Tensor]
Radius = float | Tensor
Measures = tuple[Callable[..., Tensor], Callable[..., float]]


def loss_sensitivity(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """Return how strongly the loss of each example depends on its pixels, ``(n,)``.

    g_x = || d loss(network(x), y) / d x ||_1, at the weights as they are, in evaluation mode.

    The paper's own g_x (section 3.2) differs: there the derivative goes through the SGD updates in
    which x took part (:func:`unrolled_loss_sensitivity`). That takes a second derivative through
    the whole training; this one a single backward pass. Both are small for an example that has
    nothing left to teach. To average over training, as the paper does, use :class:`Watch`.

    Args:
        network: maps images to logits ``(n, C)``.
        images: floating ``(n, channels, height, width)``, scaled as the network wants them.
        labels: int64 ``(n,)``.
    """
    _check_images(network, images)
    expect_labels("labels", labels, 2**31, len(images))
    with _evaluating(network), torch.enable_grad():
        parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        return torch.cat([input_gradient(network, x, y).abs().flatten(1).sum(1) for x, y in parts])


def input_gradient(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of each image's loss with respect to its pixels, shaped as `images`."""
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

    Plain SGD runs from the weights of `network` (it stays as it is), on shuffled batches. The mean
    loss after the last step is differentiated with respect to the pixels **through all the
    updates**. The memory grows with `steps`: keep network and data small (the paper: 1,000 images,
    two layers of 16 units). Returns ``(n,)``, exactly 0 for an example that no step has met.
    """
    _check_images(network, images)
    expect_labels("labels", labels, 2**31, len(images))
    what = "`steps` and `batch_size` from 1 and `lr` above 0"
    expect(min(steps, batch_size) >= 1 and lr > 0, what, f"{steps}, {batch_size} and {lr}")
    pixels = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        weights = {k: p.detach().clone().requires_grad_() for k, p in network.named_parameters()}
        left = labels.new_empty(0)
        for _ in range(steps):
            if not len(left):
                left = torch.randperm(len(images), generator=generator, device=images.device)
            index, left = left[:batch_size], left[batch_size:]
            loss = F.cross_entropy(functional_call(network, weights, pixels[index]), labels[index])
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {k: w - lr * s for (k, w), s in zip(weights.items(), slopes, strict=True)}
        final = F.cross_entropy(functional_call(network, weights, images.detach()), labels)
        return torch.autograd.grad(final, pixels)[0].abs().flatten(1).sum(1)


def gini(values: Tensor) -> float:
    """Return the Gini coefficient of `values` ``(n,)``: how unequally a total is shared out.

    0 when all values are equal, (n - 1) / n when one example has everything. With the values in
    rising order, G = 2 sum_i i x_i / (n sum_i x_i) - (n + 1) / n, which is half the mean distance
    of two values divided by their mean.

    >>> gini(torch.tensor([1.0, 1.0, 1.0, 1.0])), gini(torch.tensor([0.0, 0.0, 0.0, 5.0]))
    (0.0, 0.75)
    """
    values = torch.as_tensor(values).detach().double()
    n = values.numel()
    what = "`values` of shape (n,) with n from 1"
    expect(values.dim() == 1 and n > 0, what, tuple(values.shape))
    fits = bool((values.isfinite() & (values >= 0)).all())
    expect(fits, "finite `values` of at least 0", f"{values.min():g} to {values.max():g}")
    if not values.any():
        return 0.0  # nothing to share: everybody has the same
    shares = (values / values.max()).sort().values  # scaled, so that no sum overflows or vanishes
    ranks = torch.arange(1, n + 1, dtype=shares.dtype, device=shares.device)
    coefficient = 2 * (ranks * shares).sum() / (n * shares.sum()) - (n + 1) / n
    return max(coefficient.item(), 0.0)  # rounding may leave -1e-17 for equal values


def lass_step(
    moved: Tensor, images: Tensor, gradient: Tensor, kick: Tensor, radius: Radius, step: Radius
) -> Tensor:
    """Take one step of the search: uphill by sign, a random kick, and back into the box.

    The search started at `images`, the centre of the box with half side `radius`, and stands at
    `moved`; `gradient` is that of the loss of the predicted class there. These and the kick are
    ``(n, channels, height, width)``. `step` is the length of the step in each pixel.
    """
    moved = moved + step * gradient.sign() + kick
    return torch.minimum(torch.maximum(moved, images - radius), images + radius)


@dataclass(frozen=True)
class Search:
    """How the adversarial neighbour is looked for.

    After at most so many iterations, each by `move`, the search gives up. A `single_step` goes
    straight to the corner of the box, without noise: fast, and finds fewer.
    """

    iterations: int = 100
    single_step: bool = False
    move: Callable[..., Tensor] = lass_step


def critical_samples(
    network: Network,
    images: Tensor,
    radius: Radius,
    search: Search | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Say which images have an adversarial neighbour in the box, bool ``(n,)``.

    x is critical when some x' with max |x - x'| <= radius has another predicted class. Labels play
    no part. The search is the paper's Langevin adversarial sample search (section 4.2, algorithm 1)
    for all images at once; those that are found drop out. It proves that an image is critical,
    never that it is not. The paper leaves open which output is differentiated, and where. We climb
    the loss of the *predicted* class, with its gradient taken anew wherever the search gets.

    Args:
        network: maps images to logits ``(n, C)`` with C from 2.
        images: floating ``(n, channels, height, width)``, scaled as the network wants them.
        radius: half the side of the box **on the scale of `images`**. A radius r on the 0..1 scale
            is r / std for normalised images, and r / 255 / std if it was given for 0..255. A tensor
            that broadcasts to an image, ``(channels, 1, 1)`` say, gives each channel its own.
        search: the paper's when left out.
        generator: of the noise, on the device of the images.
    """
    _check_images(network, images)
    sizes, search = torch.as_tensor(radius), search or Search()
    fits = bool((sizes.isfinite() & (sizes >= 0)).all())
    expect(fits, "a finite `radius` of at least 0", radius, "images have this scale, too")
    expect(search.iterations >= 1, "`iterations` of at least 1", search.iterations)
    with _evaluating(network), torch.enable_grad():
        parts = images.detach().split(BATCH)
        return torch.cat([_search(network, part, radius, search, generator) for part in parts])


def _search(
    network: Network, images: Tensor, radius: Radius, search: Search, dice: torch.Generator | None
) -> Tensor:
    step, noise, iterations = radius * STEP_SHARE, radius * NOISE_SHARE, search.iterations
    if search.single_step:
        step, noise, iterations = radius, 0.0, 1
    with torch.no_grad():
        predicted = network(images).argmax(dim=1)
    critical = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    left, moved = torch.arange(len(images), device=images.device), images
    for _ in range(iterations):
        gradient = _uphill(network, moved, predicted[left])
        kick = torch.randn(moved.shape, generator=dice, dtype=moved.dtype, device=moved.device)
        moved = search.move(moved, images[left], gradient, noise * kick, radius, step)
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
    learned something complicated. The paper measures it on validation images. Arguments as above.
    """
    return critical_samples(network, images, radius, search, generator).double().mean().item()


def _uphill(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    """Return a gradient whose signs are those of the gradient of the loss of `classes`.

    The loss itself will not do: where the network is sure, 1 - p rounds to 0 in float32, and with
    it the direction away from the class. The log odds log((1 - p) / p) carry the same signs.
    """
    images = images.detach().requires_grad_()
    logits = network(images)
    shape = logits.shape
    expect(len(shape) == 2 and shape[1] > 1, "logits of at least two classes", tuple(shape))
    own = F.one_hot(classes, shape[1]).bool()
    others = logits.masked_fill(own, -math.inf).logsumexp(dim=1)
    return torch.autograd.grad((others - logits[own]).sum(), images)[0]


class Watch:
    """Measure a network as it trains: ``watch = Watch(...)``, then ``fit(..., on_epoch=watch)``.

    Measuring does not change the run: no number is drawn from its random state.

    Args:
        method: the method that is trained; its first network is measured.
        images, labels: the training set as the network sees it, labels as given.
        every: measure after each so many epochs; the first epoch always counts.
        test_images, radius, search: of :func:`critical_sample_ratio`; its noise stays the same.
        measures: two functions, as :func:`loss_sensitivity` and as :func:`gini`.

    Attributes:
        rows: a dict for each measured epoch: epoch, csr, gini (of the sensitivities now) and
            mean_gini (of ``mean_sensitivity``, averaged over the measured epochs: the paper's).
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
        measures: Measures = (loss_sensitivity, gini),
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
        self.mean_sensitivity = self.mean_sensitivity.to(now).lerp(now, 1 / (len(self.rows) + 1))
        generator = torch.Generator(self.test_images.device).manual_seed(0)
        csr = critical_sample_ratio(network, self.test_images, self.radius, self.search, generator)
        row = {"epoch": epoch, "csr": csr, "gini": float(self.inequality(now))}
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

    Infinity when `max_epochs` are not enough. The share of them that counts as fitted is
    `accuracy`, in (0, 1]; the other arguments are those of :func:`nlcourse.training.fit`.
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


@contextlib.contextmanager
def _evaluating(network: Network) -> Iterator[None]:
    """Measure in evaluation mode; every part gets its own mode back afterwards."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    modes = {module: module.training for module in modules}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check_images(network: Network, images: Tensor) -> None:
    if isinstance(network, Method):
        got = f"got {type(network).__name__}, which returns probabilities"
        raise TypeError(f"Expected a network that returns logits, {got}: hand over its `.network`")
    expect_floats("images", images)
    what = "`images` of shape (n, channels, height, width) with n from 1"
    expect(images.dim() >= 2 and images.numel() > 0, what, tuple(images.shape))
