"""The methods of the course, one file each."""

from .base import Method
from .co_teaching import CoTeaching
from .co_teaching_plus import CoTeachingPlus
from .cross_entropy import CrossEntropy
from .elr import ELR, ELRPlus
from .joint import FromSoftLabels, JointOptimization
from .mixup import Mixup
from .robust import ForwardCorrection, RobustLoss, TruncatedGCE

METHODS: dict[str, type[Method]] = {
    "cross-entropy": CrossEntropy,
    "co-teaching": CoTeaching,
    "co-teaching-plus": CoTeachingPlus,
    "robust-loss": RobustLoss,
    "truncated-gce": TruncatedGCE,
    "forward-correction": ForwardCorrection,
    "mixup": Mixup,
    "joint-optimization": JointOptimization,
    "elr": ELR,
    "elr-plus": ELRPlus,
}

__all__ = [
    "ELR",
    "METHODS",
    "CoTeaching",
    "CoTeachingPlus",
    "CrossEntropy",
    "ELRPlus",
    "ForwardCorrection",
    "FromSoftLabels",
    "JointOptimization",
    "Method",
    "Mixup",
    "RobustLoss",
    "TruncatedGCE",
]
