"""Lesson 12: CDR. Xia et al. 2021 (ICLR, OpenReview Eql5b1_hTE4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...methods import cdr
from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.inputs import case_of, double
from ..checks.judges import as_tensor, numbers
from ..checks.show import describe

# Judges -----------------------------------------------------------------------------------------


def _masks(got: Any, expected: Sequence[Tensor], arguments: Arguments) -> Mismatch | None:
    """Judge one mask a parameter; 0 and 1 in any dtype count as False and True."""
    if not isinstance(got, list | tuple):
        says = f"it is a {type(got).__name__} where a list is expected, one mask a parameter"
        return Mismatch("type", says)
    if len(got) != len(expected):
        says = f"it holds {len(got)} masks for {len(expected)} parameters"
        return Mismatch("length", says, got=f"{len(got)} masks", expected=f"{len(expected)} masks")
    masks = [as_tensor(mask) for mask in got]
    for place, (mask, right) in enumerate(zip(masks, expected, strict=True)):
        problem = mask if isinstance(mask, Mismatch) else _mask(mask, right)
        if problem is not None:
            found, wanted = describe(got[place]), describe(right)
            says = f"for parameter {place}: {problem.says}"
            evidence = str([mask.tolist() for mask in masks if isinstance(mask, Tensor)])
            return Mismatch(problem.kind, says, got=found, expected=wanted, evidence=evidence)
    return None


def _mask(mask: Tensor, right: Tensor) -> Mismatch | None:
    if mask.shape != right.shape:
        says = f"the mask has shape {tuple(mask.shape)}, expected {tuple(right.shape)}"
        return Mismatch("shape", says)
    if not bool(((mask == 0) | (mask == 1)).all()):
        return Mismatch("no mask", "it holds other things than True and False")
    if bool((mask.bool() == right).all()):
        return None
    return Mismatch("value", f"{int(mask.sum())} entries are marked, but not these")


# 12.1 importance --------------------------------------------------------------------------------


def _importance_cases() -> list[Case]:
    case = case_of(parameter=double, gradient=double)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(name: str, *shape: int) -> Case:
        pair = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        return case(name, *pair)

    return [
        case("one entry", [2.0], [3.0]),
        case("opposite signs", [2.0], [-0.5]),
        case("a large weight that nothing pulls at", [5.0, 1.0], [0.0, 0.25]),
        case("a strong pull at a weight of 0", [0.0, 1.0], [9.0, 0.25]),
        case("two rows", [[1.0, -2.0], [-3.0, 4.0]], [[0.5, 0.5], [-0.1, -1.0]]),
        case("nothing matters", [0.0, 3.0], [2.0, 0.0]),
        at_random("a bias of 7", 7),
        at_random("a layer of 4 by 5", 4, 5),
        at_random("a convolution", 3, 2, 3, 3),
        at_random("a layer of 6 by 2", 6, 2),
    ]


IMPORTANCE = Exercise(
    number="12.1",
    package=cdr.importance,
    cases=_importance_cases,
    judge=numbers,
    hints=(
        "If you scaled this one entry up by one per cent, how much would the loss change, whether "
        "up or down?",
        "g_i = |∂L/∂w_i · w_i|, entry by entry.",
        "product = ...   # gradient times parameter, entry by entry\n"
        "...   # its size, without the sign",
    ),
    misconceptions=(
        Misconception(
            "forgets the absolute value",
            "An entry that would lower the loss matters as much as one that would raise it.",
            returns="gradient * parameter",
        ),
        Misconception(
            "takes the gradient alone",
            "A strong pull at a weight of 0: what does the network lose if you remove that weight?",
            returns="gradient.abs()",
        ),
        Misconception(
            "takes the weight alone",
            "That is pruning by magnitude. Nothing in it knows what the batch asks for.",
            returns="parameter.abs()",
        ),
        Misconception(
            "sums to one number",
            "⟨∇L, W⟩ is the slope of the whole. Which summand belongs to which entry?",
            returns="(parameter * gradient).sum().abs()",
        ),
        Misconception(
            "takes the relative pull",
            "Is it gradient per weight or gradient times weight?",
            returns="(gradient / parameter).abs()",
        ),
        Misconception(
            "adds where it should multiply",
            "Both must be large: a 0 in either makes the entry unimportant.",
            returns="parameter.abs() + gradient.abs()",
        ),
        Misconception(
            "squares the product",
            "The ranking would be the same, but g is defined without the square.",
            returns="(parameter * gradient) ** 2",
        ),
    ),
)


# 12.2 critical_mask -----------------------------------------------------------------------------


def _mask_cases() -> list[Case]:
    def case(name: str, importances: Sequence[Any], share: float) -> Case:
        tensors = [double(values) for values in importances]
        return Case(name, {"importances": tensors, "share": share})

    generator = torch.Generator().manual_seed(SEED)

    def at_random(name: str, share: float, *shapes: tuple[int, ...]) -> Case:
        # Each parameter on another scale, as the layers of a network are.
        sizes = [
            10.0**-place * torch.rand(*shape, generator=generator, dtype=torch.float64)
            for place, shape in enumerate(shapes)
        ]
        return case(name, sizes, share)

    return [
        case("a quarter of four entries", [[1.0, 4.0, 3.0, 2.0]], 0.25),
        case("three quarters", [[1.0, 4.0, 3.0, 2.0]], 0.75),
        case("all of them", [[1.0, 4.0, 3.0]], 1.0),
        case("rounded down", [[1.0, 4.0, 3.0, 2.0, 5.0]], 0.5),
        case("two parameters, one of them far more important", [[9.0, 8.0], [1.0, 2.0]], 0.25),
        case("two parameters, three of four", [[9.0, 1.0], [5.0, 2.0]], 0.75),
        case("a matrix and a bias", [[[6.0, 1.0], [5.0, 2.0]], [4.0, 3.0]], 0.5),
        at_random("two layers with biases", 0.6, (4, 5), (5,), (5, 3), (2,)),
        at_random("a convolution and a layer", 0.2, (3, 2, 3, 3), (4, 3)),
        at_random("three layers", 0.75, (6, 6), (6, 4), (4, 3)),
    ]


MASK = Exercise(
    number="12.2",
    package=cdr.critical_mask,
    cases=_mask_cases,
    judge=_masks,
    hints=(
        "The last layer may hold nearly all that matters. How do you compare entries of different "
        "layers, and what do you give back for each layer?",
        "The threshold is the k-th largest of all entries together, k = int(share · m); a mask is "
        "True where an entry reaches it.",
        "together = ...   # all entries of all parameters in one vector\n"
        "threshold = ...   # the smallest of its k largest; then compare each parameter with it",
    ),
    misconceptions=(
        Misconception(
            "marks the smallest instead of the largest",
            "Critical entries are those that matter most. Which end of the ranking is that?",
            returns="[values <= together.sort().values[count - 1] for values in importances]",
        ),
        Misconception(
            "takes a threshold for each layer where all are ranked together",
            "One layer may be ten times as important as another. Does every layer get its quota?",
            returns=(
                "[v >= v.flatten().sort(descending=True).values[int(share * v.numel()) - 1] "
                "if int(share * v.numel()) else v < 0 for v in importances]"
            ),
        ),
        Misconception(
            "marks the share tau instead of 1 - tau",
            "`share` is the critical part. How many entries are left over?",
            replace={
                "int(share * len(together))": "len(together) - int(share * len(together))",
                "topk(count).values[-1]": (
                    "sort(descending=True).values[count - 1] if count else torch.inf"
                ),
            },
        ),
        Misconception(
            "marks what is to be dropped",
            "True means critical: it goes on learning.",
            returns="[values < threshold for values in importances]",
        ),
        Misconception(
            "compares with a share of the largest value",
            "Half of the entries is not the same as half of the maximum. Count, do not measure.",
            returns=(
                "[values > (1 - share) * max((v.max() for v in importances)) for values in "
                "importances]"
            ),
        ),
        Misconception(
            "returns one long mask",
            "Each parameter needs a mask of its own shape.",
            returns="together >= threshold",
        ),
        Misconception(
            "returns the critical values instead of a mask",
            "What is asked for is where they stand: True or False at each place.",
            returns="[values * (values >= threshold) for values in importances]",
        ),
        Misconception(
            "leaves the last critical entry out",
            "The threshold is itself one of the k largest: > or >=?",
            returns="[values > threshold for values in importances]",
        ),
    ),
)


# 12.3 and 12.4, the two rules -------------------------------------------------------------------


_step_case = case_of(
    parameter=double,
    gradient=double,
    critical=partial(torch.as_tensor, dtype=torch.bool),
    noise_rate=None,
    decay=None,
)


def _random_steps() -> list[Case]:
    generator = torch.Generator().manual_seed(SEED)
    cases = []
    for name, tau, decay, shape in [
        ("a layer of 3 by 4", 0.2, 0.1, (3, 4)),
        ("a bias of 5", 0.4, 0.05, (5,)),
        ("a convolution", 0.6, 0.02, (2, 3, 2, 2)),
        ("a bias of 8", 0.25, 0.3, (8,)),
    ]:
        w, g, chosen = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
        cases.append(_step_case(name, w, g, chosen > 0, tau, decay))
    return cases


def _rule_cases() -> list[Case]:
    w, g, half = [[2.0, -3.0]], [[1.0, 1.0]], [[True, False]]
    return [
        _step_case("all critical, no noise, no decay", w, g, [[True, True]], 0.0, 0.0),
        _step_case("all critical, 25 % noise", w, g, [[True, True]], 0.25, 0.0),
        _step_case("one critical, the other not", w, g, half, 0.25, 0.0),
        _step_case("decay on a critical entry", [[2.0]], [[1.0]], [[True]], 0.25, 0.1),
        _step_case("decay on one that is not", [[2.0]], [[1.0]], [[False]], 0.25, 0.1),
        _step_case("both, with decay", w, g, half, 0.25, 0.1),
        _step_case("a bias", [2.0, -3.0], [1.0, 1.0], [True, False], 0.25, 0.1),
        *_random_steps(),
    ]


PAPER = Exercise(
    number="12.3",
    package=cdr.paper_direction,
    cases=_rule_cases,
    judge=numbers,
    hints=(
        "Two things happen to a critical entry, and one to every other. Which of the two do they "
        "share?",
        "critical: (1 - τ) · gradient + λ · sgn(w); otherwise: λ · sgn(w) alone.",
        "learning = ...   # the gradient with its factor, and 0 where not critical\n"
        "...   # plus the decay, which acts everywhere",
    ),
    misconceptions=(
        Misconception(
            "lets only the critical entries decay",
            "What is to become of an entry that gets no gradient? It should fade, not freeze.",
            returns="learning + decay * parameter.sign() * critical",
        ),
        Misconception(
            "lets only the others decay",
            "Look at the upper formula again: the norm is part of the loss for all entries.",
            returns="learning + decay * parameter.sign() * ~critical",
        ),
        Misconception(
            "multiplies by tau instead of 1 - tau",
            "With no noise nothing should be held back. What is the factor at tau = 0?",
            replace={"(1 - noise_rate)": "noise_rate"},
        ),
        Misconception(
            "forgets the factor 1 - tau",
            "The more labels are wrong, the smaller the steps. Where does tau come in?",
            replace={"(1 - noise_rate) * ": ""},
        ),
        Misconception(
            "decays by the weight instead of its sign",
            "That is the l2 norm, of the published code. What is the slope of |w|?",
            replace={".sign()": ""},
        ),
        Misconception(
            "has the decay turned round",
            "A step goes *against* this direction. Do weights shrink or grow?",
            replace={"+ decay": "- decay"},
        ),
        Misconception(
            "scales the decay by 1 - tau, too",
            "Which of the two terms stands inside the factor?",
            returns="(1 - noise_rate) * (gradient * critical + decay * parameter.sign())",
        ),
        Misconception(
            "lets the others learn and the critical ones fade",
            "`critical` is True for those that carry the simple patterns. Who should learn?",
            replace={"* critical": "* ~critical"},
        ),
        Misconception(
            "slows the others down instead of stopping them",
            "How much of its gradient does an entry get that is not critical?",
            returns=(
                "torch.where(critical, 1 - noise_rate, noise_rate) * gradient + decay * "
                "parameter.sign()"
            ),
        ),
    ),
)


def _code_cases() -> list[Case]:
    w, g, half = [[2.0, -3.0]], [[1.0, 1.0]], [[True, False]]
    return [
        _step_case("weights, all critical, no noise", w, g, [[True, True]], 0.0, 0.0),
        _step_case("weights, all critical, 25 % noise", w, g, [[True, True]], 0.25, 0.0),
        _step_case("weights, one critical, the other not", w, g, half, 0.25, 0.0),
        _step_case("decay on weights", w, g, half, 0.25, 0.1),
        _step_case("a bias, no decay", [2.0, -3.0], [1.0, 1.0], [True, False], 0.25, 0.0),
        _step_case("a bias, with decay", [2.0, -3.0], [1.0, 1.0], [True, False], 0.25, 0.1),
        _step_case("a convolution of 1 by 1", [[[[2.0]]]], [[[[1.0]]]], [[[[False]]]], 0.5, 0.1),
        *_random_steps(),
    ]


CODE = Exercise(
    number="12.4",
    package=cdr.code_direction,
    cases=_code_cases,
    judge=numbers,
    hints=(
        "The code looks at the number of dimensions of a parameter. Which parameters have one, "
        "which two, which four?",
        "2-D and 4-D: (1 - τ) · gradient · mask + λ w; all others: gradient + λ w.",
        "if ...:   # a weight: its gradient is masked and scaled, a bias keeps all of it\n"
        "...   # in both cases plus lambda times the parameter itself",
    ),
    misconceptions=(
        Misconception(
            "masks biases, too",
            "That is the paper. The code ranks 2-D and 4-D parameters only: what has a bias?",
            replace={"if parameter.dim() in (2, 4)": "if True"},
        ),
        Misconception(
            "scales the gradient of biases by 1 - tau",
            "Biases and norm layers are left out of it altogether.",
            replace={
                "    return": (
                    "    else:\n        gradient = (1 - noise_rate) * gradient\n    return"
                )
            },
        ),
        Misconception(
            "decays by the sign, as in the paper",
            "SGD's weight decay adds λ times *what* to the gradient?",
            replace={"* parameter": "* parameter.sign()"},
        ),
        Misconception(
            "lets only the critical entries decay",
            "The optimizer knows nothing of the mask when it adds its decay.",
            replace={"* parameter": "* parameter * critical"},
        ),
        Misconception(
            "multiplies by tau instead of 1 - tau",
            "With no noise nothing should be held back. What is the factor at tau = 0?",
            replace={"(1 - noise_rate)": "noise_rate"},
        ),
        Misconception(
            "forgets the factor 1 - tau",
            "The code multiplies its mask by the share that it keeps.",
            replace={"(1 - noise_rate) * ": ""},
        ),
        Misconception(
            "exempts biases from the decay",
            "Many recipes do, but here one number goes to the optimizer, for all parameters.",
            returns="gradient + decay * parameter * (parameter.dim() in (2, 4))",
        ),
        Misconception(
            "has the decay turned round",
            "A step goes *against* this direction. Do weights shrink or grow?",
            replace={"+ decay": "- decay"},
        ),
        Misconception(
            "treats convolutions like biases",
            "A convolution has four dimensions, and is a weight.",
            replace={"in (2, 4)": "== 2"},
        ),
    ),
)

EXERCISES = (IMPORTANCE, MASK, PAPER, CODE)
