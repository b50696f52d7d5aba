"""How much the course's loop costs beside a bare loop, and its data path beside a DataLoader.

    python benchmarks/training.py

Ratios are taken in pairs within one run, so that they hold on a machine whose speed drifts;
medians of five pairs after a warm-up. The networks, batches and optimizers are the same on both
sides.
"""

from __future__ import annotations

import functools
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nlcourse import datasets, noise
from nlcourse.batches import Augment, Batches, Images
from nlcourse.methods import CrossEntropy
from nlcourse.models import mlp, small_cnn
from nlcourse.training import fit

PAIRS = 5
MEAN, STD = (0.5,) * 3, (0.25,) * 3


def timed(function: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(name: str, ours: Callable, other: Callable) -> None:
    """Print the median times of both and the median of their pairwise ratios."""
    ours(), other()
    pairs = [(timed(ours), timed(other)) for _ in range(PAIRS)]
    ratios = [mine / theirs for mine, theirs in pairs]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{name:46} {mine:8.3f} s {theirs:8.3f} s   ratio {statistics.median(ratios):6.3f}"
        f"   ({min(ratios):.3f} to {max(ratios):.3f})"
    )


def bare_loop(data, network: Callable, epochs: int, batch_size: int) -> None:
    """Train as one would by hand on tensors that are already there, and measure once an epoch."""
    model = network(data.image_shape, data.num_classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images = (data.images - data.mean[0]) / data.std[0]
    tests = (data.test_images - data.mean[0]) / data.std[0]
    for _ in range(epochs):
        model.train()
        for index in torch.randperm(len(images)).split(batch_size):
            loss = F.cross_entropy(model(images[index]), data.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():  # the same forward passes that the history needs
            for part in (images, tests):
                torch.cat([model(chunk).argmax(1) for chunk in part.split(2048)])


class PicturesOneByOne(Dataset):
    """The usual way: one image at a time through PIL transforms."""

    def __init__(self, images: torch.Tensor) -> None:
        """Keep images as the arrays that torchvision's CIFAR class holds."""
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = v2.Compose(
            [
                v2.ToPILImage(),
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
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
    """Apply torchvision's own batch transforms: one random crop for the whole batch."""
    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    for index in torch.randperm(len(images)).split(batch_size):
        transform(images[index])


def main() -> None:
    """Run all comparisons."""
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )
    digits = noise.inject(datasets.load("digits"), "symmetric", 0.4)
    quiet = {"device": "cpu", "progress": False}
    compare(
        "fit / bare loop: digits, MLP, batch 64",
        lambda: fit(CrossEntropy(), digits, epochs=20, **quiet),
        lambda: bare_loop(digits, mlp, 20, 64),
    )
    narrow = functools.partial(small_cnn, width=16)
    compare(
        "fit / bare loop: digits, small CNN, batch 128",
        lambda: fit(CrossEntropy(), digits, network=narrow, epochs=4, batch_size=128, **quiet),
        lambda: bare_loop(digits, narrow, 4, 128),
    )
    colour = torch.randint(256, (4096, 3, 32, 32), dtype=torch.uint8)
    ours = Batches(
        Images(colour, MEAN, STD),
        torch.zeros(4096).long(),
        batch_size=128,
        augment=Augment(crop=4, flip=True),
    )
    loader = DataLoader(PicturesOneByOne(colour), batch_size=128, shuffle=True)
    compare(
        "batches / DataLoader with PIL, 4096 images", lambda: empty(ours), lambda: empty(loader)
    )
    compare(
        "batches / v2 on batches, 4096 images", lambda: empty(ours), lambda: v2_batches(colour, 128)
    )
    print("v2 draws one crop for a whole batch, ours one for each image.")


if __name__ == "__main__":
    main()
