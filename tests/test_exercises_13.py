"""Lesson 13's right answers written differently; the tests over all exercises pick them up."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F


def loss_by_small_losses(logits, labels, epoch):
    losses = F.cross_entropy(logits, labels, reduction="none")
    keep = len(labels) if epoch < 3 else max(1, int(0.6 * len(labels)))
    return losses.sort().values[:keep].mean()


def loss_by_bootstrapping(logits, labels, epoch):
    believed = F.one_hot(logits.argmax(dim=1), logits.shape[1])
    share = 0.8 if epoch < 3 else 0.4
    target = share * F.one_hot(labels, logits.shape[1]) + (1 - share) * believed
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def loss_that_fades(logits, labels, epoch):
    return 0.9**epoch * F.nll_loss(torch.log_softmax(logits, 1), labels)


def loss_by_reverse_cross_entropy(logits, labels, epoch):
    p = torch.softmax(logits, dim=-1)[range(len(labels)), labels]
    return 0.1 * F.cross_entropy(logits, labels) + 2 * torch.mean(1 - p)


def curve_by_numpy(curve):
    values = np.array(curve)
    return {
        "best": values.max(),
        "epoch": np.argmax(values) + 1,
        "last": values[-1],
        "mean_of_last_ten": values[-10:].mean(),
        "worst": values.min(),
    }


def curve_by_tensor(curve):
    values = torch.tensor(curve, dtype=torch.float64)
    best, place = values[: values.argmax() + 1].max(dim=0)
    tail = values[max(0, len(curve) - 10) :]
    numbers = (best, place + 1, values[-1], tail.sum() / tail.numel())
    return dict(zip(("best", "epoch", "last", "mean_of_last_ten"), numbers, strict=True))


def curve_by_loop(curve):
    best, epoch = -1.0, 0
    for number, value in enumerate(curve, start=1):
        if value > best:
            best, epoch = value, number
    total = count = 0
    for value in reversed(curve):
        if count == 10:
            break
        total, count = total + value, count + 1
    return {
        "epoch": epoch,
        "best": best,
        "mean_of_last_ten": total / count,
        "last": value_at(curve),
    }


def value_at(curve):
    *_, last = curve
    return last


def choice_by_index(noisy_validation, test):
    return test[noisy_validation.index(max(noisy_validation))]


def choice_by_numpy(noisy_validation, test):
    return np.asarray(test)[np.argmax(noisy_validation)]


def choice_by_loop(noisy_validation, test):
    best, answer = -1, None
    for validation, accuracy in zip(noisy_validation, test, strict=True):
        if validation > best:
            best, answer = validation, accuracy
    return torch.tensor(answer)


ALTERNATIVES = {
    "13.1": [curve_by_numpy, curve_by_tensor, curve_by_loop],
    "13.2": [choice_by_index, choice_by_numpy, choice_by_loop],
    "13.3": [
        loss_by_small_losses,
        loss_by_bootstrapping,
        loss_that_fades,
        loss_by_reverse_cross_entropy,
    ],
}
