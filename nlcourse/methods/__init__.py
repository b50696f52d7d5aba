"""The methods of the course, one file each."""

from ..base import Method
from .afm import AttentiveFeatureMixup
from .aum import AUM
from .cdr import CDR
from .co_teaching import CoTeaching
from .co_teaching_plus import CoTeachingPlus
from .cross_entropy import CrossEntropy
from .curriculum import CurriculumNet
from .d2l import D2L
from .dividemix import DivideMix
from .elr import ELR, ELRPlus
from .fixmatch import FixMatch
from .iterative_cv import IterativeCV
from .joint import FromSoftLabels, JointOptimization
from .mentornet import MentorNet
from .mixup import Mixup
from .robust import ForwardCorrection, RobustLoss, TruncatedGCE
from .self_learning import SelfLearning
from .t_revision import TRevision

METHODS: dict[str, type[Method]] = {
    "cross-entropy": CrossEntropy,
    "co-teaching": CoTeaching,
    "co-teaching-plus": CoTeachingPlus,
    "robust-loss": RobustLoss,
    "truncated-gce": TruncatedGCE,
    "forward-correction": ForwardCorrection,
    "mixup": Mixup,
    "joint-optimization": JointOptimization,
    "dividemix": DivideMix,
    "aum": AUM,
    "curriculum": CurriculumNet,
    "self-learning": SelfLearning,
    "elr": ELR,
    "elr-plus": ELRPlus,
    "fixmatch": FixMatch,
    "cdr": CDR,
    "t-revision": TRevision,
    "d2l": D2L,
    "mentornet": MentorNet,
    "iterative-cv": IterativeCV,
    "attentive-feature-mixup": AttentiveFeatureMixup,
}

__all__ = [
    "AUM",
    "CDR",
    "D2L",
    "ELR",
    "METHODS",
    "AttentiveFeatureMixup",
    "CoTeaching",
    "CoTeachingPlus",
    "CrossEntropy",
    "CurriculumNet",
    "DivideMix",
    "ELRPlus",
    "FixMatch",
    "ForwardCorrection",
    "FromSoftLabels",
    "IterativeCV",
    "JointOptimization",
    "MentorNet",
    "Method",
    "Mixup",
    "RobustLoss",
    "SelfLearning",
    "TRevision",
    "TruncatedGCE",
]
