"""Lesson 08: finding the wrong labels. Margins, percentile, density, prototypes.

Pleiss et al. 2020 (arXiv 2001.10528), Guo et al. 2018 (arXiv 1808.01097), Han et al. 2019 (arXiv
1908.02160).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...methods import aum, curriculum, self_learning
from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.inputs import case_of, double
from ..checks.judges import as_tensor, as_whole_numbers, finite_numbers


def _whole(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge one whole number an example."""
    value = as_whole_numbers(got, expected.shape)
    if isinstance(value, Mismatch):
        return value
    off = int((value != expected).sum())
    return Mismatch("value", f"{off} of {len(expected)} entries differ") if off else None


def _mask(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge one flag an example."""
    value = as_tensor(got)
    if isinstance(value, Mismatch):
        return value
    if value.dtype != torch.bool:
        says = f"it is {value.dtype} where True and False are expected, one an example"
        return Mismatch("dtype", says)
    if value.shape != expected.shape:
        says = f"it has shape {tuple(value.shape)}, expected {tuple(expected.shape)}"
        return Mismatch("shape", says)
    off = int((value != expected).sum())
    return Mismatch("value", f"{off} of {len(expected)} flags differ") if off else None


# 8.1 margins ------------------------------------------------------------------------------------


def _margin_cases() -> list[Case]:
    case = case_of(logits=double, labels=torch.tensor)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, classes: int, shift: float) -> Case:
        logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64) + shift
        labels = torch.randint(classes, (n,), generator=generator).tolist()
        return case(f"{n} examples with {classes} classes", logits, labels)

    row = [2.0, 7.0, 4.0]
    return [
        case("the label is what the network says", [row], [1]),
        case("the label comes second", [row], [2]),
        case("the label comes last", [row], [0]),
        case("all logits are negative", [[-5.0, -2.0, -9.0]], [1]),
        case("two classes that tie", [[3.0, 3.0, 1.0]], [0]),
        case("a network that is very sure", [[90.0, 0.0, -50.0], [90.0, 0.0, -50.0]], [0, 2]),
        case("three examples", [row, row, [0.5, 0.0, -3.0]], [0, 1, 1]),
        *(at_random(*sizes) for sizes in [(4, 2, 0.0), (6, 5, -20.0), (50, 10, 0.0)]),
    ]


MARGIN = Exercise(
    number="8.1",
    package=aum.margins,
    cases=_margin_cases,
    judge=finite_numbers,
    hints=(
        "What is the largest logit when the label is left out? How can you leave it out without "
        "touching the caller's tensor?",
        "M_i = z_i[y_i] - max over k ≠ y_i of z_i[k], for each row i.",
        "others = ...   # a copy of the logits with minus infinity where the label stands\n"
        "...   # the label's own logit minus the largest of the others, row by row",
    ),
    misconceptions=(
        Misconception(
            "has its sign turned round",
            "An example whose label the network believes should get a positive margin.",
            returns="others.max(dim=1).values - logits[rows, labels]",
        ),
        Misconception(
            "compares probabilities instead of logits",
            "A softmax ends at 1: of a hundred sure examples all look the same. What goes into it?",
            replace={"rows = ": "logits = logits.softmax(dim=1)\n    rows = "},
        ),
        Misconception(
            "takes the largest of all logits, the label's included",
            "Then no margin is ever above 0. Who has to be left out of the maximum?",
            returns="logits.gather(1, labels[:, None]).squeeze(1) - logits.max(dim=1).values",
        ),
        Misconception(
            "always takes the second largest logit",
            "If the label is not on top, who is its strongest rival?",
            returns=(
                "logits.gather(1, labels[:, None]).squeeze(1) - logits.topk(2, dim=1).values[:, 1]"
            ),
        ),
        Misconception(
            "measures the prediction and never looks at the label",
            "A sure network with a wrong label: should that be a large margin?",
            returns="logits.topk(2, dim=1).values @ torch.tensor([1.0, -1.0]).to(logits)",
        ),
        Misconception(
            "compares with the mean of the others",
            "One strong rival is enough to doubt a label. What hides it in a mean?",
            returns=(
                "logits.gather(1, labels[:, None]).squeeze(1) - (logits.sum(dim=1) - "
                "logits.gather(1, labels[:, None]).squeeze(1)) / (logits.shape[1] - 1)"
            ),
        ),
        Misconception(
            "puts 0 where the label stood",
            "What if all other logits are negative? Which number never wins a maximum?",
            returns=(
                "logits.gather(1, labels[:, None]).squeeze(1) - logits.scatter(1, labels[:, "
                "None], 0.0).max(dim=1).values"
            ),
        ),
        Misconception(
            "returns the mean over the batch",
            "We want to know which example is suspicious: one number for each.",
            returns="(logits[rows, labels] - others.max(dim=1).values).mean()",
        ),
        Misconception(
            "overwrites the caller's logits",
            "Training still needs them. What do you write minus infinity into?",
            replace={
                "logits.clone()": "logits",
                "others[rows": "own = logits[rows, labels].clone()\n    others[rows",
                "return logits[rows, labels]": "return own",
            },
        ),
    ),
)


# 8.2 flag_suspects ------------------------------------------------------------------------------


def _flag_cases() -> list[Case]:
    case = case_of(scores=double, threshold_scores=double, percentile=None)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, m: int, percentile: float) -> Case:
        scores = 3 * torch.randn(n, generator=generator, dtype=torch.float64)
        fake = 2 * torch.randn(m, generator=generator, dtype=torch.float64) - 1
        return case(f"{n} examples, {m} with the fake class", scores, fake, percentile)

    ladder = [0.0, 1.0, 2.0, 3.0, 4.0]
    return [
        case("one example with the fake class", [-1.0, 2.0], [0.5], 99.0),
        case("exactly on the threshold", [0.5, 0.6], [0.5], 99.0),
        case("percentile 100: the largest", [3.5, 4.0, 4.5], ladder, 100.0),
        case("percentile 50: the median", [1.5, 2.0, 2.5], ladder, 50.0),
        case("between two values", [2.7, 2.9, 3.1, 3.5], ladder, 75.0 - 2.5),
        case("near the top", [3.9, 3.97, 3.99, 4.0], ladder, 99.0),
        case("in another order", [3.9, 3.97, 3.99, 0.2], [4.0, 1.0, 3.0, 0.0, 2.0], 99.0),
        case("nobody is suspicious", [9.0, 8.0], ladder, 99.0),
        *(at_random(*one) for one in [(10, 5, 80.0), (60, 30, 99.0), (200, 117, 90.0)]),
    ]


FLAG = Exercise(
    number="8.2",
    package=aum.flag_suspects,
    cases=_flag_cases,
    judge=_mask,
    hints=(
        "Whose margins do you know to belong to wrong labels? And on which side of them do the "
        "suspects lie?",
        "α = the 99th percentile of the fake class's AUM, and i is a suspect if AUM_i ≤ α.",
        "threshold = ...   # torch.quantile wants a share, not per cent\n"
        "...   # compare each score with it",
    ),
    misconceptions=(
        Misconception(
            "flags the others",
            "A large margin speaks for a label. Which way round is the comparison?",
            returns="scores > threshold",
        ),
        Misconception(
            "takes the percentile of the examples themselves",
            "Then 99 of 100 are thrown out, whatever the noise. Whose labels are wrong for sure?",
            replace={"quantile(threshold_scores": "quantile(scores"},
        ),
        Misconception(
            "takes the percentile from the other end",
            "99 of 100 wrong labels should lie below the threshold, not above it.",
            replace={"percentile / 100": "1 - percentile / 100"},
        ),
        Misconception(
            "takes the largest, whatever the percentile",
            "One lucky wrong label would cost many right ones. Where does `percentile` come in?",
            replace={"100": "percentile"},
        ),
        Misconception(
            "takes the mean",
            "Half of the wrong labels lie above their mean. Where does `percentile` come in?",
            returns="scores <= threshold_scores.mean()",
        ),
        Misconception(
            "leaves out who lies exactly on the threshold",
            "At or under: is the comparison strict?",
            returns="scores < threshold",
        ),
        Misconception(
            "does not interpolate between neighbours",
            "torch.quantile and numpy.percentile go between two values unless told otherwise.",
            replace={"/ 100": '/ 100, interpolation="lower"'},
        ),
        Misconception(
            "returns positions instead of flags",
            "One True or False for each example is asked for.",
            returns="(scores <= threshold).nonzero().squeeze(1)",
        ),
    ),
)


# 8.3 local_density ------------------------------------------------------------------------------


def _density_cases() -> list[Case]:
    def case(name: str, features: Any, share: float = 0.6) -> Case:
        return Case(name, {"features": double(features), "share": share})

    generator = torch.Generator().manual_seed(SEED)

    def grid(n: int, d: int, share: float) -> Case:
        # Whole numbers: equal distances are equal however they are computed.
        points = torch.randint(-6, 7, (n, d), generator=generator)
        return case(f"{n} examples with {d} features, share {share:g}", points, share)

    def cloud(n: int, d: int) -> Case:
        middle = torch.randn(n, d, generator=generator, dtype=torch.float64)
        middle[-2:] += 6
        return case(f"{n} examples, two of them far away", middle)

    line = [[0.0], [1.0], [2.0], [9.0]]
    return [
        case("four points on a line", line),
        case("the same, in another order", [[9.0], [1.0], [0.0], [2.0]]),
        case("two pairs", [[0.0, 0.0], [1.0, 0.0], [8.0, 0.0], [8.0, 1.5]]),
        case("a far point", [[0.0], [1.0], [3.0], [4.0], [50.0]]),
        case("share 1: the largest distance is not below itself", line, 1.0),
        case("a small share", [[0.0], [1.0], [2.5], [5.0], [9.0]], 0.3),
        grid(8, 2, 0.6),
        grid(12, 3, 0.4),
        cloud(15, 4),
        cloud(20, 6),
    ]


DENSITY = Exercise(
    number="8.3",
    package=curriculum.local_density,
    cases=_density_cases,
    judge=_whole,
    hints=(
        "How many distances are there between n examples, counted both ways and with themselves? "
        "Which of them, in order, is the cutoff?",
        "d_c = the value at place ⌈share · n²⌉ of all sorted D_ij; ρ_i = #{j : D_ij < d_c} - 1.",
        "cutoff = ...   # sort all distances (torch.cdist); places count from 1, Python from 0\n"
        "...   # count what is below it in each row, without the example itself",
    ),
    misconceptions=(
        Misconception(
            "counts the example itself",
            "Everybody is at distance 0 from itself. Does that tell you anything?",
            returns="(distances < cutoff).sum(dim=1)",
        ),
        Misconception(
            "counts who is far instead of who is close",
            "A dense place has many neighbours *below* the cutoff.",
            returns="(distances >= cutoff).sum(dim=1)",
        ),
        Misconception(
            "counts who lies exactly at the cutoff, too",
            "Strictly closer: which comparison is that?",
            returns="(distances <= cutoff).sum(dim=1) - 1",
        ),
        Misconception(
            "takes the cutoff from the other end",
            "Ascending: with share 0.6 most of the distances lie below the cutoff.",
            replace={"[place - 1]": "[-place]"},
        ),
        Misconception(
            "takes a cutoff between two distances",
            "What lies between two distances is none of the n². Which place does the text ask for, "
            "and which entry stands there?",
            replace={
                " ** 2": "",
                "distances.flatten().sort().values[place - 1]": "distances.quantile(share)",
            },
        ),
        Misconception(
            "takes the cutoff one place further on",
            "Place 1 is the smallest distance. At which position does Python keep it?",
            returns=(
                "(distances < distances.flatten().sort().values[min(int(share * "
                "distances.numel()), distances.numel() - 1)]).sum(dim=1) - 1"
            ),
        ),
        Misconception(
            "leaves the diagonal out of the sorted distances",
            "All n² entries count, the zeros of the diagonal among them.",
            replace={
                ("place = math.ceil(share * distances.numel())"): (
                    "apart = distances[~torch.eye(len(distances), dtype=torch.bool)]\n"
                    "    place = math.ceil(share * len(apart))"
                ),
                "distances.flatten()": "apart",
            },
        ),
        Misconception(
            "gives every example a cutoff of its own",
            "Then all have about the same number of neighbours. How many cutoffs has a class?",
            replace={
                "distances.numel()": "len(distances)",
                (
                    "distances.flatten().sort().values[place - 1]"
                ): "distances.sort(dim=1).values[:, [place - 1]]",
            },
        ),
        Misconception(
            "returns the mean distance instead of a count",
            "One far stranger would change every mean. What is counted here?",
            returns="distances.sqrt().mean(dim=1)",
        ),
    ),
)


# 8.4 prototype_labels ---------------------------------------------------------------------------


class _Tensors(list[Tensor]):
    """A list of tensors that can be compared; of a plain one ``==`` asks a tensor if it is true."""

    def __eq__(self, other: object) -> bool:
        """Say whether the other list holds equal tensors."""
        if not isinstance(other, list) or len(self) != len(other):
            return False
        return all(map(torch.equal, self, other))

    __hash__ = None  # type: ignore[assignment]


def _prototype_cases() -> list[Case]:
    def case(name: str, features: Any, prototypes: list[Any]) -> Case:
        classes = _Tensors(double(some) for some in prototypes)
        return Case(name, {"features": double(features), "prototypes": classes})

    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, d: int, sizes: list[int]) -> Case:
        centres = 2 * torch.randn(len(sizes), d, generator=generator, dtype=torch.float64)

        def around(centre: Tensor, count: int) -> Tensor:
            lengths = 0.2 + 4 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
            step = torch.randn(count, d, generator=generator, dtype=torch.float64)
            return lengths * (centre + step)

        prototypes = [around(c, k) for c, k in zip(centres, sizes, strict=True)]
        features = torch.cat([around(c, n // len(sizes) + 1) for c in centres])[:n]
        return case(f"{n} images, prototypes {sizes}", features, prototypes)

    east, north = [1.0, 0.0], [0.0, 1.0]
    return [
        case("one prototype a class", [[3.0, 1.0]], [[east], [north]]),
        case("a long prototype is no nearer", [[1.0, 2.0]], [[[100.0, 0.0]], [north]]),
        case("a direction, not a place", [[10.0, 9.0]], [[[9.0, 0.0]], [[0.3, 0.3]]]),
        case("against its direction", [[-3.0, -1.0]], [[east], [north]]),
        case(
            "one near prototype, one far", [[1.0, 0.0]],
            [[east, [-1.0, 0.2]], [[1.0, 0.8], [1.0, -0.8]]],
        ),
        case(
            "classes with different numbers", [[1.0, 0.1]],
            [[east], [[1.0, 1.0], [1.0, 0.9], [1.0, 0.8], [1.0, 1.1]]],
        ),
        case(
            "prototypes of different lengths", [[1.0, 1.0]],
            [[[20.0, 0.0], [0.0, 1.0]], [[1.0, -0.2], [1.0, 0.1]]],
        ),
        case("two images", [[3.0, 1.0], [1.0, 3.0]], [[east], [north]]),
        *(at_random(*one) for one in [(6, 3, [2, 2]), (20, 4, [3, 1, 5]), (60, 8, [4] * 5)]),
    ]  # fmt: skip


PROTOTYPES = Exercise(
    number="8.4",
    package=self_learning.prototype_labels,
    cases=_prototype_cases,
    judge=_whole,
    hints=(
        "What makes two images alike here: where their features lie, or where they point? And how "
        "do several prototypes become one number?",
        "σ_c = (1/p_c) Σ_l cos(G(x), G(X_cl)), and the new label is argmax_c σ_c.",
        "...   # for each class: rows of length 1 on both sides, then their inner products\n"
        "...   # the mean over its prototypes; then which class has the largest",
    ),
    misconceptions=(
        Misconception(
            "compares inner products without dividing by the lengths",
            "A bright image has long features. Should it win for that? What is a cosine?",
            replace={"p.T": "some.T"},
        ),
        Misconception(
            "compares distances instead of directions",
            "The same image, twice as bright, lies elsewhere. What stays the same?",
            returns=(
                "torch.stack([-torch.cdist(features, some).mean(dim=1) for some in "
                "prototypes], dim=1).argmax(dim=1)"
            ),
        ),
        Misconception(
            "looks at the nearest prototype alone",
            "One prototype may itself be labelled wrong. How do the others get a say?",
            replace={"mean(dim=1)": "amax(dim=1)"},
        ),
        Misconception(
            "adds up instead of taking the mean",
            "A class with more prototypes would win by their number.",
            replace={"mean(dim=1)": "sum(dim=1)"},
        ),
        Misconception(
            "takes the mean of the prototypes before the cosine",
            "A long prototype then outvotes a short one. Cosine first, then the mean.",
            replace={"normalize(some,": "normalize(some.mean(dim=0, keepdim=True),"},
        ),
        Misconception(
            "chooses the class that is resembled least",
            "A cosine is large for what is alike. Is it max or min?",
            replace={"argmax": "argmin"},
        ),
        Misconception(
            "returns the scores instead of the labels",
            "A class for each image is asked for: where does the argmax come in?",
            replace={".argmax(dim=1)": ""},
        ),
        Misconception(
            "makes columns of length 1 instead of rows",
            "Each image has its own length. Over which dimension do you normalise?",
            replace={"features, dim=1": "features, dim=0", "some, dim=1": "some, dim=0"},
        ),
    ),
)

EXERCISES = (MARGIN, FLAG, DENSITY, PROTOTYPES)
