"""The methods of the course, one file each."""

from ..base import Method as Method
from .afm import AttentiveFeatureMixup as AttentiveFeatureMixup
from .aum import AUM as AUM
from .cdr import CDR as CDR
from .co_teaching import CoTeaching as CoTeaching
from .co_teaching_plus import CoTeachingPlus as CoTeachingPlus
from .cross_entropy import CrossEntropy as CrossEntropy
from .curriculum import CurriculumNet as CurriculumNet
from .d2l import D2L as D2L
from .dividemix import DivideMix as DivideMix
from .elr import ELR as ELR
from .elr import ELRPlus as ELRPlus
from .fixmatch import FixMatch as FixMatch
from .forward_correction import ForwardCorrection as ForwardCorrection
from .iterative_cv import IterativeCV as IterativeCV
from .joint import JointOptimization as JointOptimization
from .mentornet import MentorNet as MentorNet
from .mixup import Mixup as Mixup
from .robust import RobustLoss as RobustLoss
from .robust import TruncatedGCE as TruncatedGCE
from .self_learning import SelfLearning as SelfLearning
from .soft_labels import FromSoftLabels as FromSoftLabels
from .t_revision import TRevision as TRevision

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
