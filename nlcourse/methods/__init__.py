"""The methods of the course, one file each."""

from .base import Method
from .co_teaching import CoTeaching
from .cross_entropy import CrossEntropy

METHODS: dict[str, type[Method]] = {
    "cross-entropy": CrossEntropy,
    "co-teaching": CoTeaching,
}

__all__ = ["METHODS", "CoTeaching", "CrossEntropy", "Method"]
