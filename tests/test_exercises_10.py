"""Lesson 10's right answers written differently; the tests over all exercises pick them up."""

from __future__ import annotations

import numpy as np
import torch


def targets_by_loop(targets, index, probabilities, beta):
    rows = [row.clone() for row in targets]
    for p, example in zip(probabilities.detach(), index.tolist(), strict=True):
        rows[example] = beta * rows[example] + (1 - beta) * p
    return torch.stack(rows)


def targets_by_numpy(targets, index, probabilities, beta):
    new = targets.numpy().copy()
    new[index.numpy()] *= beta
    new[index.numpy()] += (1 - beta) * probabilities.detach().numpy()
    return new


@torch.no_grad()
def targets_by_lerp(targets, index, probabilities, beta):
    return targets.index_copy(0, index, torch.lerp(probabilities, targets[index], beta)).float()


def loss_by_loop(logits, labels, targets, lambda_):
    total = 0
    for z, y, t in zip(logits, labels, targets, strict=True):
        p = torch.exp(z - torch.logsumexp(z, 0))
        kept = torch.clip(p, 0.0001, 0.9999)
        entropy = torch.nn.functional.cross_entropy(z, y)  # of a number or of a row
        total = total + entropy + lambda_ * torch.log(1 - kept @ t)
    return total / len(labels)


def loss_by_einsum(logits, labels, targets, lambda_):
    log_p = logits.log_softmax(dim=-1)
    rest = 1 - torch.einsum("nc,nc->n", log_p.exp().clamp(1e-4, 0.9999), targets.detach())
    rows = labels
    if rows.dim() == 1:
        rows = torch.eye(logits.shape[1], dtype=logits.dtype)[labels]
    return (-(rows * log_p).sum(1) + lambda_ * rest.log()).mean()


def loss_by_log1p(logits, labels, targets, lambda_):
    p = torch.nn.Softmax(1)(logits)
    p = torch.where(p < 1e-4, 1e-4, torch.where(p > 1 - 1e-4, 1 - 1e-4, p))
    term = torch.log1p(-torch.linalg.vecdot(p, targets))
    return lambda_ * term.sum() / len(term) + torch.nn.CrossEntropyLoss()(logits, labels)


def lemma_as_printed(probabilities, targets):
    g = torch.zeros_like(probabilities)
    for i, (p, t) in enumerate(zip(probabilities, targets, strict=True)):
        for c in range(len(p)):
            g[i, c] = p[c] / (1 - p @ t) * ((t - t[c]) * p).sum()
    return g


def lemma_by_autograd(probabilities, targets):
    logits = probabilities.log().requires_grad_()
    value = (1 - (logits.softmax(1) * targets).sum(1)).log().sum()
    return torch.autograd.grad(value, logits)[0]


def lemma_by_numpy(probabilities, targets):
    p, t = probabilities.numpy(), targets.numpy()
    inner = np.einsum("nc,nc->n", p, t)[:, None]
    return (p * inner - p * t) / (1 - inner)


def average_by_if(average, weights, step, gamma):
    keep = step / (step + 1)
    if keep > gamma:
        keep = gamma
    return weights + keep * (average - weights)


def average_by_numpy(average, weights, step, gamma):
    keep = np.minimum(1 - 1 / (step + 1), gamma)
    return np.average([average.numpy(), weights.numpy()], axis=0, weights=[keep, 1 - keep])


def average_by_lerp(average, weights, step, gamma):
    return torch.lerp(average, weights, max(1 / (step + 1), 1 - gamma)).float()


ALTERNATIVES = {
    "10.1": [targets_by_loop, targets_by_numpy, targets_by_lerp],
    "10.2": [loss_by_loop, loss_by_einsum, loss_by_log1p],
    "10.3": [lemma_as_printed, lemma_by_autograd, lemma_by_numpy],
    "10.4": [average_by_if, average_by_numpy, average_by_lerp],
}
