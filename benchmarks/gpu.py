"""The comparisons of ``training.py`` and ``beside.py`` with ResNet-18 on a GPU, and ``compiled``.

    python benchmarks/gpu.py

Both sides train on 10,000 images of 32 x 32 (CIFAR-10 where NLCOURSE_DATA holds it). `fit` computes
in bfloat16 there, and so does the bare loop; published code is as it is written, in float32, with
one worker a core. Without a GPU nothing is measured.
"""

from __future__ import annotations

import os

import beside
import torch
import training
from _timing import clocked, compare, whole, with_threads

from nlcourse import noise
from nlcourse.datasets.augment import Augment
from nlcourse.methods import CrossEntropy
from nlcourse.training import Options, fit
from nlcourse.training.batches import Batches, Images
from nlcourse.training.networks import resnet18_small

IMAGES = 10_000
PAIRS = 5


def compiling(data, batch_size: int, device: str) -> None:
    """Compare an epoch with and without ``torch.compile``, which has done its work before.

    Its mode "reduce-overhead" replays CUDA graphs.
    """
    options = {"network": resnet18_small, "epochs": 3, "device": device, "progress": False}

    def side(compiled: bool | str):
        def train(clock) -> None:
            method = clocked(CrossEntropy(), clock, begin=2)  # epoch 0 compiles, epoch 1 warms up
            chosen = Options(batch_size=batch_size, compiled=compiled)
            fit(method, data, options=chosen, **options)

        return train

    for label, mode in (("compiled", True), ("compiled with CUDA graphs", "reduce-overhead")):
        compare(f"{label} / not compiled: 32 x 32, ResNet-18, batch {batch_size}, GPU",
                side(mode), side(False), goal=1.0, pairs=PAIRS, device=device)  # fmt: skip


def data_path(data, device: str) -> None:
    """Compare shuffled, cropped, mirrored, normalised batches with a loader that feeds the GPU."""
    images = Images(data.images, data.mean, data.std, device)
    ours = Batches(images, data.labels, batch_size=128, augment=Augment(crop=4, flip=True))
    published = beside.Published(
        "elr", data, resnet18_small, 128, True, device, workers=os.cpu_count() or 1
    )

    def loaded() -> None:
        for batch in published.loader:
            for part in batch:
                part.to(device)

    compare("batches / DataLoader, PIL, a worker a core: 32 x 32, GPU",
            whole(lambda: training.empty(ours)), whole(loaded),
            goal=1 / 20, pairs=3, device=device)  # fmt: skip


def beside_published(data, device: str) -> None:
    """Compare an epoch of ELR and of Co-teaching with published style."""
    where = "32 x 32, ResNet-18, batch 128, GPU"
    shape = (data, resnet18_small, 128, True)
    for name in beside.OURS:
        for label, precision in (("ours", None), ("ours in float32", "float32")):
            other = beside.Published(name, *shape, device, workers=os.cpu_count() or 1)
            compare(f"{name}: {label} / published style: {where}",
                    beside.ours(name, *shape, precision, device), other,
                    goal=1 / 3, pairs=PAIRS, device=device)  # fmt: skip


def main(device: str = "cuda", images: int = IMAGES) -> None:
    """Run all comparisons."""
    if device == "cuda" and not torch.cuda.is_available():
        print("No GPU: nothing to measure")
        return
    with_threads(os.cpu_count() or 1, device)
    data = noise.inject(beside.colour_images(images), "symmetric", beside.NOISE_RATE)
    for batch_size in (128, 512):
        name = f"32 x 32, ResNet-18, batch {batch_size}, GPU"
        training.loop(name, data, resnet18_small, 1, batch_size, device, PAIRS)
        compiling(data, batch_size, device)
    data_path(data, device)
    beside_published(data, device)


if __name__ == "__main__":
    main()
