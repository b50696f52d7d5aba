"""Lesson 10: ELR and ELR+. Liu et al. 2020 (arXiv 2007.00151), equations 6 to 9."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ...methods import elr, ema
from ...methods.mixup import label_rows
from ..checks.engine import SEED
from ..checks.exercise import Case, Exercise, Misconception
from ..checks.gradients import cut_off, loss_and_slope, value_and_slope, with_gradient
from ..checks.inputs import case_of, double, random_rows
from ..checks.judges import finite_numbers

# 10.1 update_targets ----------------------------------------------------------------------------


def _target_cases() -> list[Case]:
    case = case_of(targets=double, index=torch.tensor, probabilities=double, beta=None)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(size: int, n: int, classes: int, beta: float, **more) -> Case:
        targets = 0.8 * random_rows(size, classes, generator)
        index = torch.randperm(size, generator=generator)[:n].tolist()
        p = random_rows(n, classes, generator)
        name = more.pop("name", f"{n} of {size} examples with {classes} classes")
        return case(name, targets, index, p, beta, **more)

    grown = {"ask": with_gradient, "judge": cut_off, "name": "predictions with a gradient"}
    old = [[0.4, 0.2], [0.1, 0.7]]
    return [
        case("the first visit to the only example", [[0.0, 0.0]], [0], [[0.2, 0.8]], 0.7),
        case("a second visit", [[0.06, 0.24]], [0], [[0.6, 0.4]], 0.7),
        case("beta 0 keeps nothing of the old", old, [0], [[0.3, 0.7]], 0.0),
        case("only the second of two examples", old, [1], [[0.9, 0.1]], 0.9),
        case("both examples, in another order", old, [1, 0], [[0.9, 0.1], [0.3, 0.7]], 0.9),
        *(at_random(*sizes) for sizes in [(6, 3, 3, 0.7), (10, 4, 5, 0.9), (50, 16, 10, 0.5)]),
        at_random(8, 3, 4, 0.7, **grown),
        at_random(20, 5, 3, 0.9, **grown),
    ]


TARGETS = Exercise(
    number="10.1",
    package=elr.update_targets,
    cases=_target_cases,
    judge=finite_numbers,
    hints=(
        "Which rows of the table belong to this batch, and what should happen to the others? "
        "And should training be able to change the memory through p?",
        "t_i ← β t_i + (1 - β) p_i for every i in the batch; p counts as a plain number here.",
        "new = ...   # a copy of the table: the old one stays\n"
        "...   # write the mix of old rows and detached probabilities at these rows of the copy",
    ),
    misconceptions=(
        Misconception(
            "swaps beta and 1 - beta",
            "With beta 0.9 a memory is slow. How much of a single new prediction does it take in?",
            replace={"beta * targets[index] + (1 - beta)": "(1 - beta) * targets[index] + beta"},
        ),
        Misconception(
            "lets the gradient through into the memory",
            "Tomorrow's step would then go back through all earlier steps. Which method of a "
            "tensor keeps its numbers and forgets where they came from?",
            replace={".detach()": ""},
        ),
        Misconception(
            "overwrites the old table",
            "The caller still holds the old targets. What do you write into before returning it?",
            replace={".clone()": ""},
        ),
        Misconception(
            "updates the first rows instead of those of the batch",
            "Batches are shuffled: which example stands in row 0 of the probabilities?",
            replace={"[index]": "[: len(index)]"},
        ),
        Misconception(
            "forgets the old target",
            "A mean over time needs the past: where does the old row enter?",
            replace={"targets[index]": "1 - beta"},
        ),
        Misconception(
            "adds the whole prediction",
            "Visit an example a hundred times with the same p: the target must not grow beyond p.",
            replace={" - beta": ""},
        ),
        Misconception(
            "lets the others fade, too",
            "An example that is not in the batch was not visited. What happens to its row?",
            replace={"targets.clone()": "beta * targets"},
        ),
        Misconception(
            "remembers decisions instead of probabilities",
            "0.51 and 0.99 should leave different traces. Where does an argmax come in?",
            replace={
                "probabilities.detach()": (
                    "(probabilities == probabilities.amax(dim=1, keepdim=True))"
                )
            },
        ),
        Misconception(
            "makes the target sum to 1",
            "The formula starts from 0 and has no correction: a young memory is meant to be weak.",
            replace={
                "return new": "new[index] /= new[index].sum(dim=1, keepdim=True)\n    return new"
            },
        ),
        Misconception(
            "returns only the rows of the batch",
            "The next batch needs the whole table. What shape has the result to have?",
            replace={"new[index]": "new"},
        ),
    ),
)


# 10.2 elr_loss ----------------------------------------------------------------------------------


def _loss_cases() -> list[Case]:
    case = partial(
        case_of(logits=double, labels=torch.as_tensor, targets=double, lambda_=None),
        ask=value_and_slope,
    )
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, classes: int, lambda_: float, *, blended: bool = False) -> Case:
        logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
        labels = torch.randint(classes, (n,), generator=generator).tolist()
        targets = 0.9 * random_rows(n, classes, generator)
        if blended:
            rows = random_rows(n, classes, generator)
            return case("labels are rows, blended by mixup", logits, rows, targets, lambda_)
        name = f"{n} examples with {classes} classes, lambda {lambda_:g}"
        return case(name, logits, labels, targets, lambda_)

    sure, memory = [[40.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]
    return [
        case("no memory yet: cross entropy is left", [[0.0, 1.0]], [1], [[0.0, 0.0]], 3.0),
        case("memory and label agree", [[0.0, 2.0]], [1], [[0.1, 0.8]], 3.0),
        case("memory and label disagree", [[0.0, 2.0]], [0], [[0.1, 0.8]], 3.0),
        case("lambda 0", [[0.5, 2.0]], [0], [[0.1, 0.8]], 0.0),
        case("two examples", [[0.0, 2.0], [1.0, 0.0]], [1, 1], [[0.1, 0.8], [0.6, 0.2]], 1.0),
        *(at_random(n, c, w) for n, c, w in [(4, 3, 1.0), (8, 5, 3.0), (32, 10, 7.0)]),
        case("a sure network that agrees with its memory", sure, [0], memory, 1.0),
        case("sure, and the label says something else", [[0.0, 40.0, 0.0]], [0], memory, 1.0),
        case("sure of all three", 40 * torch.eye(3), [0, 1, 2], torch.eye(3), 3.0),
        at_random(4, 3, 1.0, blended=True),
    ]


def _clamped(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1).clamp(elr.CLAMP, 1 - elr.CLAMP)


def _inner(logits: Tensor, targets: Tensor) -> Tensor:
    return (_clamped(logits) * targets).sum(dim=1)


def _mean_log(values: Tensor) -> Tensor:
    return values.log().mean()


def _clamps_everything(logits, labels, targets, lambda_):
    own = (_clamped(logits).log() * _rows(logits, labels)).sum(dim=1)
    return lambda_ * _mean_log(1 - _inner(logits, targets)) - own.mean()


def _rows(logits: Tensor, labels: Tensor) -> Tensor:
    return label_rows(labels, logits.shape[1]).to(logits)


def _numbers_alone(logits, labels, targets, lambda_):
    term = _mean_log(1 - _inner(logits, targets))
    return F.nll_loss(logits.log_softmax(dim=1), labels) + lambda_ * term


def _labels_as_places(logits, labels, targets, lambda_):
    own = logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]
    return lambda_ * _mean_log(1 - _inner(logits, targets)) - own.mean()


LOSS = Exercise(
    number="10.2",
    package=elr.elr_loss,
    cases=_loss_cases,
    judge=loss_and_slope,
    hints=(
        "The loss has to fall when prediction and memory agree more. Does log(1 - x) rise or fall "
        "with x? And how large is it when a network is completely sure? (`F.cross_entropy` takes "
        "class numbers and rows.)",
        "mean cross entropy + λ · mean_i log(1 - Σ_c p_ic t_ic), with p kept in [1e-4, 1 - 1e-4] "
        "in the second part alone.",
        "p = ...   # softmax of the logits, clamped\n"
        "...   # cross entropy of the logits, plus lambda_ times the mean log of what is left",
    ),
    misconceptions=(
        Misconception(
            "has the sign of the term turned round",
            "Minimizing has to raise <p, t>. With your sign, does it?",
            replace={"+ lambda_": "- lambda_"},
        ),
        Misconception(
            "puts the label where the target belongs",
            "The term is there to resist wrong labels. Which of your arguments does not know them?",
            replace={
                "p * targets": (
                    "p * (torch.nn.functional.one_hot(labels, p.shape[1]) if labels.dim() == "
                    "1 else labels)"
                )
            },
        ),
        Misconception(
            "has no clamp",
            "What is log(1 - <p, t>) when p and t are both sure of one class?",
            replace={".clamp(1e-4, 1 - 1e-4)": ""},
        ),
        Misconception(
            "clamps the cross entropy as well",
            "A sure and wrong network should still be pulled back by its label. How, if its "
            "probability has been lifted?",
            _clamps_everything,
        ),
        Misconception(
            "hands probabilities to `cross_entropy`",
            "That function takes its own softmax. What should it get?",
            returns=(
                "torch.nn.functional.cross_entropy(p, labels) + lambda_ * (1 - "
                "agreement).log().mean()"
            ),
        ),
        Misconception(
            "knows labels as class numbers alone",
            "ELR+ blends two labels into a row of shares. Which loss of PyTorch takes both?",
            _numbers_alone,
        ),
        Misconception(
            "takes the label for a position",
            "A blended label is a row of shares and no position. What is its cross entropy?",
            _labels_as_places,
        ),
        Misconception(
            "sums the term over the examples",
            "Both parts should weigh the same for batches of 32 and of 128.",
            replace={"log().mean()": "log().sum()"},
        ),
        Misconception(
            "takes minus the log of the agreement",
            "That is flat where p and t agree, so it stops pushing just when it is needed. "
            "The log is taken of what is missing to 1.",
            replace={"(1 - agreement).log()": "-agreement.log()"},
        ),
        Misconception(
            "is the cross entropy with the target",
            "Such a term pulls p back to t and then stops. What does the formula take the log of?",
            replace={"(1 - agreement).log()": "-(targets * p.log()).sum(dim=1)"},
        ),
        Misconception(
            "takes the log class by class",
            "First the inner product over the classes, one number an example; then the log.",
            replace={
                "(p * targets).sum(dim=1)": "(p * targets)",
                "log().mean()": "log().sum(dim=1).mean()",
            },
        ),
        Misconception(
            "cuts the gradient of the predictions",
            "Detach the memory, not p: the term is there to move p.",
            replace={"clamp(1e-4, 1 - 1e-4)": "clamp(1e-4, 1 - 1e-4).detach()"},
        ),
        Misconception(
            "forgets lambda",
            "Which argument have you not used?",
            replace={"lambda_ * ": ""},
        ),
        Misconception(
            "leaves the labels out",
            "Without the first part nothing would ever be learned from them.",
            returns="lambda_ * (1 - agreement).log().mean()",
        ),
    ),
)


# 10.3 regularizer_gradient ----------------------------------------------------------------------


def _lemma_cases() -> list[Case]:
    case = case_of(probabilities=double, targets=double)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, classes: int) -> Case:
        p, t = random_rows(n, classes, generator), 0.9 * random_rows(n, classes, generator)
        return case(f"{n} examples with {classes} classes", p, t)

    return [
        case("no memory: no push", [[0.3, 0.7]], [[0.0, 0.0]]),
        case("undecided, the memory is for class 1", [[0.5, 0.5]], [[0.0, 0.6]]),
        case("nearly sure, the memory agrees", [[0.9, 0.1]], [[0.8, 0.1]]),
        case("about to turn against the memory", [[0.3, 0.6, 0.1]], [[0.8, 0.1, 0.0]]),
        case("two examples", [[0.2, 0.8], [0.6, 0.4]], [[0.5, 0.1], [0.9, 0.0]]),
        *(at_random(n, c) for n, c in [(1, 4), (3, 3), (5, 10), (16, 4), (64, 100)]),
    ]


GRADIENT = Exercise(
    number="10.3",
    package=elr.regularizer_gradient,
    cases=_lemma_cases,
    judge=finite_numbers,
    hints=(
        "Σ_k (t_k - t_c) p_k is a sum of two parts. One is an inner product you know; what is "
        "Σ_k p_k in the other?",
        "g_c = p_c (⟨p, t⟩ - t_c) / (1 - ⟨p, t⟩), for every example by itself.",
        "agreement = ...   # (n, 1), the inner product of each row of p with its row of t\n"
        "...   # p times what agreement and t differ by, over what is left to 1",
    ),
    misconceptions=(
        Misconception(
            "has its sign turned round",
            "If p and t agree on a class, its logit should go up, and a step goes against g.",
            replace={"agreement - targets": "targets - agreement"},
        ),
        Misconception(
            "is the slope in p, not in the logits",
            "Between logits and p stands a softmax, with a slope of its own: p_c (δ_ck - p_k).",
            returns="-targets / (1 - agreement)",
        ),
        Misconception(
            "forgets the factor p_c",
            "A class that the network rules out (p_c near 0) should get hardly any push.",
            returns="(agreement - targets) / (1 - agreement)",
        ),
        Misconception(
            "does not divide by 1 - <p, t>",
            "The push has to stay when p - y has vanished. What makes it large near agreement?",
            replace={" - agreement": ""},
        ),
        Misconception(
            "divides by <p, t>",
            "Look under the line again: the log was taken of 1 - <p, t>.",
            returns="probabilities * (agreement - targets) / (agreement + 1e-12)",
        ),
        Misconception(
            "swaps p and t",
            "Which of the two has the gradient, and which is the memory?",
            returns="targets * (agreement - probabilities) / (1 - agreement)",
        ),
        Misconception(
            "divides by the number of examples",
            "The mean over the batch comes later. g belongs to one example.",
            returns=(
                "probabilities * (agreement - targets) / (1 - agreement) / (2 * len(probabilities))"
            ),
        ),
        Misconception(
            "mixes the examples up",
            "Which shape has one number an example, so that it meets its own row?",
            replace={", keepdim=True": ""},
        ),
        Misconception(
            "takes the inner product over the whole batch",
            "Each example has its own memory. Over which dimension do you sum?",
            replace={
                (
                    "(probabilities * targets).sum(dim=1, keepdim=True)"
                ): "(probabilities * targets).sum()"
            },
        ),
    ),
)


# 10.4 average_weights ---------------------------------------------------------------------------


def _average_cases() -> list[Case]:
    case = case_of(average=double, weights=double, step=None, gamma=None)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(step: int, gamma: float, *shape: int) -> Case:
        pair = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        return case(f"step {step}, gamma {gamma}, shape {shape}", *pair, step, gamma)

    return [
        case("the first step: the start is forgotten", [5.0], [1.0], 0, 0.9),
        case("the second step: the mean of two", [1.0], [3.0], 1, 0.9),
        case("the third step: the mean of three", [2.0], [5.0], 2, 0.9),
        case("late: gamma rules", [1.0], [2.0], 1000, 0.9),
        case("where the two meet", [1.0, 3.0], [2.0, 7.0], 9, 0.9),
        case("gamma 0 keeps the current weights", [1.0, 3.0], [2.0, 7.0], 50, 0.0),
        at_random(3, 0.5, 4),
        at_random(4, 0.99, 2, 3),
        at_random(40, 0.99, 5),
        at_random(500, 0.99, 3, 3),
        at_random(10_000, 0.997, 2, 2),
        at_random(0, 0.5, 3),
    ]


AVERAGE = Exercise(
    number="10.4",
    package=ema.average_weights,
    cases=_average_cases,
    judge=finite_numbers,
    hints=(
        "After the first step, what is the mean of all weights seen so far? And after the second? "
        "How large is the share of the old average in each?",
        "g = min(1 - 1/(step + 1), γ), and the new average is g · average + (1 - g) · weights.",
        "g = ...   # the smaller of gamma and of what a plain mean would keep\n"
        "...   # mix average and weights in these shares",
    ),
    misconceptions=(
        Misconception(
            "uses gamma from the first step on",
            "The average begins with random weights. How many steps does 0.997 need to forget?",
            replace={" - 1 / (step + 1)": ""},
        ),
        Misconception(
            "is the plain mean for ever",
            "Late in training the first weights should no longer count. Where does gamma come in?",
            replace={"min(1 - 1 / (step + 1), gamma)": "1 - 1 / (step + 1)"},
        ),
        Misconception(
            "swaps the two shares",
            "gamma is near 1: whose share is it, the old average's or the new weights'?",
            returns="g * weights + (1 - g) * average",
        ),
        Misconception(
            "takes the larger share where the smaller is meant",
            "In the first step nothing of the old may stay. Is it max or min?",
            replace={"min": "max"},
        ),
        Misconception(
            "counts steps from 1",
            "The first step is step 0, and then nothing of the old average may stay.",
            replace={" + 1": " + 2"},
        ),
        Misconception(
            "overwrites the old average",
            "The caller still holds the old one. Make a new tensor.",
            replace={"g * average": "average.mul_(g)"},
        ),
        Misconception(
            "adds without sharing",
            "Averages of equal weights should stay where they are. Do the two shares sum to 1?",
            replace={" - g": ""},
        ),
    ),
)

EXERCISES = (TARGETS, LOSS, GRADIENT, AVERAGE)
