"""Methods without the rest: on data that somebody else wrote, and copied into another project."""

import ast
import inspect
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from nlcourse.base import Batch
from nlcourse.methods import METHODS, FromSoftLabels

PACKAGE = Path(__file__).resolve().parent.parent / "nlcourse"

# --- data that somebody else wrote ----------------------------------------------------------------


class OwnData:
    """Digits with labels of one's own: all that a method may ask of its training data."""

    def __init__(self, size=120, batch_size=40):
        digits = load_digits()
        self.pixels = torch.tensor(digits.images[:size], dtype=torch.float32)[:, None] / 8 - 1
        self.labels = torch.tensor(digits.target[:size])
        self.labels[::5] = (self.labels[::5] + 1) % 10  # every fifth is wrong
        self.batch_size = batch_size

    def __len__(self):
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self):
        for index in torch.randperm(len(self.labels)).split(self.batch_size):
            yield self.batch(index)

    def batch(self, index, augment=None):
        images = self.images(index)
        return Batch(images + 0.05 * torch.randn_like(images), self.labels[index], index)

    def images(self, index):
        return self.pixels[index]


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(method, data, epochs=3):
    """A loop as anybody writes one; return the loss of every step."""
    method.build(network, len(data.labels), 10)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    losses = []

    def step(loss, batch):
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        method.change_gradients()
        optimizer.step()
        losses.append(value.item())

    for method.epoch in range(epochs):
        method.train_epoch(data, step)
    return losses


# Settings by which three epochs reach what a method does after its warm-up.
EARLY = {
    "joint-optimization": {"begin": 1, "average": 1},
    "dividemix": {"warm_up": 1},
    "iterative-cv": {"rounds": 1, "round_epochs": 1, "warm_up": 1},
    "forward-correction": {"estimate_epochs": 1},
    "t-revision": {"estimate_epochs": 1, "revise_epoch": 2},
    "d2l": {"epochs": 3, "start": 1, "window": 2},
    "truncated-gce": {"start": 1},
}


def make(name):
    needed = inspect.signature(METHODS[name]).parameters.get("noise_rate")
    told = needed is not None and needed.default is needed.empty
    return METHODS[name](**({"noise_rate": 0.2} if told else {}), **EARLY.get(name, {}))


def from_soft_labels():
    return FromSoftLabels(torch.full((120, 10), 0.1))


@pytest.mark.parametrize("name", [*METHODS, "from-soft-labels"])
def test_a_method_trains_on_data_that_somebody_else_wrote(name):
    torch.manual_seed(0)
    data = OwnData()
    method = from_soft_labels() if name == "from-soft-labels" else make(name)
    before = data.labels.clone()
    losses = train(method, data)
    assert losses
    assert all(map(math.isfinite, losses))
    assert torch.equal(data.labels, before)
    probabilities = method.eval()(data.images(slice(None)))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(120))


# --- one file in another project ------------------------------------------------------------------

# A method file -> its class and settings, and the sibling files that it names: all that is copied.
ALONE = {
    "cross_entropy": ("CrossEntropy()", ()),
    "co_teaching": ("CoTeaching(0.2, 2)", ()),
    "cdr": ("CDR(0.2)", ()),
    "joint": ("JointOptimization(begin=1, average=1)", ()),
    "elr": ("ELRPlus()", ("ema", "mixup")),
    "dividemix": (
        "DivideMix(warm_up=1)",
        ("features", "gaussian_mixture", "mixmatch", "mixup"),
    ),
}

SCRIPT = """
import importlib, math, sys

class NoCourse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nlcourse":
            raise ImportError("there is no nlcourse here")

sys.meta_path.insert(0, NoCourse())
sys.path.insert(0, {folder!r})
import torch
from torch import nn

{loop}

class Data:
    batch_size = 20
    pixels = torch.randn(60, 1, 8, 8)
    labels = torch.arange(60) % 10
    __len__ = lambda self: 3
    __iter__ = lambda self: map(self.batch, torch.randperm(60).split(20))
    images = lambda self, index: self.pixels[index]

    def batch(self, index, augment=None):
        return base.Batch(self.images(index), self.labels[index], index)

for file, method in {alone!r}:
    base = importlib.import_module(f"{{file}}_alone.base")
    module = importlib.import_module(f"{{file}}_alone.methods.{{file}}")
    losses = train(eval(method, vars(module)), Data())
    assert losses and all(map(math.isfinite, losses)), losses
    print(file, "trained")
assert not any(name.partition(".")[0] == "nlcourse" for name in sys.modules)
"""


def test_one_file_and_the_base_train_in_an_empty_folder(tmp_path):
    for file, (_, siblings) in ALONE.items():
        own = tmp_path / f"{file}_alone"
        (own / "methods").mkdir(parents=True)
        shutil.copy(PACKAGE / "base.py", own)
        for name in (file, *siblings):
            shutil.copy(PACKAGE / "methods" / f"{name}.py", own / "methods")
    loop = inspect.getsource(network) + inspect.getsource(train)
    alone = [(file, method) for file, (method, _) in ALONE.items()]
    script = SCRIPT.format(folder=str(tmp_path), loop=loop, alone=alone)
    # -I: no current folder, no PYTHONPATH and no user site; only the environment's own packages.
    command = [sys.executable, "-I", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split("\n")[:-1] == [f"{file} trained" for file in ALONE]


def imported_from(file):
    """Return what a method file imports from the package: ``..base`` or the name of a sibling."""
    tree = ast.parse((PACKAGE / "methods" / f"{file}.py").read_text(encoding="utf-8"))
    steps = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {"." * (node.level - 1) + (node.module or "") for node in steps}


@pytest.mark.parametrize("file", ALONE)
def test_a_copied_file_names_no_sibling_but_those(file):
    named, waiting = set(), {file}
    while waiting:
        found = imported_from(waiting.pop())
        assert {name for name in found if name.startswith(".")} <= {".base"}
        waiting |= found - named - {".base"}
        named |= found - {".base"}
    assert named == set(ALONE[file][1])
