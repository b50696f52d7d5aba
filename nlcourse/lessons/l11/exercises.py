"""Lesson 11: DivideMix. Li, Socher and Hoi 2020 (arXiv 2002.07394), algorithm 1."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...methods import dividemix
from ..checks.engine import SEED
from ..checks.exercise import Arguments, Case, Exercise, Misconception, Mismatch
from ..checks.gradients import cut_off, loss_and_slope, value_and_slope, with_gradient
from ..checks.inputs import case_of, double, random_rows
from ..checks.judges import as_tensor, finite_numbers

NEAR = 0.1  # of a probability: two ways to fit the same two curves differ by less


# 11.1 clean_probability -------------------------------------------------------------------------


def _near(got: Any, expected: Tensor, arguments: Arguments) -> Mismatch | None:
    """Judge probabilities up to what two fits of the same curves may differ by."""
    value = as_tensor(got, expected.shape)
    if isinstance(value, Mismatch):
        return value
    if value.is_complex() or not bool(value.isfinite().all()):
        return Mismatch("infinite", "it has entries that are no finite numbers", evidence="")
    off = (value.double() - expected.double()).abs()
    if bool((off <= NEAR).all()):
        return None
    # Rounded, so that another library's fit with the same mistake is recognised, too.
    shown = str([round(number, 1) + 0.0 for number in value.double().tolist()])
    worst = int(off.argmax())
    says = (
        f"the probabilities differ, most of all for the loss {arguments['losses'][worst]:.3g}: "
        f"{value[worst]:.2f} came out, expected {expected[worst]:.2f}"
    )
    return Mismatch("value", says, evidence=shown)


def _components(*parts: tuple[int, float, float], seed: int = 0) -> Tensor:
    """Draw losses from several components, each given by count, middle and half width; shuffled."""
    generator = torch.Generator().manual_seed(SEED + seed)
    drawn = [
        middle + half * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)
        for count, middle, half in parts
    ]
    losses = torch.cat(drawn)
    return losses[torch.randperm(len(losses), generator=generator)]


def _split_cases() -> list[Case]:
    case = case_of(losses=None)
    by_heart = (80, 5e-5, 5e-5), (4, 0.03, 0.005), (80, 2.5, 1.5)
    return [
        case("three small and three large losses", double([0.1, 0.2, 0.15, 3.0, 3.1, 2.9])),
        case("the large ones first", double([3.0, 3.1, 2.9, 2.95, 0.1, 0.2, 0.15])),
        case("more large than small", double([3.0, 3.1, 0.1, 2.9, 2.95, 0.2])),
        case("mostly small", _components((40, 0.4, 0.4), (3, 4.0, 0.3), seed=1)),
        case("mostly large", _components((4, 0.3, 0.2), (40, 3.0, 0.5), seed=2)),
        case(
            "small losses that are not near 0", _components((12, 5.0, 0.2), (12, 9.0, 0.4), seed=3)
        ),
        case("in 32 bits", _components((12, 0.2, 0.1), (12, 4.0, 0.5), seed=4).float()),
        case("losses in the hundreds", 100 * _components((15, 0.2, 0.1), (9, 4.0, 0.5), seed=5)),
        case(
            "losses in the thousandths", 1e-3 * _components((12, 0.2, 0.1), (12, 1.0, 0.2), seed=11)
        ),
        case("a young network", _components((20, 2.3, 0.001), (20, 2.31, 0.0015), seed=12)),
        case("half of them learned by heart", _components(*by_heart, seed=15)),
        case(
            "a wide component of large losses", _components((15, 0.2, 0.1), (15, 4.0, 1.5), seed=6)
        ),
        case("a hundred losses", _components((60, 0.2, 0.2), (40, 4.0, 0.8), seed=7)),
        case("two hundred losses", _components((60, 0.4, 0.3), (140, 3.0, 0.6), seed=8)),
        # Not nearer: then a fit that ends early, as the authors' does, is another fit.
        case("components that overlap", _components((80, 1.0, 0.7), (80, 2.6, 0.8), seed=17)),
    ]


SPLIT = Exercise(
    number="11.1",
    cases=_split_cases,
    judge=_near,
    hints=(
        "Which of the two curves holds the right labels, and how do you find out which number "
        "scikit-learn gave it? And does it return densities or probabilities?",
        "w_i = P(low curve | loss_i), where low is the part whose entry in `means_` is smaller.",
        "values = ...   # losses from 0 to 1, as a numpy column (n, 1)\n"
        "...   # fit GaussianMixture(2); take predict_proba's column of the smaller mean",
    ),
    misconceptions=(
        Misconception(
            "takes the curve with the larger mean as clean",
            "Is a label that surprises the network rather right or rather wrong?",
            replace={"argmin": "argmax"},
        ),
        Misconception(
            "takes the first curve as it comes",
            "scikit-learn numbers the two by chance. What tells them apart?",
            replace={"[:, low]": "[:, 0]"},
        ),
        Misconception(
            "returns a density",
            "A density can be 5, and falls again for losses that are even smaller. You want to "
            "know from which of two curves a loss comes.",
            returns=(
                "torch.distributions.Normal(mixture.means_[low, 0], "
                "mixture.covariances_[low, 0, 0] ** 0.5).log_prob(stretched.double()).exp()"
            ),
        ),
        Misconception(
            "does not stretch the losses",
            "`reg_covar` is a width on the scale 0..1. What is it on a scale of thousandths?",
            replace={"stretched.double()": "losses.double()"},
        ),
        Misconception(
            "divides by the largest loss alone",
            "The smallest loss should become 0. What becomes of losses between 2.30 and 2.31?",
            replace={
                "(losses - losses.min()) / (losses.max() - losses.min())": "losses / losses.max()"
            },
        ),
        Misconception(
            "lets a curve become a needle",
            "Half of the losses are 0 to the fourth digit. What gives their curve a least width?",
            replace={"5e-4": "1e-6"},
        ),
        Misconception(
            "hands the losses to scikit-learn as they are",
            "The text asks for two things before the fit: one for the losses, one for the width.",
            replace={"stretched.double()": "losses.double()", "5e-4": "1e-6"},
        ),
        Misconception(
            "takes the larger of the two curves as clean",
            "With 60 % wrong labels the larger group is not the right one.",
            replace={"means_[:, 0].argmin()": "weights_.argmax()"},
        ),
        Misconception(
            "stretches the losses and calls that a probability",
            "1 minus the stretched loss knows nothing of two groups. Where is the mixture?",
            returns="1 - stretched.double()",
        ),
        Misconception(
            "returns the stretched loss itself",
            "A large loss should give a small probability. Where is the mixture?",
            returns="stretched.double()",
        ),
        Misconception(
            "decides instead of giving a probability",
            "Between the components nobody can be sure. Which method of the mixture says how sure?",
            returns="torch.from_numpy(mixture.predict_proba(values)[:, low] > 0.5).double()",
        ),
        Misconception(
            "cuts at the mean loss",
            "Where the mean lies depends on how many labels are wrong, which nobody knows.",
            returns="(losses < losses.mean()).double()",
        ),
    ),
)


# 11.2 co_divide ---------------------------------------------------------------------------------


def _two_masks(got: Any, expected: Any, arguments: Arguments) -> Mismatch | None:
    """Judge two masks in their order; 0 and 1 do as well as False and True."""
    if not isinstance(got, tuple | list) and getattr(got, "ndim", 0) != 2:
        return Mismatch("type", f"it is a {type(got).__name__} where two masks are expected")
    if len(got) != 2:
        return Mismatch("type", f"it has {len(got)} parts where two masks are expected")
    for place, one, other in zip(("first", "second"), got, expected, strict=True):
        mask = as_tensor(one)
        if isinstance(mask, Mismatch):
            return mask
        if mask.shape != other.shape:
            says = f"the {place} mask has shape {tuple(mask.shape)}, expected {tuple(other.shape)}"
            return Mismatch("shape", says)
        if not torch.equal(mask.double(), other.double()):
            return Mismatch("value", f"the mask of the {place} network differs")
    return None


def _division_cases() -> list[Case]:
    case = case_of(clean_by_first=double, clean_by_second=double, threshold=None)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, threshold: float) -> Case:
        pair = torch.rand(2, n, generator=generator, dtype=torch.float64)
        return case(f"{n} examples, threshold {threshold}", *pair, threshold)

    return [
        case("the first believes, the second does not", [0.9], [0.2], 0.5),
        case("the second believes, the first does not", [0.1], [0.8], 0.5),
        case("both believe", [0.9], [0.7], 0.5),
        case("both doubt", [0.1], [0.3], 0.5),
        case("three examples", [0.9, 0.1, 0.6], [0.2, 0.3, 0.8], 0.5),
        case("a strict threshold", [0.9, 0.95, 0.4], [0.85, 0.2, 0.99], 0.8),
        case("a mild threshold", [0.3, 0.1, 0.25], [0.05, 0.4, 0.22], 0.2),
        *(at_random(*one) for one in [(5, 0.5), (20, 0.6), (50, 0.3), (200, 0.5)]),
    ]


DIVISION = Exercise(
    number="11.2",
    cases=_division_cases,
    judge=_two_masks,
    hints=(
        "What goes wrong if a network that believes a wrong label decides itself whether it may "
        "learn from it? Think of lesson 07.",
        "first mask: w of the *second* network above τ; second mask: w of the *first* above τ.",
        "for_first = ...   # compare one of the two vectors with the threshold\n"
        "...   # and the other way round; return both",
    ),
    misconceptions=(
        Misconception(
            "gives each network its own division",
            "Who believes a wrong label would go on learning it. Whose judgement is independent?",
            returns="(clean_by_first > threshold, clean_by_second > threshold)",
        ),
        Misconception(
            "keeps the doubtful labels",
            "w is the probability to be right. Which side of the threshold is to be believed?",
            returns="(clean_by_second < threshold, clean_by_first < threshold)",
        ),
        Misconception(
            "asks for both networks' consent",
            "Then both learn from the same set, and grow alike. Each mask needs one vector.",
            returns="2 * ((clean_by_first > threshold) & (clean_by_second > threshold),)",
        ),
        Misconception(
            "is content with one network's consent",
            "Then each network's own mistakes come back to it. Each mask needs one vector.",
            returns="2 * ((clean_by_first > threshold) | (clean_by_second > threshold),)",
        ),
        Misconception(
            "takes the mean of both",
            "Half of a network's own opinion is still its own. Each mask needs one vector.",
            returns="2 * ((clean_by_first + clean_by_second) / 2 > threshold,)",
        ),
        Misconception(
            "takes the threshold for a share",
            "Nobody knows how many labels are right. The threshold is a probability.",
            returns=(
                "(clean_by_second > clean_by_second.quantile(threshold), clean_by_first > "
                "clean_by_first.quantile(threshold))"
            ),
        ),
    ),
)


# 11.3 co_refine ---------------------------------------------------------------------------------


GROWN = {"ask": with_gradient, "judge": cut_off}


def _refine_cases() -> list[Case]:
    case = case_of(
        labels=torch.tensor, clean_probability=double, probabilities=double, temperature=None
    )
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, classes: int, t: float, **more) -> Case:
        labels = torch.randint(classes, (n,), generator=generator).tolist()
        w = torch.rand(n, generator=generator, dtype=torch.float64)
        name = more.pop("name", f"{n} labels, {classes} classes, temperature {t}")
        return case(name, labels, w, random_rows(n, classes, generator, 1.0), t, **more)

    two = [[0.2, 0.8], [0.6, 0.4]]
    return [
        case("a label that is surely right", [0], [1.0], [[0.2, 0.8]], 1.0),
        case("a label that is surely wrong", [0], [0.0], [[0.2, 0.8]], 1.0),
        case("a label believed to 0.9, no sharpening", [0], [0.9], [[0.2, 0.8]], 1.0),
        case("the same, sharpened", [0], [0.9], [[0.2, 0.8]], 0.5),
        case("a class that is ruled out", [1], [0.7], [[1.0, 0.0, 0.0]], 0.5),
        case("two labels", [1, 1], [0.6, 0.7], two, 0.5),
        *(at_random(*one) for one in [(3, 3, 0.5), (8, 5, 0.25), (16, 10, 0.8), (5, 4, 1.0)]),
        at_random(4, 3, 0.5, name="predictions with a gradient", **GROWN),
        at_random(9, 6, 0.4, name="more predictions with a gradient", **GROWN),
    ]


REFINE = Exercise(
    number="11.3",
    package=dividemix.co_refine,
    cases=_refine_cases,
    judge=finite_numbers,
    hints=(
        "For w = 1, what should be left of p? And does p² make a row of probabilities more or less "
        "decided; which T gives the exponent 2?",
        "ȳ = w y + (1 - w) p, then ŷ_c = ȳ_c^(1/T) / Σ_k ȳ_k^(1/T); p counts as a plain number.",
        "mixed = ...   # one-hot labels and detached p, in the shares w and 1 - w\n"
        "...   # raise to the power 1 / temperature, then divide each row by its sum",
    ),
    misconceptions=(
        Misconception(
            "swaps the two weights",
            "w is the probability that the label is right. Whose share should it be?",
            replace={"w * y + (1 - w)": "(1 - w) * y + w"},
        ),
        Misconception(
            "raises to the power T instead of 1/T",
            "With T = 0.5 a row should become more decided. What does a square root do to it?",
            replace={"(1 / temperature)": "temperature"},
        ),
        Misconception(
            "lets the gradient through",
            "A label is what the network is compared with. Should it be able to move its label "
            "instead of itself?",
            replace={".detach()": ""},
        ),
        Misconception(
            "does not sharpen",
            "Which of the arguments have you not used?",
            replace={" ** (1 / temperature)": ""},
        ),
        Misconception(
            "does not divide by the sum",
            "What do the entries of a row sum to after the power?",
            returns="mixed",
        ),
        Misconception(
            "sharpens before it mixes",
            "First mix label and prediction. Then sharpen what came out.",
            replace={
                "w = clean": "q = probabilities.detach() ** (1 / temperature)\n    w = clean",
                (
                    "(w * y + (1 - w) * probabilities.detach()) ** (1 / temperature)"
                ): "w * y + (1 - w) * q / q.sum(dim=1, keepdim=True)",
                "return mixed / mixed.sum(dim=1, keepdim=True)": "return mixed",
            },
        ),
        Misconception(
            "takes a softmax of the row",
            "The row is already made of probabilities. With T = 1 it should not change.",
            replace={
                ") ** (1 / temperature)": ") / temperature",
                "mixed / mixed.sum(dim=1, keepdim=True)": "mixed.softmax(dim=1)",
            },
        ),
        Misconception(
            "mixes the examples up",
            "Which shape has one number an example, so that it meets its own row?",
            replace={"[:, None]": ""},
        ),
        Misconception(
            "divides by the sums of other rows",
            "Each row belongs over its own sum. Which shape must the sums have for that?",
            replace={", keepdim=True": ""},
        ),
        Misconception(
            "decides for the label or for the prediction",
            "w = 0.51 and w = 0.99 should not give the same row. What are the shares?",
            replace={"clean_probability[:, None]": "(clean_probability > 0.5).double()[:, None]"},
        ),
        Misconception(
            "forgets the label",
            "A label that is surely right should stay. Where does it come in?",
            replace={"w * y + (1 - w) * probabilities.detach()": "probabilities.detach()"},
        ),
    ),
)


# 11.4 co_guess ----------------------------------------------------------------------------------


def _guess_cases() -> list[Case]:
    case = case_of(probabilities=double, temperature=None)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(m: int, n: int, classes: int, t: float, **more) -> Case:
        p = torch.stack([random_rows(n, classes, generator, 1.0) for _ in range(m)])
        name = more.pop("name", f"{m} predictions of {n} images, {classes} classes, T {t}")
        return case(name, p, t, **more)

    return [
        case("one prediction, no sharpening", [[[0.3, 0.7]]], 1.0),
        case("one prediction, sharpened", [[[0.3, 0.7]]], 0.5),
        case("two that disagree", [[[0.9, 0.1]], [[0.3, 0.7]]], 1.0),
        case("the same, sharpened", [[[0.9, 0.1]], [[0.3, 0.7]]], 0.5),
        case("sure and unsure", [[[1.0, 0.0, 0.0]], [[0.2, 0.5, 0.3]]], 0.5),
        *(at_random(*one) for one in [(4, 3, 3, 0.5), (4, 6, 5, 0.25), (2, 8, 10, 0.8)]),
        at_random(4, 5, 4, 1.0),
        at_random(4, 2, 3, 0.5, name="predictions with a gradient", **GROWN),
        at_random(2, 5, 4, 0.3, name="more predictions with a gradient", **GROWN),
    ]


GUESS = Exercise(
    number="11.4",
    package=dividemix.co_guess,
    cases=_guess_cases,
    judge=finite_numbers,
    hints=(
        "Four opinions on one image: both networks, two views. What comes first, the mean or the "
        "sharpening?",
        "q̄ = mean of the m predictions, then q_c = q̄_c^(1/T) / Σ_k q̄_k^(1/T), without gradient.",
        "mean = ...   # over dimension 0, detached\n...   # sharpen the mean as you did in 11.3",
    ),
    misconceptions=(
        Misconception(
            "raises to the power T instead of 1/T",
            "With T = 0.5 the guess should become more decided, not less.",
            replace={"1 / temperature": "temperature"},
        ),
        Misconception(
            "lets the gradient through",
            "If a guess can be moved, network and guess can meet anywhere. What must stand still?",
            returns=(
                "probabilities.mean(dim=0) ** (1 / temperature) / "
                "(probabilities.mean(dim=0) ** (1 / temperature)).sum(dim=1, keepdim=True)"
            ),
        ),
        Misconception(
            "sharpens each prediction before the mean",
            "Two sure networks that disagree should give an unsure guess, and that is sharpened.",
            replace={
                ("mean = probabilities.detach().mean(dim=0) ** (1 / temperature)"): (
                    "each = probabilities.detach() ** (1 / temperature)\n"
                    "    mean = (each / each.sum(dim=2, keepdim=True)).mean(dim=0)"
                )
            },
        ),
        Misconception(
            "does not sharpen",
            "Which of the arguments have you not used?",
            replace={" ** (1 / temperature)": ""},
        ),
        Misconception(
            "takes a softmax of the mean",
            "The mean is already made of probabilities. With T = 1 it should not change.",
            returns="(probabilities.detach().mean(dim=0) / temperature).softmax(dim=1)",
        ),
        Misconception(
            "divides by the sums of other rows",
            "Each row belongs over its own sum. Which shape must the sums have for that?",
            replace={", keepdim=True": ""},
        ),
        Misconception(
            "asks the first prediction alone",
            "The guess is called co-guess: whose opinions have you left out?",
            replace={"mean(dim=0)": "select(0, 0)"},
        ),
        Misconception(
            "takes the vote of the majority as sure",
            "That is T towards 0. A guess should say how sure it is.",
            returns="(mean == mean.amax(dim=1, keepdim=True)).to(mean)",
        ),
        Misconception(
            "averages logarithms",
            "Then one network that rules a class out rules it out for all. Average the p.",
            replace={"mean(dim=0)": "clamp(min=1e-9).log().mean(dim=0).exp()"},
        ),
        Misconception(
            "does not divide by the sum",
            "What do the entries of a row sum to after the power?",
            returns="mean",
        ),
    ),
)


# 11.5 semi_supervised_loss ----------------------------------------------------------------------


def _loss_cases() -> list[Case]:
    case = partial(
        case_of(logits=double, rows=double, num_labelled=None, lambda_u=None), ask=value_and_slope
    )
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, classes: int, k: int, lambda_u: float) -> Case:
        logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
        name = f"{k} of {n} labelled, {classes} classes, lambda_u {lambda_u:g}"
        return case(name, logits, random_rows(n, classes, generator), k, lambda_u)

    pair = [[0.0, 1.0], [2.0, 0.0]]
    return [
        case("lambda_u 0: only the labelled image", pair, [[0.0, 1.0], [0.5, 0.5]], 1, 0.0),
        case("one of each", pair, [[0.0, 1.0], [0.5, 0.5]], 1, 1.0),
        case("a mixed label", pair, [[0.3, 0.7], [0.9, 0.1]], 1, 1.0),
        case("a large lambda_u", pair, [[0.3, 0.7], [0.9, 0.1]], 1, 25.0),
        case("three classes", [[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]], 2 * [[0.2, 0.3, 0.5]], 1, 3.0),
        *(at_random(*one) for one in [(4, 3, 2, 1.0), (6, 4, 2, 10.0), (8, 10, 6, 25.0)]),
        *(at_random(*one) for one in [(16, 5, 3, 0.5), (32, 10, 16, 75.0)]),
    ]


LOSS = Exercise(
    number="11.5",
    package=dividemix.semi_supervised_loss,
    cases=_loss_cases,
    judge=loss_and_slope,
    hints=(
        "Which of the two losses has no upper limit, and for which images would you rather have "
        "one that has?",
        "mean cross entropy of rows :k, plus λ_u times the mean of (softmax - row)² over the "
        "images from k on and all classes.",
        "of_labelled = ...   # cross entropy takes rows, too\n"
        "...   # squared differences of softmax and rows behind num_labelled, mean over all",
    ),
    misconceptions=(
        Misconception(
            "swaps the two losses",
            "A guess may be wrong, and then a logarithm hurts most. Which loss has a limit?",
            returns=(
                "((logits[:k].softmax(dim=1) - rows[:k]) ** 2).mean() + lambda_u * "
                "torch.nn.functional.cross_entropy(logits[k:], rows[k:])"
            ),
        ),
        Misconception(
            "compares logits with probabilities",
            "Rows sum to 1. What must you do to the logits before you subtract?",
            replace={".softmax(dim=1)": ""},
        ),
        Misconception(
            "hands probabilities to `cross_entropy`",
            "That function takes its own softmax. What should it get?",
            replace={"logits[:k],": "logits[:k].softmax(dim=1),"},
        ),
        Misconception(
            "sums over the classes",
            "That is the paper's formula. The authors' code, whose lambda_u we take, also divides "
            "by the number of classes.",
            returns="of_labelled + lambda_u * (error**2).sum(dim=1).mean()",
        ),
        Misconception(
            "takes cross entropy for both parts",
            "A sure and wrong guess would pull without limit. What is the other distance?",
            returns=(
                "of_labelled + lambda_u * torch.nn.functional.cross_entropy(logits[k:], rows[k:])"
            ),
        ),
        Misconception(
            "makes the mixed labels hard",
            "mixup has just made rows like 0.7 and 0.3. Cross entropy takes them as they are.",
            replace={"rows[:k])": "rows[:k].argmax(dim=1))"},
        ),
        Misconception(
            "forgets lambda_u",
            "Which argument have you not used?",
            replace={"lambda_u * ": ""},
        ),
        Misconception(
            "divides both parts by the whole batch",
            "Each part is a mean over its own images; lambda_u alone says how they weigh.",
            returns=(
                "F.cross_entropy(logits[:k], rows[:k]) * k / len(logits) + lambda_u * "
                "F.mse_loss(logits[k:].softmax(dim=1), rows[k:]) * (len(logits) - k) / "
                "len(logits)"
            ),
        ),
        Misconception(
            "takes the first for unlabelled",
            "In which order do the images stand in the batch?",
            returns=(
                "F.cross_entropy(logits[k:], rows[k:]) + lambda_u * "
                "F.mse_loss(logits[:k].softmax(dim=1), rows[:k])"
            ),
        ),
    ),
)


# 11.6 confidence_penalty ------------------------------------------------------------------------


def _penalty_cases() -> list[Case]:
    case = partial(case_of(logits=double), ask=value_and_slope)
    generator = torch.Generator().manual_seed(SEED)

    def at_random(n: int, classes: int, scale: float) -> Case:
        logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
        return case(f"{n} predictions, {classes} classes, scale {scale:g}", logits)

    return [
        case("an even prediction", [[0.0, 0.0]]),
        case("a leaning one", [[0.0, 2.0]]),
        case("three classes", [[0.0, 1.0, -1.0]]),
        case("two predictions", [[0.0, 3.0], [1.0, 0.0]]),
        case("sure of different classes", [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]),
        *(at_random(*one) for one in [(2, 3, 1.0), (8, 5, 2.0), (16, 10, 1.0), (32, 10, 4.0)]),
        case("so sure that a probability is 0", [[900.0, 0.0], [0.0, 1.0]]),
        case("completely sure of all", 2000 * torch.eye(3)),
    ]


PENALTY = Exercise(
    number="11.6",
    package=dividemix.confidence_penalty,
    cases=_penalty_cases,
    judge=loss_and_slope,
    hints=(
        "The term is added to a loss and should grow when the network is sure. Is the entropy "
        "large or small then? And what is 0 · log 0 for a computer?",
        "mean_i Σ_c p_c log p_c; log_softmax gives log p without taking the log of a 0.",
        "log_p = ...   # from the logits, in one function\n"
        "...   # sum p log p over the classes, mean over the examples",
    ),
    misconceptions=(
        Misconception(
            "returns the entropy itself",
            "Adding it to the loss would reward being sure. Which sign punishes it?",
            returns="-(log_p.exp() * log_p).sum(dim=1).mean()",
        ),
        Misconception(
            "takes the log of a softmax",
            "A sure network has probabilities that are 0 to the last digit. Which function gives "
            "log p directly?",
            returns="(logits.softmax(dim=1) * logits.softmax(dim=1).log()).sum(dim=1).mean()",
        ),
        Misconception(
            "sums over the examples",
            "It should weigh the same for batches of 32 and of 128.",
            returns="(log_p.exp() * log_p).sum()",
        ),
        Misconception(
            "takes the mean over the classes",
            "An entropy is a sum over the classes; the mean is over the examples.",
            returns="(log_p.exp() * log_p).mean()",
        ),
        Misconception(
            "is about the mean prediction",
            "That is the prior term: all classes should appear. Here each single answer counts.",
            returns=(
                "torch.special.xlogy(logits.softmax(dim=1).mean(dim=0), "
                "logits.softmax(dim=1).mean(dim=0)).sum()"
            ),
        ),
        Misconception(
            "looks at the largest probability alone",
            "The formula has a sum over all classes. What are the terms?",
            returns="(log_p.exp() * log_p).gather(1, logits.argmax(dim=1)[:, None]).mean()",
        ),
        Misconception(
            "cuts the gradient",
            "The penalty is there to move the network. What may you not detach?",
            returns=(
                "(log_p.exp() * log_p).sum(dim=1).mean().detach() + 0 * logits.clamp(-1, 1).sum()"
            ),
        ),
    ),
)

EXERCISES = (SPLIT, DIVISION, REFINE, GUESS, LOSS, PENALTY)
