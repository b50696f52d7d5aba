"""Lesson 03: how labels go wrong. Transition matrices, drawing from them, estimating them.

3.3 draws at random, so that two right answers differ: its judge looks at properties, and names the
kind in which a property fails. Patrini et al. 2017 (arXiv 1609.03683) for 3.4.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ... import noise
from ..checks.draws import (
    GENERATOR_MISTAKES,
    SIGMAS,
    as_classes,
    ask_in_a_row,
    ask_often,
    ask_twice,
    broken,
    draws_anew,
    independent,
    repeatable,
)
from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.inputs import case_of, random_rows
from ..checks.judges import as_tensor, numbers

# As a student would write them: the package's own functions also check their arguments.


# 3.1 and 3.2: matrices ---------------------------------------------------------------------------


def _same_matrix(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge a matrix number by number; the dtype is free."""
    problem = numbers(got, expected, arguments, what="probabilities")
    matrix = as_tensor(got)
    if problem is None or problem.kind != "value" or isinstance(matrix, Mismatch):
        return problem
    row, column = divmod(int((matrix - expected).abs().nan_to_num(9).argmax()), matrix.shape[1])
    says = (
        f"row {row}, column {column} is {matrix[row, column].item():.4g} where "
        f"{expected[row, column].item():.4g} is expected"
    )
    sums = matrix.double().sum(dim=1)
    if (sums - 1).abs().max() > 1e-3:
        worst = int((sums - 1).abs().argmax())
        says += f" (row {worst} sums to {sums[worst].item():.4g}, not to 1)"
    return Mismatch("value", says)


def _symmetric_cases() -> list[Case]:
    case = case_of(num_classes=None, rate=None, include_true=None)
    return [
        case("three classes", 3, 0.2),
        case("no noise", 3, 0.0),
        case("two classes", 2, 0.3),
        case("five classes", 5, 0.4),
        case("most labels wrong", 4, 0.9),
        case("every label wrong", 4, 1.0),
        case("ten classes", 10, 0.45),
        case("said to be without the true class", 5, 0.4, False),
        case("with the true class, five classes", 5, 0.4, True),
        case("with the true class, two classes", 2, 0.3, True),
        case("with the true class, no noise", 3, 0.0, True),
        case("with the true class, all redrawn", 4, 1.0, True),
        case("with the true class, ten classes", 10, 0.5, True),
        case("with the true class, most redrawn", 6, 0.9, True),
    ]


SYMMETRIC_MATRIX = Exercise(
    number="3.1",
    package=noise.symmetric_matrix,
    cases=_symmetric_cases,
    judge=_same_matrix,
    hints=(
        "A row tells what happens to one true class. How much of it leaves, and among how many "
        "classes is that shared: are there C of them or C - 1?",
        "Without the true class: T[i, j] = r / (C - 1), T[i, i] = 1 - r. With it: "
        "T[i, j] = r / C, T[i, i] = 1 - r + r / C.",
        "share = ...   # what each other class gets: rate, divided among how many?\n"
        "matrix = torch.full((num_classes, num_classes), share)   # then fill_diagonal_",
    ),
    misconceptions=(
        Misconception(
            "shares the wrong labels among all classes",
            "Does each row sum to 1? Among how many *other* classes is the rate shared?",
            replace={"(num_classes if include_true else num_classes - 1)": "num_classes"},
        ),
        Misconception(
            "never redraws the true class",
            "With `include_true` a redrawn label may be right by luck: where does that show?",
            replace={"include_true else": "False else"},
        ),
        Misconception(
            "always redraws from all classes",
            "Without `include_true`, what share of the labels should end up wrong?",
            replace={"include_true else": "True else"},
        ),
        Misconception(
            "exchanges the two conventions",
            "Which value of `include_true` lets a redrawn label be the true one?",
            replace={"include_true else": "not include_true else"},
        ),
        Misconception(
            "forgets that a redrawn label may be right",
            "One redrawn label in C comes back to its own class. On which entry does it belong?",
            returns="matrix.fill_diagonal_(1 - rate)",
        ),
        Misconception(
            "gives every wrong class the whole rate",
            "The rate is that of *any* wrong label. What does one wrong class get of it?",
            returns=(
                "torch.full((num_classes, num_classes), float(rate)).fill_diagonal_(float(1 "
                "- rate))"
            ),
        ),
        Misconception(
            "puts the rate on the diagonal",
            "The diagonal says how often a label stays right. Is `rate` the share that stays?",
            replace={
                "rate / ": "(1 - rate) / ",
                "1 - rate + share": "rate + share",
                "else 1 - rate": "else rate",
            },
        ),
    ),
)


def _pairflip_cases() -> list[Case]:
    case = case_of(num_classes=None, rate=None)
    return [
        case("three classes", 3, 0.2),
        case("no noise", 3, 0.0),
        case("four classes", 4, 0.3),
        case("five classes", 5, 0.45),
        case("six classes", 6, 0.1),
        case("every label wrong", 4, 1.0),
        case("ten classes", 10, 0.45),
        case("ten classes, more", 10, 0.7),
        case("seven classes", 7, 0.25),
        case("two classes", 2, 0.3),
    ]


def _in_pairs(num_classes, rate):
    matrix = (1 - rate) * torch.eye(num_classes)
    for i in range(num_classes):
        partner = i ^ 1
        matrix[i, partner if partner < num_classes else i] += rate
    return matrix


PAIRFLIP_MATRIX = Exercise(
    number="3.2",
    package=noise.pairflip_matrix,
    cases=_pairflip_cases,
    judge=_same_matrix,
    hints=(
        "How many entries of a row are not 0? And where does the last class go, which has no "
        "next one?",
        "T[i, i] = 1 - r, T[i, (i + 1) mod C] = r, all others 0.",
        "stays = torch.eye(num_classes)\n"
        "goes = ...   # the same ones, each moved by a column: Tensor.roll",
    ),
    misconceptions=(
        Misconception(
            "flips to the class before",
            "Row = true class, column = given label. To which column does row 0 send its labels?",
            replace={"roll(1,": "roll(-1,"},
        ),
        Misconception(
            "leaves the last class as it is",
            "After the last class the count begins again: which class is (C - 1 + 1) mod C?",
            replace={"return": "goes[-1] = stays[-1]\n    return"},
        ),
        Misconception(
            "loses the wrong labels of the last class",
            "Does the last row sum to 1? Its wrong labels have to go somewhere.",
            replace={"stays.roll(1, dims=1)": "torch.diag(torch.ones(num_classes - 1), 1)"},
        ),
        Misconception(
            "exchanges the classes in pairs",
            "Despite the name, nothing comes back: 0 goes to 1, and 1 goes where?",
            _in_pairs,
        ),
        Misconception(
            "flips to both neighbours",
            "A class has one neighbour here: how many entries of a row differ from 0?",
            replace={
                "goes = stays.roll(1, dims=1)": (
                    "goes = (stays.roll(1, dims=1) + stays.roll(-1, dims=1)) / 2"
                )
            },
        ),
        Misconception(
            "keeps the rate and flips the rest",
            "With a rate of 0 nothing may change: what stands on the diagonal then?",
            returns="rate * stays + (1 - rate) * goes",
        ),
        Misconception(
            "spreads the wrong labels over all classes",
            "That is symmetric noise. How many wrong classes does pair flip know?",
            replace={"stays.roll(1, dims=1)": "(1 - stays) / (num_classes - 1)"},
        ),
    ),
)


# 3.3 corrupt -------------------------------------------------------------------------------------


def _exchange_matrix() -> Tensor:
    """Two classes that are mistaken for each other, one that goes to a third, one that stays."""
    return torch.tensor(
        [
            [0.6, 0.4, 0.0, 0.0],
            [0.4, 0.6, 0.0, 0.0],
            [0.1, 0.0, 0.7, 0.2],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def _corrupt_cases() -> list[Case]:
    def case(name: str, labels: Tensor, matrix: Tensor, **more: Any) -> Case:
        generator = torch.Generator().manual_seed(SEED)
        return Case(name, {"labels": labels, "matrix": matrix, "generator": generator}, **more)

    four, many = torch.arange(4), torch.arange(6000) % 4
    ring = noise.pairflip_matrix(4, 1.0)
    uneven = torch.tensor([[0.1, 0.3, 0.6], [0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    forty = torch.zeros(40, dtype=torch.int64)
    return [
        case("nothing changes", four, torch.eye(4)),
        case("everybody moves one on", four, ring),
        case("one label", torch.tensor([2]), ring),
        case("one class many times", torch.full((6,), 3), ring),
        case("pair flip, many labels", many, noise.pairflip_matrix(4, 0.3)),
        case("symmetric, many labels", many, noise.symmetric_matrix(4, 0.4)),
        case("two classes mistaken for each other", many, _exchange_matrix()),
        case("every row another", torch.arange(6000) % 3, uneven),
        case("most labels wrong", many, noise.pairflip_matrix(4, 0.8)),
        case("sorted labels", many.sort().values, noise.symmetric_matrix(4, 0.4)),
        case("32 bits", many, noise.pairflip_matrix(4, 0.45).float()),
        case("the same seed twice", many, _exchange_matrix(), ask=ask_twice, judge=repeatable),
        case("twice in a row", many, _exchange_matrix(), ask=ask_in_a_row, judge=draws_anew),
        case(
            "40 labels, 40 times",
            forty,
            noise.symmetric_matrix(3, 0.5),
            ask=ask_often,
            judge=partial(independent, group="all labels of a class"),
        ),
    ]


def _drawn_from_the_rows(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge one draw: shape, impossible labels, then how often each label came."""
    labels, matrix = arguments["labels"], arguments["matrix"].double()
    new = as_classes(got, labels, len(matrix))
    if isinstance(new, Mismatch):
        return new
    counts = (labels * len(matrix) + new).bincount(minlength=matrix.numel()).view_as(matrix)
    return _impossible(counts, matrix) or _shares(counts, matrix) or _all_over(labels, new, matrix)


def _impossible(counts: Tensor, matrix: Tensor) -> Mismatch | None:
    never = (counts > 0) & (matrix == 0)
    if not never.any():
        return None
    row, column = never.nonzero()[0].tolist()
    moved = int(counts.sum() - counts.diagonal().sum())
    along_columns = bool((matrix.T[counts > 0] > 0).all())
    kind = "transposed" if along_columns else "any class"
    return broken(
        kind if moved else "nothing changed",
        "labels come out that the matrix gives probability 0" if moved else "no label has changed",
        got=f"class {row} was given label {column}, {counts[row, column]} times",
        expected=f"row {row} of the matrix: {[round(p, 3) for p in matrix[row].tolist()]}",
    )


def _shares(counts: Tensor, matrix: Tensor) -> Mismatch | None:
    """Judge the counts of each row against the binomial band of its probability."""
    n = counts.sum(dim=1, keepdim=True)
    spread = SIGMAS * (n * matrix * (1 - matrix)).sqrt() + 1e-6
    off = (counts - n * matrix).abs() > spread
    if not off.any():
        return None
    row, column = off.nonzero()[0].tolist()
    single = (counts.max(dim=1).values == n[:, 0]) & (matrix.max(dim=1).values < 1)
    if single.any():
        kind, says = "one label a class", "all examples of a class are given the same label"
    else:
        kept, should = int(counts.diagonal().sum()), (n[:, 0] * matrix.diagonal()).sum()
        band = SIGMAS * math.sqrt(len(matrix) * float(n.max()))
        kind = "other labels" if abs(kept - should) < band else "too few changed"
        kind = "too many changed" if kept < should - band else kind
        says = f"the given labels do not follow the rows of the matrix: {kind}"
    return broken(
        kind,
        says,
        got=f"{counts[row, column]} of {n[row, 0]} labels of class {row} became {column}",
        expected=f"about {(n[row, 0] * matrix[row, column]).item():.0f}",
    )


def _all_over(labels: Tensor, new: Tensor, matrix: Tensor) -> Mismatch | None:
    # Within a class, 300 examples in a row that all stay: at 10 % noise that is 0.9^300.
    for c in range(len(matrix)):
        stays = matrix[c, c]
        parts = (new[labels == c] != c).split(300)
        if len(parts) > 2 and 0.1 < stays < 0.9 and not all(p.any() for p in parts[:-1]):
            return broken(
                "one stretch",
                "the changed labels of a class stand together in one stretch",
                expected="changed labels all over the data set",
            )
    return None


def _draw(rows: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.multinomial(rows.double(), 1, generator=generator).squeeze(1)


def _cascade(labels, matrix, generator=None):
    # Class after class in one array, as the code of ELR, CDR and APL: a 0 that has just become a 1
    # is met again among the 1s.
    new = labels.clone()
    for c in range(len(matrix)):
        members = (new == c).nonzero().flatten()
        if len(members):
            new[members] = _draw(matrix[c].expand(len(members), -1), generator)
    return new


def _exact_counts(labels, matrix, generator=None, shuffle=True):
    new = labels.clone()
    for c in range(len(matrix)):
        members = (labels == c).nonzero().flatten()
        if shuffle:
            members = members[torch.randperm(len(members), generator=generator)]
        bounds = (matrix[c].double().cumsum(0) * len(members)).round().long()
        bounds[-1] = len(members)
        repeats = bounds.diff(prepend=bounds.new_zeros(1))
        new[members] = torch.arange(len(matrix)).repeat_interleave(repeats)
    return new


CORRUPT = Exercise(
    number="3.3",
    cases=_corrupt_cases,
    judge=_drawn_from_the_rows,
    hints=(
        "Which row of the matrix speaks about an example? Can you have the rows of all n examples "
        "at once, as an (n, C) table?",
        "ỹᵢ is drawn from row yᵢ of the matrix, each i by itself: P(ỹᵢ = j) = T[yᵢ, j].",
        "rows = ...   # (n, C): one row of the matrix for each label\n"
        "torch.multinomial(rows, 1, ...)   # (n, 1); mind the generator, and the shape",
    ),
    misconceptions=(
        Misconception(
            "reads the matrix along its columns",
            "Row = true class. Which index of the matrix is the true label?",
            returns=(
                "torch.multinomial((matrix.T[labels] / matrix.T[labels].sum(1, "
                "keepdim=True).clamp_min(1e-09) + 1e-12).double(), 1, "
                "generator=generator).squeeze(1)"
            ),
        ),
        Misconception(
            "takes the most probable label",
            "A class that is right in most cases would never be wrong: where is the die?",
            returns="rows.argmax(dim=1)",
        ),
        Misconception(
            "draws once for each class",
            "Two images of one class get the same fate. How many draws do you need, C or n?",
            returns="torch.multinomial(matrix.double(), 1, generator=generator).squeeze(1)[labels]",
        ),
        Misconception(
            "goes class after class through one array",
            "A 0 that became a 1 is then met again among the 1s. "
            "Which labels decide on the row: the old or the new ones?",
            _cascade,
        ),
        Misconception(
            "uses the diagonal only",
            "Whether a label goes wrong is half of the story: where does it go?",
            returns=(
                "torch.where(torch.rand(len(labels), generator=generator) >= "
                "matrix.diagonal()[labels], (labels + torch.randint(1, len(matrix), "
                "labels.shape, generator=generator)) % len(matrix), labels)"
            ),
        ),
        Misconception(
            "uses the diagonal only, and draws the new label from all classes",
            "Whether a label goes wrong is half of the story. The other entries of its row say "
            "where it goes: do you ask them?",
            returns=(
                "torch.where(torch.rand(len(labels), generator=generator) >= "
                "matrix.diagonal()[labels], torch.randint(len(matrix), labels.shape, "
                "generator=generator), labels)"
            ),
        ),
        Misconception(
            "changes an exact number of labels",
            "If you saw a single example, how would you decide? Count the changes of many calls.",
            _exact_counts,
        ),
        Misconception(
            "changes the first examples of each class",
            "Data sets are often sorted. Which examples should be able to change?",
            lambda labels, matrix, generator=None: _exact_counts(
                labels, matrix, generator, shuffle=False
            ),
        ),
        Misconception(
            "returns a column",
            "multinomial draws a table (n, 1). What shape do labels have?",
            returns="torch.multinomial(rows.double(), 1, generator=generator).squeeze(1)[:, None]",
        ),
        *GENERATOR_MISTAKES,
        Misconception(
            "overwrites the labels it is given",
            "The true labels are needed again, for measuring. Where do you write to?",
            returns=(
                "labels.copy_(torch.multinomial(rows.double(), 1, generator=generator).squeeze(1))"
            ),
        ),
    ),
)


# 3.4 estimate_transition -------------------------------------------------------------------------


def _estimate_cases() -> list[Case]:
    case = case_of(probabilities=torch.as_tensor)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, classes: int, dtype: torch.dtype = torch.float32) -> Case:
        rows = random_rows(n, classes, generator)
        return case(f"{n} examples, {classes} classes", rows.to(dtype))

    return [
        case("two classes", [[0.6, 0.4], [0.9, 0.1], [0.3, 0.7]]),
        case("the surest is no majority", [[0.5, 0.3, 0.2], [0.4, 0.25, 0.35], [0.2, 0.7, 0.1]]),
        case("never the top class", [[0.8, 0.2], [0.55, 0.45], [0.7, 0.3]]),
        at_random(4, 3),
        at_random(6, 2),
        at_random(20, 4),
        at_random(50, 3),
        at_random(200, 5),
        at_random(500, 10),
        at_random(100, 10),
        at_random(60, 6, torch.float64),
        at_random(3, 5),
        case("one example", [[0.2, 0.5, 0.3]]),
    ]


def _published_filter(probabilities):
    # percentile, zeros through a view, then the largest of what is left: the Keras code.
    scores, rows = probabilities.clone(), []
    for c in range(scores.shape[1]):
        column = scores[:, c]
        column[column >= column.quantile(0.97)] = 0.0
        rows.append(scores[column.argmax()].clone())
    return torch.stack(rows)


ESTIMATE_TRANSITION = Exercise(
    number="3.4",
    cases=_estimate_cases,
    judge=_same_matrix,
    hints=(
        "Suppose you knew an image that is a 3 beyond doubt. What would the network's prediction "
        "for it tell you about the labels of 3s? How could you find such an image?",
        "xⁱ = argmax over x of p(i | x): one example a class. T̂[i, j] = p(j | xⁱ).",
        "surest = ...   # (C,): for each class a position; argmax along which axis?\n"
        "...   # the rows of `probabilities` at these positions",
    ),
    misconceptions=(
        Misconception(
            "averages over the examples predicted as a class",
            "The estimator asks one example a class, the surest. What does a mean mix in?",
            returns=(
                "torch.stack([probabilities[probabilities.argmax(dim=1) == c].mean(dim=0) "
                "for c in range(probabilities.shape[1])])"
            ),
        ),
        Misconception(
            "asks each example for its class",
            "How many rows has the result? You want one example for each class, not the reverse.",
            returns="probabilities[probabilities.argmax(dim=1).clamp_max(len(probabilities) - 1)]",
        ),
        Misconception(
            "returns the matrix transposed",
            "Row = true class: does each of your rows sum to 1, or does each column?",
            returns="probabilities[surest].T",
        ),
        Misconception(
            "returns where the surest examples are",
            "These are positions. What does the network say about the images there?",
            returns="surest",
        ),
        Misconception(
            "returns the largest scores only",
            "You have the diagonal. What else does the network say about those images?",
            returns="probabilities.max(dim=0).values.diag()",
        ),
        Misconception(
            "takes the least sure examples",
            "At which end of the scores of class i do you find an image that is surely i?",
            returns="probabilities[probabilities.argmin(dim=0)]",
        ),
        Misconception(
            "rounds the predictions to one class",
            "The doubt of the network is what you are after. Where does it get lost?",
            returns="torch.eye(probabilities.shape[1])[probabilities[surest].argmax(dim=1)]",
        ),
        Misconception(
            "takes the softmax a second time",
            "These are probabilities already: what does another softmax do to them?",
            returns="probabilities[surest].softmax(dim=1)",
        ),
        Misconception(
            "follows the filter of the published code",
            "It sets the highest scores to 0 in the predictions themselves. "
            "Do your rows still sum to 1?",
            _published_filter,
        ),
    ),
)

EXERCISES = (SYMMETRIC_MATRIX, PAIRFLIP_MATRIX, CORRUPT, ESTIMATE_TRANSITION)
