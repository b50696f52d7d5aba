"""Lesson 07: Co-teaching. Han et al. 2018 (arXiv 1804.06872).

How to read an exercise, and to write the next: stub and solution stand in the lesson; `package` is
the function that the package trains with; the cases are questions to it, easy ones first; the judge
compares; each misconception has a name ("it ..."), a hint and what is wrong: pieces of the solution
that are replaced, what it returns instead, or a function. The tests go over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...methods import co_teaching
from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.gradients import NO_GRADIENT, no_gradient
from ..checks.inputs import case_of
from ..checks.judges import as_whole_numbers, close, number, pair_of_numbers

# 7.1 forget_rate ---------------------------------------------------------------------------------


def _schedule_cases() -> list[Case]:
    case = case_of(epoch=None, noise_rate=None, ramp_epochs=None, exponent=None)
    first = [
        case("the first epoch", 0, 0.4, 4),
        case("the second epoch", 1, 0.4, 4),
        case("halfway up", 2, 0.4, 4),
        case("the last epoch of the ramp", 3, 0.4, 4),
        case("the ramp is over", 4, 0.4, 4),
        case("long after the ramp", 50, 0.4, 4),
        case("no noise", 3, 0.0, 10),
        case("a long ramp", 7, 0.45, 15),
    ]
    curved = [
        case(f"exponent {exponent:g}, epoch {epoch}", epoch, 0.5, 10, exponent)
        for exponent in (1.0, 2.0, 0.5)
        for epoch in (0, 1, 2, 3, 9, 100)
    ]
    return first + curved


FORGET_RATE = Exercise(
    number="7.1",
    package=co_teaching.forget_rate,
    cases=_schedule_cases,
    judge=number,
    hints=(
        "How much may be dropped in epoch 0, when no network has learned anything yet? "
        "And how much in the end?",
        "1 - R(T) = τ · min(Tᶜ / T_k, 1), with T the epoch, τ the noise rate, T_k the ramp, "
        "c the exponent.",
        "progress = ...   # epoch ** exponent, as a part of ramp_epochs\n"
        "...   # noise_rate times progress, where progress stops at 1",
    ),
    misconceptions=(
        Misconception(
            "never stops growing",
            "What share does it drop long after the ramp? No more than the wrong labels should go.",
            returns="noise_rate * epoch**exponent / ramp_epochs",
        ),
        Misconception(
            "returns the share to keep",
            "R(T) of the paper is what stays. This function is asked for what goes.",
            returns="1 - noise_rate * min(epoch**exponent / ramp_epochs, 1)",
        ),
        Misconception(
            "starts one epoch too early",
            "The first epoch has number 0: how much has anyone learned by then?",
            replace={"epoch**": "(epoch + 1) ** "},
        ),
        Misconception(
            "follows the linspace of the published code",
            "That code is done one epoch early, and bends otherwise. "
            "In which epoch should the full share be reached?",
            returns=(
                "noise_rate if epoch >= ramp_epochs else noise_rate**exponent * epoch / "
                "max(ramp_epochs - 1, 1)"
            ),
        ),
        Misconception(
            "stops the fraction at the noise rate",
            "Which quantity must not exceed the noise rate: the fraction or the result?",
            returns="noise_rate * min(epoch**exponent / ramp_epochs, noise_rate)",
        ),
        Misconception(
            "climbs to the noise rate before the ramp ends",
            "Halfway up the ramp half of the noise rate is dropped. Where is the noise rate a "
            "factor in your result?",
            returns="min(epoch**exponent / ramp_epochs, noise_rate)",
        ),
        Misconception(
            "asks the epoch where the ramp ends",
            "With exponent 2, in which epoch does the fraction of the formula reach 1? "
            "Ask the fraction, not the epoch.",
            returns=(
                "noise_rate if epoch >= ramp_epochs else noise_rate * epoch**exponent / ramp_epochs"
            ),
        ),
        Misconception(
            "leaves out the exponent",
            "Compare your result for exponent 1 and exponent 2.",
            replace={"**exponent": ""},
        ),
        Misconception(
            "raises the whole fraction to the exponent",
            "Look at the formula again: what carries the exponent, the epoch or the fraction?",
            returns="noise_rate * min((epoch / ramp_epochs) ** exponent, 1)",
        ),
        Misconception(
            "falls from the noise rate to 0",
            "From when on do small losses tell right labels from wrong ones?",
            returns="noise_rate * (1 - min(epoch**exponent / ramp_epochs, 1))",
        ),
        Misconception(
            "drops the full share from the first epoch on",
            "The losses of an untrained network tell nothing: what should be dropped in epoch 0?",
            returns="noise_rate",
        ),
    ),
)


# 7.2 small_loss_indices --------------------------------------------------------------------------


def _selection_cases() -> list[Case]:
    case = case_of(losses=torch.as_tensor, forget_rate=None)
    cases = [
        case("half of four", [0.9, 0.1, 2.5, 0.4], 0.5),
        case("drop one of four", [0.2, 1.7, 0.6, 0.3], 0.25),
        case("drop three of four", [3.0, 2.0, 0.5, 1.0], 0.75),
        case("drop nothing", [2.0, 1.0, 3.0], 0.0),
        case("half of five", [0.5, 0.4, 0.3, 0.2, 0.1], 0.5),
        case("losses above and below the rate", [5.0, 7.0, 6.0, 4.0], 0.5),
        case("equal losses: either may go", [1.0, 0.5, 1.0, 2.0], 0.5),
        case("64 bits", torch.tensor([0.7, 0.1, 0.4], dtype=torch.float64), 0.34),
    ]
    generator = torch.Generator().manual_seed(SEED)
    for n, rate in [(6, 0.5), (10, 0.25), (16, 0.2), (20, 0.53), (33, 0.125), (64, 0.3)]:
        cases.append(case(f"{n} losses at random", torch.rand(n, generator=generator) * 4, rate))
        cases.append(
            case(f"{n} losses, mostly large", 9 - torch.rand(n, generator=generator), rate)
        )
    return [
        *cases,
        case("drop everything", [1.0, 2.0], 1.0),
        case("one example, which stays", [0.3], 0.0),
        case("one example, which goes", [0.3], 0.5),
        case("an empty batch", torch.empty(0), 0.2),
    ]


def _same_selection(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge positions: the order is free, and so is the choice between equal losses."""
    losses = arguments["losses"]
    indices = as_whole_numbers(got)
    if isinstance(indices, Mismatch):
        return indices
    if indices.dim() != 1:
        says = f"it has shape {tuple(indices.shape)}, expected a vector of positions"
        return Mismatch("shape", says)
    evidence = str(sorted(indices.tolist()))
    if len(indices) != len(expected):
        says = f"it keeps {len(indices)} of {len(losses)} examples, expected {len(expected)}"
        return Mismatch("count", says, evidence=evidence)
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(losses):
        return Mismatch("range", "a position lies outside the batch", evidence=evidence)
    if len(indices.unique()) < len(indices):
        return Mismatch("twice", "it keeps an example twice", evidence=evidence)
    if torch.equal(losses[indices].sort().values, losses[expected].sort().values):
        return None
    return Mismatch("choice", "these are not the smallest losses", evidence=evidence)


SMALL_LOSS_INDICES = Exercise(
    number="7.2",
    package=co_teaching.small_loss_indices,
    cases=_selection_cases,
    judge=_same_selection,
    hints=(
        "Which examples does a network fit first: those labelled right, or those labelled wrong? "
        "What does that say of their losses?",
        "Keep k = int((1 - forget_rate) · n) positions: those whose losses are the k smallest.",
        "count = ...   # how many stay: a whole number\n"
        "order = losses.argsort()   # positions; which part of them do you need?",
    ),
    misconceptions=(
        Misconception(
            "keeps the largest losses",
            "Wrong labels are hard to fit: at which end of the sorted losses do they stand?",
            replace={".argsort()": ".argsort(descending=True)"},
        ),
        Misconception(
            "keeps as many as should be dropped",
            "With `forget_rate` 0.25 and four losses: how many go, and how many stay?",
            replace={"1 - ": ""},
        ),
        Misconception(
            "returns the examples to drop",
            "The selection goes into training: are these the examples to learn from?",
            returns="losses.argsort()[count:]",
        ),
        Misconception(
            "returns the losses and not their positions",
            "The caller wants to pick images with the result: sorting gives two things, which one?",
            returns="losses.sort().values[:count]",
        ),
        Misconception(
            "returns ranks and not positions",
            "The rank says where an example lands; needed is who stands at each place. "
            "Is one argsort too many?",
            returns="losses.argsort().argsort()[:count]",
        ),
        Misconception(
            "keeps the first examples of the batch",
            "Where in the result do the losses play a part? "
            "After sorting the losses themselves their places are lost.",
            returns="torch.arange(count)",
        ),
        Misconception(
            "takes the share for a threshold on the losses",
            "`forget_rate` is a share of the batch: how many stay when all losses are large?",
            returns="(losses < forget_rate).nonzero().flatten()",
        ),
        Misconception(
            "rounds the wrong number down",
            "Round down what stays, not what goes: of five, with half to drop, two stay.",
            replace={":count": ":len(losses) - int(forget_rate * len(losses))"},
        ),
        Misconception(
            "returns a mask",
            "A mask answers yes or no for each example; which function turns it into positions?",
            returns="losses.argsort().argsort() < count",
        ),
    ),
)


# 7.3 crossed_losses ------------------------------------------------------------------------------


def _crossing_cases() -> list[Case]:
    case = case_of(
        losses_first=torch.as_tensor,
        losses_second=torch.as_tensor,
        kept_by_first=torch.as_tensor,
        kept_by_second=torch.as_tensor,
    )
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, kept: int, **more: Any) -> Case:
        losses = torch.rand(2, n, generator=generator) * 3
        by_first, by_second = (torch.randperm(n, generator=generator)[:kept] for _ in "12")
        return case(f"{kept} of {n} kept", *losses, by_first, by_second, **more)

    a, b = [1.0, 2.0, 4.0, 8.0], [10.0, 20.0, 40.0, 80.0]
    graded = {"ask": _gradients, "judge": _same_gradients}
    return [
        case("each keeps one example", a, b, [0], [1]),
        case("each keeps two", a, b, [0, 1], [2, 3]),
        case("both keep example 1", a, b, [0, 1], [1, 2]),
        case("both keep the same", a, b, [3, 1], [1, 3]),
        case("everything is kept", a, b, [0, 1, 2, 3], [0, 1, 2, 3]),
        *(at_random(n, kept) for n, kept in [(5, 2), (8, 6), (16, 8), (64, 40), (128, 64)]),
        case("the gradient, one kept by each", a, b, [0], [1], **graded),
        case("the gradient, two kept by each", a, b, [0, 1], [1, 2], **graded),
        at_random(8, 4, **graded),
        at_random(32, 20, **graded),
    ]


def _gradients(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the gradients of both results with respect to both networks' losses."""
    sources = [arguments[name].requires_grad_() for name in ("losses_first", "losses_second")]
    results = function(*arguments.values())
    if not all(isinstance(result, Tensor) and result.requires_grad for result in results):
        return NO_GRADIENT
    return tuple(
        torch.autograd.grad(
            result, sources, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for result in results
    )


def _same_gradients(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    if isinstance(got, str):
        return no_gradient("the losses")
    pairs = [
        (one, other)
        for result, right in zip(got, expected, strict=True)
        for one, other in zip(result, right, strict=True)
    ]
    if all(close(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)):
        return None
    return Mismatch("gradient", "the gradient with respect to the losses differs")


CROSSED_LOSSES = Exercise(
    number="7.3",
    package=co_teaching.crossed_losses,
    cases=_crossing_cases,
    judge=pair_of_numbers,
    hints=(
        "A network that learns from its own selection repeats its own mistakes. "
        "Whose selection does it learn from here, and with whose losses?",
        "L_first = mean of losses_first[i] over the i that the second kept; "
        "L_second the other way round.",
        "for_first = losses_first[...]   # the positions come from the peer\n"
        "...   # the same for the second; then the mean of each",
    ),
    misconceptions=(
        Misconception(
            "lets each network learn from its own selection",
            "Who may correct a network that is sure of a wrong label? Follow the crossed arrows.",
            replace={
                "first[kept_by_second]": "first[kept_by_first]",
                "second[kept_by_first]": "second[kept_by_second]",
            },
        ),
        Misconception(
            "gives each network its peer's loss",
            "The selection crosses over, the losses do not: only its own losses move its weights.",
            returns="(losses_second[kept_by_second].mean(), losses_first[kept_by_first].mean())",
        ),
        Misconception(
            "returns the two losses in the other order",
            "The first result is to train the first network: whose losses are in it?",
            returns="(loss_second, loss_first)",
        ),
        Misconception(
            "divides by the number kept twice",
            "A mean is divided already. (The published code does this too, and Adam hides it.)",
            returns="loss_first / len(kept_by_second), loss_second / len(kept_by_first)",
        ),
        Misconception(
            "sums where the mean is asked for",
            "Should a batch of which more is kept make a larger step?",
            replace={".mean": ".sum"},
        ),
        Misconception(
            "divides by the whole batch",
            "The mean is over what was kept: how many is that?",
            replace={".mean()": ".sum() / len(losses_first)"},
        ),
        Misconception(
            "trains on what either of them kept",
            "With the union each network's own choice is back in. Whose choice alone should count?",
            returns=(
                "tuple(losses[list({*kept_by_first.tolist(), "
                "*kept_by_second.tolist()})].mean() for losses in (losses_first, "
                "losses_second))"
            ),
        ),
        Misconception(
            "trains on what both of them kept",
            "Agreement is another method's idea. What does the peer know that is missing then?",
            returns=(
                "tuple(losses[list({*kept_by_first.tolist()} & "
                "{*kept_by_second.tolist()})].mean() for losses in (losses_first, "
                "losses_second))"
            ),
        ),
        Misconception(
            "uses one selection for both networks",
            "Two networks, two selections: each kept list is used exactly once.",
            replace={"[kept_by_first]": "[kept_by_second]"},
        ),
        Misconception(
            "ignores the selections",
            "Which examples should have no part in the loss?",
            returns="losses_first.mean(), losses_second.mean()",
        ),
        Misconception(
            "cuts the gradient",
            "What do `.item()`, `.detach()` and `torch.tensor(...)` do to a value's history?",
            returns="loss_first.detach(), loss_second.detach()",
        ),
    ),
)

EXERCISES = (FORGET_RATE, SMALL_LOSS_INDICES, CROSSED_LOSSES)
