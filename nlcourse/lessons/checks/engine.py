"""Run an exercise's cases on a function, name the mistake, and say it in a few lines."""

from __future__ import annotations

import inspect
import io
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from .exercise import NOTHING, Case, Exercise, Misconception, Mismatch, ask_once
from .show import canonical, changed, describe, describe_call, fresh, student_lines

ENOUGH = 0.75  # share of the failing cases in which a student and a known mistake agree, to name it
SEED = 20260  # of the cases and of the global random state while they run


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        outcome: "done", "open" (blank) or "wrong".
        cases: how many cases there are.
        reason: why it is wrong, in one sentence; "" otherwise.
        lines: the message below its headline.
        misconception: the name of the known mistake; "" when it is none.
    """

    outcome: str
    cases: int
    reason: str = ""
    lines: tuple[str, ...] = ()
    misconception: str = ""


# One function, all cases -------------------------------------------------------------------------


def examine(exercise: Exercise, function: Callable[..., Any]) -> Verdict:
    """Run the cases up to the first failure and say what is wrong, without any other effect."""
    problem = signature_problem(exercise, function)
    if problem:
        return Verdict("wrong", 0, problem)
    with undisturbed():
        cases = prepare(exercise)
        place, mismatch, printed = 0, None, ""
        try:
            while mismatch is None and place < len(cases):
                mismatch, printed = run_case(exercise, cases[place], function)
                place += 1
        except Blank:
            return Verdict("open", len(cases))
        if mismatch is None:
            return Verdict("done", len(cases))
        mistake = diagnose(exercise, function)
    case = cases[place - 1].case
    call = describe_call(exercise.name, case.arguments)
    where = f"  case {place} of {len(cases)}, {case.name}: {call}"
    lines = [where, *_findings(mismatch), *_likely(mistake, printed)]
    return Verdict(
        "wrong", len(cases), mismatch.says, tuple(lines), mistake.name if mistake else ""
    )


class Blank(Exception):  # noqa: N818 - no error: the student has not written it yet
    """The function raises NotImplementedError, as the stub does."""


class Asked(NamedTuple):
    """A case and the reference's answer to it."""

    case: Case
    expected: Any


@cache
def prepare(exercise: Exercise) -> list[Asked]:
    """Return the cases with the reference's answers, which every function is compared with."""
    return [
        Asked(case, case.ask(exercise.reference, fresh(case.arguments)))
        for case in exercise.cases()
    ]


def run_case(
    exercise: Exercise, asked: Asked, function: Callable[..., Any]
) -> tuple[Mismatch | None, str]:
    """Return what is wrong in one case (None when nothing is), and what the function printed.

    Raises:
        Blank: the function is still the stub.
    """
    case = asked.case
    arguments = fresh(case.arguments)
    seed_all()
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            got = case.ask(function, arguments)
    except Exception as error:
        if isinstance(error, NotImplementedError) and is_stub(error):
            raise Blank from None
        says = f"it stops with {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        where = student_lines(error.__traceback__)
        return Mismatch(type(error).__name__, says, evidence="", student_lines=where), ""
    mismatch = _judge(exercise, case, got, asked.expected)
    plain = case.ask is ask_once  # else the question itself may ask for gradients
    moved = changed(case.arguments, arguments, marks=plain)
    if mismatch is None and moved:
        says = f"it changes its input `{moved[0]}` in place: the caller still needs it as it was"
        both = case.arguments[moved[0]], arguments[moved[0]]
        marks = [getattr(value, "requires_grad", None) for value in both]
        before, after = map(describe, both)
        if plain and marks[0] != marks[1]:
            before, after = (f"{moved[0]}.requires_grad is {mark}" for mark in marks)
        mismatch = Mismatch("in place", says, got=after, expected=before, evidence="")
    return mismatch, printed.getvalue()


def _judge(exercise: Exercise, case: Case, got: Any, expected: Any) -> Mismatch | None:
    if got is None or (isinstance(got, tuple) and got and all(part is None for part in got)):
        return NOTHING
    try:
        mismatch = (case.judge or exercise.judge)(got, expected, case.arguments)
        return mismatch and _completed(mismatch, got, expected)
    except Exception:  # whatever a student's function may return, the check has an answer
        kind = type(got).__name__
        says = f"its result, a {kind}, cannot be compared"
        return Mismatch("strange", says, got=kind, expected=describe(expected), evidence=kind)


def _completed(mismatch: Mismatch, got: Any, expected: Any) -> Mismatch:
    """Fill in what the judge left to the result itself."""
    one, other = describe(got), describe(expected)
    if one == other:  # they differ behind the fourth digit
        one, other = describe(got, digits=9), describe(expected, digits=9)
    evidence = canonical(got) if mismatch.evidence is None else mismatch.evidence
    return Mismatch(
        mismatch.kind, mismatch.says, mismatch.got or one, mismatch.expected or other, evidence
    )


def is_stub(error: NotImplementedError) -> bool:
    """Tell the stub's NotImplementedError from torch's, which always says what it lacks."""
    lines = student_lines(error.__traceback__)
    return not str(error) or (bool(lines) and "raise NotImplementedError" in lines[-1])


def signature_problem(exercise: Exercise, function: Any) -> str:
    """Return why the course could not call the function, or "". More optional ones are welcome."""
    if not callable(function):
        got = f"expected the function itself, got a {type(function).__name__}"
        return f"{got}: write check({exercise.name}), without calling it"
    wanted = inspect.signature(exercise.reference).parameters
    needed = [name for name, parameter in wanted.items() if parameter.default is parameter.empty]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-ins have none: the cases will show
        return ""
    try:
        by_place = signature.bind(*wanted).arguments
        signature.bind(*needed)
        signature.bind(**dict.fromkeys(wanted))
    except TypeError as error:
        full = f"{exercise.name}{_bare(inspect.signature(exercise.reference))}"
        return f"it is called as {full}, and yours is {signature}: {error}"
    swapped = [name for name, value in by_place.items() if name in wanted and name != value]
    return f"its parameters stand in another order than ({', '.join(wanted)})" if swapped else ""


def _bare(signature: inspect.Signature) -> inspect.Signature:
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


def _findings(mismatch: Mismatch) -> list[str]:
    if mismatch.student_lines:
        return [f"  {line}" for line in mismatch.student_lines]
    found = [("came out", mismatch.got), ("expected", mismatch.expected)]
    return [f"  {name}: {value}" for name, value in found if value is not None]


def _likely(mistake: Misconception | None, printed: str) -> list[str]:
    if mistake is not None:
        return [f"  Likely cause: it {mistake.name}. {mistake.hint}"]
    if printed.strip():
        return [f"  It printed: {describe(printed.strip())}"]
    return []


# Which known mistake is it -----------------------------------------------------------------------


Fingerprint = list[tuple[str, str] | None]


def fingerprint(
    exercise: Exercise, function: Callable[..., Any], cases: list[Asked]
) -> Fingerprint:
    """Return for each case None (right) or how it goes wrong, the same for the same mistake."""
    found: Fingerprint = []
    for case in cases:
        try:
            mismatch, _ = run_case(exercise, case, function)
        except Blank:
            mismatch = Mismatch("blank", "it is blank", evidence="")
        found.append((mismatch.kind, mismatch.evidence or "") if mismatch else None)
    return found


@cache
def known_fingerprints(exercise: Exercise) -> list[Fingerprint]:
    """Return how each misconception goes wrong: the same at every check, cases are seeded."""
    return [fingerprint(exercise, wrong, prepare(exercise)) for wrong in exercise.mistakes]


def diagnose(exercise: Exercise, function: Callable[..., Any]) -> Misconception | None:
    """Return the known mistake that goes wrong in the same cases in the same way, if one does.

    Not every case has to agree: who keeps the largest losses by ``[-k:]`` also stumbles over k = 0.
    """
    student = fingerprint(exercise, function, prepare(exercise))
    shares = [agreement(student, known) for known in known_fingerprints(exercise)]
    best = max(shares, default=0.0)
    return exercise.misconceptions[shares.index(best)] if best >= ENOUGH else None


def agreement(one: Fingerprint, other: Fingerprint) -> float:
    """Return the share of equal entries among the cases that one or both functions fail."""
    pairs = [pair for pair in zip(one, other, strict=True) if pair != (None, None)]
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else 0.0


# Randomness --------------------------------------------------------------------------------------


def seed_all() -> None:
    """Set the global random states on the CPU: who uses them is judged the same every time."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - students may use the old interface
    # Not torch.manual_seed: it would set the generators of the GPUs too, which nothing here
    # restores.
    torch.default_generator.manual_seed(SEED)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run on the CPU with gradients and leave every global random state as it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        with _on_cpu(), torch.enable_grad(), np.errstate(all="ignore"):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def _on_cpu() -> AbstractContextManager[Any]:
    # Only where it is needed: the context slows every call of torch.
    default = torch.get_default_device().type == "cpu"
    return nullcontext() if default else torch.device("cpu")
