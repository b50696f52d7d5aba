"""Run an exercise's cases on a function, name the mistake, and say it in a few lines."""

from __future__ import annotations

import ast
import inspect
import io
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from .exercise import NOTHING, Case, Exercise, Misconception, Mismatch, ask_once
from .show import canonical, describe, describe_call, fresh, same, student_lines

ENOUGH = 0.75  # share of the failing cases in which a student and a known mistake agree, to name it
SEED = 20260  # of the cases and of the global random state while they run


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    outcome: str  # "done", "open" (blank) or "wrong"
    cases: int  # how many there are
    reason: str = ""  # why it is wrong, in one sentence
    lines: tuple[str, ...] = ()  # the message below its headline
    misconception: str = ""  # the name of the known mistake, if it is one


# One function, all cases -------------------------------------------------------------------------


def examine(exercise: Exercise, function: Callable[..., Any]) -> Verdict:
    """Run the cases up to the first failure and say what is wrong, without any other effect."""
    problem = _signature_problem(exercise, function)
    if problem:
        return Verdict("wrong", 0, problem)
    with undisturbed():
        cases = prepare(exercise)
        try:
            runs = (
                (place, *run_case(exercise, *pair, function)) for place, pair in enumerate(cases)
            )
            place, mismatch, printed = next((run for run in runs if run[1]), (0, None, ""))
        except Blank:
            return Verdict("open", len(cases))
        if mismatch is None:
            return Verdict("done", len(cases))
        mistake = diagnose(exercise, function)
    case = cases[place][0]
    call = describe_call(exercise.name, case.arguments)
    found = {"came out": mismatch.got, "expected": mismatch.expected}
    lines = [f"  case {place + 1} of {len(cases)}, {case.name}: {call}"]
    lines += [f"  {line}" for line in mismatch.student_lines]
    lines += [f"  {name}: {value}" for name, value in found.items() if value is not None]
    if mistake:
        lines.append(f"  Likely cause: it {mistake.name}. {mistake.hint}")
    elif printed.strip():
        lines.append(f"  It printed: {describe(printed.strip())}")
    return Verdict(
        "wrong", len(cases), mismatch.says, tuple(lines), mistake.name if mistake else ""
    )


class Blank(Exception):  # noqa: N818 - no error: the student has not written it yet
    """The function raises NotImplementedError, as the stub does."""


@cache
def prepare(exercise: Exercise) -> list[tuple[Case, Any]]:
    """Return the cases with the reference's answers, which every function is compared with."""
    cases = exercise.cases()
    return [(case, case.ask(exercise.reference, fresh(case.arguments))) for case in cases]


def run_case(
    exercise: Exercise, case: Case, expected: Any, function: Callable[..., Any]
) -> tuple[Mismatch | None, str]:
    """Return what is wrong in one case (None when nothing is), and what the function printed."""
    arguments = fresh(case.arguments)
    seed_all()
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            got = case.ask(function, arguments)
    except Exception as error:
        where = student_lines(error.__traceback__)
        # The stub's NotImplementedError; torch's own always says what it lacks.
        stub = not str(error) or "raise NotImplementedError" in "".join(where[-1:])
        if isinstance(error, NotImplementedError) and stub:
            raise Blank from None
        says = f"it stops with {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return Mismatch(type(error).__name__, says, evidence="", student_lines=where), ""
    mismatch = _judge(exercise, case, got, expected) or _moved(case, arguments)
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
    one, other = mismatch.got or one, mismatch.expected or other
    return replace(mismatch, got=one, expected=other, evidence=evidence)


def _moved(case: Case, arguments: dict[str, Any]) -> Mismatch | None:
    """Return the mismatch of an input that is no longer as it was."""
    plain = case.ask is ask_once  # else the question itself may ask for gradients
    pairs = {name: (value, arguments[name]) for name, value in case.arguments.items()}
    name = next((name for name, pair in pairs.items() if not same(*pair, marks=plain)), None)
    if name is None:
        return None
    both = pairs[name]
    before, after = map(describe, both)
    marks = [getattr(value, "requires_grad", None) for value in both]
    if plain and marks[0] != marks[1]:
        before, after = (f"{name}.requires_grad is {mark}" for mark in marks)
    says = f"it changes its input `{name}` in place: the caller still needs it as it was"
    return Mismatch("in place", says, got=after, expected=before, evidence="")


def _signature_problem(exercise: Exercise, function: Any) -> str:
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
        full = f"{exercise.name}({ast.unparse(exercise.task.function.args)})"
        return f"it is called as {full}, and yours is {signature}: {error}"
    swapped = [name for name, value in by_place.items() if name in wanted and name != value]
    return f"its parameters stand in another order than ({', '.join(wanted)})" if swapped else ""


# Which known mistake is it -----------------------------------------------------------------------

Fingerprint = list[tuple[str, str] | None]


def _fingerprint(exercise: Exercise, function: Callable[..., Any]) -> Fingerprint:
    """Return for each case None (right) or how it goes wrong, the same for the same mistake."""
    found: Fingerprint = []
    for case, expected in prepare(exercise):
        try:
            mismatch, _ = run_case(exercise, case, expected, function)
        except Blank:
            mismatch = Mismatch("blank", "it is blank", evidence="")
        found.append((mismatch.kind, mismatch.evidence or "") if mismatch else None)
    return found


@cache
def known_fingerprints(exercise: Exercise) -> list[Fingerprint]:
    """Return how each misconception goes wrong: the same at every check, cases are seeded."""
    return [_fingerprint(exercise, wrong) for wrong in exercise.mistakes]


def diagnose(exercise: Exercise, function: Callable[..., Any]) -> Misconception | None:
    """Return the known mistake that goes wrong in the same cases in the same way, if one does.

    Not every case has to agree: who keeps the largest losses by ``[-k:]`` also stumbles over k = 0.
    """
    student = _fingerprint(exercise, function)
    shares = []
    for known in known_fingerprints(exercise):
        pairs = [pair for pair in zip(student, known, strict=True) if pair != (None, None)]
        shares.append(sum(one == other for one, other in pairs) / len(pairs))
    best = max(shares, default=0.0)
    return exercise.misconceptions[shares.index(best)] if best >= ENOUGH else None


# Randomness --------------------------------------------------------------------------------------


def seed_all() -> None:
    """Set the global random states on the CPU: who uses them is judged the same every time."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - students may use the old interface
    # torch.manual_seed would set the generators of the GPUs too, which nothing here restores.
    torch.default_generator.manual_seed(SEED)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run on the CPU with gradients and leave every global random state as it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    # Only where it is needed: the context slows every call of torch.
    on_cpu = torch.get_default_device().type == "cpu"
    try:
        device: AbstractContextManager[Any] = nullcontext() if on_cpu else torch.device("cpu")
        with device, torch.enable_grad(), np.errstate(all="ignore"):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
