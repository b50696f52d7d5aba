"""Lesson 02: a closer look at memorization. Arpit et al. 2017 (arXiv 1706.05394)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, ask_once
from ..checks.inputs import case_of
from ..checks.judges import number, numbers
from . import memorization

# 2.1 loss_sensitivity ----------------------------------------------------------------------------


class _Network(nn.Module):
    """A small network that can be compared, so that the check sees when it was changed."""

    def __init__(self, pixels: int, hidden: int, num_classes: int, seed: int, dtype) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        sizes = (pixels, hidden, num_classes) if hidden else (pixels, num_classes)
        self.weights = nn.ParameterList(
            torch.randn(out, inside, generator=draw, dtype=dtype)
            for inside, out in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        for weight in list(self.weights)[:-1]:
            x = torch.tanh(x @ weight.T)
        return x @ self.weights[-1].T

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Network) and all(
            torch.equal(a, b) for a, b in zip(self.weights, other.weights, strict=True)
        )

    __hash__ = nn.Module.__hash__

    def __repr__(self) -> str:
        return f"<network of {len(self.weights)} layers>"


def _sensitivity_cases() -> list[Case]:
    def case(name: str, n: int, side: int, classes: int, hidden: int, **more: Any) -> Case:
        dtype = more.get("dtype", torch.float64)
        seed = SEED + 7 * n + side
        draw = torch.Generator().manual_seed(seed)
        arguments = {
            "network": _Network(side * side, hidden, classes, seed, dtype),
            "images": torch.randn(n, 1, side, side, generator=draw, dtype=dtype) / side,
            "labels": torch.randint(classes, (n,), generator=draw),
        }
        return Case(name, arguments, more.get("ask", ask_once))

    return [
        case("one image of one pixel", 1, 1, 2, 0),
        case("one image of four pixels", 1, 2, 2, 0),
        case("two images", 2, 2, 3, 0),
        case("three images", 3, 2, 3, 0),
        case("a network with a hidden layer", 3, 2, 4, 5),
        case("ten classes", 4, 3, 10, 0),
        case("five images, ten classes, a hidden layer", 5, 3, 10, 8),
        case("32 bits", 6, 3, 4, 0, dtype=torch.float32),
        case("eight images", 8, 4, 5, 6),
        case("sixteen images", 16, 4, 10, 12),
        case("forty images", 40, 8, 10, 16),
        case("forty images, two classes", 40, 3, 2, 0),
        case("the same images twice", 3, 2, 4, 5, ask=_ask_again),
    ]


def _ask_again(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the second answer: as `Watch` does, which asks about the same images all the time."""
    ask_once(function, arguments)
    return ask_once(function, arguments)


def _l1(gradient: Tensor) -> Tensor:
    return gradient.abs().flatten(1).sum(dim=1)


def _added_up(network, images, labels):
    images.requires_grad_()
    nn.functional.cross_entropy(network(images), labels, reduction="sum").backward()
    return _l1(images.grad)


LOSS_SENSITIVITY = Exercise(
    number="2.1",
    package=memorization.loss_sensitivity,
    cases=_sensitivity_cases,
    judge=numbers,
    hints=(
        "Usually we ask how the loss changes with the weights. With what does it change here? "
        "And how many numbers do you want for each image?",
        "gₓ = ‖∂ℓ(f(x), y) / ∂x‖₁ = Σ over the pixels of |∂ℓ/∂x_pixel|, for each image.",
        'loss = torch.nn.functional.cross_entropy(..., reduction="sum")   # of what?\n'
        "gradient = torch.autograd.grad(loss, images)[0]   # then |.|, and a sum for each image",
    ),
    misconceptions=(
        Misconception(
            "takes the mean loss of the images",
            "Does the sensitivity of an image depend on how many others stand beside it?",
            replace={'"sum"': "'mean'"},
        ),
        Misconception(
            "adds the slopes without their absolute values",
            "May a pixel that raises the loss cancel one that lowers it?",
            replace={".abs()": ""},
        ),
        Misconception(
            "takes the l2 norm",
            "The paper takes the l1 norm. Where do squares come in, in yours?",
            replace={".sum": ".norm"},
        ),
        Misconception(
            "takes the largest pixel",
            "The l1 norm counts all pixels, not only the one with the steepest slope.",
            replace={".sum": ".amax"},
        ),
        Misconception(
            "averages over the pixels",
            "A norm adds up. What would happen to yours if the images had more pixels?",
            replace={".sum": ".mean"},
        ),
        Misconception(
            "returns one number for all images",
            "Which axis counts the images? That one should survive the sum.",
            returns="gradient.abs().sum()",
        ),
        Misconception(
            "returns the slopes themselves",
            "One number an image is wanted: what makes one of all its pixels?",
            returns="gradient",
        ),
        Misconception(
            "uses the predicted class in place of the label",
            "Whose loss is it: that of the given label, or that of the network's own answer?",
            replace={"labels, reduction": "network(images).argmax(dim=1), reduction"},
        ),
        Misconception(
            "applies softmax before the cross entropy",
            "`cross_entropy` wants logits: it takes the softmax by itself.",
            replace={"network(images),": "network(images).softmax(dim=1),"},
        ),
        Misconception(
            "adds up the slopes of all calls",
            "Ask twice about the same images. Whose `.grad` still holds the first answer?",
            _added_up,
        ),
        Misconception(
            "leaves a mark on the caller's images",
            "`requires_grad_` changes a tensor for everybody. On which one of your own would it "
            "do no harm?",
            replace={"images.clone()": "images"},
        ),
    ),
)


# 2.2 gini ----------------------------------------------------------------------------------------


def _gini_cases() -> list[Case]:
    case = case_of(values=torch.as_tensor)
    cases = [
        case("all the same", [2.0, 2.0, 2.0, 2.0]),
        case("one has everything", [0.0, 0.0, 0.0, 4.0]),
        case("one has everything, another order", [0.0, 4.0, 0.0, 0.0]),
        case("two share", [1.0, 3.0]),
        case("two share, the larger first", [3.0, 1.0]),
        case("one value", [5.0]),
        case("1 to 5", [1.0, 2.0, 3.0, 4.0, 5.0]),
        case("1 to 5, falling", [5.0, 4.0, 3.0, 2.0, 1.0]),
        case("another unit", [100.0, 400.0, 200.0]),
        case("64 bits", torch.tensor([0.1, 0.7, 0.2], dtype=torch.float64)),
    ]
    draw = torch.Generator().manual_seed(SEED)
    for n in (6, 17, 100):
        cases.append(case(f"{n} values at random", torch.rand(n, generator=draw)))
        skewed = torch.rand(n, generator=draw, dtype=torch.float64) ** 8
        cases.append(case(f"{n} values, mostly small", skewed))
    return cases


GINI = Exercise(
    number="2.2",
    package=memorization.gini,
    cases=_gini_cases,
    judge=number,
    hints=(
        "Four people own 0, 0, 0 and 4. What should come out? And when all own 1? "
        "Does the order in which you list them matter?",
        "G = 2 Σᵢ i·xᵢ / (n Σᵢ xᵢ) - (n + 1) / n, with x₁ ≤ x₂ ≤ ... ≤ xₙ and i from 1 to n.",
        "rising = ...   # the values, smallest first\n"
        "ranks = ...   # 1, 2, ..., n: then put both into the formula",
    ),
    misconceptions=(
        Misconception(
            "does not sort the values",
            "Try (1, 3) and (3, 1): should the answers differ?",
            returns=(
                "2 * ((torch.arange(1, n + 1, dtype=torch.float64) * values.double()).sum() "
                "/ (n * values.double().sum())) - (n + 1) / n"
            ),
        ),
        Misconception(
            "sorts the largest value to the front",
            "An inequality below 0? Who gets rank 1, the poorest or the richest?",
            replace={"values.sort()": "values.sort(descending=True)"},
        ),
        Misconception(
            "counts the ranks from 0",
            "With equal values 0 should come out. From which number does the formula count?",
            returns=(
                "2 * ((torch.arange(0, len(rising) + 0, dtype=torch.float64) * "
                "rising.double()).sum() / (len(rising) * rising.double().sum())) - (n + 1) "
                "/ n"
            ),
        ),
        Misconception(
            "forgets to subtract (n + 1) / n",
            "With equal values 0 should come out. Which part of the formula takes care of that?",
            returns=(
                "2 * ((torch.arange(1, len(rising) + 1, dtype=torch.float64) * "
                "rising.double()).sum() / (len(rising) * rising.double().sum()))"
            ),
        ),
        Misconception(
            "forgets the factor 2",
            "The ranks add up to n (n + 1) / 2: what has to make up for the half?",
            returns=(
                "(torch.arange(1, len(rising) + 1, dtype=torch.float64) * "
                "rising.double()).sum() / (len(rising) * rising.double().sum()) - (n + 1) / "
                "n"
            ),
        ),
        Misconception(
            "returns the equality 1 - G",
            "0 should mean that all have the same. What does it mean in yours?",
            returns=(
                "1 - (values.double()[:, None] - values.double()[None, :]).abs().sum() / (2 "
                "* n * values.double().sum())"
            ),
        ),
        Misconception(
            "returns the relative mean difference, twice the coefficient",
            "The coefficient may not exceed 1. What comes out when one of four has everything?",
            returns=(
                "(values.double()[:, None] - values.double()[None, :]).abs().sum() / (n * "
                "values.double().sum())"
            ),
        ),
        Misconception(
            "leaves the pairs of a value with itself out of the mean",
            "That is the version for a sample from a population: where do you divide by n - 1?",
            returns=(
                "(values.double()[:, None] - values.double()[None, :]).abs().sum() / (2 * "
                "max(n - 1, 1) * values.double().sum())"
            ),
        ),
        Misconception(
            "returns the area under the Lorenz curve",
            "The coefficient is twice the area between that curve and the diagonal.",
            returns=(
                "((values.double().sort().values.cumsum(0) / values.double().sum()).sum() - "
                "0.5) / n"
            ),
        ),
        Misconception(
            "returns the relative standard deviation",
            "That measures unequal values too, but it has no upper end at 1.",
            returns="values.double().std(correction=0) / values.double().mean()",
        ),
    ),
)


# 2.3 lass_step -----------------------------------------------------------------------------------


def _step_cases() -> list[Case]:
    names = ("moved", "images", "gradient", "kick", "radius", "step")

    def case(name: str, *values: Any) -> Case:
        arguments = dict(zip(names, values, strict=True))
        for key in names[:4]:
            arguments[key] = torch.as_tensor(arguments[key]).view(-1, 1, 1, 2)
        return Case(name, arguments)

    draw = torch.Generator().manual_seed(SEED)

    def at_random(n: int, radius: float, noise: float, dtype=torch.float64) -> Case:
        images, gradient, kick, away = (
            torch.randn(n, 1, 3, 3, generator=draw, dtype=dtype) for _ in range(4)
        )
        moved = images + radius * away.clamp(-1, 1)
        values = (moved, images, gradient, noise * kick, radius, radius * 5 / 6)
        return Case(f"{n} images at random", dict(zip(names, values, strict=True)))

    still = [0.0, 0.0]
    return [
        case("from the centre", [3.0, 3.0], [3.0, 3.0], [2.0, -2.0], still, 1.0, 0.5),
        case("steep and flat", [3.0, 3.0], [3.0, 3.0], [9.0, -0.01], still, 1.0, 0.5),
        case("a flat pixel stays", [3.0, 3.0], [3.0, 3.0], [0.0, 1.0], still, 1.0, 0.5),
        case("with a kick", [3.0, 3.0], [3.0, 3.0], [2.0, -2.0], [0.2, 0.1], 1.0, 0.5),
        case("a second step", [3.25, 2.75], [3.0, 3.0], [2.0, -2.0], still, 1.0, 0.5),
        case("to the border of the box", [3.75, 2.5], [3.0, 3.0], [2.0, -2.0], still, 1.0, 0.5),
        case("a kick out of the box", [3.5, 3.0], [3.0, 3.0], [1.0, 1.0], [2.0, -4.0], 1.0, 0.5),
        case("the kick wins", [3.0, 3.0], [3.0, 3.0], [1.0, -1.0], [-0.75, 0.6], 1.0, 0.5),
        case("a box of size 0", [3.0, 3.0], [3.0, 3.0], [1.0, -1.0], [0.5, 0.5], 0.0, 0.5),
        case("no step, only a kick", [3.0, 3.0], [3.0, 3.0], [1.0, -1.0], [0.5, -0.5], 1.0, 0.0),
        at_random(2, 0.3, 0.2),
        at_random(5, 0.1, 0.05),
        at_random(9, 1.0, 2.0),
        at_random(4, 0.2, 0.1, torch.float32),
    ]


LASS_STEP = Exercise(
    number="2.3",
    package=memorization.lass_step,
    cases=_step_cases,
    judge=numbers,
    hints=(
        "Three things happen to each pixel: which one wants to raise the loss, which one is "
        "chance, and which one keeps the search near the image?",
        "x̃ ← clip(x̃ + α · sign(∇) + kick, from x - r to x + r), pixel by pixel.",
        "moved = moved + ...   # the step by sign, and the kick\n"
        "...   # torch.clamp takes tensors for the lower and the upper end",
    ),
    misconceptions=(
        Misconception(
            "walks downhill",
            "We look for a place where the network errs: should the loss of its answer fall?",
            replace={"moved + ": "moved - "},
        ),
        Misconception(
            "steps by the slope and not by its sign",
            "Compare a steep pixel with a flat one: how far may each of them go in one step?",
            replace={".sign()": ""},
        ),
        Misconception(
            "never comes back into the box",
            "How far from the image may the search end? Which line of yours sees to that?",
            replace={"images + radius": "moved"},
        ),
        Misconception(
            "draws the box around the place where it stands",
            "After ten steps the box would have moved along. What is its centre?",
            returns=(
                "torch.clamp(moved, moved - step * gradient.sign() - kick - radius, moved - "
                "step * gradient.sign() - kick + radius)"
            ),
        ),
        Misconception(
            "draws the box around zero",
            "From -r to r is a box around the number 0. Around what should it lie?",
            returns="torch.clamp(moved, -radius, radius)",
        ),
        Misconception(
            "forgets the kick",
            "What happens where all slopes are 0? The search must not get stuck.",
            replace={" + kick": ""},
        ),
        Misconception(
            "starts from the image again at every step",
            "A search goes on from where it stands: which of the two tensors is that?",
            replace={"moved + ": "images + "},
        ),
        Misconception(
            "kicks after coming back into the box",
            "Where may the kick lead? In which order should the three things happen?",
            replace={" + kick": "", "images + radius)": "images + radius) + kick"},
        ),
        Misconception(
            "takes the sign of slope and kick together",
            "The kick has a length of its own: what does a sign make of it?",
            replace={
                "moved + step * gradient.sign() + kick": "moved + step * (gradient + kick).sign()"
            },
        ),
    ),
)

EXERCISES = (LOSS_SENSITIVITY, GINI, LASS_STEP)
