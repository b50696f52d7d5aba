"""Lesson 08's right answers written differently; the tests over all exercises pick them up."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F


def margins_by_loop(logits, labels):
    found = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        rivals = row[:label] + row[label + 1 :]
        found.append(row[label] - max(rivals))
    return found


def margins_by_topk(logits, labels):
    top = logits.topk(2, dim=1)
    own = logits[torch.arange(len(labels)), labels]
    return own - torch.where(top.indices[:, 0] == labels, top.values[:, 1], top.values[:, 0])


def margins_by_numpy(logits, labels):
    z, chosen = logits.numpy(), np.eye(logits.shape[1], dtype=bool)[labels.numpy()]
    return z[chosen] - np.where(chosen, -np.inf, z).max(axis=1)


def flags_by_numpy(scores, threshold_scores, percentile=99.0):
    return scores.numpy() <= np.percentile(threshold_scores.numpy(), percentile)


def flags_by_sorting(scores, threshold_scores, percentile=99):
    ordered = sorted(threshold_scores.tolist())
    place = (len(ordered) - 1) * percentile / 100
    low, high = math.floor(place), math.ceil(place)
    threshold = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return [score <= threshold for score in scores.tolist()]


def flags_by_not_above(scores, threshold_scores, percentile=99.0):
    return ~torch.gt(scores, threshold_scores.quantile(percentile / 100.0))


def density_by_loop(features, share=0.6):
    rows = features.tolist()
    distances = [[math.dist(a, b) for b in rows] for a in rows]
    everything = sorted(value for row in distances for value in row)
    cutoff = everything[math.ceil(share * len(everything)) - 1]
    return [
        sum(distances[i][j] < cutoff for j in range(len(rows)) if j != i) for i in range(len(rows))
    ]


def density_by_numpy(features, share=0.6):
    x = features.numpy()
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    cutoff = np.partition(distances.ravel(), math.ceil(share * distances.size) - 1)[
        math.ceil(share * distances.size) - 1
    ]
    return np.count_nonzero(distances < cutoff, axis=1) - 1


def density_by_quantile(features, share=0.6):
    distances = torch.cdist(features, features)
    cutoff = np.quantile(distances.numpy(), share, method="inverted_cdf")
    return ((distances < cutoff).int().sum(1) - 1).to(torch.int32)


def prototypes_by_loop(features, prototypes):
    labels = []
    for feature in features:
        scores = []
        for some in prototypes:
            cosines = [float(feature @ one / (feature.norm() * one.norm())) for one in some]
            scores.append(sum(cosines) / len(cosines))
        labels.append(scores.index(max(scores)))
    return labels


def prototypes_by_cosine_similarity(features, prototypes):
    columns = [
        F.cosine_similarity(features[:, None], some[None], dim=2).mean(1) for some in prototypes
    ]
    return torch.stack(columns).argmax(0)


def prototypes_by_directions(features, prototypes):
    # The mean of cosines is an inner product with the mean direction; the length of the feature
    # is the same for all classes.
    directions = [np.mean([p / np.linalg.norm(p) for p in some.numpy()], 0) for some in prototypes]
    return np.argmax(features.numpy() @ np.stack(directions).T, axis=1)


ALTERNATIVES = {
    "8.1": [margins_by_loop, margins_by_topk, margins_by_numpy],
    "8.2": [flags_by_numpy, flags_by_sorting, flags_by_not_above],
    "8.3": [density_by_loop, density_by_numpy, density_by_quantile],
    "8.4": [
        prototypes_by_loop,
        prototypes_by_cosine_similarity,
        prototypes_by_directions,
    ],
}
