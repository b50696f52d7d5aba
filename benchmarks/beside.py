"""The same epoch of ELR and of Co-teaching as most published code writes it, and with Lightning.

    python benchmarks/beside.py

Most published code opens each image as a PIL picture, transforms it (crop, flip, normalise), lets a
``DataLoader`` with worker processes collate the batches, and reads every loss with ``.item()``. The
workers are kept alive from epoch to epoch, and their start is not counted. PyTorch Lightning is
compared where it is installed (extra `bench`): on digits over tensors that are already there, on
CIFAR-10 over the same loader. One epoch's training is timed on each side, no measuring, and
Lightning has its logger, checkpoints and progress bar switched off. Both sides use the same
networks, batches, optimizer and threads (the workers come on top), each at its own precision: ours
takes bfloat16 where ``fit`` does by itself, and a second comparison holds it to float32.

Two more on digits, for ELR. "A run of 10 epochs" is what a user of each gets who changes no switch:
losses logged, a bar, the training and the test accuracy of every epoch. And "the matrix products"
are what no loop can leave out: the eight of a step of the MLP, beside Lightning's whole step.

The images are those of CIFAR-10 where NLCOURSE_DATA holds them, else random pixels (which take as
long); 2,048 of them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import tempfile
import warnings

import numpy as np
import torch
from _timing import Clock, clocked, compare, whole, with_threads
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from nlcourse import datasets, noise
from nlcourse.datasets.augment import Augment
from nlcourse.methods import ELR, CoTeaching
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp, small_cnn

IMAGES = 2048
WORKERS = 2
BETA, LAMBDA, NOISE_RATE = 0.7, 3.0, 0.4
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
OURS = {"elr": lambda: ELR(BETA, LAMBDA), "co-teaching": lambda: CoTeaching(NOISE_RATE, 1)}
PAIRS = 5


# As most published code does it -------------------------------------------------------------------


class Pictures(Dataset):
    """Images as arrays; each is opened with PIL and transformed when it is asked for."""

    def __init__(self, data, augment: bool) -> None:
        """Keep arrays ``(height, width)`` or ``(height, width, 3)`` of uint8."""
        pixels = data.images if data.images.dtype == torch.uint8 else (data.images * 255).byte()
        self.images = pixels.permute(0, 2, 3, 1).squeeze(3).contiguous().numpy()
        self.labels = data.labels.tolist()
        side = data.image_shape[1]
        moves = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip()]
        normalise = transforms.Normalize(data.mean, data.std)
        steps = [*(moves if augment else []), transforms.ToTensor(), normalise]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int):
        """Return image, label and index."""
        return self.transform(Image.fromarray(self.images[index])), self.labels[index], index


class PublishedELR:
    """ELR's loss with its table of targets."""

    def __init__(self, size: int, num_classes: int, device: str = "cpu") -> None:
        """Begin with targets of 0."""
        self.targets = torch.zeros(size, num_classes, device=device)

    def __call__(self, outputs: list[Tensor], labels: Tensor, index: Tensor) -> Tensor:
        """Move the targets, return the loss."""
        p = torch.clamp(F.softmax(outputs[0], dim=1), 1e-4, 1.0 - 1e-4)
        fresh = p.data.detach()
        fresh = fresh / fresh.sum(dim=1, keepdim=True)
        self.targets[index] = BETA * self.targets[index] + (1 - BETA) * fresh
        rest = (1 - (self.targets[index] * p).sum(dim=1)).log()
        return F.cross_entropy(outputs[0], labels) + LAMBDA * rest.mean()


def published_co_teaching(outputs: list[Tensor], labels: Tensor, index: Tensor) -> Tensor:
    """Each network's mean loss on the examples that the other finds easy."""
    losses = [F.cross_entropy(each, labels, reduction="none") for each in outputs]
    keep = int((1 - NOISE_RATE) * len(labels))
    order = [np.argsort(each.detach().cpu().numpy())[:keep] for each in losses]
    return losses[0][order[1]].mean() + losses[1][order[0]].mean()


def objective(name: str, data, device: str = "cpu"):
    """Return ``(outputs, labels, index) -> loss`` of a method."""
    if name == "elr":
        return PublishedELR(len(data.labels), data.num_classes, device)
    return published_co_teaching


def make_models(name: str, data, network) -> torch.nn.ModuleList:
    """Return one network, or two for Co-teaching."""
    count = 1 + (name == "co-teaching")
    return torch.nn.ModuleList(network(data.image_shape, data.num_classes) for _ in range(count))


class Published:
    """A training script: DataLoader, loop, one epoch a call."""

    def __init__(
        self, name: str, data, network, batch_size: int, augment: bool, device: str = "cpu",
        workers: int = WORKERS,
    ) -> None:  # fmt: skip
        """Start the workers."""
        self.device = device
        self.loader = DataLoader(
            Pictures(data, augment), batch_size=batch_size, shuffle=True, num_workers=workers,
            persistent_workers=True, pin_memory=device != "cpu",
        )  # fmt: skip
        self.models = make_models(name, data, network).to(device)
        self.objective = objective(name, data, device)
        self.optimizer = SGD(self.models.parameters())

    def __call__(self, clock: Clock) -> None:
        """Train one epoch."""
        with clock:
            self.models.train()
            total = 0.0
            for batch in self.loader:
                images, labels, index = (part.to(self.device) for part in batch)
                outputs = [model(images) for model in self.models]
                loss = self.objective(outputs, labels, index)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                total += loss.item()


# With Lightning -----------------------------------------------------------------------------------


def with_lightning(name: str, data, network, batch_size: int, augment: bool):
    """Return a side that trains one epoch with PyTorch Lightning, or None where it is absent."""
    try:
        import lightning
    except ImportError:
        return None
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        """The same training step."""

        def __init__(self) -> None:
            """Make networks and loss."""
            super().__init__()
            self.models = make_models(name, data, network)
            self.objective = objective(name, data)
            self.clock = Clock()

        def training_step(self, batch, _) -> Tensor:
            """Return the loss."""
            images, labels, index = batch
            return self.objective([model(images) for model in self.models], labels, index)

        def configure_optimizers(self):
            """Return SGD."""
            return SGD(self.models.parameters())

        def on_train_epoch_start(self) -> None:
            """Begin to count."""
            self.clock.__enter__()

        def on_train_epoch_end(self) -> None:
            """Stop counting."""
            self.clock.__exit__()

    loader = lightning_loader(data, batch_size, augment)
    module = Module()

    def side(clock: Clock) -> None:
        module.clock = clock
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, barebones=False,
        )  # fmt: skip
        trainer.fit(module, loader)

    return side


def lightning_loader(data, batch_size: int, augment: bool) -> DataLoader:
    """Return the loader a Lightning user would write: tensors for digits, pictures for colour."""
    options = {"batch_size": batch_size, "shuffle": True}
    if augment:
        return DataLoader(
            Pictures(data, augment), num_workers=WORKERS, persistent_workers=True, **options
        )
    images = (data.images - data.mean[0]) / data.std[0]
    return DataLoader(
        TensorDataset(images, data.labels, torch.arange(len(images))), num_workers=0, **options
    )


# The comparisons ----------------------------------------------------------------------------------


def ours(
    name: str, data, network, batch_size: int, augment: bool, precision=None, device: str = "cpu"
):
    """Return a side that trains one epoch with the course's loop."""
    changes = Augment(crop=4, flip=True) if augment else None
    chosen = Options(batch_size=batch_size, augment=changes, precision=precision)
    options = {"network": network, "epochs": 1, "progress": False, "device": device}

    def side(clock: Clock) -> None:
        fit(clocked(OURS[name](), clock), data, options=chosen, **options)

    return side


def lightning_run(data):
    """Return a side: ten epochs of ELR with Lightning as it comes, in a folder that vanishes."""
    import lightning

    class Module(lightning.LightningModule):
        """What its manual has: losses and accuracies logged."""

        def __init__(self) -> None:
            """Make network and loss."""
            super().__init__()
            self.model = mlp(data.image_shape, data.num_classes)
            self.objective = objective("elr", data)

        def training_step(self, batch, _) -> Tensor:
            """Return the loss."""
            images, labels, index = batch
            logits = self.model(images)
            loss = self.objective([logits], labels, index)
            right = (logits.argmax(1) == labels).float().mean()
            self.log_dict({"train_loss": loss, "train_accuracy": right}, prog_bar=True)
            return loss

        def validation_step(self, batch, _) -> None:
            """Log the accuracy."""
            images, labels = batch
            self.log("test_accuracy", (self.model(images).argmax(1) == labels).float().mean())

        def configure_optimizers(self):
            """Return SGD."""
            return SGD(self.parameters())

    tests = (data.test_images - data.mean[0]) / data.std[0]
    tests = DataLoader(TensorDataset(tests, data.test_labels), batch_size=512)

    def side(clock: Clock) -> None:
        nowhere = contextlib.redirect_stdout(io.StringIO())  # the bar is drawn, not shown
        with tempfile.TemporaryDirectory() as folder, nowhere, clock:
            trainer = lightning.Trainer(max_epochs=10, accelerator="cpu", default_root_dir=folder)
            trainer.fit(Module(), lightning_loader(data, 64, False), tests)

    return side


def matrix_products(data):
    """Return a side: the products that an epoch's forward and backward passes cannot do without."""
    layers = [layer.weight for layer in mlp(data.image_shape, data.num_classes)[1::2]]
    values = [torch.randn(64, layer.shape[1]) for layer in layers]
    slopes = [torch.randn(64, layer.shape[0]) for layer in layers]

    @torch.no_grad()
    def side(clock: Clock) -> None:
        with clock:
            for _ in range(-(-len(data.labels) // 64)):
                for number, (weight, x, slope) in enumerate(
                    zip(layers, values, slopes, strict=True)
                ):
                    x @ weight.T, slope.T @ x
                    if number:  # nobody asks for the slope in the images
                        slope @ weight

    return side


def on_digits(data) -> None:
    """Compare a whole run, and show how far a step can be from Lightning's at all."""
    run = {"epochs": 10, "network": mlp, "device": "cpu"}
    other = with_lightning("elr", data, mlp, 64, False)
    if other is None:
        return
    compare("elr, a run of 10 epochs: ours / Lightning as it comes: digits, MLP, batch 64",
            whole(lambda: fit(OURS["elr"](), data, **run)), lightning_run(data),
            goal=1 / 4, pairs=PAIRS)  # fmt: skip
    compare("elr: the matrix products alone / Lightning: digits, MLP, batch 64",
            matrix_products(data), other, goal=1 / 4, pairs=PAIRS)  # fmt: skip


def colour_images(count: int = IMAGES):
    """Return images of CIFAR-10, or random ones of that shape."""
    with contextlib.suppress(datasets.DataError):
        if os.environ.get("NLCOURSE_DATA"):
            return datasets.load("cifar10", download=False).subset(count)
    print("NLCOURSE_DATA holds no CIFAR-10: random pixels in its place")
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(count) % 10
    names = tuple("0123456789")
    return datasets.Dataset(
        "random", pixels, labels, labels, pixels, labels, names, (0.5,) * 3, (0.25,) * 3
    )


def main() -> None:
    """Run all comparisons."""
    warnings.filterwarnings("ignore", module="lightning")
    settings = {
        "digits, MLP, batch 64": (datasets.load("digits"), mlp, 64, False, 1, 4.0),
        "CIFAR-10, small CNN, batch 128": (
            colour_images(), small_cnn, 128, True, os.cpu_count() or 1, 2.5,
        ),
    }  # fmt: skip
    for where, (clean, network, batch_size, augment, threads, factor) in settings.items():
        with_threads(threads)
        data = noise.inject(clean, "symmetric", NOISE_RATE)
        shape = (data, network, batch_size, augment)
        for name in OURS:
            mine = ours(name, *shape)
            compare(f"{name}: ours / published style: {where}", mine, Published(name, *shape),
                    goal=1 / factor, pairs=PAIRS)  # fmt: skip
            if augment:
                compare(f"{name}: ours in float32 / published style: {where}",
                        ours(name, *shape, "float32"), Published(name, *shape),
                        goal=1 / factor, pairs=PAIRS)  # fmt: skip
            other = with_lightning(name, *shape)
            if other is None:
                print("Lightning is not installed (extra `bench`): left out")
                continue
            compare(f"{name}: ours / Lightning: {where}", mine, other,
                    goal=1 / factor, pairs=PAIRS)  # fmt: skip
        if not augment:
            on_digits(data)


if __name__ == "__main__":
    main()
