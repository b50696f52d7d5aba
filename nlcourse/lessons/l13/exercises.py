"""Lesson 13: what one may say about a run, and a loss of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks.engine import SEED
from ..checks.exercise import NOTHING, Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.gradients import value_and_slope
from ..checks.inputs import case_of
from ..checks.judges import as_tensor, named_numbers, number

# 13.1 best_and_last -----------------------------------------------------------------------------


def _curve_cases() -> list[Case]:
    case = case_of(curve=None)
    generator = torch.Generator().manual_seed(SEED)

    def peaked(epochs: int, peak: int) -> list[float]:
        noise = 0.01 * torch.rand(epochs, generator=generator)
        return [
            round(0.95 - 0.02 * abs(epoch - peak) + noise[epoch].item(), 4)
            for epoch in range(epochs)
        ]

    return [
        case("one epoch", [0.5]),
        case("three epochs", [0.5, 0.9, 0.7]),
        case("ten epochs", [0.1 * k for k in range(1, 11)]),
        case("eleven epochs, all different", [k * k / 200 for k in range(1, 12)]),
        case("the best epoch twice", [0.2, 0.8, 0.5, 0.8, 0.6]),
        *(
            case(f"{n} epochs with a peak", peaked(n, k))
            for n, k in [(15, 3), (30, 4), (25, 20), (60, 5), (9, 8)]
        ),
    ]


CURVE = Exercise(
    number="13.1",
    cases=_curve_cases,
    judge=named_numbers,
    hints=(
        "Which of the four numbers could a user know who has no test labels? What does [-10:] give "
        "for a list of three?",
        "best = max_t a_t at its first t, counted from 1; last = a_T; mean of the last ten = mean "
        "of a_(T-9), ..., a_T, or of all when there are fewer.",
        'ten = ...   # the last ten values, or all\nreturn {"best": ..., "epoch": ..., "last": '
        '..., "mean_of_last_ten": ...}',
    ),
    misconceptions=(
        Misconception(
            "counts epochs from 0",
            "The first epoch of a history is epoch 1. What does list.index count from?",
            replace={" + 1": ""},
        ),
        Misconception(
            "takes the last of several best epochs",
            "Somebody who stops at the best epoch stops when it is reached for the first time.",
            replace={"curve.index(best) + 1": "len(curve) - curve[::-1].index(best)"},
        ),
        Misconception(
            "divides by ten whatever there is",
            "A run of three epochs has no ten last ones. How many numbers did you add up?",
            replace={"len(ten)": "10"},
        ),
        Misconception(
            "takes the mean of the whole curve",
            "The beginning says nothing about where the run ends. Which epochs count?",
            replace={"curve[-10:]": "curve"},
        ),
        Misconception(
            "takes the ten best epochs",
            "The ten best were chosen with the test labels. The last ten were chosen by nobody.",
            replace={"curve[-10:]": "sorted(curve)[-10:]"},
        ),
        Misconception(
            "takes nine epochs",
            "How many values has curve[-9:]?",
            replace={"-10": "-9"},
        ),
        Misconception(
            "leaves the last epoch out",
            "A slice ends before its second number. Is the last epoch in yours?",
            replace={"curve[-10:]": "curve[-11:-1] or curve"},
        ),
        Misconception(
            "calls the best of the last ten the last",
            "The last accuracy is that of the last epoch, good or bad.",
            replace={"curve[-1]": "max(ten)"},
        ),
        Misconception(
            "looks for the best among the last ten only",
            "A network that memorizes peaks early. Where does max look?",
            replace={
                "best = max(curve)": "best = max(curve[-10:])",
                "curve.index(best) + 1": "len(curve) - len(ten) + 1 + ten.index(best)",
            },
        ),
    ),
)


# 13.2 chosen_accuracy ---------------------------------------------------------------------------


def _choice_cases() -> list[Case]:
    case = case_of(noisy_validation=None, test=None)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(epochs: int) -> Case:
        one, other = torch.rand(2, epochs, generator=generator)
        lists = [[round(value, 3) for value in part.tolist()] for part in (one, other)]
        return case(f"{epochs} epochs", *lists)

    return [
        case("one epoch", [0.5], [0.7]),
        case("the choice is the best", [0.3, 0.6, 0.4], [0.7, 0.9, 0.8]),
        case("the choice misses the best", [0.5, 0.6, 0.4], [0.95, 0.90, 0.7]),
        case("the choice is the last", [0.3, 0.4, 0.55], [0.9, 0.8, 0.6]),
        case("two epochs are equally good", [0.3, 0.6, 0.6, 0.2], [0.5, 0.8, 0.9, 0.7]),
        *(at_random(n) for n in (4, 8, 12, 20, 60)),
    ]


CHOICE = Exercise(
    number="13.2",
    cases=_choice_cases,
    judge=number,
    hints=(
        "Who may choose the epoch: the one who has the test labels, or the one who has not? And "
        "which number is reported then?",
        "t* = argmax_t v_t, the first of several; report a_(t*).",
        "chosen = ...   # the epoch with the highest validation accuracy, the first of several\n"
        "...   # the test accuracy there",
    ),
    misconceptions=(
        Misconception(
            "chooses with the test labels",
            "That is the best epoch, an oracle's. Which of the two curves may be looked at?",
            returns="max(test)",
        ),
        Misconception(
            "reports the validation accuracy",
            "Its labels are noisy: even a perfect network is 'wrong' there. What do we want to "
            "know?",
            returns="max(noisy_validation)",
        ),
        Misconception(
            "reports the last epoch",
            "The validation curve was there to choose with. Where is it highest?",
            returns="test[-1]",
        ),
        Misconception(
            "takes the last of several equally good epochs",
            "Who watches a run meets the first one first.",
            returns="test[len(test) - 1 - noisy_validation[::-1].index(max(noisy_validation))]",
        ),
        Misconception(
            "takes the epoch after the chosen one",
            "Epochs count from 1, places in a list from 0. Which do you index with?",
            returns="test[min(noisy_validation.index(max(noisy_validation)) + 1, len(test) - 1)]",
        ),
        Misconception(
            "chooses the lowest validation accuracy",
            "A loss should be low, an accuracy high.",
            returns="test[noisy_validation.index(min(noisy_validation))]",
        ),
        Misconception(
            "chooses where the two curves are nearest",
            "Validation labels are noisy, so the curves must differ, most of all in good epochs.",
            returns=(
                "min(zip(noisy_validation, test, strict=True), key=lambda pair: abs(pair[0] "
                "- pair[1]))[1]"
            ),
        ),
    ),
)

# 13.3 my_loss -----------------------------------------------------------------------------------

CLASSES = 10
EPOCHS = 20
SEEDS = (0, 1)  # of the two small trainings that a loss has to pass
MARGIN = 0.08  # test accuracy above cross entropy: the robust losses reach it, label smoothing not


@cache
def _small_case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """500 digits with 40 % wrong labels, and test digits: images and labels."""
    from ... import datasets, noise

    data = noise.inject(datasets.load("digits").subset(500, seed), "symmetric", 0.4, seed=seed)
    pixels = data.images.flatten(1).float()
    middle, spread = pixels.mean(), pixels.std()
    test = (data.test_images.flatten(1).float() - middle) / spread
    return (pixels - middle) / spread, data.labels, test, data.test_labels


def last_accuracy(loss: Callable[..., Tensor], seed: int) -> float:
    """Train a small network with a loss and return its test accuracy after the last epoch."""
    images, labels, test_images, test_labels = _small_case(seed)
    generator = torch.Generator().manual_seed(seed)
    torch.default_generator.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(labels), generator=generator).split(50):
            optimizer.zero_grad()
            loss(network(images[index]), labels[index], epoch).backward()
            optimizer.step()
    with torch.no_grad():
        return (network(test_images).argmax(dim=1) == test_labels).float().mean().item()


def _cross_entropy(logits: Tensor, labels: Tensor, epoch: int) -> Tensor:
    return F.cross_entropy(logits, labels)


@cache
def _to_beat() -> float:
    return _catalogued(_cross_entropy) + MARGIN


def _is_a_loss(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """A finite scalar with a finite gradient."""
    loss, slope = got
    if loss is None:
        return NOTHING
    value = as_tensor(loss)
    if isinstance(value, Mismatch):
        return value
    if value.dim():
        says = f"it returns a tensor of shape {tuple(value.shape)}: a loss is one number"
        return Mismatch("shape", says, got=f"shape {tuple(value.shape)}", expected="a scalar")
    if not bool(value.isfinite()):
        says = "the loss is infinite or no number"
        return Mismatch("infinite", says, got=str(value.item()), expected="a number", evidence="")
    if slope is None:
        says = "no gradient flows from it to the logits: nothing would be learned"
        return Mismatch("no gradient", says, got="no gradient", expected="one", evidence="")
    if not bool(slope.isfinite().all()):
        says = "its gradient has entries that are infinite or no numbers"
        return Mismatch("infinite", says, got="nan", expected="numbers", evidence="")
    return None


def _learns_labels(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """A step against the gradient makes the given labels likelier, on the mean over the batch."""
    problem = _is_a_loss(got, expected, arguments)
    if problem is not None:
        return problem
    _, slope = got
    own = slope.gather(1, arguments["labels"][:, None])
    if bool(slope.abs().max() < 1e-12):
        says = "its gradient is 0 in the first epoch: nothing would be learned"
        return Mismatch("flat", says, got="0", expected="a slope", evidence="")
    if own.mean() < 0:
        return None
    says = "in the first epoch a step makes the given labels *less* likely on the whole"
    return Mismatch(
        "wrong way",
        says,
        got=f"mean slope {own.mean():+.3g} at the labels",
        expected="a negative one",
        evidence="",
    )


def _does_not_grow(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """The same examples twice give the same loss."""
    (once, _), (twice, _) = got
    problem = _is_a_loss(got[0], expected[0], arguments)
    if problem is not None or abs(float(twice) - float(once)) <= 1e-3 * (1 + abs(float(once))):
        return problem
    says = "a batch with every example twice has another loss than the batch"
    return Mismatch(
        "batch size", says, got=f"{float(twice):.4g}", expected=f"{float(once):.4g}", evidence=""
    )


def _twice(function: Callable[..., Any], arguments: Arguments) -> Any:
    once = value_and_slope(function, dict(arguments))
    doubled = {
        "logits": torch.cat((arguments["logits"].detach(),) * 2),
        "labels": torch.cat((arguments["labels"],) * 2),
        "epoch": arguments["epoch"],
    }
    return once, value_and_slope(function, doubled)


def _trained(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Return the mean last accuracy of the small trainings; first that it is a loss at all."""
    first = value_and_slope(function, dict(arguments))
    if first[1] is None or not bool(first[1].isfinite().all()):
        return first
    return _catalogued(function) if function.__module__ == __name__ else _mean_last(function)


def _mean_last(function: Callable[..., Any]) -> float:
    return sum(last_accuracy(function, seed) for seed in SEEDS) / len(SEEDS)


# The reference and the known mistakes train once and not at every check.
_catalogued = cache(_mean_last)


def _beats_cross_entropy(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    if isinstance(got, tuple):
        return _is_a_loss(got, expected, arguments)
    if got >= _to_beat() and not math.isnan(got):
        return None
    says = (
        f"trained on 500 digits with 40 % wrong labels it ends at {got:.0%} test accuracy; cross "
        f"entropy ends at {_to_beat() - MARGIN:.0%}, and you should beat it by {MARGIN:.0%}"
    )
    # Which of the losses that are no better it is shows in the number.
    return Mismatch("no better", says, got=f"{got:.1%}", expected=f"at least {_to_beat():.1%}")


def _loss_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(SEED)

    def batch(n: int, epoch: int, scale: float = 1.0) -> Arguments:
        logits = scale * torch.randn(n, CLASSES, generator=generator)
        labels = torch.randint(CLASSES, (n,), generator=generator)
        return {"logits": logits, "labels": labels, "epoch": epoch}

    sure = torch.full((3, CLASSES), -60.0)
    sure[torch.arange(3), torch.tensor([1, 2, 3])] = 60.0
    against = {"logits": sure, "labels": torch.tensor([0, 0, 3]), "epoch": 5}
    ask = {"ask": value_and_slope}
    return [
        Case("one example", batch(1, 0), judge=_is_a_loss, **ask),
        Case("50 examples, first epoch", batch(50, 0), judge=_learns_labels, **ask),
        Case("two examples", batch(2, 1), judge=_is_a_loss, **ask),
        Case("50 examples, a late epoch", batch(50, EPOCHS - 1), judge=_is_a_loss, **ask),
        Case("300 examples", batch(300, 5), judge=_is_a_loss, **ask),
        Case("logits that are all equal", batch(30, 0, scale=0.0), judge=_learns_labels, **ask),
        Case("a sure network that disagrees", against, judge=_is_a_loss, **ask),
        Case("every example twice", batch(20, 0), judge=_does_not_grow, ask=_twice),
        Case("every example twice, later", batch(20, 9), judge=_does_not_grow, ask=_twice),
        Case("a small training", batch(5, 0), judge=_beats_cross_entropy, ask=_trained),
    ]


LOSS = Exercise(
    number="13.3",
    cases=_loss_cases,
    judge=_beats_cross_entropy,
    hints=(
        "Cross entropy pulls hardest where a label looks unlikely. Which labels look unlikely "
        "after a few epochs? What if those pulled less?",
        "One family: weigh each example by p_y^q (lesson 06). Another: from some epoch on keep the "
        "part of the batch with the smallest losses (lesson 07). A third: mix the label with the "
        "prediction (lesson 09).",
        "losses = ...   # cross entropy of each example, reduction='none'\n"
        "...   # after a few epochs the mean of those that are not among the largest",
    ),
    misconceptions=(
        Misconception(
            "is cross entropy again",
            "It learns the wrong labels as well as the right ones. Which examples should count "
            "less, and from when on?",
            returns="torch.nn.functional.cross_entropy(logits, labels)",
        ),
        Misconception(
            "smooths the labels",
            "That makes the network less sure of all labels, wrong and right alike. What tells "
            "them apart?",
            returns="torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)",
        ),
        Misconception(
            "returns a loss an example",
            "A step needs one number. How do the losses of a batch become one?",
            returns='torch.nn.functional.cross_entropy(logits, labels, reduction="none")',
        ),
        Misconception(
            "sums over the batch",
            "With batches of 500 the steps would be ten times as long as with 50.",
            returns='torch.nn.functional.cross_entropy(logits, labels, reduction="sum")',
        ),
        Misconception(
            "has its sign turned round",
            "SGD goes downhill. Is a likely label low or high in your loss?",
            returns="logits.softmax(dim=1).gather(1, labels[:, None]).mean()",
        ),
        Misconception(
            "cuts the gradient off",
            "A detached tensor, an argmax or an accuracy has no slope. What still depends on the "
            "logits?",
            returns="torch.nn.functional.cross_entropy(logits.detach(), labels)",
        ),
        Misconception(
            "believes only itself",
            "In the first epoch the network knows nothing. From whom does it learn then?",
            returns="torch.nn.functional.cross_entropy(logits, logits.argmax(dim=1))",
        ),
        Misconception(
            "takes the log of 0",
            "A sure network gives a wrong label the probability 0 exactly. Use log_softmax, or add "
            "a little.",
            returns=(
                "-(logits.softmax(dim=1).gather(1, labels[:, None]).log() * "
                "(logits.softmax(dim=1).gather(1, labels[:, None]).detach() > 0.3)).mean()"
            ),
        ),
    ),
)


EXERCISES = (CURVE, CHOICE, LOSS)
