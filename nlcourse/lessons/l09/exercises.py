"""Lesson 09: joint optimization. Tanaka et al. 2018 (arXiv 1803.11364)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...methods import joint
from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.gradients import NO_GRADIENT, no_gradient
from ..checks.inputs import case_of
from ..checks.judges import as_tensor, number, numbers
from ..sources import solution

# What several exercises share ---------------------------------------------------------------------


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return (2 * torch.randn(*shape, generator=generator)).softmax(dim=-1)


def _gradient(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the gradient of a loss with respect to the scores behind the probabilities."""
    scores, *others = arguments.values()
    scores = scores.requires_grad_()
    loss = function(scores.softmax(dim=1), *others)
    if not (isinstance(loss, Tensor) and loss.requires_grad and loss.dim() == 0):
        return NO_GRADIENT
    return torch.autograd.grad(loss, scores)[0]


def _same_gradient(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    if isinstance(got, str):
        return no_gradient("the network")
    if not got.isfinite().all():
        says = "the gradient is no finite number: one step with it and the weights are lost"
        return Mismatch("gradient nan", says, evidence="")
    if torch.allclose(got, expected, rtol=1e-4, atol=1e-6):
        return None
    return Mismatch("gradient", "the value may look right, but the gradient differs")


# 9.1 hard_labels ----------------------------------------------------------------------------------

hard_labels = solution("9.1")


def _label_cases() -> list[Case]:
    case = case_of(probabilities=torch.as_tensor)
    generator = torch.Generator().manual_seed(SEED)
    return [
        case("one example", [[0.1, 0.7, 0.2]]),
        case("two examples", [[0.8, 0.2], [0.3, 0.7]]),
        case("no class above one half", [[0.3, 0.3, 0.4], [0.45, 0.35, 0.2]]),
        case("all of one class", [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]]),
        case("as many examples as classes", [[0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]]),
        *(
            case(f"{n} examples, {c} classes", _draw(generator, n, c))
            for n, c in [(5, 3), (3, 6), (8, 10), (20, 10), (64, 10), (10, 100)]
        ),
        case("64 bits", _draw(generator, 4, 3).double()),
        case("two classes tie: either may win", [[0.4, 0.4, 0.2], [0.1, 0.45, 0.45]]),
        case("an empty set", torch.empty(0, 4)),
    ]


def _one_hot_at_the_top(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge one-hot rows; between equal probabilities the choice is free."""
    rows = as_tensor(got, expected.shape)
    if isinstance(rows, Mismatch):
        return rows
    rows = rows.double()
    if not bool(((rows == 0) | (rows == 1)).all()):
        return Mismatch("values", "it holds other numbers than 0 and 1")
    if not bool((rows.sum(dim=1) == 1).all()):
        return Mismatch("ones", "a row has none, or more than one, 1: one class an example")
    probabilities = arguments["probabilities"].double()
    if torch.equal((rows * probabilities).sum(dim=1), probabilities.amax(dim=1)):
        return None
    return Mismatch("place", "a 1 stands at a class that is not the likeliest")


HARD_LABELS = Exercise(
    number="9.1",
    package=joint.hard_labels,
    cases=_label_cases,
    judge=_one_hot_at_the_top,
    hints=(
        "Which class would you call the example if you had to be sure? "
        "And how does a row say 'this class and no other'?",
        "y_ij = 1 for the j with the largest s_ij in its row, 0 for all other j.",
        "likeliest = ...   # the class with the largest probability of each row\n"
        "...   # torch.nn.functional.one_hot turns class numbers into rows",
    ),
    misconceptions=(
        Misconception(
            "returns class numbers",
            "A label is a row here, since soft labels are rows too: what turns 2 into 0, 0, 1?",
            returns="likeliest",
        ),
        Misconception(
            "rounds the probabilities",
            "Of three classes the likeliest may have 0.4: what becomes of that row?",
            returns="(probabilities > 0.5).to(probabilities.dtype)",
        ),
        Misconception(
            "compares the examples and not the classes",
            "Along which dimension do the classes of one example stand?",
            returns=(
                "F.one_hot(probabilities.argmax(dim=0), "
                "probabilities.shape[0]).T.to(probabilities.dtype).contiguous() if "
                "len(probabilities) else probabilities.clone()"
            ),
        ),
        Misconception(
            "marks the least likely class",
            "Should the new label be what the network believes, or what it believes least?",
            returns="F.one_hot(probabilities.argmin(dim=1), probabilities.shape[1]).float()",
        ),
        Misconception(
            "keeps the probability of the likeliest class",
            "A hard label is sure: which number says 'surely this class'?",
            returns="probabilities * F.one_hot(likeliest, probabilities.shape[1]).float()",
        ),
        Misconception(
            "returns the soft labels",
            "That is the other update, equation 9. How sure is a *hard* label of its class?",
            returns="probabilities.clone()",
        ),
        Misconception(
            "marks every class that ties",
            "Two equal probabilities, and a label with two classes: what does its row sum to?",
            returns="(probabilities == probabilities.amax(dim=1, keepdim=True)).float()",
        ),
    ),
)


# 9.2 prior_loss -----------------------------------------------------------------------------------


def _prior_cases() -> list[Case]:
    case = case_of(probabilities=torch.as_tensor, prior=torch.as_tensor)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, classes: int, name: str = "", **more: Any) -> Case:
        name = name or f"{n} examples, {classes} classes"
        rows, prior = _draw(generator, n, classes), _draw(generator, 1, classes)[0]
        return case(name, rows, prior, **more)

    def graded(name: str, n: int, classes: int) -> Case:
        scores = torch.randn(n, classes, generator=generator)
        prior = _draw(generator, 1, classes)[0]
        return case(name, scores, prior, ask=_gradient, judge=_same_gradient)

    return [
        case("both classes alike", [[0.5, 0.5]], [0.5, 0.5]),
        case("one class too often", [[0.75, 0.25]], [0.5, 0.5]),
        case("two sure examples that balance", [[0.9, 0.1], [0.1, 0.9]], [0.5, 0.5]),
        case("an uneven prior", [[0.5, 0.5]], [0.8, 0.2]),
        case("an uneven prior, met", [[0.9, 0.1], [0.7, 0.3]], [0.8, 0.2]),
        case("three classes", [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], [0.2, 0.3, 0.5]),
        *(at_random(n, c) for n, c in [(4, 3), (5, 3), (8, 4), (16, 10), (64, 10)]),
        case("64 bits", _draw(generator, 6, 3).double(), _draw(generator, 1, 3)[0].double()),
        graded("the gradient, 2 examples", 2, 3),
        graded("the gradient, 20 examples", 20, 10),
        at_random(1, 5, "a batch of one"),
    ]


def _predicted_prior(probabilities, prior):
    classes = probabilities.shape[1]
    counts = probabilities.argmax(dim=1).bincount(minlength=classes)
    shares = counts.to(probabilities.dtype) / len(probabilities)
    mean = probabilities.mean(dim=0)
    return (torch.xlogy(shares, shares) - shares * mean.log()).sum()


PRIOR_LOSS = Exercise(
    number="9.2",
    package=joint.prior_loss,
    cases=_prior_cases,
    judge=number,
    hints=(
        "One example may be sure of one class. What may not happen to *all* of them together? "
        "Which single row describes them all together?",
        "L_p = Σ_j p_j log(p_j / s̄_j), with s̄ the mean prediction of the batch.",
        "mean = ...   # one number a class: the mean over the examples\n"
        "...   # prior times log(prior / mean), summed over the classes",
    ),
    misconceptions=(
        Misconception(
            "takes the divergence the wrong way round",
            "KL(p || s̄) weighs the logarithm with the first of the two. Which one is that here?",
            replace={"prior * (prior / mean)": "mean * (mean / prior)"},
        ),
        Misconception(
            "takes the prior from the batch's own classes",
            "A network that says 'class 0' to everything would agree with itself. "
            "Who brings the shares that it is held to?",
            _predicted_prior,
        ),
        Misconception(
            "takes a uniform prior whatever it is given",
            "On these data all classes are about equally frequent. What if they were not?",
            returns=(
                "(torch.full_like(prior, 1 / len(prior)) * (torch.full_like(prior, 1 / "
                "len(prior)) / mean).log()).sum()"
            ),
        ),
        Misconception(
            "compares each example with the prior",
            "Should a single picture be one tenth of every digit? What is averaged first?",
            returns="(prior * (prior / probabilities).log()).sum(dim=1).mean()",
        ),
        Misconception(
            "drops the constant, like the published code",
            "The gradient is the same, the value is not: at its best this should be 0. "
            "What is log(p / s̄) as a difference?",
            returns="-(prior * mean.log()).sum()",
        ),
        Misconception(
            "has the sign turned round",
            "Try a mean that equals the prior, then another one: is the second larger?",
            returns="-(prior * (prior / mean).log()).sum()",
        ),
        Misconception(
            "sums the predictions where the mean is asked for",
            "The mean prediction is a distribution: what should its entries sum to?",
            returns="(prior * (prior / probabilities.sum(dim=0)).log()).sum()",
        ),
        Misconception(
            "takes the mean over the classes",
            "Σ_j is a sum: a divergence does not get smaller because there are more classes.",
            returns="(prior * (prior / mean).log()).mean()",
        ),
        Misconception(
            "takes the mean over the wrong dimension",
            "A mean for each class, over the examples: which dimension vanishes?",
            returns="(prior * (prior / probabilities.mean(dim=1)).log()).sum()",
        ),
        Misconception(
            "cuts the gradient",
            "What do `.item()`, `.detach()` and `torch.tensor(...)` do to a value's history?",
            replace={"mean(dim=0)": "mean(dim=0).detach()"},
        ),
    ),
)


# 9.3 entropy_loss ---------------------------------------------------------------------------------


def _entropy_cases() -> list[Case]:
    case = case_of(probabilities=torch.as_tensor)
    generator = torch.Generator().manual_seed(SEED)
    graded = {"ask": _gradient, "judge": _same_gradient}
    return [
        case("a coin toss", [[0.5, 0.5]]),
        case("fairly sure", [[0.9, 0.1]]),
        case("four classes alike", [[0.25, 0.25, 0.25, 0.25]]),
        case("one fairly sure, one in doubt", [[0.9, 0.1], [0.5, 0.5]]),
        case("sure of different classes", [[0.9, 0.1], [0.1, 0.9]]),
        *(
            case(f"{n} examples, {c} classes", _draw(generator, n, c))
            for n, c in [(1, 3), (4, 3), (5, 2), (16, 10), (64, 10)]
        ),
        case("64 bits", _draw(generator, 6, 3).double()),
        case("the gradient, 2 examples", torch.randn(2, 3, generator=generator), **graded),
        case("the gradient, 20 examples", torch.randn(20, 10, generator=generator), **graded),
        case("entirely sure: one probability is 0", [[1.0, 0.0], [0.5, 0.5]]),
        case("the gradient where a probability is 0", torch.tensor([[300.0, 0.0]]), **graded),
    ]


ENTROPY_LOSS = Exercise(
    number="9.3",
    package=joint.entropy_loss,
    cases=_entropy_cases,
    judge=number,
    hints=(
        "What is the value for a network that is sure, and for one that has no idea? "
        "Which of the two should a *loss* prefer?",
        "L_e = -1/n Σ_i Σ_j s_ij log s_ij. And 0 log 0 counts as 0.",
        "logs = probabilities.clamp(min=1e-30).log()   # the clamp saves us from log 0\n"
        "...   # minus the sum over the classes, the mean over the examples",
    ),
    misconceptions=(
        Misconception(
            "rewards doubt: the sign is turned round",
            "This value falls when the network is less sure. Minimising it would maximise the "
            "entropy. Where is the minus?",
            replace={"-(": "("},
        ),
        Misconception(
            "sums over the examples where the mean is asked for",
            "Should a larger batch weigh more?",
            replace={".mean()": ".sum()"},
        ),
        Misconception(
            "takes the mean over the classes, too",
            "Sum over the classes, mean over the examples: `.mean()` alone does both.",
            replace={".sum(dim=1)": ""},
        ),
        Misconception(
            "takes the entropy of the mean prediction",
            "Two examples sure of different classes: is anybody in doubt? What comes first, the "
            "entropy or the mean?",
            returns=(
                "-(probabilities.mean(dim=0) * "
                "probabilities.mean(dim=0).clamp(min=1e-30).log()).sum()"
            ),
        ),
        Misconception(
            "looks at the likeliest class alone",
            "The sum goes over all classes, not only over the one on top.",
            returns="-probabilities.amax(dim=1).log().mean()",
        ),
        Misconception(
            "measures in bits",
            "The paper's log is the natural one: what is the entropy of a coin toss then?",
            replace={".log()": ".log2()"},
        ),
        Misconception(
            "forgets the weights s_ij",
            "Each logarithm is weighted with its own probability: which factor is missing?",
            replace={"probabilities * ": ""},
        ),
        Misconception(
            "stumbles over 0 log 0",
            "A sure network has probabilities that are exactly 0. What is log 0, and 0 times that? "
            "A `clamp` before the logarithm helps.",
            returns="-(probabilities * probabilities.log()).sum(dim=1).mean()",
        ),
        Misconception(
            "cuts the gradient",
            "What do `.item()`, `.detach()` and `torch.tensor(...)` do to a value's history?",
            returns="-(probabilities * logs).sum(dim=1).mean().detach()",
        ),
    ),
)


# 9.4 next_labels ----------------------------------------------------------------------------------


def _average_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(SEED)

    def case(
        name: str, finished: int, begin: int, average: int, kept: int = 0, n: int = 4, c: int = 3
    ) -> Case:
        labels = F.one_hot(torch.randint(c, (n,), generator=generator), c).float()
        predictions = _draw(generator, kept or finished, n, c)
        values = (labels, predictions, finished, begin, average)
        names = ("labels", "predictions", "finished", "begin", "average")
        return Case(name, dict(zip(names, values, strict=True)))

    return [
        case("after the first epoch", 1, 4, 2, n=2),
        case("after the first epoch, ten to wait", 1, 10, 5),
        case("one epoch too early", 3, 4, 2),
        case("the first change", 4, 4, 2),
        case("one epoch later", 5, 4, 2),
        case("much later", 12, 4, 2),
        case("begin as soon as possible", 3, 3, 3),
        case("a mean over three of six", 6, 4, 3),
        case("a mean over one", 6, 4, 1),
        case("more is kept than needed", 9, 5, 3, kept=7),
        case("only the last ones are kept, and it is time", 8, 6, 2, kept=2),
        case("only the last ones are kept, and it is too early", 5, 6, 2, kept=2),
        case("only the last ones are kept, after long training", 60, 10, 5, kept=5),
        case("ten classes", 20, 10, 5, kept=5, n=16, c=10),
        case("ten classes, too early", 9, 10, 5, kept=5, n=16, c=10),
    ]


def _in_time(rule: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """Return a wrong version that waits rightly, from (labels, predictions, average)."""

    def wrong(labels, predictions, finished, begin, average):
        return labels if finished < begin else rule(labels, predictions, average)

    return wrong


NEXT_LABELS = Exercise(
    number="9.4",
    package=joint.next_labels,
    cases=_average_cases,
    judge=numbers,
    hints=(
        "What does a network know after its first epoch, and should a label be replaced by that? "
        "And why not believe a single epoch later on?",
        "The labels stay while finished < begin. From then on: y = the mean of the last `average` "
        "predictions.",
        "if ...: return labels   # too early\n"
        "return ...   # newest last: which part of `predictions`? then the mean over the epochs",
    ),
    misconceptions=(
        Misconception(
            "updates labels in the first epochs",
            "After one epoch the network knows little, and the given labels would be lost: what is "
            "`begin` for?",
            replace={"finished < begin": "False"},
        ),
        Misconception(
            "starts as soon as there is enough to average",
            "`average` epochs may be there long before the network has learned: wait for `begin`.",
            replace={"finished < begin": "finished < average"},
        ),
        Misconception(
            "starts one epoch late",
            "Labels change for the first time when `begin` epochs are finished: < or <=?",
            replace={"finished < begin": "finished <= begin"},
        ),
        Misconception(
            "counts the predictions it is handed instead of the finished epochs",
            "The method hands over the latest ones only, to save memory. Who knows the epoch?",
            replace={"finished < begin": "len(predictions) < begin"},
        ),
        Misconception(
            "averages all epochs",
            "The first epochs knew least. Which part of `predictions` should count?",
            replace={"[-average:]": ""},
        ),
        Misconception(
            "believes the newest epoch alone",
            "One epoch's prediction jumps about. What is `average` for?",
            returns="predictions[-1]",
        ),
        Misconception(
            "averages the oldest epochs",
            "Newest last, says the docstring: at which end do you cut?",
            replace={"[-average:]": "[:average]"},
        ),
        Misconception(
            "mixes the old labels in",
            "Then a wrong given label never quite goes away. The new label is the prediction "
            "alone.",
            returns=(
                "(labels + predictions[-average:].sum(dim=0)) / (1 + len(predictions[-average:]))"
            ),
        ),
        Misconception(
            "sums where the mean is asked for",
            "What should a row of a label sum to?",
            replace={"mean": "sum"},
        ),
        Misconception(
            "returns hard labels",
            "The update that comes next may do that. Here the doubt of the network is kept.",
            _in_time(
                lambda labels, predictions, average: hard_labels(predictions[-average:].mean(dim=0))
            ),
        ),
    ),
)

EXERCISES = (HARD_LABELS, PRIOR_LOSS, ENTROPY_LOSS, NEXT_LABELS)
