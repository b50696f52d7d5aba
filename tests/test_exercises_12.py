"""Lesson 12's right answers written differently; the tests over all exercises pick them up."""

from __future__ import annotations

import numpy as np
import torch


def importance_by_loop(parameter, gradient):
    products = [w * g for w, g in zip(parameter.flatten(), gradient.flatten(), strict=True)]
    return torch.stack([torch.maximum(p, -p) for p in products]).reshape(parameter.shape)


def importance_by_numpy(parameter, gradient):
    return np.abs(parameter.numpy()) * np.abs(gradient.numpy())


def importance_narrow(parameter, gradient):
    return torch.sqrt((parameter * gradient).square()).float()


def mask_by_places(importances, share):
    flat = torch.hstack([values.ravel() for values in importances])
    chosen = torch.zeros_like(flat)
    chosen[flat.argsort()[len(flat) - int(share * len(flat)) :]] = 1
    parts = chosen.split([values.numel() for values in importances])
    return tuple(part.view_as(values) for part, values in zip(parts, importances, strict=True))


def mask_by_numpy(importances, share):
    flat = np.concatenate([values.numpy().ravel() for values in importances])
    limit = np.sort(flat)[::-1][int(share * flat.size) - 1]
    return [values.numpy() >= limit for values in importances]


def mask_by_loop(importances, share):
    everything = sorted(v for values in importances for v in values.flatten().tolist())
    dropped = len(everything) - int(share * len(everything))
    below = set(everything[:dropped])
    return [
        torch.tensor([v not in below for v in values.flatten().tolist()]).reshape(values.shape)
        for values in importances
    ]


def paper_by_where(parameter, gradient, critical, noise_rate, decay):
    fading = decay * torch.sign(parameter)
    return torch.where(critical, (1 - noise_rate) * gradient + fading, fading)


def paper_in_two_halves(parameter, gradient, critical, noise_rate, decay):
    direction = (decay * parameter / parameter.abs()).float()
    direction[critical] += ((1 - noise_rate) * gradient[critical]).float()
    return direction


def paper_by_numpy(parameter, gradient, critical, noise_rate, decay):
    kept = np.where(critical.numpy(), gradient.numpy(), 0)
    return (1 - noise_rate) * kept + decay * np.sign(parameter.numpy())


def code_by_sgd(parameter, gradient, critical, noise_rate, decay):
    weight = torch.nn.Parameter(parameter.clone())
    weight.grad = gradient.clone()
    if parameter.dim() != 1:
        weight.grad[~critical] = 0
        weight.grad *= 1 - noise_rate
    with torch.enable_grad():
        torch.optim.SGD([weight], lr=1.0, weight_decay=decay).step()
    return parameter - weight.detach()


def code_by_factor(parameter, gradient, critical, noise_rate, decay):
    factor = critical * (1 - noise_rate) if parameter.ndim > 1 else 1.0
    return decay * parameter + factor * gradient


def code_by_numpy(parameter, gradient, critical, noise_rate, decay):
    w, g, c = parameter.numpy(), gradient.numpy(), critical.numpy()
    return (g if w.ndim == 1 else g * c * (1 - noise_rate)) + decay * w


ALTERNATIVES = {
    "12.1": [importance_by_loop, importance_by_numpy, importance_narrow],
    "12.2": [mask_by_places, mask_by_numpy, mask_by_loop],
    "12.3": [paper_by_where, paper_in_two_halves, paper_by_numpy],
    "12.4": [code_by_sgd, code_by_factor, code_by_numpy],
}
