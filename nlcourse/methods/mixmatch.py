"""MixMatch: learn from a labelled and an unlabelled set, with guessed labels and mixup across both.

Berthelot et al. 2019, "MixMatch: A Holistic Approach to Semi-Supervised Learning" (arXiv
1905.02249); code: google-research/fixmatch. Explained in lesson 11.
DivideMix trains with it, and adds two terms to the loss, which stand here, too.

K, views (augmentations) of an image; T, temperature; p, predictions; q, guessed labels.

Where paper and code differ: docs/deviations.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import TrainingData, expect, expect_rows


def views_of(data: TrainingData, index: Tensor, count: int) -> list[Tensor]:
    """Return the images at `index`, several times with fresh random changes."""
    return [data.batch(index).images for _ in range(count)]


@torch.no_grad()
def predictions(network: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Return p of all views in one pass, ``(K, n, C)``, without gradient."""
    logits: Tensor = network(torch.cat(tuple(views)))
    return logits.softmax(dim=1).view(len(views), -1, logits.shape[1])


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """``p_c^(1/T) / sum_k p_k^(1/T)``: T below 1 makes rows ``(n, C)`` more decided.

    >>> sharpen(torch.tensor([[0.6, 0.3, 0.1]]), 0.5)
    tensor([[0.7826, 0.1957, 0.0217]])
    """
    expect(0 < temperature < math.inf, "a finite `temperature` above 0", temperature)
    expect_rows("probabilities", probabilities)
    # As a softmax of log p / T no power can underflow, and log 0 = -inf stays 0.
    return (probabilities.log() / temperature).softmax(dim=1)


def co_guess(probabilities: Sequence[Tensor] | Tensor, temperature: float) -> Tensor:
    """q: the sharpened mean of several p ``(n, C)``, without gradient.

    >>> co_guess([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])], 1.0)
    tensor([[0.7500, 0.2500]])
    """
    expect(len(probabilities) > 0, "at least one prediction in `probabilities`", "none")
    return sharpen(torch.stack(tuple(probabilities)).detach().mean(dim=0), temperature)


def semi_supervised_loss(
    logits: Tensor, rows: Tensor, num_labelled: int, lambda_u: float
) -> Tensor:
    """L_X + lambda_u L_U: cross entropy on the labelled, squared error on the unlabelled.

    The squared error is bounded: a wrong guess does not harm as it would under a logarithm.

    Args:
        logits: float ``(n, C)`` of a mixed batch, the labelled images first.
        rows: float ``(n, C)``, mixed labels and guesses, summing to 1.
        num_labelled: from 1 to n - 1.
        lambda_u: weight of the mean squared error over the unlabelled images and all classes.
    """
    expect(0 < num_labelled < len(logits), f"`num_labelled` in 1..{len(logits) - 1}", num_labelled)
    p = logits[num_labelled:].softmax(dim=1)
    labelled = F.cross_entropy(logits[:num_labelled], rows[:num_labelled])
    return labelled + lambda_u * F.mse_loss(p, rows[num_labelled:])


def even_prior_loss(probabilities: Tensor) -> Tensor:
    """L_reg of DivideMix: KL from an even prior to the mean of p ``(n, C)``."""
    mean = probabilities.mean(dim=0)
    mean = mean.clamp(min=torch.finfo(mean.dtype).tiny)  # finite if a class is never predicted
    return -(mean.log() + math.log(len(mean))).mean()


def confidence_penalty(logits: Tensor) -> Tensor:
    """-H: minus the mean entropy of the predictions (DivideMix)."""
    log_p = logits.log_softmax(dim=1)
    return (log_p.exp() * log_p).sum(dim=1).mean()


def unsupervised_weight(epochs: float, lambda_u: float, ramp_epochs: float) -> float:
    """lambda_u after some epochs (with fractions) of the ramp: a line from 0, then constant."""
    return lambda_u * min(epochs / ramp_epochs, 1.0)


def shuffled(index: Tensor, size: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
    """Split positions ``(k,)`` into batches, in random order; the last one may be small."""
    order = torch.randperm(len(index), generator=generator, device=index.device)
    return torch.split(index[order], size)


def endless(
    index: Tensor, steps: int, size: int, generator: torch.Generator | None
) -> tuple[Tensor, ...]:
    """Return `steps` batches of `size` positions, shuffled anew each time all have been used."""
    if not len(index):
        return (index,) * steps
    # The shuffles of a whole epoch at once: no step has to ask whether the set is used up.
    rounds = [shuffled(index, len(index), generator)[0] for _ in range(0, steps * size, len(index))]
    return torch.split(torch.cat(rounds)[: steps * size], size)
