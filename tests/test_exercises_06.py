"""Lesson 06's exercises: right answers written differently (the mistakes are in test_exercises)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F


def gce_by_log_softmax(logits, labels, q=0.7):
    log_p = logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    return -torch.expm1(q * log_p) / q


def gce_by_loop(logits, labels, q=0.7):
    values = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        log_p = row[label] - torch.logsumexp(row, dim=0)
        values.append((1 - math.e ** (q * log_p)) / q)
    return torch.stack(values)


def gce_with_a_floor(logits, labels, q=0.7):
    # What most published codes do: a floor under p stops its gradient, which is nearly 0 there.
    p = logits.softmax(dim=1)[range(len(labels)), labels].clamp(min=1e-30)
    return (1 - p.pow(q)).div(q)


def sce_by_one_hot(logits, labels, alpha, beta, log_clip=-4.0):
    y = F.one_hot(labels, logits.shape[1])
    log_p = F.log_softmax(logits, dim=1)
    log_y = torch.where(y == 1, 0.0, log_clip)
    return -alpha * (y * log_p).sum(1) - beta * (log_p.exp() * log_y).sum(1)


def sce_by_loop(logits, labels, alpha, beta, log_clip=-4.0):
    values = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        p = torch.softmax(row, dim=0)
        others = sum(p[k] for k in range(len(p)) if k != label)
        values.append(-alpha * torch.log(p[label]) - beta * log_clip * others)
    return torch.stack(values)


def sce_by_half_of_mae(logits, labels, alpha, beta, log_clip=-4.0):
    p = logits.softmax(dim=1)
    mae = (p - F.one_hot(labels, p.shape[1])).abs().sum(dim=1)
    return alpha * F.nll_loss(p.log(), labels, reduction="none") - beta * log_clip * mae / 2


def forward_by_nll(logits, labels, matrix):
    return F.nll_loss((logits.softmax(dim=1) @ matrix).log(), labels, reduction="none")


def forward_by_logsumexp(logits, labels, matrix):
    return -torch.logsumexp(logits.log_softmax(1) + matrix.log().T[labels], dim=1)


def forward_by_loop(logits, labels, matrix):
    values = []
    for row, label in zip(logits.softmax(dim=1), labels, strict=True):
        values.append(
            -torch.log(sum(p * way for p, way in zip(row, matrix[:, label], strict=True)))
        )
    return torch.stack(values)


def forward_by_einsum(logits, labels, matrix):
    p = torch.einsum("ni,ij->nj", logits.double().softmax(dim=1), matrix.double())
    return -p.log().gather(1, labels.unsqueeze(1)).flatten()


def mix_by_loop(images, rows, partner, share):
    if share < 0.5:
        share = 1 - share
    pictures, labels = [], []
    for i, j in enumerate(partner.tolist()):
        pictures.append(share * images[i] + (1 - share) * images[j])
        labels.append(share * rows[i] + (1 - share) * rows[j])
    return torch.stack(pictures), torch.stack(labels)


def mix_by_lerp(images, rows, partner, share):
    weight = min(share, 1 - share)
    return torch.lerp(images, images[partner], weight), torch.lerp(rows, rows[partner], weight)


def mix_by_numpy(images, rows, partner, share):
    share, j = max(share, 1 - share), partner.numpy()
    mixed = [share * part.numpy() + (1 - share) * part.numpy()[j] for part in (images, rows)]
    return [torch.from_numpy(part) for part in mixed]


def mix_by_matrix(images, rows, partner, share):
    n, share = len(images), np.maximum(share, 1 - share)
    mixing = share * torch.eye(n) + (1 - share) * F.one_hot(partner, n)
    mixed = mixing.to(images.dtype) @ images.flatten(1)
    return mixed.view(images.shape), mixing.to(rows.dtype) @ rows


ALTERNATIVES = {
    "6.1": [gce_by_log_softmax, gce_by_loop, gce_with_a_floor],
    "6.2": [sce_by_one_hot, sce_by_loop, sce_by_half_of_mae],
    "6.3": [forward_by_nll, forward_by_logsumexp, forward_by_loop, forward_by_einsum],
    "6.4": [mix_by_loop, mix_by_lerp, mix_by_numpy, mix_by_matrix],
}
