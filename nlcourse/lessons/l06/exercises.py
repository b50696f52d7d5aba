"""Lesson 06: robust losses and mixup (the papers are named in ``losses.py`` and ``mixup.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ... import noise
from ...methods import losses, mixup
from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.gradients import NO_GRADIENT, no_gradient
from ..checks.inputs import case_of
from ..checks.judges import all_close, no_tensor, numbers

# What the exercises share -----------------------------------------------------------------------


def _per_example(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge one loss per example."""
    problem = numbers(got, expected, arguments, what="losses")
    if problem is not None and problem.kind == "shape":
        return Mismatch("shape", f"{problem.says}: one loss per example")
    return problem


def _gradient(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the gradient of the summed losses with respect to the logits."""
    logits = arguments["logits"].requires_grad_()
    result = function(*arguments.values())
    if not (isinstance(result, Tensor) and result.requires_grad):
        return NO_GRADIENT
    return torch.autograd.grad(result.sum(), logits)[0]


def _same_gradient(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    if isinstance(got, str):
        return no_gradient("the logits")
    if not got.isfinite().all():
        return Mismatch("no number", "the gradient with respect to the logits is not a number")
    if all_close(got, expected):
        return None
    return Mismatch("gradient", "the gradient with respect to the logits differs")


def _random_batch(n: int, classes: int, generator: torch.Generator, dtype=torch.float32):
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (n,), generator=generator)


# 6.1 generalized_cross_entropy ------------------------------------------------------------------


def _gce_cases() -> list[Case]:
    case = case_of(logits=torch.as_tensor, labels=torch.as_tensor, q=None)
    generator = torch.Generator().manual_seed(SEED)
    graded = {"ask": _gradient, "judge": _same_gradient}

    def at_random(n: int, classes: int, q: float, **more: Any) -> Case:
        name = f"{n} examples, {classes} classes, q = {q:g}"
        name += ", the gradient" if more else ""
        return case(name, *_random_batch(n, classes, generator), q, **more)

    some = [[0.5, 0.0, -0.5], [1.5, 2.0, 0.5]]
    return [
        case("four equal classes, q = 0.5", [[0.0, 0.0, 0.0, 0.0]], [2], 0.5),
        case("a likely label, q = 1", [[2.0, 0.0]], [0], 1.0),
        case("an unlikely label, q = 1", [[2.0, 0.0]], [1], 1.0),
        case("an unlikely label, q = 0.5", [[2.0, 0.0]], [1], 0.5),
        case("two examples", some, [0, 2], 0.5),
        case("without q: it is 0.7", some, [0, 2]),
        case("q near 0", some, [1, 1], 0.02),
        case("64 bits", torch.tensor(some, dtype=torch.float64), [2, 0], 0.7),
        *(
            at_random(n, c, q)
            for n, c, q in [(3, 3, 0.7), (5, 10, 0.3), (6, 4, 0.9), (64, 10, 0.7)]
        ),
        case("the gradient, two examples", some, [0, 2], 0.7, **graded),
        at_random(5, 4, 0.7, **graded),
        at_random(32, 10, 0.4, **graded),
        case("a label that seems impossible, the gradient", [[200.0, 0.0]], [1], 0.7, **graded),
        case("impossible and certain, the gradient", [[0.0, 300.0]] * 2, [0, 1], 0.5, **graded),
    ]


GENERALIZED_CROSS_ENTROPY = Exercise(
    number="6.1",
    package=losses.generalized_cross_entropy,
    cases=_gce_cases,
    judge=_per_example,
    hints=(
        "At p = 1 the loss is 0; at p = 0 it is 1/q and no more. And how large can -log p get?",
        "L_q = (1 - p^q) / q, and p^q = exp(q · log p): log p can be had without ever rounding "
        "p to 0.",
        "log_p = ...   # logits.log_softmax(dim=1), and of each row the label's entry\n"
        "...   # p to the power q is an exponential of it; then the formula",
    ),
    misconceptions=(
        Misconception(
            "is plain cross entropy",
            "What is your loss when p is nearly 0? It should stop at 1/q.",
            returns='F.cross_entropy(logits, labels, reduction="none")',
        ),
        Misconception(
            "leaves out the division by q",
            "For q near 0 the loss should come near -log p. Where does yours go?",
            returns="1 - logits.softmax(dim=1)[torch.arange(len(labels)), labels] ** q",
        ),
        Misconception(
            "raises 1 - p to the power",
            "What carries the exponent in the formula: p or what is missing to 1?",
            returns="(1 - logits.softmax(dim=1)[torch.arange(len(labels)), labels]) ** q / q",
        ),
        Misconception(
            "takes 1 - q for the exponent",
            "q = 1 should give 1 - p. What does yours give there?",
            returns="(1 - logits.softmax(dim=1)[torch.arange(len(labels)), labels] ** (1 - q)) / q",
        ),
        Misconception(
            "has the other sign",
            "A likely label should cost less than an unlikely one. Compare p = 0.9 and p = 0.1.",
            returns="(logits.softmax(dim=1)[torch.arange(len(labels)), labels] ** q - 1) / q",
        ),
        Misconception(
            "takes logits for probabilities",
            "A logit can be 7 or -3. What turns a row of logits into a row that sums to 1?",
            returns="(1 - logits[torch.arange(len(labels)), labels] ** q) / q",
        ),
        Misconception(
            "takes the softmax over the batch",
            "What should sum to 1: the classes of one example, or one class over all examples?",
            returns="(1 - logits.softmax(dim=0)[torch.arange(len(labels)), labels] ** q) / q",
        ),
        Misconception(
            "sums over all classes",
            "Only one of the probabilities belongs to the label. Is the label used at all?",
            returns="((1 - logits.softmax(dim=1) ** q) / q).sum(dim=1)",
        ),
        Misconception(
            "averages over the batch",
            "One loss per example; the mean comes later.",
            returns="((1 - torch.exp(q * log_p)) / q).mean()",
        ),
        Misconception(
            "ignores q",
            "Try two values of q on the same logits: the results should differ.",
            returns="losses.generalized_cross_entropy(logits, labels, 0.7)",
        ),
        Misconception(
            "rounds a tiny probability to 0",
            "Softmax gives exactly 0 for a logit far behind, and the slope of a power at 0 is "
            "infinite. The logarithm of p is only -200 there: can you begin with it?",
            returns="(1 - logits.softmax(dim=1)[torch.arange(len(labels)), labels] ** q) / q",
        ),
        Misconception(
            "cuts the gradient",
            "Did the probability go through detach, numpy or item? Nothing can be learned then.",
            returns="losses.generalized_cross_entropy(logits.detach(), labels, q)",
        ),
    ),
)


# 6.2 symmetric_cross_entropy --------------------------------------------------------------------


def _sce_cases() -> list[Case]:
    case = case_of(
        logits=torch.as_tensor, labels=torch.as_tensor, alpha=None, beta=None, log_clip=None
    )
    generator = torch.Generator().manual_seed(SEED)
    graded = {"ask": _gradient, "judge": _same_gradient}

    def at_random(n: int, classes: int, *weights: float, **more: Any) -> Case:
        name = f"{n} examples, {classes} classes" + (", the gradient" if more else "")
        return case(name, *_random_batch(n, classes, generator), *weights, **more)

    some = [[0.5, 0.0, -0.5], [1.5, 2.0, 0.5]]
    return [
        case("only cross entropy", [[2.0, 0.0]], [1], 1.0, 0.0),
        case("only the reverse, four equal classes", [[0.0] * 4], [1], 0.0, 1.0),
        case("only the reverse, a likely label", [[2.0, 0.0]], [0], 0.0, 1.0),
        case("only the reverse, an unlikely label", [[2.0, 0.0]], [1], 0.0, 1.0),
        case("both", [[1.0, 0.0, 0.0]], [1], 1.0, 1.0),
        case("the weights of CIFAR-10", some, [0, 2], 0.1, 1.0),
        case("the weights of CIFAR-100", some, [2, 1], 6.0, 0.1),
        case("another clip", some, [0, 2], 0.5, 2.0, -9.21),
        case("64 bits", torch.tensor(some, dtype=torch.float64), [2, 0], 0.1, 1.0, -2.0),
        *(
            at_random(n, c, a, b)
            for n, c, a, b in [(5, 3, 0.1, 1), (8, 10, 6, 0.1), (64, 10, 1, 3)]
        ),
        at_random(7, 5, 0.2, 1.5, -6.0),
        case("the gradient, two examples", some, [0, 2], 0.1, 1.0, **graded),
        at_random(32, 10, 0.1, 1.0, -4.0, **graded),
    ]


SYMMETRIC_CROSS_ENTROPY = Exercise(
    number="6.2",
    package=losses.symmetric_cross_entropy,
    cases=_sce_cases,
    judge=_per_example,
    hints=(
        "For a one-hot label log y is 0 at one class and the clip at all others. What is left of "
        "the sum over p_k · log y_k?",
        "RCE = -Σ_k p_k log y_k = -log_clip · (1 - p_y), and the loss is alpha · CE + beta · RCE.",
        "log_p = ...   # of each example's label: cross entropy is minus that\n"
        "...   # what the other classes have together, times the clip; then both terms",
    ),
    misconceptions=(
        Misconception(
            "swaps alpha and beta",
            "Try alpha = 1 and beta = 0: only cross entropy should be left.",
            returns="losses.symmetric_cross_entropy(logits, labels, beta, alpha, log_clip)",
        ),
        Misconception(
            "counts the label's class in the reverse",
            "At the label y is 1, and what is log 1? It is the other classes that cost something.",
            replace={"(1 - log_p.exp())": "log_p.exp()"},
        ),
        Misconception(
            "rewards the wrong classes",
            "The clip is negative and the sum has a minus in front. Is the reverse below 0 in your "
            "version?",
            replace={"-log_clip": "log_clip"},
        ),
        Misconception(
            "uses the clip of the published code",
            "The published code puts ln(1e-4) = -9.21 for log 0. Which argument says what to put?",
            replace={"-log_clip": "9.210340371976182"},
        ),
        Misconception(
            "ignores the clip's argument",
            "Try another clip on the same logits: the reverse should grow with it.",
            replace={"-log_clip": "4.0"},
        ),
        Misconception(
            "clips log p where log y is meant",
            "In the reverse the two change places: whose logarithm is taken there?",
            replace={"-log_clip * (1 - log_p.exp())": "(-log_p).clamp(max=-log_clip)"},
        ),
        Misconception(
            "takes the entropy for the reverse",
            "The sum needs log y, not log p: where does the label come in?",
            replace={
                "-log_clip * (1 - log_p.exp())": (
                    "torch.special.entr(logits.softmax(dim=1)).sum(dim=1)"
                )
            },
        ),
        Misconception(
            "leaves the clip out",
            "Your reverse is 1 - p. How much should each unit of wrong probability cost?",
            replace={"-log_clip * (1 - log_p.exp())": "1 - log_p.exp()"},
        ),
        Misconception(
            "leaves log 0 as it is",
            "The label's row holds zeros, and their logarithm is minus infinity. Which number "
            "does the paper put in its place?",
            returns=(
                "alpha * -log_p - beta * (logits.softmax(dim=1) * "
                "torch.nn.functional.one_hot(labels, logits.shape[1]).log()).sum(dim=1)"
            ),
        ),
        Misconception(
            "averages the cross entropy over the batch",
            "One of your two terms is the same for all examples. What does `F.cross_entropy` do "
            "with a batch, unless you tell it otherwise?",
            returns=(
                "alpha * F.cross_entropy(logits, labels) + beta * "
                "losses.reverse_cross_entropy(logits, labels, log_clip)"
            ),
        ),
        Misconception(
            "averages over the batch",
            "One loss per example; the mean comes later.",
            returns="(alpha * -log_p + beta * reverse).mean()",
        ),
    ),
)


# 6.3 forward_corrected_cross_entropy ------------------------------------------------------------


def _random_matrix(classes: int, generator: torch.Generator) -> Tensor:
    rows = torch.rand(classes, classes, generator=generator) + classes * torch.eye(classes)
    return rows / rows.sum(dim=1, keepdim=True)


def _forward_cases() -> list[Case]:
    def case(name: str, logits: Any, labels: Any, matrix: Tensor, **more: Any) -> Case:
        arguments = {
            "logits": torch.as_tensor(logits),
            "labels": torch.as_tensor(labels),
            "matrix": matrix.to(torch.as_tensor(logits).dtype),
        }
        return Case(name, arguments, **more)

    generator = torch.Generator().manual_seed(SEED)
    graded = {"ask": _gradient, "judge": _same_gradient}

    def at_random(n: int, classes: int, **more: Any) -> Case:
        logits, labels = _random_batch(n, classes, generator)
        name = f"{n} examples, {classes} classes" + (", the gradient" if more else "")
        return case(name, logits, labels, _random_matrix(classes, generator), **more)

    one_way = torch.tensor([[0.6, 0.4], [0.0, 1.0]])  # every label 0 is right, a label 1 is not
    ring = noise.pairflip_matrix(3, 0.25)
    some = [[0.5, 0.0, -0.5], [1.5, 2.0, 0.5]]
    return [
        case("no noise", [[1.0, 0.0]], [0], torch.eye(2)),
        case("labels of class 0 are always right", [[0.0, 0.0]], [0], one_way),
        case("a label 1 may come from class 0", [[0.0, 0.0]], [1], one_way),
        case("sure of class 0, label 1", [[5.0, 0.0]], [1], one_way),
        case("symmetric noise", [[2.0, 0.0, 0.0]], [1], noise.symmetric_matrix(3, 0.4)),
        case("pair flip, label 1", [[2.0, 0.0, 0.0]], [1], ring),
        case("pair flip, label 2", [[2.0, 0.0, 0.0]], [2], ring),
        case("pair flip, two examples", some, [0, 2], ring),
        case("64 bits", torch.tensor(some, dtype=torch.float64), [2, 0], ring),
        *(at_random(n, c) for n, c in [(2, 3), (5, 4), (16, 10), (64, 10)]),
        case("the gradient, two examples", some, [0, 2], ring, **graded),
        at_random(16, 6, **graded),
    ]


FORWARD_CORRECTION = Exercise(
    number="6.3",
    package=losses.forward_corrected_cross_entropy,
    cases=_forward_cases,
    judge=_per_example,
    hints=(
        "The network says how likely each TRUE class is. By which ways can the given label have "
        "come about, and how likely is each?",
        "P(given = j) = Σ_i p_i · T[i, j]; the loss is minus the logarithm of that, at the given "
        "label.",
        "given = ...   # (n, C): probabilities of the given label, one matrix product\n"
        "...   # pick each example's label; minus its logarithm",
    ),
    misconceptions=(
        Misconception(
            "uses the matrix the wrong way round",
            "Rows are true classes. Each row of probabilities over true classes has to become one "
            "over given labels: do your rows still sum to 1?",
            returns="-(logits.softmax(dim=1) @ matrix.T)[torch.arange(len(labels)), labels].log()",
        ),
        Misconception(
            "mixes logarithms",
            "Probabilities of different ways add up; do their logarithms? What comes first?",
            returns="-(logits.log_softmax(dim=1) @ matrix)[torch.arange(len(labels)), labels]",
        ),
        Misconception(
            "mixes logits",
            "A matrix of probabilities acts on probabilities. Have you been through softmax?",
            returns='F.cross_entropy(logits @ matrix, labels, reduction="none")',
        ),
        Misconception(
            "goes through softmax twice",
            "After the matrix the rows sum to 1 already. What does a second softmax do to them?",
            returns='F.cross_entropy(given, labels, reduction="none")',
        ),
        Misconception(
            "softens the label",
            "That replaces the label by a row of the matrix. Here the prediction is changed, and "
            "the label stays.",
            returns="-(matrix[labels] * logits.log_softmax(dim=1)).sum(dim=1)",
        ),
        Misconception(
            "is the backward correction",
            "Nothing has to be inverted. Go the way of the noise, from true class to given label.",
            returns="-(torch.linalg.inv(matrix)[labels] * logits.log_softmax(dim=1)).sum(dim=1)",
        ),
        Misconception(
            "forgets the logarithm",
            "A probability of 1 should cost 0, one near 0 should cost much. What does yours cost?",
            returns="1 - given[torch.arange(len(labels)), labels]",
        ),
        Misconception(
            "ignores the matrix",
            "Try it with the identity and with strong noise: the results should differ.",
            returns='F.cross_entropy(logits, labels, reduction="none")',
        ),
        Misconception(
            "averages over the batch",
            "One loss per example; the mean comes later.",
            returns="-given[torch.arange(len(labels)), labels].log().mean()",
        ),
    ),
)


# 6.4 mix_pairs ----------------------------------------------------------------------------------


def _mix_cases() -> list[Case]:
    def case(name: str, images: Any, labels: list[int], partner: list[int], share: float) -> Case:
        images = torch.as_tensor(images)
        rows = F.one_hot(torch.as_tensor(labels), 3).to(images.dtype)
        arguments = {"images": images, "rows": rows, "partner": torch.as_tensor(partner)}
        return Case(name, arguments | {"share": share})

    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, share: float) -> Case:
        images = torch.rand(n, 1, 4, 4, generator=generator)
        labels = torch.randint(3, (n,), generator=generator).tolist()
        partner = torch.randperm(n, generator=generator).tolist()
        return case(f"{n} images, share {share:g}", images, labels, partner, share)

    def dots(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype)[:, None, None, None]  # images of one pixel

    soft = case("rows that are mixed already", dots(0.0, 1.0, 0.5), [0, 1, 2], [1, 2, 0], 0.6)
    soft.arguments["rows"] = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.5, 0.5]])
    return [
        case("two images, share 0.75", dots(0.0, 1.0), [0, 1], [1, 0], 0.75),
        case("share 1: nothing is mixed", dots(0.2, 0.6), [0, 1], [1, 0], 1.0),
        case("half and half", dots(0.0, 1.0), [0, 1], [1, 0], 0.5),
        case("three images in a ring", dots(0.0, 1.0, 0.5), [0, 1, 2], [1, 2, 0], 0.75),
        case("share 0.25: the first keeps the majority", dots(0.0, 1.0), [0, 1], [1, 0], 0.25),
        case("share 0", dots(0.2, 0.6), [0, 1], [1, 0], 0.0),
        case("a partner of the same class", dots(0.0, 1.0), [1, 1], [1, 0], 0.75),
        case("some are their own partners", dots(0.0, 1.0, 0.5), [0, 1, 2], [0, 2, 1], 0.625),
        soft,
        case("64 bits", dots(0.0, 1.0, dtype=torch.float64), [2, 1], [1, 0], 0.3),
        *(at_random(n, share) for n, share in [(4, 0.9), (5, 0.1), (8, 0.55), (32, 0.35)]),
    ]


def _mixed(got: Any, expected: tuple[Tensor, Tensor], arguments: Arguments) -> Mismatch | None:
    """Judge a pair of tensors that a network can be trained with."""
    if not isinstance(got, tuple | list) or len(got) != 2:
        kind = type(got).__name__
        return Mismatch("type", f"it is a {kind} where a pair is expected: images and rows")
    for name, one, other in zip(("images", "rows"), got, expected, strict=True):
        problem = no_tensor(one, "the network")
        if problem is not None:
            return Mismatch(problem.kind, f"the {name}: {problem.says}", evidence="")
        value = one.detach()
        if value.shape != other.shape:
            shape, wanted = tuple(value.shape), tuple(other.shape)
            return Mismatch("shape", f"the {name} have shape {shape}, expected {wanted}")
        if not all_close(value, other):
            return Mismatch(f"the {name}", f"the mixed {name} differ")
        if value.dtype != other.dtype:
            says = f"the mixed {name} are {value.dtype}, expected {other.dtype} as they came"
            return Mismatch("dtype", says, evidence="")
    return None


MIX_PAIRS = Exercise(
    number="6.4",
    package=mixup.mix_pairs,
    cases=_mix_cases,
    judge=_mixed,
    hints=(
        "A picture that is three quarters a 3 and one quarter an 8: what should its label row say? "
        "And who is the first when the share comes out below a half?",
        "l' = max(l, 1 - l); x~ = l' x_i + (1 - l') x_j; y~ = l' y_i + (1 - l') y_j, where j is "
        "i's partner.",
        "share = ...   # the larger of the two parts\n"
        "...   # the same weighted sum twice: for images and for rows; indexing gives the partners",
    ),
    misconceptions=(
        Misconception(
            "does not fold the share",
            "With a share of 0.25, whose picture is mostly seen? It should be the first one's.",
            replace={"max(share, 1 - share)": "share"},
        ),
        Misconception(
            "gives the first the minority",
            "l' is the larger of l and 1 - l: which picture does it belong to?",
            replace={"max(": "min("},
        ),
        Misconception(
            "leaves the labels as they are",
            "The picture is a mixture now. Is its label still the old one?",
            returns="mixed_images, rows + 0",
        ),
        Misconception(
            "leaves the images as they are",
            "The label says a mixture now. Where is it in the picture?",
            returns="images + 0, mixed_rows",
        ),
        Misconception(
            "mixes labels with the share as it came",
            "Images and labels need the same weights: which of them uses the folded share?",
            replace={
                "share = max(share, 1 - share)": "given, share = share, max(share, 1 - share)",
                "share * rows + (1 - share) * rows": "given * rows + (1 - given) * rows",
            },
        ),
        Misconception(
            "makes the label hard again",
            "The picture is 60 % a 3. What does the network learn when its label says 100 %?",
            returns="mixed_images, torch.eye(rows.shape[1])[mixed_rows.argmax(dim=1)]",
        ),
        Misconception(
            "adds without weighing",
            "Two pictures on top of each other are too bright. Do the weights sum to 1?",
            returns="(images + images[partner], rows + rows[partner])",
        ),
        Misconception(
            "goes to the partner backwards",
            "partner[i] is the position of i's partner. Does yours go from i there, or back?",
            replace={"[partner]": "[partner.argsort()]"},
        ),
        Misconception(
            "always mixes half and half",
            "With a share of 1 nothing should be mixed. What do you get?",
            returns=(
                "(0.5 * images + (1 - 0.5) * images[partner], 0.5 * rows + (1 - 0.5) * "
                "rows[partner])"
            ),
        ),
    ),
)


EXERCISES = (
    GENERALIZED_CROSS_ENTROPY,
    SYMMETRIC_CROSS_ENTROPY,
    FORWARD_CORRECTION,
    MIX_PAIRS,
)
