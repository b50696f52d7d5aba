"""What is measured after an epoch: the only place of the training that knows true labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..base import Method
from ..datasets import UNKNOWN, Dataset
from .batches import Images

PREDICT_BATCH = 2048  # large enough to keep a device busy, small enough for a laptop's memory
PREDICT_VALUES = PREDICT_BATCH * 3 * 32 * 32  # photographs are predicted fewer at a time


class Measure:
    """Measures a method on a data set.

    Args:
        data: the training set with given and true labels, and the test set.
        images: its training images, on the device.
        device: where to measure.
    """

    def __init__(self, data: Dataset, images: Images, device: torch.device) -> None:
        """Bring labels and test images to the device."""
        self.images = images
        self.test_images = Images(data.test_images, data.mean, data.std, device)
        self.test_labels = data.test_labels.to(device)
        self.given = data.labels.to(device)
        self.true = data.true_labels.to(device)
        self.known = self.true != UNKNOWN
        self.right = self.known & (self.given == self.true)

    def __call__(self, method: Method) -> dict[str, float]:
        """Return columns of a history's row: those that have a meaning for this method."""
        method.eval()
        shares = accuracy_shares(predict(method, self.images), self.given, self.true)
        shares["test_accuracy"] = share(predict(method, self.test_images) == self.test_labels)
        if method.selects:
            chosen = method.selected
            right = chosen & self.right
            shares["label_precision"] = right.sum() / (chosen & self.known).sum()
            shares["label_recall"] = right.sum() / (self.right.sum() * len(chosen))
        labels = getattr(method, "current_labels", None)
        if labels is not None:
            shares["label_recovery"] = share(labels.argmax(dim=1) == self.true, self.known)
        # One wait for the device an epoch, for all numbers together.
        measured = torch.stack(list(shares.values())).tolist()
        return dict(zip(shares, measured, strict=True))


def accuracy_shares(predicted: Tensor, given: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Count what became of the training examples: the shares of a history's row.

    Args:
        predicted: int64 ``(..., n)``, the predicted classes of one network or of several.
        given: int64 of the same shape, the given labels.
        true: int64 of the same shape, the true labels; UNKNOWN ones count neither as right nor as
            wrong.

    Returns:
        Six of the :data:`~.history.COLUMNS`, each ``(...)``; nan where none is known.
    """
    known = true != UNKNOWN
    as_given, as_true, wrong = predicted == given, predicted == true, known & (given != true)
    return {
        "given_accuracy": share(as_given),
        "true_accuracy": share(as_true, known),
        "clean_accuracy": share(as_true, known & ~wrong),
        "wrong_as_true": share(as_true, wrong),
        "wrong_as_given": share(as_given, wrong),
        "wrong_as_other": share(~as_true & ~as_given, wrong),
    }


def share(flags: Tensor, among: Tensor | None = None) -> Tensor:
    """Return the share of true flags along the last dimension, nan among none."""
    if among is None:
        return flags.float().mean(-1)
    return (flags & among).sum(-1) / among.sum(-1)


@torch.no_grad()
def predict(method: nn.Module, images: Images) -> Tensor:
    """Return the predicted class of every image, int64 ``(n,)``, without augmentation.

    The method stays in the mode it is in; call ``method.eval()`` first.
    """
    size = max(1, min(PREDICT_BATCH, PREDICT_VALUES // math.prod(images.shape[1:])))
    chunks = range(0, len(images), size)
    return torch.cat([method(images.get(slice(at, at + size))).argmax(dim=1) for at in chunks])
