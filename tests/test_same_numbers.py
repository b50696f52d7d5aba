"""Every method on digits gives the numbers that it gave before the redesign, bit for bit.

``python tests/test_same_numbers.py`` records them anew, which is right only where a method was
changed on purpose: say in the commit which, and why.
"""

import hashlib
import json
import platform
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).with_name("same_numbers.json")
NOISES = (("symmetric", 0.4), ("asymmetric", 0.4), ("pairflip", 0.4))
SEEDS = (0, 1)
EPOCHS = 8
SHOWN = ("train_loss", "test_accuracy", "given_accuracy", "wrong_as_given")
RECORDED = json.loads(FILE.read_text()) if FILE.exists() else {"machine": "", "runs": {}}


def machine():
    """What decides the last bits: the version of torch and the instructions of the processor."""
    return f"torch {torch.__version__.split('+')[0]}, {platform.machine()}, " + (
        torch.backends.cpu.get_cpu_capability()
    )


def measured(name, kind, rate, seed):
    """Return the last row's numbers and a checksum of all rows."""
    from nlcourse import noise
    from nlcourse.experiments import recipes
    from nlcourse.training import DivergedError

    recipe = recipes.find("classroom", name, noise=kind, rate=rate)
    data = noise.inject(recipe.load(), kind, rate, seed=seed)
    options = {"seed": seed, "epochs": EPOCHS}
    try:
        history = recipe.train(data, kind=kind, rate=rate, progress=False, **options)
    except DivergedError as error:  # the epochs before it count
        history = error.history
    rows = [[row[column] for column in row if column != "seconds"] for row in history.rows]
    checksum = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    return {"checksum": checksum, **{column: history.last[column] for column in SHOWN}}


def names():
    from nlcourse.experiments import recipes

    return recipes.names("classroom")


def runs(name):
    for kind, rate in NOISES:
        for seed in SEEDS:
            yield f"{name}, {kind}, seed {seed}", (name, kind, rate, seed)


@pytest.mark.parametrize("name", names())
def test_a_method_gives_the_numbers_that_it_gave(name):
    for run, arguments in runs(name):
        now, then = measured(*arguments), RECORDED["runs"][run]
        if RECORDED["machine"] == machine():
            assert now == then, run
        else:  # another processor rounds otherwise, and eight epochs make that large
            assert now["test_accuracy"] == pytest.approx(then["test_accuracy"], abs=0.1), run


if __name__ == "__main__":
    found = {run: measured(*arguments) for name in names() for run, arguments in runs(name)}
    FILE.write_text(json.dumps({"machine": machine(), "runs": found}, indent=0) + "\n")
    sys.exit(0)
