"""Lesson 04: early learning in a linear model. Liu et al. 2020 (arXiv 2007.00151), Theorem 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.inputs import case_of, double
from ..checks.judges import no_tensor, number, numbers
from . import linear


def _random(*shape: int, generator: torch.Generator, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


# 4.1 gradient -----------------------------------------------------------------------------------


def _gradient_cases() -> list[Case]:
    case = case_of(theta=double, features=double, given_labels=torch.as_tensor)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, p: int) -> Case:
        theta = _random(2, p, generator=generator)
        features = _random(n, p, generator=generator)
        labels = torch.randint(2, (n,), generator=generator)
        return case(f"{n} examples with {p} features", theta, features, labels)

    none, some = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]]
    x, other = [1.0, 2.0, -4.0], [0.0, 3.0, 1.0]
    return [
        case("one example of class 0, weights zero", none, [x], [0]),
        case("the same example with label 1", none, [x], [1]),
        case("one example, some weights", some, [x], [0]),
        case("two examples, weights zero", none, [x, other], [0, 1]),
        case("one example twice, with both labels", some, [x, x], [0, 1]),
        case("two examples, some weights", some, [x, other], [1, 1]),
        case("three examples, one is zero", some, [x, other, [0.0] * 3], [1, 0, 1]),
        *(at_random(n, p) for n, p in [(3, 2), (5, 5), (2, 7), (20, 4), (120, 10)]),
    ]


def _gradient_of_theta(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge a tensor that the steps of the lesson can be taken with."""
    problem = no_tensor(got, "the step") or numbers(got, expected, arguments)
    if problem is None and got.dtype != expected.dtype:
        says = f"it is {got.dtype}, and theta is {expected.dtype}: half of the digits are lost"
        return Mismatch("dtype", says, evidence="")
    return problem


GRADIENT = Exercise(
    number="4.1",
    package=linear.gradient,
    cases=_gradient_cases,
    judge=_gradient_of_theta,
    hints=(
        "An example pulls along itself. How hard does it pull when the model already gives its "
        "label probability 1? And when it gives it 0?",
        "Row c is (1/n) · Σ_i x_i (p_ic - y_ic), with p_i = softmax(Θ x_i) and y_i the one-hot "
        "row of the given label.",
        "coefficients = ...   # (n, 2): probabilities minus one-hot rows\n"
        "...   # weigh the features by them: one matrix product gives (2, p); then the mean",
    ),
    misconceptions=(
        Misconception(
            "sums where the mean is asked for",
            "Should a step be twice as long because every example is there twice?",
            returns="linear.gradient(theta, features, given_labels) * len(features)",
        ),
        Misconception(
            "points downhill",
            "The gradient is the direction in which the loss grows; the minus comes with the step. "
            "Is it p - y or y - p?",
            returns="-linear.gradient(theta, features, given_labels)",
        ),
        Misconception(
            "leaves the labels out",
            "Would your result change if all labels were swapped? Which part of p - y is missing?",
            returns="probabilities.T @ features / len(features)",
        ),
        Misconception(
            "uses predictions where probabilities are needed",
            "Between 0.51 and 0.99 the gradient should change. Does an argmax?",
            returns=(
                "(torch.nn.functional.one_hot((features @ theta.T).argmax(dim=1), "
                "2).double() - one_hot.double()).T @ features / len(features)"
            ),
        ),
        Misconception(
            "takes the softmax over the examples",
            "What should sum to 1: the two classes of one example, or one class over all examples?",
            returns=(
                "((features @ theta.T).softmax(dim=0) - one_hot.double()).T @ features / "
                "len(features)"
            ),
        ),
        Misconception(
            "squashes each score alone",
            "Two sigmoids need not sum to 1. Which function looks at both scores of an example?",
            returns=(
                "((features @ theta.T).sigmoid() - one_hot.double()).T @ features / len(features)"
            ),
        ),
        Misconception(
            "compares scores with labels",
            "A score can be 7 or -3. What turns scores into probabilities?",
            returns="(features @ theta.T - one_hot.double()).T @ features / len(features)",
        ),
        Misconception(
            "is transposed",
            "Theta has one row a class. The gradient has to fit on top of it.",
            returns="linear.gradient(theta, features, given_labels).T",
        ),
        Misconception(
            "swaps the two classes",
            "Label 0 belongs to row 0. In which column of the one-hot row stands the 1?",
            returns="linear.gradient(theta, features, 1 - given_labels)",
        ),
        Misconception(
            "averages over the features too",
            "Each example has p features, and each keeps its own slope: what is n here?",
            returns="linear.gradient(theta, features, given_labels) / features.shape[1]",
        ),
    ),
)


# 4.2 alignment ----------------------------------------------------------------------------------


def _alignment_cases() -> list[Case]:
    def case(name: str, downhill: Any, separator: Any) -> Case:
        # The rows of a softmax gradient are opposite; the first one pulls class 0 away from v.
        first = -double(downhill)
        v = double(separator)
        return Case(name, {"gradient": torch.stack((first, -first)), "separator": v})

    generator = torch.Generator().manual_seed(SEED)

    def at_random(p: int, towards: float) -> Case:
        v = _random(p, generator=generator)
        downhill = towards * v + _random(p, generator=generator)
        return case(f"{p} features at random", downhill, v)

    return [
        case("minus the gradient points along v", [1.0, 0.0], [1.0, 0.0]),
        case("minus the gradient points against v", [-1.0, 0.0], [1.0, 0.0]),
        case("the gradient stands across v", [0.0, 1.0], [1.0, 0.0]),
        case("halfway between along and across", [1.0, 1.0], [0.0, 1.0]),
        case("a tiny gradient along v", [0.0, 1e-3], [0.0, 1.0]),
        case("a separator that is no unit vector", [3.0, 4.0], [0.0, 2.0]),
        case("a long gradient against a short v", [-30.0, 40.0], [0.3, 0.0]),
        *(at_random(p, towards) for p, towards in [(3, 1), (5, -0.5), (10, 2), (100, 0.3)]),
    ]


ALIGNMENT = Exercise(
    number="4.2",
    package=linear.alignment,
    cases=_alignment_cases,
    judge=number,
    hints=(
        "A step moves against the gradient. Which row of the weights should grow along v: "
        "that of class 0, which lies around +v, or that of class 1?",
        "cos = ⟨d, v⟩ / (‖d‖ ‖v‖) with d = -(G_0 - G_1); the two rows are opposite to each other.",
        "direction = ...   # (p,), where the step takes Theta_0 - Theta_1\n"
        "...   # its product with the separator, over the product of both lengths",
    ),
    misconceptions=(
        Misconception(
            "points the other way",
            "Class 0 lies around +v. Is it the gradient or minus the gradient that a step follows, "
            "and which row is that of class 0?",
            returns="-linear.alignment(gradient, separator)",
        ),
        Misconception(
            "does not divide by the gradient's length",
            "A gradient that is half as long points the same way. What happens to your number?",
            returns="linear.alignment(gradient, separator) * direction.norm()",
        ),
        Misconception(
            "takes the separator for a unit vector",
            "Try a separator that is twice as long: the angle should stay the same.",
            returns="linear.alignment(gradient, separator) * separator.norm()",
        ),
        Misconception(
            "drops the sign",
            "A gradient that leads away from v is bad news. Can one see that in your number?",
            returns="abs(linear.alignment(gradient, separator))",
        ),
        Misconception(
            "returns the angle",
            "The cosine itself is asked for: 1 along v, 0 across it.",
            returns="torch.tensor(linear.alignment(gradient, separator)).acos()",
        ),
        Misconception(
            "divides by the length of the whole matrix",
            "Both rows tell the same story twice: is the norm of (2, p) that of one direction?",
            returns="linear.alignment(gradient, separator) / 2**0.5",
        ),
        Misconception(
            "divides by squared lengths",
            "A cosine has no unit: lengths stand above and below the line equally often.",
            returns="linear.alignment(gradient, separator) / (direction.norm() * separator.norm())",
        ),
        Misconception(
            "squares the cosine",
            "At 45 degrees the cosine is 0.71. What is yours?",
            returns="linear.alignment(gradient, separator) ** 2",
        ),
    ),
)


# 4.3 accuracy_on_wrong --------------------------------------------------------------------------


def _accuracy_cases() -> list[Case]:
    def case(name: str, features: Any, given: Any, true: Any, theta: Any = None) -> Case:
        theta = [[1.0, 0.0], [-1.0, 0.0]] if theta is None else theta
        return Case(
            name,
            {
                "theta": double(theta),
                "features": double(features),
                "given_labels": torch.as_tensor(given),
                "true_labels": torch.as_tensor(true),
            },
        )

    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, p: int, sigma: float) -> Case:
        data = linear.sample(n, p, sigma, 0.4, generator)
        theta = torch.stack((data.separator, -data.separator))
        theta += _random(2, p, generator=generator, scale=0.2)
        return case(
            f"{n} examples with {p} features",
            data.features,
            data.given_labels,
            data.true_labels,
            theta,
        )

    right, left = [2.0, 1.0], [-3.0, 1.0]
    five = [right, right, left, left, left]
    both = [right, left, right, left]
    return [
        case("a wrong label that is seen through", [right], [1], [0]),
        case("a wrong label that is memorized", [right], [0], [1]),
        case("one of each", [right, right], [1, 0], [0, 1]),
        case("two wrong, two right labels", both, [1, 0, 0, 1], [0, 1, 0, 1]),
        case("rightly labelled, wrongly predicted", [right, left, left], [1, 1, 0], [1, 0, 1]),
        case("one wrong label of five", five, [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]),
        case("three wrong of four", [right, right, left, left], [1, 0, 0, 1], [0, 1, 1, 1]),
        *(at_random(n, p, s) for n, p, s in [(20, 4, 0.5), (50, 5, 1.0), (120, 100, 0.1)]),
        *(at_random(n, p, s) for n, p, s in [(150, 10, 0.7), (300, 3, 2.0)]),
    ]


ACCURACY_ON_WRONG = Exercise(
    number="4.3",
    package=linear.accuracy_on_wrong,
    cases=_accuracy_cases,
    judge=number,
    hints=(
        "Whom do you ask: all examples, or only some? And with which of their two labels do you "
        "compare the prediction?",
        "acc = Σ [prediction_i = true_i and given_i ≠ true_i] / Σ [given_i ≠ true_i].",
        "predicted = ...   # (n,), the class with the larger of the two scores\n"
        "...   # compare with the true labels, but only where the given label is another",
    ),
    misconceptions=(
        Misconception(
            "gives the memorized share",
            "Predicting the given label of such an example is the bad outcome. "
            "Which label is the good one, and which row of theta belongs to class 0?",
            returns="1 - linear.accuracy_on_wrong(theta, features, given_labels, true_labels)",
        ),
        Misconception(
            "divides by all examples",
            "If every wrong label were seen through, which number should come out?",
            returns="((predicted == true_labels) & is_wrong).double().mean().item()",
        ),
        Misconception(
            "asks all examples",
            "The rightly labelled ones are easy. What part of the data does the theorem speak of?",
            returns="((predicted == true_labels).double(), is_wrong)[0].mean()",
        ),
        Misconception(
            "asks the rightly labelled examples",
            "Check your mask: is it True where the two labels differ, or where they agree?",
            replace={"[is_wrong]": "[~is_wrong]"},
        ),
        Misconception(
            "gives the share of given labels that are fitted",
            "That tells how far memorization is, over all examples. Here two things differ: "
            "the group, and the label to compare with.",
            returns="(predicted == given_labels).double().mean()",
        ),
        Misconception(
            "counts the examples",
            "An accuracy lies between 0 and 1: by how many has the count to be divided?",
            replace={".mean()": ".sum()"},
        ),
        Misconception(
            "averages the probability of the true class",
            "0.51 is a right prediction as much as 0.99. Where in your code is a decision made?",
            returns=(
                "(features @ theta.T).softmax(dim=1).gather(1, true_labels[:, "
                "None])[is_wrong].mean().item()"
            ),
        ),
        Misconception(
            "divides by the right predictions",
            "Among the wrongly labelled, how many are predicted truly? You turned that round.",
            returns="is_wrong[predicted == true_labels].double().mean().item()",
        ),
        Misconception(
            "gives a percentage",
            "Throughout the course 1 means all of them, not 100.",
            returns="100 * linear.accuracy_on_wrong(theta, features, given_labels, true_labels)",
        ),
    ),
)

EXERCISES = (GRADIENT, ALIGNMENT, ACCURACY_ON_WRONG)
