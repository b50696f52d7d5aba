"""Images, given labels, true labels and a test set as tensors: ``load("digits")``."""

from .dataset import UNKNOWN, Dataset
from .files import DataError
from .loading import HUMAN_KINDS, NAMES, load, load_folder

__all__ = ["HUMAN_KINDS", "NAMES", "UNKNOWN", "DataError", "Dataset", "load", "load_folder"]
