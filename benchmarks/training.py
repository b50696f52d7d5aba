"""How much the course's loop costs beside a bare loop, and its data path beside a DataLoader.

    python benchmarks/training.py

Same networks, batches, optimizers and numbers of threads on both sides; see ``_timing.py``.
"Training" is an epoch's steps alone; "all of it" counts set-up and the predictions after each epoch
too, on both sides.
"""

from __future__ import annotations

import functools
import os

import torch
from _timing import Clock, clocked, compare, whole, with_threads
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nlcourse import datasets, noise
from nlcourse.datasets.augment import Augment
from nlcourse.methods import CoTeaching, CrossEntropy
from nlcourse.training import Options, fit
from nlcourse.training.acceleration import accelerate, fastest_precision
from nlcourse.training.batches import Batches, Images
from nlcourse.training.networks import mlp, small_cnn
from nlcourse.training.stacked import StackedRun, fit_stacked

MEAN, STD = (0.5,) * 3, (0.25,) * 3
QUIET = {"progress": False}
CORES = os.cpu_count() or 1


# The loop -----------------------------------------------------------------------------------------


def bare_loop(
    clock: Clock, data, network, epochs: int, batch_size: int, *, networks: int = 1, measure=False,
    device: str = "cpu",
) -> None:  # fmt: skip
    """Train as one would by hand on tensors that are already there.

    With two networks: both forward passes, both losses, one backward pass, one step.
    """
    # The arithmetic of `fit`: what is measured here is what the loop around it costs.
    models = [network(data.image_shape, data.num_classes) for _ in range(networks)]
    precision = fastest_precision(models[0], data.images, device)
    models = [accelerate(model, device, precision).to(device) for model in models]
    parameters = [each for model in models for each in model.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    images, tests = (normalised(data, part).to(device) for part in (data.images, data.test_images))
    given = data.labels.to(device)
    for _ in range(epochs):
        with clock:
            for model in models:
                model.train()
            for index in torch.randperm(len(images), device=device).split(batch_size):
                batch, labels = images[index], given[index]
                loss = sum(F.cross_entropy(model(batch), labels) for model in models)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if measure:  # the forward passes that the history needs
                predict(models[0], images), predict(models[0], tests)


def normalised(data, images: torch.Tensor) -> torch.Tensor:
    """Return float images with mean 0 and deviation 1."""
    scale = 255 if images.dtype == torch.uint8 else 1
    return (images / scale - data.mean[0]) / data.std[0]


@torch.no_grad()
def predict(model, images: torch.Tensor) -> torch.Tensor:
    """Return the predicted classes."""
    model.eval()
    return torch.cat([model(chunk).argmax(1) for chunk in images.split(2048)])


def loop(
    name: str, data, network, epochs: int, batch_size: int, device: str = "cpu", pairs: int = 9
) -> None:
    """Compare `fit` with the bare loop: training alone, all of it, and Co-teaching's training."""
    shape = {"network": network, "epochs": epochs, "device": device}
    options = shape | QUIET | {"options": Options(batch_size=batch_size)}
    bare = functools.partial(bare_loop, data=data, batch_size=batch_size, **shape)

    def training(clock: Clock) -> None:
        fit(clocked(CrossEntropy(), clock), data, **options)

    def two(clock: Clock) -> None:
        fit(clocked(CoTeaching(0.4), clock), data, **options)

    everything = whole(lambda: fit(CrossEntropy(), data, **options))
    bare_everything = whole(lambda: bare(Clock(), measure=True))
    bare_two = functools.partial(bare, networks=2)
    for what, ours, other, goal in (
        ("fit / bare loop, training", training, bare, 1.05),
        ("fit / bare loop, all of it", everything, bare_everything, 1.05),
        ("Co-teaching / its bare passes", two, bare_two, 1.10),
    ):
        compare(f"{what}: {name}", ours, other, goal=goal, pairs=pairs, device=device)


# Several networks at once -------------------------------------------------------------------------


def sixteen(hidden: tuple[int, ...]) -> None:
    """Compare 16 MLPs over noise rates and seeds, stacked and one after the other."""
    clean = datasets.load("digits")
    grid = [(rate / 10, seed) for rate in range(1, 9) for seed in range(2)]
    sets = [noise.inject(clean, "symmetric", rate, seed=seed) for rate, seed in grid]
    seeds = [seed for _, seed in grid]
    options = {
        "network": functools.partial(mlp, hidden=hidden),
        "epochs": 3,
        "device": "cpu",
    } | QUIET

    def one_after_the_other() -> None:
        for data, seed in zip(sets, seeds, strict=True):
            fit(CrossEntropy(), data, seed=seed, **options)

    compare(f"16 MLPs of width {hidden} stacked / one after the other",
            whole(lambda: fit_stacked(list(map(StackedRun, sets, seeds)), **options)),
            whole(one_after_the_other), goal=0.25, pairs=7)  # fmt: skip


# The data path ------------------------------------------------------------------------------------


class OneByOne(Dataset):
    """The usual way: one image at a time through torchvision's transforms."""

    def __init__(self, images: torch.Tensor, pil: bool) -> None:
        """Keep images as torchvision's CIFAR class holds them (PIL), or as tensors."""
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy() if pil else images
        self.transform = v2.Compose(
            [
                *([v2.ToPILImage()] if pil else []),
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                *([v2.ToImage()] if pil else []),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int):
        """Return one transformed image with its label and index."""
        return self.transform(self.images[index]), 0, index


def empty(batches) -> None:
    """Go through all batches and do nothing with them."""
    for _ in batches:
        pass


def v2_batches(images: torch.Tensor, batch_size: int) -> None:
    """Apply torchvision's transforms to whole batches: one crop and one flip for all of a batch."""
    transform = OneByOne(images, pil=False).transform
    for index in torch.randperm(len(images)).split(batch_size):
        transform(images[index])


def data_path(count: int = 4096) -> None:
    """Compare shuffled, cropped, mirrored, normalised batches of 128."""
    colour = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.zeros(count).long()
    ours = Batches(
        Images(colour, MEAN, STD), labels, batch_size=128, augment=Augment(crop=4, flip=True)
    )
    others = {
        "DataLoader, PIL, an image at a time": (OneByOne(colour, pil=True), 1 / 20),
        "DataLoader, v2 on tensors, an image at a time": (OneByOne(colour, pil=False), 1.0),
    }
    for name, (pictures, goal) in others.items():
        loader = DataLoader(pictures, batch_size=128, shuffle=True)
        compare(f"batches / {name}", whole(lambda: empty(ours)),
                whole(lambda loader=loader: empty(loader)), goal=goal, pairs=3)  # fmt: skip
    compare("batches / v2 on batches (one crop for a whole batch)", whole(lambda: empty(ours)),
            whole(lambda: v2_batches(colour, 128)), goal=1.0, pairs=9)  # fmt: skip


def main() -> None:
    """Run all comparisons."""
    digits = noise.inject(datasets.load("digits"), "symmetric", 0.4)
    pixels = torch.randint(256, (1280, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(1280) % 10
    names = tuple("0123456789")
    grey = datasets.Dataset(
        "random pixels", pixels, labels, labels, pixels[:256], labels[:256], names, (0.5,), (0.3,)
    )
    with_threads(1)
    loop("digits, MLP, batch 64", digits, mlp, 8, 64)
    data_path()
    sixteen((64,))
    sixteen((64, 64))
    for count in sorted({1, CORES}):
        with_threads(count)
        loop(f"28 x 28, small CNN, batch 128, {count} thread(s)", grey, small_cnn, 1, 128)


if __name__ == "__main__":
    main()
