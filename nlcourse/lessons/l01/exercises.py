"""Lesson 01: random labels. Zhang et al. 2017 (arXiv 1611.03530).

Two of the three exercises draw at random, so that two right answers differ: their judges look at
properties, and name the kind in which a property fails.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

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
from ..checks.inputs import case_of
from ..checks.judges import as_tensor, named_numbers


def _generator(seed: int = SEED) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# 1.1 randomize_labels ----------------------------------------------------------------------------


def _randomize_cases() -> list[Case]:
    def case(name: str, labels: Tensor, share: float, num_classes: int, **more: Any) -> Case:
        arguments = {
            "labels": labels,
            "share": share,
            "num_classes": num_classes,
            "generator": _generator(),
        }
        return Case(name, arguments, **more)

    four, constant = torch.tensor([0, 1, 2, 3]), torch.zeros(6000, dtype=torch.int64)
    every = torch.arange(6000) % 10
    return [
        case("share 0", four, 0.0, 4),
        case("share 0, larger", every, 0.0, 10),
        case("one label", torch.tensor([2]), 1.0, 3),
        case("four labels", four, 0.5, 4),
        case("no label", torch.empty(0, dtype=torch.int64), 0.5, 4),
        case("all redrawn, every label 0", constant, 1.0, 4),
        case("all redrawn, ten classes", every, 1.0, 10),
        case("a fifth redrawn", every, 0.2, 10),
        case("half redrawn", every, 0.5, 10),
        case("nine tenths redrawn", every, 0.9, 10),
        case("half redrawn, every label 0", constant, 0.5, 4),
        case("the same seed twice", every, 0.5, 10, ask=ask_twice, judge=repeatable),
        case("twice in a row", every, 0.5, 10, ask=ask_in_a_row, judge=draws_anew),
        case("40 labels, 40 times", *_many_classes(), ask=ask_often, judge=independent),
    ]


def _many_classes() -> tuple[Tensor, float, int]:
    # So many classes that a redraw does not meet the old class: every redraw is seen. And no more:
    # 10^9 is too large for answers with torch.arange or torch.multinomial, which are right.
    return torch.full((40,), 7), 0.5, 10**6


def _randomized(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge one draw: range, how many changed, and how the new labels are spread."""
    labels, share, num_classes = (arguments[k] for k in ("labels", "share", "num_classes"))
    new = as_classes(got, labels, num_classes)
    if isinstance(new, Mismatch):
        return new
    if share == 0 and not torch.equal(new, labels):
        return broken("changed at share 0", "labels change although the share is 0")
    if len(new) < 1000 or share == 0:  # too few to count
        return None
    return _changes(labels, new, share, num_classes) or _spread(labels, new, share, num_classes)


def _changes(labels: Tensor, new: Tensor, share: float, num_classes: int) -> Mismatch | None:
    """Judge how many labels changed."""
    n, changed = len(labels), int((new != labels).sum())
    rate = share * (1 - 1 / num_classes)
    band = SIGMAS * math.sqrt(n * rate * (1 - rate))
    if abs(changed - n * rate) <= band:
        return None
    if changed > 10 and len(new[new != labels].unique()) == 1:
        says = "all redrawn labels get the same class"
        return broken("one new label", says, expected="a draw for each label")
    if changed == 0:
        kind = "nothing changed"
    elif share == 1 and changed == n:
        kind = "never the old class"
    else:
        kind = "too many changed" if changed > n * rate else "too few changed"
    says = "a redraw may hit the old class too" if "never" in kind else kind
    return broken(
        kind,
        says,
        got=f"{changed} of {n} labels changed",
        expected=(
            f"about {n * rate:.0f}: a share of {share:g} redrawn, "
            f"1 in {num_classes} of these to its old class"
        ),
    )


def _spread(labels: Tensor, new: Tensor, share: float, num_classes: int) -> Mismatch | None:
    """Judge how often each class occurs among the new labels that differ from the old ones."""
    n = len(labels)
    before, after = (t.bincount(minlength=num_classes) for t in (labels, new))
    expected = (1 - share) * before + share * n / num_classes
    if torch.equal(before, after):
        says = "each class occurs exactly as often as before"
        return broken("same counts", says, expected="new draws, so that the counts move a little")
    if ((after - expected).abs() <= SIGMAS * torch.sqrt(expected)).all():
        return _everywhere(labels, new)
    worst = int((after - expected).abs().argmax())
    return broken(
        "uneven classes",
        "the new labels do not meet all classes equally often",
        got=f"{int(after[worst])} labels of class {worst}",
        expected=f"about {expected[worst]:.0f}",
    )


def _everywhere(labels: Tensor, new: Tensor) -> Mismatch | None:
    # A thousand labels in a row, all kept: at share 0.2 and ten classes that is 0.82^1000.
    parts = (new != labels).split(1000)
    if all(part.any() for part in parts):
        return None
    return broken(
        "one stretch",
        "the changed labels stand together in one stretch",
        got=f"changed labels in {sum(bool(part.any()) for part in parts)} of {len(parts)} parts",
        expected="changed labels all over the data set",
    )


def _exact_count(labels, share, num_classes, generator=None):
    chosen = torch.randperm(len(labels), generator=generator)[: int(share * len(labels))]
    new = labels.clone()
    new[chosen] = torch.randint(num_classes, chosen.shape, generator=generator)
    return new


RANDOMIZE_LABELS = Exercise(
    number="1.1",
    cases=_randomize_cases,
    judge=_randomized,
    hints=(
        "Two random decisions stand behind each new label: which two? "
        "Can you take each of them for all labels at once?",
        "rᵢ = [uᵢ < share] with uᵢ uniform in [0, 1); zᵢ uniform in {0, ..., C - 1}; "
        "new label = zᵢ where rᵢ, else the old one.",
        "redraw = torch.rand(len(labels), generator=generator) < share\n"
        "new_labels = torch.randint(...)   # one for each; then torch.where chooses",
    ),
    misconceptions=(
        Misconception(
            "never draws the old class",
            "Zhang et al. draw from all classes: of ten classes, how many stay right?",
            returns=(
                "torch.where(redraw, (labels + torch.randint(1, num_classes, labels.shape, "
                "generator=generator)) % num_classes, labels)"
            ),
        ),
        Misconception(
            "redraws a fixed number of labels",
            '"With probability p, each label": how would you decide if you saw one label alone?',
            _exact_count,
        ),
        Misconception(
            "redraws the first labels of the data set",
            "Data sets are often sorted. Which labels should be able to change?",
            returns=(
                "torch.cat((torch.randint(num_classes, (int(share * len(labels)),), "
                "generator=generator), labels[int(share * len(labels)) :]))"
            ),
        ),
        Misconception(
            "never draws the last class",
            "The upper end of torch.randint is not drawn. Which classes can come out of yours?",
            returns=(
                "torch.where(redraw, torch.randint(max(num_classes - 1, 1), labels.shape, "
                "generator=generator), labels)"
            ),
        ),
        *GENERATOR_MISTAKES,
        Misconception(
            "draws one new label for all",
            "How many new labels does your draw return, and how many are needed?",
            replace={"(len(labels),)": "(1,)"},
        ),
        Misconception(
            "overwrites the labels it is given",
            "The true labels are needed again, for measuring. What makes a copy?",
            returns="labels.copy_(torch.where(redraw, drawn, labels))",
        ),
        Misconception(
            "redraws the labels that should stay",
            "At share 0 nothing may change: which way round is your comparison?",
            replace={"< share": ">= share"},
        ),
        Misconception(
            "shuffles the labels among the examples",
            "If all labels are 0, can a shuffle make a 1? Where do new labels come from?",
            returns=(
                "labels.masked_scatter(redraw, "
                "labels[redraw][torch.randperm(int(redraw.sum()), generator=generator)])"
            ),
        ),
        Misconception(
            "tosses one coin for the whole data set",
            "How many random numbers does the decision need: one, or one for each label?",
            replace={"torch.rand(len(labels)": "torch.rand(1"},
        ),
    ),
)


# 1.2 group_accuracies ----------------------------------------------------------------------------


def _group_cases() -> list[Case]:
    case = case_of(predictions=torch.tensor, given_labels=torch.tensor, true_labels=torch.tensor)

    def at_random(n: int) -> Case:
        generator = _generator(SEED + n)
        true, drawn, guess = torch.randint(5, (3, n), generator=generator)
        coins = torch.rand(2, n, generator=generator)
        given = torch.where(coins[0] < 0.4, drawn, true)
        return case(
            f"{n} examples at random",
            torch.where(coins[1] < 0.3, guess, torch.where(coins[1] < 0.6, given, true)).tolist(),
            given.tolist(),
            true.tolist(),
        )

    return [
        case("all right but one, memorized", [0, 1, 3, 2], [0, 1, 3, 2], [0, 1, 2, 2]),
        case("the wrong label is seen through", [0, 1, 2], [0, 1, 0], [0, 1, 2]),
        case("neither given nor true", [0, 1, 3], [0, 1, 0], [0, 1, 2]),
        case("a clean one is missed", [0, 0, 0, 2], [0, 1, 0, 2], [0, 1, 2, 2]),
        case("nothing is predicted right", [4, 4, 4, 4], [0, 1, 2, 3], [0, 1, 3, 2]),
        case("three of four are wrongly labelled", [1, 1, 2, 0], [1, 2, 3, 0], [0, 1, 2, 0]),
        *(at_random(n) for n in (12, 20, 40, 80, 160, 320)),
        case("no label is wrong", [0, 1, 1], [0, 1, 2], [0, 1, 2]),
        case("every label is wrong", [0, 1, 3], [0, 2, 1], [1, 1, 2]),
    ]


GROUP_ACCURACIES = Exercise(
    number="1.2",
    cases=_group_cases,
    judge=named_numbers,
    hints=(
        "Which examples are wrongly labelled? Can you say so for all of them at once, "
        "before you look at a single prediction?",
        "wrong_as_given = (wrongly labelled with prediction = given label) / (all wrongly "
        "labelled); the others in the same way, each over its own group.",
        "wrong = given_labels != true_labels\n"
        "... = (predictions[wrong] == ...[wrong]).float().mean().item()",
    ),
    misconceptions=(
        Misconception(
            "divides by all examples",
            "If all wrong labels are memorized, which number should come out? Share of whom?",
            replace={
                "as_true[~wrong]": "(as_true * ~wrong)",
                "as_given[wrong]": "(as_given * wrong)",
                "as_true[wrong]": "(as_true * wrong)",
            },
        ),
        Misconception(
            "counts where a share is asked for",
            "Shares lie between 0 and 1: how large is each group?",
            replace={".mean()": ".sum()"},
        ),
        Misconception(
            "exchanges the two shares of the wrongly labelled",
            "Who predicts the given, wrong label has memorized it: which name is that?",
            replace={
                "as_given[wrong]": "AS[wrong]",
                "as_true[wrong]": "as_given[wrong]",
                "AS[wrong]": "as_true[wrong]",
            },
        ),
        Misconception(
            "measures `clean` on all examples",
            "Only the rightly labelled belong to `clean`: where do you leave the others out?",
            replace={"as_true[~wrong]": "as_true"},
        ),
        Misconception(
            "gives the training accuracy as `clean`",
            "Who memorizes every wrong label reaches 1 there. Which examples is `clean` about?",
            replace={"as_true[~wrong]": "as_given"},
        ),
        Misconception(
            "takes every wrongly labelled example for memorized or seen through",
            "A network may also predict a third class: do the two shares always sum to 1?",
            replace={"as_true[wrong]": "(1 - as_given[wrong])"},
        ),
        Misconception(
            "forms the groups by the predictions",
            "The groups are fixed before anyone predicts: what tells that a label is wrong?",
            replace={"wrong = given_labels != true_labels": "wrong = predictions != given_labels"},
        ),
    ),
)


# 1.3 shuffle_pixels ------------------------------------------------------------------------------


def _pixel_cases() -> list[Case]:
    def case(name: str, *shape: int, dtype: torch.dtype = torch.float32, **more: Any) -> Case:
        # Every value occurs once, so that each pixel can be followed.
        images = torch.arange(math.prod(shape), dtype=dtype).reshape(shape)
        return Case(name, {"images": images, "generator": _generator()}, **more)

    return [
        case("one pixel", 1, 1, 1, 1),
        case("one image of 2 x 3", 1, 1, 2, 3),
        case("two images of 2 x 3", 2, 1, 2, 3),
        case("one image of 8 x 8", 1, 1, 8, 8),
        case("three images of 8 x 8", 3, 1, 8, 8),
        case("a wide image", 2, 1, 4, 16),
        case("three channels", 1, 3, 8, 8),
        case("five images of three channels", 5, 3, 8, 8),
        case("bytes", 3, 1, 8, 8, dtype=torch.uint8),
        case("64 bits", 2, 3, 8, 8, dtype=torch.float64),
        case("the same seed twice", 3, 1, 8, 8, ask=ask_twice, judge=repeatable),
        case("twice in a row", 3, 1, 8, 8, ask=ask_in_a_row, judge=draws_anew),
    ]


def _pixels_moved(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge where the pixels went, from the images down to the rows."""
    images = arguments["images"]
    moved = as_tensor(got, images.shape)
    if isinstance(moved, Mismatch):
        return broken(moved.kind, moved.says)
    moved = moved.double()
    if not torch.equal(moved.flatten().sort().values, images.double().flatten().sort().values):
        says = "some pixels are lost and others occur twice"
        return broken("pixels lost", says, expected="the same pixel values at other places")
    return _within(images, moved) or _order(images, moved)


def _within(images: Tensor, moved: Tensor) -> Mismatch | None:
    """Judge whether each pixel stayed in its image and its channel."""
    size, channels = images.shape[2] * images.shape[3], images.shape[1]
    place = moved.flatten(1).long()
    if not (place // (size * channels) == torch.arange(len(images))[:, None]).all():
        says = "pixels of one image turn up in another"
        return broken("images mixed", says, expected="each image keeps its own pixels")
    if not (place.reshape(-1, size) // size == torch.arange(len(place) * channels)[:, None]).all():
        says = "pixels move from one colour channel to another"
        return broken("channels mixed", says, expected="each channel keeps its own values")
    return None


def _order(images: Tensor, moved: Tensor) -> Mismatch | None:
    """Judge the permutation itself: one for all, and a thorough one."""
    height, width = images.shape[2:]
    size = height * width
    orders = moved.flatten(2).long() % size
    if not (orders == orders[:, :1]).all():
        says = "the channels of an image are shuffled differently"
        return broken("channels apart", says, expected="a pixel moves with all its channels")
    if not (orders == orders[:1]).all():
        says = "every image gets its own permutation"
        return broken("own permutation", says, expected="one permutation for all images")
    if size < 30:  # by luck a few pixels may well stay
        return None
    order = orders[0, 0].reshape(height, width)
    rows, columns = order // width, order % width
    if torch.equal(order.flatten(), torch.arange(size)):
        return broken("nothing moved", "no pixel has moved")
    if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
        kind = "rows" if torch.equal(columns[0], torch.arange(width)) else "rows and columns"
        says = f"whole {kind} are moved, and stay together"
        return broken(kind, says, expected="every pixel may go to every place")
    return None


SHUFFLE_PIXELS = Exercise(
    number="1.3",
    cases=_pixel_cases,
    judge=_pixels_moved,
    hints=(
        "A permutation of what: images, rows, or places of pixels? "
        "How many permutations does a data set of a thousand images need?",
        "out[i, k, p] = images[i, k, π(p)], p = 0, ..., h·w - 1 the place, one π for all i, k.",
        "order = torch.randperm(h * w, generator=generator)\n"
        "flat = images.flatten(2)   # (n, c, h * w): index its last axis, then give the shape back",
    ),
    misconceptions=(
        Misconception(
            "draws a permutation for each image",
            'Then nothing common is left to learn (that is the paper\'s "random pixels"). '
            "How often is randperm called?",
            returns=(
                "torch.stack([image.flatten(1)[:, torch.randperm(height * width, "
                "generator=generator)] for image in images]).reshape(images.shape)"
            ),
        ),
        Misconception(
            "shuffles the images and not their pixels",
            "Which axis do you index, the first or those of height and width?",
            returns="images[torch.randperm(len(images), generator=generator)]",
        ),
        Misconception(
            "shuffles whole rows",
            "Neighbours in a row stay neighbours. Can a pixel leave its row?",
            returns="images[:, :, torch.randperm(images.shape[2], generator=generator)]",
        ),
        Misconception(
            "shuffles rows and columns one after the other",
            "Two pixels of one row still share a row. How many places are there, h + w or h · w?",
            returns=(
                "images[:, :, torch.randperm(height, generator=generator)][..., "
                "torch.randperm(width, generator=generator)]"
            ),
        ),
        Misconception(
            "moves values between the colour channels",
            "A pixel has c values at one place. Which axes did you flatten?",
            returns=(
                "images.flatten(1)[:, torch.randperm(images[0].numel(), "
                "generator=generator)].reshape(images.shape)"
            ),
        ),
        Misconception(
            "shuffles each channel by itself",
            "Red, green and blue of a pixel belong together. How often is randperm called?",
            returns=(
                "torch.cat([images[:, [c]].flatten(2)[:, :, torch.randperm(height * width, "
                "generator=generator)] for c in range(channels)], "
                "dim=1).reshape(images.shape)"
            ),
        ),
        Misconception(
            "shuffles across the whole data set",
            "Can a pixel of the first image land in the last one?",
            returns=(
                "images.flatten()[torch.randperm(images.numel(), "
                "generator=generator)].reshape(images.shape)"
            ),
        ),
        Misconception(
            "draws places with replacement",
            "Some pixels are lost and others doubled: what draws each place exactly once?",
            replace={
                "torch.randperm(height * width,": "torch.randint(height * width, (height * width,),"
            },
        ),
        *GENERATOR_MISTAKES,
        Misconception(
            "overwrites the images it is given",
            "The caller still needs the pictures. Where do you write to?",
            returns="images.copy_(images.flatten(2)[:, :, order].reshape(images.shape))",
        ),
    ),
)

EXERCISES = (RANDOMIZE_LABELS, GROUP_ACCURACIES, SHUFFLE_PIXELS)
