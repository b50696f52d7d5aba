"""Attentive Feature Mixup: mix pairs of features, and let the network say how much of each.

Peng, Wang, Zeng, Li, Yang and Qiao 2020, "Suppressing Mislabeled Data via Grouping and
Self-Attention" (ECCV 2020); their code: kaiwang960112/AFM. Lesson 13 says where it stands.

mixup draws the share of the first image. Here two small layers look at the features f of both and
name it, so that a mislabelled example can be given little weight. Features are what goes into the
last linear layer of the network, which classifies mixed and unmixed features alike.

Where paper and code differ: docs/deviations.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, MakeNetwork, Method, expect
from .features import features, last_linear

HIDDEN = 0.75  # width of the attention as a share of the features' (1536 of 2048 in the code)


class PairAttention(nn.Module):
    """Group-to-attend module, from two features to the share w of the first.

    ``w = sigmoid(v . (relu(A f_1) + relu(B f_2)))``; `width` is the size of a feature vector.
    """

    def __init__(self, width: int) -> None:
        """Make the three layers."""
        super().__init__()
        hidden = max(1, int(HIDDEN * width))
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return shares ``(k, 1)`` in (0, 1) for features ``(k, width)`` twice."""
        hidden = self.first(first).relu() + self.second(second).relu()
        return torch.sigmoid(self.score(hidden))


def mixed_loss(logits: Tensor, labels_1: Tensor, labels_2: Tensor, share: Tensor) -> Tensor:
    """Return the mean of ``w CE(z, y_1) + (1 - w) CE(z, y_2)`` over pairs; 0 without pairs.

    Logits are ``(k, C)``, labels int64 ``(k,)``, the share w ``(k,)``: gradient flows through it.
    """
    first = F.cross_entropy(logits, labels_1, reduction="none")
    second = F.cross_entropy(logits, labels_2, reduction="none")
    return (share * first + (1 - share) * second).sum() / max(len(share), 1)


class AttentiveFeatureMixup(Method):
    """Attentive feature mixup with groups of two, the halves of a shuffled batch.

    Args:
        lambda_: weight of the mixed loss in [0, 1]; the plain one weighs the rest.
        mix_labels: False compares a mixture with both labels alike, as the code does.
    """

    def __init__(self, lambda_: float = 0.75, *, mix_labels: bool = True) -> None:
        """Check the settings; the attention comes with :meth:`build`."""
        super().__init__()
        expect(0 <= lambda_ <= 1, "`lambda_` in [0, 1]", lambda_, "the weight of the mixed loss")
        self.lambda_, self.mix_labels = lambda_, mix_labels

    def build(self, make_network: MakeNetwork, num_examples: int, num_classes: int) -> None:
        """Make the network and an attention as wide as its features."""
        super().build(make_network, num_examples, num_classes)
        self.attention = PairAttention(last_linear(self.network)[1].in_features)

    def loss(self, batch: Batch) -> Tensor:
        """Return ``lambda L_mixed + (1 - lambda) L_plain``; predictions never see a mixture."""
        classify = last_linear(self.network)[1]
        f = features(self.network, batch.images)
        l_plain = F.cross_entropy(classify(f), batch.labels)
        half = len(f) // 2  # an odd example is left unmixed
        first, second = slice(half), slice(half, 2 * half)
        f_1, f_2 = f[first], f[second]
        w = self.attention(f_1, f_2)
        mixed = w * f_1 + (1 - w) * f_2
        share = w.flatten() if self.mix_labels else torch.full_like(w[:, 0], 0.5)
        l_mixed = mixed_loss(classify(mixed), batch.labels[first], batch.labels[second], share)
        return self.lambda_ * l_mixed + (1 - self.lambda_) * l_plain
