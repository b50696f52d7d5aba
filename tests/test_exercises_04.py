"""Lesson 04's exercises: right answers written differently (the mistakes are in test_exercises)."""

from __future__ import annotations

import math

import numpy as np
import torch


def gradient_by_loop(theta, features, given_labels):
    total = torch.zeros_like(theta)
    for x, label in zip(features, given_labels.tolist(), strict=True):
        p = torch.softmax(theta @ x, dim=0)
        for c in range(2):
            total[c] += x * (p[c] - float(c == label))
    return total / len(features)


def gradient_by_numpy(theta, features, given_labels):
    x, scores = features.numpy(), features.numpy() @ theta.numpy().T
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = odds / odds.sum(axis=1, keepdims=True)
    p[np.arange(len(x)), given_labels.numpy()] -= 1
    return torch.from_numpy(np.einsum("nc,np->cp", p, x) / len(x))


def gradient_by_autograd(theta, features, given_labels):
    theta = theta.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(features @ theta.T, given_labels)
    return torch.autograd.grad(loss, theta)[0]


def gradient_by_tanh(theta, features, given_labels):
    signs = 1.0 - 2.0 * given_labels
    gap = torch.tanh(features @ (theta[0] - theta[1]) / 2)
    first = ((gap - signs) / 2) @ features / len(features)
    return torch.stack((first, -first))


def alignment_by_cosine_similarity(gradient, separator):
    return torch.nn.functional.cosine_similarity(-gradient[0], separator, dim=0)


def alignment_by_second_row(gradient, separator):
    g, v = gradient[1].numpy(), separator.numpy()
    return g @ v / math.sqrt((g @ g) * (v @ v))


def alignment_by_loop(gradient, separator):
    d = [-(a - b) for a, b in zip(*gradient.tolist(), strict=True)]
    v = separator.tolist()
    dot = sum(a * b for a, b in zip(d, v, strict=True))
    return dot / math.hypot(*d) / math.hypot(*v)


def accuracy_by_loop(theta, features, given_labels, true_labels):
    hits = []
    rows = zip(features, given_labels.tolist(), true_labels.tolist(), strict=True)
    for x, given, true in rows:
        if given != true:
            hits.append(int(theta[1] @ x > theta[0] @ x) == true)
    return sum(hits) / len(hits)


def accuracy_by_numpy(theta, features, given_labels, true_labels):
    scores = features.numpy() @ theta.numpy().T
    given, true = given_labels.numpy(), true_labels.numpy()
    return np.float32(np.mean(scores.argmax(axis=1)[given != true] == true[given != true]))


def accuracy_by_signs(theta, features, given_labels, true_labels):
    wrong = (given_labels != true_labels).nonzero().flatten()
    margin = (features @ (theta[0] - theta[1])) * (1 - 2 * true_labels)
    return (margin[wrong] > 0).sum() / len(wrong)


ALTERNATIVES = {
    "4.1": [gradient_by_loop, gradient_by_numpy, gradient_by_autograd, gradient_by_tanh],
    "4.2": [alignment_by_cosine_similarity, alignment_by_second_row, alignment_by_loop],
    "4.3": [accuracy_by_loop, accuracy_by_numpy, accuracy_by_signs],
}
