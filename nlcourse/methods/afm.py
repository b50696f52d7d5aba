"""Attentive Feature Mixup: mix pairs of features, and let the network say how much of each.

Peng, Wang, Zeng, Li, Yang and Qiao 2020, "Suppressing Mislabeled Data via Grouping and
Self-Attention" (ECCV 2020); their code: kaiwang960112/AFM. Lesson 13 says where it stands.

mixup draws the share of the first image. Here two small layers look at the features of both and
name it, so that a mislabelled example can be given little weight. Features are what goes into the
last linear layer of the network, which classifies mixed and unmixed features alike.

Where we follow which:

* groups of two, the halves of a shuffled batch, as in the code; an odd example is left unmixed;
* the share is also that of the labels. In the code both labels of a pair count the same, so the
  share does not enter the loss: ``mix_labels=False``;
* mixed and plain loss weigh 0.75 and 0.25, which is the code's 1.5 and 0.5 divided by their sum
  (its options have the two names the wrong way round);
* their network is pre-trained on ImageNet. Ours begins from nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import Batch, Method
from .features import features, last_linear

HIDDEN = 0.75  # width of the attention as a share of the features' (1536 of 2048 in the code)


class PairAttention(nn.Module):
    """From the features of two examples to the share of the first: the group-to-attend module.

    ``w = sigmoid(v . (relu(A f_1) + relu(B f_2)))``.

    Args:
        width: size of a feature vector.
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
        return self.score(self.first(first).relu() + self.second(second).relu()).sigmoid()


def mixed_loss(
    logits: Tensor, labels_first: Tensor, labels_second: Tensor, share: Tensor
) -> Tensor:
    """Return the mean of ``w CE(z, y_1) + (1 - w) CE(z, y_2)`` over pairs; 0 without pairs.

    Args:
        logits: float ``(k, C)``, of the mixed features.
        labels_first: int64 ``(k,)``.
        labels_second: int64 ``(k,)``.
        share: float ``(k,)``, weight of the first label. Gradient flows through it, too.
    """
    first = F.cross_entropy(logits, labels_first, reduction="none")
    second = F.cross_entropy(logits, labels_second, reduction="none")
    return (share * first + (1 - share) * second).sum() / max(len(share), 1)


class AttentiveFeatureMixup(Method):
    """Attentive feature mixup with groups of two.

    Args:
        lambda_: weight of the mixed loss in [0, 1]; the plain one weighs the rest.
        mix_labels: False compares a mixture with both labels alike, as the code does.

    Raises:
        ValueError: `lambda_` outside [0, 1], or a network without a linear layer.
    """

    def __init__(self, lambda_: float = 0.75, *, mix_labels: bool = True) -> None:
        """Check the settings; the attention comes with :meth:`build`."""
        super().__init__()
        if not 0 <= lambda_ <= 1:
            raise ValueError(
                f"Expected `lambda_` in [0, 1], got {lambda_}: it is the weight of the mixed loss"
            )
        self.lambda_ = lambda_
        self.mix_labels = mix_labels

    def build(
        self, make_network: Callable[[], nn.Module], num_examples: int, num_classes: int
    ) -> None:
        """Make the network and an attention as wide as its features."""
        super().build(make_network, num_examples, num_classes)
        self.attention = PairAttention(last_linear(self.network)[1].in_features)

    def loss(self, batch: Batch) -> Tensor:
        """Return ``lambda L_mixed + (1 - lambda) L_plain``; predictions never see a mixture."""
        classify = last_linear(self.network)[1]
        seen = features(self.network, batch.images)
        plain = F.cross_entropy(classify(seen), batch.labels)
        half = len(seen) // 2
        first, second = seen[:half], seen[half : 2 * half]
        share = self.attention(first, second)
        mixed = share * first + (1 - share) * second
        weight = share.flatten() if self.mix_labels else torch.full_like(share[:, 0], 0.5)
        mixture = mixed_loss(
            classify(mixed),
            batch.labels[:half],
            batch.labels[half : 2 * half],
            weight,
        )
        return self.lambda_ * mixture + (1 - self.lambda_) * plain
