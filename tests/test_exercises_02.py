"""Right answers to the exercises of lesson 02, written differently: each has to pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nlcourse.lessons.checks.engine import examine
from nlcourse.lessons.checks.exercise import exercises


def sensitivity_by_loop(network, images, labels):
    found = []
    for image, label in zip(images, labels, strict=True):
        image = image[None].detach().clone().requires_grad_(True)
        F.cross_entropy(network(image), label[None]).backward()
        found.append(image.grad.abs().sum().item())
    return found


def sensitivity_by_backward(network, images, labels):
    images = images.clone()
    images.requires_grad = True
    network.zero_grad()
    loss = F.cross_entropy(network(images), labels) * len(images)
    loss.backward()
    network.zero_grad()
    return images.grad.abs().sum(dim=(1, 2, 3))


def sensitivity_by_vmap(network, images, labels):
    def loss(image, label):
        return F.cross_entropy(network(image[None]), label[None])

    slopes = torch.func.vmap(torch.func.grad(loss))(images, labels)
    return slopes.flatten(1).norm(p=1, dim=1).detach().numpy()


def sensitivity_by_log_softmax(network, images, labels):
    images = images.detach().requires_grad_()
    losses = -network(images).log_softmax(1).gather(1, labels[:, None]).squeeze(1)
    (slopes,) = torch.autograd.grad(losses, images, torch.ones_like(losses), create_graph=True)
    return torch.linalg.vector_norm(slopes, ord=1, dim=(1, 2, 3))


def gini_by_pairs(values):
    total = 0.0
    for one in values.tolist():
        total += sum(abs(one - other) for other in values.tolist())
    return total / (2 * len(values) * sum(values.tolist()))


def gini_by_lorenz(values):
    shares = np.concatenate([[0.0], np.sort(values.numpy().astype(float)).cumsum()])
    shares /= shares[-1]
    area = (shares[1:] + shares[:-1]).sum() / (2 * len(values))
    return 1 - 2 * area


def gini_from_the_top(values):
    n = len(values)
    falling = values.double().sort(descending=True).values
    weights = n + 1 - 2 * torch.arange(1, n + 1)
    return (weights * falling).sum() / (n * falling.sum())


def step_by_numpy(moved, images, gradient, kick, radius, step):
    there = moved.numpy() + step * np.sign(gradient.numpy()) + kick.numpy()
    return np.clip(there, images.numpy() - radius, images.numpy() + radius)


def step_by_difference(moved, images, gradient, kick, radius, step):
    away = moved - images + kick + torch.sign(gradient) * step
    return images + away.clamp(min=-radius, max=radius)


def step_by_where(moved, images, gradient, kick, radius, step=0.1):
    there = moved.clone()
    there[gradient > 0] += step
    there[gradient < 0] -= step
    there += kick
    there = torch.where(there > images + radius, images + radius, there)
    return torch.where(there < images - radius, images - radius, there)


ALTERNATIVES = {
    "2.1": [
        sensitivity_by_loop,
        sensitivity_by_backward,
        sensitivity_by_vmap,
        sensitivity_by_log_softmax,
    ],
    "2.2": [gini_by_pairs, gini_by_lorenz, gini_from_the_top],
    "2.3": [step_by_numpy, step_by_difference, step_by_where],
}


def sensitivity_that_adds_up(network, images, labels):
    images.requires_grad_(True)
    F.cross_entropy(network(images), labels, reduction="sum").backward()
    return images.grad.abs().sum((1, 2, 3))


def sensitivity_that_leaves_a_mark(network, images, labels):
    images.requires_grad = True
    loss = F.cross_entropy(network(images), labels, reduction="sum")
    return torch.autograd.grad(loss, [images])[0].abs().sum((1, 2, 3))


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (sensitivity_that_adds_up, "adds up the slopes of all calls"),
        (sensitivity_that_leaves_a_mark, "leaves a mark on the caller's images"),
    ],
)
def test_images_that_ask_for_gradients_afterwards_are_said(function, cause):
    verdict = examine(exercises()["2.1"], function)
    assert "`images` in place" in verdict.reason
    assert verdict.lines[1:3] == (
        "  came out: images.requires_grad is True",
        "  expected: images.requires_grad is False",
    )
    assert verdict.misconception == cause


def test_a_changed_network_is_said():
    def spoils(network, images, labels):
        with torch.no_grad():
            for weight in network.parameters():
                weight.zero_()
        return torch.zeros(len(images))

    def right_but_spoils(network, images, labels):
        found = sensitivity_by_backward(network, images, labels)
        spoils(network, images, labels)
        return found

    exercise = exercises()["2.1"]
    assert examine(exercise, spoils).outcome == "wrong"
    assert "`network` in place" in examine(exercise, right_but_spoils).reason
