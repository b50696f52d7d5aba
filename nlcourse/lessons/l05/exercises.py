"""Lesson 05: the learning rate. Tanaka et al. 2018 (arXiv 1803.11364), figures 2 and 3."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks.engine import SEED
from ..checks.exercise import Case, Exercise, Misconception
from ..checks.inputs import case_of, double
from ..checks.judges import number

# 5.1 step_schedule -------------------------------------------------------------------------------


def _schedule_cases() -> list[Case]:
    case = case_of(epoch=None, lr=None, milestones=None, factor=None)
    three = [60, 120]
    return [
        case("the first epoch", 0, 0.2, three, 0.1),
        case("long before the milestone", 20, 0.2, three, 0.1),
        case("the epoch before the milestone", 59, 0.2, three, 0.1),
        case("at the milestone", 60, 0.2, three, 0.1),
        case("the epoch after it", 61, 0.2, three, 0.1),
        case("the end of the second stage", 119, 0.2, three, 0.1),
        case("at the second milestone", 120, 0.2, three, 0.1),
        case("the third stage", 150, 0.2, three, 0.1),
        case("no milestones", 30, 0.05, [], 0.1),
        case("one milestone, halved", 10, 1.0, [4], 0.5),
        *(
            case(f"stages of different length, epoch {epoch}", epoch, 0.8, [3, 5, 12], 0.25)
            for epoch in (0, 2, 3, 4, 5, 8, 11, 12, 15, 40)
        ),
        case("a rate that grows", 7, 0.01, [2, 6], 2.0),
        case("a drop in the very first epoch", 0, 0.4, [0], 0.3),
    ]


STEP_SCHEDULE = Exercise(
    number="5.1",
    cases=_schedule_cases,
    judge=number,
    hints=(
        "How many milestones has training reached in this epoch? "
        "What happens to the rate at each of them?",
        "rate(epoch) = lr · factor^k, where k is the number of milestones m with m ≤ epoch.",
        "passed = ...   # how many milestones are at or before `epoch`\n"
        "...   # the rate was multiplied by `factor` so many times",
    ),
    misconceptions=(
        Misconception(
            "drops one epoch late",
            "Epochs count from 0. With a milestone at 60, how many epochs have full rate?",
            replace={" >= milestone": " > milestone"},
        ),
        Misconception(
            "drops one epoch early",
            "With a milestone at 60, epoch 59 is the sixtieth: is the stage not still on?",
            replace={"epoch >= milestone": "epoch + 1 >= milestone"},
        ),
        Misconception(
            "drops only once",
            "After the second milestone, how many times has the rate been multiplied?",
            returns="lr * factor ** min(passed, 1)",
        ),
        Misconception(
            "divides by the factor",
            "From 0.2 with factor 0.1: should the next rate be 0.02, or 2?",
            replace={" * ": " / "},
        ),
        Misconception(
            "has the low rate in the milestone's epoch only",
            "The epoch after the milestone: does the old rate come back?",
            replace={" >= milestone": " == milestone"},
        ),
        Misconception(
            "takes the milestones for the lengths of stages",
            "With milestones 60 and 120, the last stage begins in epoch 120, and not in 180.",
            replace={
                (
                    "epoch >= milestone for milestone in milestones"
                ): "epoch >= sum(milestones[: place + 1]) for place in range(len(milestones))"
            },
        ),
        Misconception(
            "takes the factor for the part that is removed",
            "A factor multiplies. What is left of the rate after a factor of 0.1: a tenth?",
            returns="lr * (1 - factor) ** passed",
        ),
        Misconception(
            "multiplies by the number of drops",
            "Two drops by the factor 0.1: is that 0.2 of the rate, or 0.01 of it?",
            returns="lr * factor * passed if passed else lr",
        ),
        Misconception(
            "drops by the same steps for ever",
            "After the last milestone the rate stays. Are the stages all as long as the first?",
            returns="lr * factor ** (epoch // max(milestones[0], 1)) if milestones else lr",
        ),
        Misconception(
            "drops in every epoch",
            "Within a stage the rate is constant. What should be counted, epochs or milestones?",
            returns="lr * factor**epoch",
        ),
    ),
)


# 5.2 irreducible_loss ----------------------------------------------------------------------------


def _loss_cases() -> list[Case]:
    case = case_of(noise_rate=None, num_classes=None)
    return [
        case("no noise", 0.0, 10),
        case("two classes, a fair coin", 0.5, 2),
        case("two classes", 0.2, 2),
        case("three classes", 0.3, 3),
        case("ten classes, a little noise", 0.1, 10),
        case("ten classes", 0.4, 10),
        case("ten classes, much noise", 0.8, 10),
        case("ten classes, nothing left to learn", 0.9, 10),
        case("every label is wrong", 1.0, 4),
        case("a hundred classes", 0.4, 100),
        case("four classes, nothing left to learn", 0.75, 4),
        case("three classes, every second label", 0.5, 3),
        case("two classes, every label is wrong", 1.0, 2),
    ]


IRREDUCIBLE_LOSS = Exercise(
    number="5.2",
    cases=_loss_cases,
    judge=number,
    hints=(
        "A network knows the true class and the noise, nothing more. Which probability does it "
        "give to the true class? And to each of the others?",
        "H = -(1 - r) ln(1 - r) - r ln(r / (C - 1)), with 0 · ln 0 = 0.",
        "row = ...   # the C probabilities: one is 1 - r, the others share r\n"
        "...   # add up -p ln p over the row; torch.special.entr does one p, and 0 at p = 0",
    ),
    misconceptions=(
        Misconception(
            "is the entropy of right or wrong only",
            "Knowing that a label is wrong does not say which wrong label it is. "
            "How many are there to choose from?",
            returns="-sum((p * math.log(p) for p in [1 - noise_rate, noise_rate] if p > 0))",
        ),
        Misconception(
            "spreads the noise over all classes, the true one too",
            "`noise_rate` is the share of wrong labels here: does a wrong label ever hit the "
            "true class?",
            replace={
                "noise_rate / (num_classes - 1)": "noise_rate / num_classes",
                "1 - noise_rate": "1 - noise_rate + noise_rate / num_classes",
            },
        ),
        Misconception(
            "shares the noise among one class too many",
            "Do your probabilities add up to 1? Among how many classes is the noise shared?",
            returns=(
                "-sum((p * math.log(p) for p in [1 - noise_rate] + [noise_rate / "
                "num_classes] * (num_classes - 1) if p > 0))"
            ),
        ),
        Misconception(
            "counts one of the wrong classes only",
            "How many entries of the row are not the true class? Each adds its part.",
            returns=(
                "-sum((p * math.log(p) for p in ([1 - noise_rate] + [noise_rate / "
                "(num_classes - 1)] * (num_classes - 1))[:2] if p > 0))"
            ),
        ),
        Misconception(
            "leaves the wrong labels out",
            "A wrong label has a loss, too, and a large one. Where is it in your sum?",
            returns="-sum((p * math.log(p) for p in [1 - noise_rate] if p > 0))",
        ),
        Misconception(
            "is the loss of a right label",
            "That is the loss when the label is right. What is the mean over all labels?",
            returns="-math.log(max(1 - noise_rate, 1e-12))",
        ),
        Misconception(
            "takes the logarithm to base 2",
            "Cross entropy in torch counts in nats: which logarithm is that?",
            returns=(
                "-sum((p * math.log2(p) for p in [1 - noise_rate] + [noise_rate / "
                "(num_classes - 1)] * (num_classes - 1) if p > 0))"
            ),
        ),
        Misconception(
            "takes the logarithm to base 10",
            "`log10` answers another question: what is the loss of probability 1/e in torch?",
            returns=(
                "-sum((p * math.log10(p) for p in [1 - noise_rate] + [noise_rate / "
                "(num_classes - 1)] * (num_classes - 1) if p > 0))"
            ),
        ),
        Misconception(
            "forgets the minus sign",
            "A logarithm of a probability is negative. Can a cross entropy be?",
            returns=(
                "--sum((p * math.log(p) for p in [1 - noise_rate] + [noise_rate / "
                "(num_classes - 1)] * (num_classes - 1) if p > 0))"
            ),
        ),
        Misconception(
            "divides by the number of classes",
            "The probabilities are the weights of the mean already. What is `.mean()` doing here?",
            returns=(
                "-sum((p * math.log(p) for p in [1 - noise_rate] + [noise_rate / "
                "(num_classes - 1)] * (num_classes - 1) if p > 0)) / num_classes"
            ),
        ),
        Misconception(
            "is nan where a probability is 0",
            "What is 0 · ln 0 in floating point, and what should it be? "
            "Something that cannot happen costs nothing.",
            returns="-(row * row.log()).sum().item()",
        ),
        Misconception(
            "stops at the logarithm of 0",
            "`math.log(0)` is an error. Which part of the formula is 0 when a probability is, and "
            "may be left out?",
            returns=(
                "-(1 - noise_rate) * math.log(1 - noise_rate) - noise_rate * "
                "math.log(noise_rate / (num_classes - 1))"
            ),
        ),
        Misconception(
            "counts the true class among the wrong ones in the logarithm",
            "A wrong label is one of how many classes? Look at what r is divided by.",
            returns=(
                "-sum((p * math.log(p) for p in [1 - noise_rate] if p > 0)) - (noise_rate * "
                "math.log(noise_rate / num_classes) if noise_rate else 0.0)"
            ),
        ),
    ),
)


# 5.3 estimate_noise_rate -------------------------------------------------------------------------


def _curve_cases() -> list[Case]:
    case = case_of(loss=None, noise_rates=double, losses=double)
    rates, losses = [0.0, 0.2, 0.4, 0.8], [0.1, 1.0, 1.5, 2.25]
    generator = torch.Generator().manual_seed(SEED)

    def at_random(points: int, place: float) -> Case:
        rise = torch.rand(2, points, generator=generator, dtype=torch.float64) + 0.1
        x, y = rise.cumsum(dim=1)
        x = x / x[-1]
        loss = (y[0] + place * (y[-1] - y[0])).item()
        return case(f"a curve of {points} points", loss, x, y)

    return [
        case("on a point of the curve", 1.0, rates, losses),
        case("on the next point", 1.5, rates, losses),
        case("halfway between two points", 1.25, rates, losses),
        case("a third of the way", 0.4, rates, losses),
        case("three quarters up the last piece", 2.0625, rates, losses),
        case("in the first piece", 0.55, rates, losses),
        case("near a point", 1.55, rates, losses),
        case("two points make a curve", 0.75, [0.1, 0.5], [0.0, 1.0]),
        *(at_random(n, place) for n, place in [(4, 0.15), (5, 0.85), (9, 0.4), (20, 0.66)]),
        case("the lowest point", 0.1, rates, losses),
        case("the highest point", 2.25, rates, losses),
        case("below the curve", 0.02, rates, losses),
        case("above the curve", 2.4, rates, losses),
        case("far above the curve", 9.0, [0.1, 0.5], [0.0, 1.0]),
    ]


def _piece(loss: float, losses: Tensor) -> tuple[int, float]:
    """Return the place left of the loss on the curve, and how far towards the next it lies."""
    left = int(torch.searchsorted(losses, loss, right=True).clamp(1, len(losses) - 1)) - 1
    share = (loss - losses[left]) / (losses[left + 1] - losses[left])
    return left, share.item()


def _between(
    loss: float, noise_rates: Tensor, losses: Tensor, weigh: Callable[[float], float]
) -> float:
    """Interpolate with a changed weight; clamped to the ends as the reference is."""
    left, share = _piece(loss, losses)
    share = min(max(share, 0.0), 1.0)
    share = share if share in (0.0, 1.0) else weigh(share)
    return torch.lerp(noise_rates[left], noise_rates[left + 1], share).item()


def _beyond(loss, noise_rates, losses):
    left, share = _piece(loss, losses)
    return torch.lerp(noise_rates[left], noise_rates[left + 1], share).item()


def _straight_line(loss, noise_rates, losses):
    x, y = losses - losses.mean(), noise_rates - noise_rates.mean()
    slope = (x @ y) / (x @ x)
    return (noise_rates.mean() + slope * (loss - losses.mean())).item()


ESTIMATE_NOISE_RATE = Exercise(
    number="5.3",
    cases=_curve_cases,
    judge=number,
    hints=(
        "The curve was measured from the noise rate to the loss. You have a loss. "
        "Which of the two axes do you enter from, and what do you read off?",
        "r = r_k + (r_{k+1} - r_k) · (loss - L_k) / (L_{k+1} - L_k), where L_k ≤ loss ≤ L_{k+1}; "
        "r_0 below the curve, the last r above it.",
        "from numpy import interp   # interp(x, known_x, known_y): lines between known points\n"
        "...   # what is x here, and what is y?",
    ),
    misconceptions=(
        Misconception(
            "swaps the axes",
            "`interp(x, known_x, known_y)`: is a loss an x that you know, or the y you look for?",
            replace={"losses, noise_rates))": "noise_rates, losses))"},
        ),
        Misconception(
            "takes the nearest point",
            "A loss between two points of the curve belongs to a rate between the two.",
            returns="noise_rates[(losses - loss).abs().argmin()].item()",
        ),
        Misconception(
            "takes the last point below the loss",
            "How far is it from that point to the next? Go as far along the rates.",
            returns=(
                "noise_rates[losses <= loss][-1].item() if losses[0] <= loss else "
                "noise_rates[0].item()"
            ),
        ),
        Misconception(
            "takes the first point above the loss",
            "The loss has not reached that point yet: what share of the piece is still missing?",
            returns=(
                "noise_rates[losses >= loss][0].item() if loss <= losses[-1] else "
                "noise_rates[-1].item()"
            ),
        ),
        Misconception(
            "takes the middle of the two neighbours",
            "Is a loss close to the left point not a rate close to the left one?",
            lambda loss, noise_rates, losses: _between(
                loss, noise_rates, losses, lambda share: 0.5
            ),
        ),
        Misconception(
            "weighs the two neighbours the wrong way round",
            "Close to the left point: which of the two rates should count more?",
            lambda loss, noise_rates, losses: _between(
                loss, noise_rates, losses, lambda share: 1 - share
            ),
        ),
        Misconception(
            "runs on beyond the ends",
            "Nothing was measured outside. A negative noise rate, or one above 1, is no answer.",
            _beyond,
        ),
        Misconception(
            "draws one line from end to end",
            "The curve is bent: it rises steeply first. What of the points in between?",
            returns=(
                "torch.lerp(noise_rates[0], noise_rates[-1], ((loss - losses[0]) / "
                "(losses[-1] - losses[0])).clamp(0, 1)).item()"
            ),
        ),
        Misconception(
            "fits one straight line to all points",
            "Does a single line go through the points? The result on a point should be that point.",
            _straight_line,
        ),
    ),
)

EXERCISES = (STEP_SCHEDULE, IRREDUCIBLE_LOSS, ESTIMATE_NOISE_RATE)
