"""Images, given labels, true labels and a test set as tensors: ``load("digits")``."""

from .augment import Augment
from .dataset import UNKNOWN, Dataset
from .files import DataError, lock_of
from .image_cache import Decoding
from .loading import HUMAN_KINDS, NAMES, load, load_folder
from .photographs import NAMES as PHOTOGRAPHS

__all__ = [
    "HUMAN_KINDS",
    "NAMES",
    "PHOTOGRAPHS",
    "UNKNOWN",
    "Augment",
    "DataError",
    "Dataset",
    "Decoding",
    "load",
    "load_folder",
    "lock_of",
]
