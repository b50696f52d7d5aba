"""What a run keeps in memory, and what a hundred runs in one kernel leave behind.

    python benchmarks/memory.py

Peak: one epoch of a small CNN on CIFAR-10 (random pixels of its size: 60,000 uint8 images) beside
the bytes of the data. What network, activations and Python need is measured with 4,096 images in a
process of its own and taken off. Growth: the resident memory of one process over 100 runs, and over
100 panels with a run each, each in the place of the one before, as when a cell is run again.
Resident memory is read from /proc (Linux); on a GPU the peak of its own memory is told too.
"""

from __future__ import annotations

import functools
import gc
import json
import subprocess
import sys
from pathlib import Path

import torch
from _timing import with_threads

from nlcourse import datasets, noise
from nlcourse.experiments import results
from nlcourse.methods import CrossEntropy
from nlcourse.training import Options, find_device, fit
from nlcourse.training.networks import small_cnn

TABLE = Path(__file__).parents[1] / "results" / "benchmarks_memory.csv"
MEBI = 2**20
TRAIN, TEST = 50_000, 10_000
FEW = 4096
RUNS, FIRST = 100, 20  # caches fill in the first runs
PROCESS = Path("/proc/self")


def resident(name: str = "VmRSS") -> int:
    """Return the resident memory of this process in bytes; "VmHWM" is its peak."""
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{PROCESS / 'status'} has no {name}")


# Peak ---------------------------------------------------------------------------------------------


def train_once(images: int, tests: int) -> dict[str, int]:
    """Train one epoch on so many images; return the bytes of the data and the peaks."""
    pixels = torch.randint(256, (images + tests, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(images + tests) % 10
    names = tuple("0123456789")
    parts = (pixels[:images], labels[:images], labels[:images], pixels[images:], labels[images:])
    data = datasets.Dataset("random", *parts, names, (0.5,) * 3, (0.25,) * 3)
    (PROCESS / "clear_refs").write_text("5")  # the peak begins anew
    device = find_device()
    options = {"network": small_cnn, "epochs": 1, "progress": False, "device": device}
    fit(CrossEntropy(), data, options=Options(batch_size=128), **options)
    on_device = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return {"data": pixels.nbytes, "resident": resident("VmHWM"), "device": on_device}


def in_a_process(images: int, tests: int) -> dict[str, int]:
    """Do that in a fresh process."""
    command = [sys.executable, __file__, "--once", str(images), str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> None:
    """Tell the memory that the data cost, beside their bytes."""
    few, all_ = in_a_process(FEW, FEW), in_a_process(TRAIN, TEST)
    data = all_["data"] - few["data"]
    for where in ("resident", "device"):
        if not all_[where]:
            continue
        ratio = (all_[where] - few[where]) / data
        tell(f"peak / bytes of the data, {where}", ratio, 1.2,
             f"{all_[where] / MEBI:.0f} MiB with 60,000 images ({all_['data'] / MEBI:.0f} MiB), "
             f"{few[where] / MEBI:.0f} MiB with {2 * FEW}")  # fmt: skip


# Growth -------------------------------------------------------------------------------------------


def growth(name: str, once) -> None:
    """Tell how much more memory a process holds after the last of 100 calls than after the 20th."""
    sizes = []
    for number in range(RUNS):
        once(number)
        gc.collect()
        sizes.append(resident())
    grown = (sizes[-1] - sizes[FIRST - 1]) / MEBI
    told = ", ".join(f"{sizes[n - 1] / MEBI:.0f}" for n in (1, FIRST, 40, 60, 80, RUNS))
    tell(f"growth over {RUNS - FIRST} {name}, MiB", grown, 10.0, f"after 1, 20, 40, ...: {told}")


def runs_and_panels() -> None:
    """Train 100 times, then build 100 panels and train in each."""
    data = noise.inject(datasets.load("digits"), "symmetric", 0.4)
    growth("runs", lambda seed: fit(CrossEntropy(), data, epochs=2, seed=seed, progress=False))
    from nlcourse.panels import Explorer, place

    panel = Explorer(epochs=2)
    growth("runs of one panel", lambda seed: panel.try_out(seed=seed))
    growth("panels of a cell that runs again", functools.partial(panel_of_a_cell, place, Explorer))


def panel_of_a_cell(place, make, number: int) -> None:
    """Do what a cell with a panel does when it runs once more."""
    place.running_cell = lambda: ("cell", number)
    make(epochs=2, seed=number).try_out()


def tell(name: str, value: float, goal: float, details: str) -> None:
    """Print a number and add it to the table."""
    print(f"{name:50} {value:8.2f}   goal at most {goal:g}   ({details})", flush=True)
    row = {"benchmark": name, "value": f"{value:.3f}", "goal": f"{goal:g}", "details": details}
    results.Table(TABLE, ("benchmark", "commit")).add(row)


def main() -> None:
    """Run all measurements."""
    if not (PROCESS / "clear_refs").exists():
        print("Resident memory is read from /proc, which this system does not have: left out")
        return
    with_threads(1)
    peak()
    runs_and_panels()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        print(json.dumps(train_once(*map(int, sys.argv[2:4]))))
    else:
        main()
