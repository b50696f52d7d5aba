"""A Gaussian mixture on the losses: which of two components does the loss of a label come from?

From DivideMix (Li et al. 2020, arXiv 2002.07394), lesson 11. Paper and code: docs/deviations.md
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ..base import expect

# As in DivideMix's code. The losses lie in 0..1: no deviation is below 0.022.
SETTINGS = {"n_components": 2, "max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4, "random_state": 0}


def normalised(losses: Tensor) -> Tensor:
    """Stretch losses ``(n,)`` to 0..1: the smallest becomes 0, the largest 1; equal ones all 0."""
    if not len(losses):
        return losses
    low, high = losses.min(), losses.max()
    return (losses - low) / torch.where(high > low, high - low, torch.ones_like(high))


def fit_mixture(losses: Tensor) -> tuple[Any, Tensor]:
    """Fit two Gaussians to losses ``(n,)``, stretched to 0..1, by expectation maximization.

    Returns scikit-learn's mixture, and the posterior ``(n,)`` of the component of lower mean.
    """
    different = len(losses) > 1 and bool(losses.max() > losses.min())
    expect(different, "at least two different `losses` to fit two Gaussians to", len(losses))
    from sklearn.exceptions import ConvergenceWarning  # half a second, and few need it
    from sklearn.mixture import GaussianMixture

    values = normalised(losses.detach().double()).cpu().numpy()[:, None]
    with warnings.catch_warnings():  # ten rounds may be too few, and are meant to be enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = GaussianMixture(**SETTINGS).fit(values)
    posterior = mixture.predict_proba(values)[:, mixture.means_[:, 0].argmin()]
    return mixture, torch.from_numpy(posterior).to(losses)


def clean_probability(losses: Tensor) -> Tensor:
    """w: the posterior, given its loss, that a label is clean, that is of the lower mean.

    Args:
        losses: float ``(n,)``, cross entropy of each training example on its given label.

    Returns:
        ``(n,)``, in 0..1. Where all losses are equal no label stands out, and all get 1.

    >>> clean_probability(torch.tensor([0.1, 0.2, 0.1, 3.0, 3.1, 2.9])).round()
    tensor([1., 1., 1., 0., 0., 0.])
    """
    vector, got = losses.dim() == 1 and losses.is_floating_point(), tuple(losses.shape)
    expect(vector, "`losses` as floats (n,)", f"{losses.dtype} {got}", "use reduction='none'")
    expect(bool(losses.isfinite().all()), "finite `losses`", "some infinite or no number")
    if len(losses) < 2 or not bool(losses.max() > losses.min()):
        return torch.ones_like(losses)
    return fit_mixture(losses)[1]
