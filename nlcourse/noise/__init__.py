"""Label noise: transition matrices and injectors; estimates of a matrix; the mistakes of people."""

from .injectors import (
    AS_IT_IS,
    KINDS,
    asymmetric_matrix,
    check_transition,
    corrupt,
    gaussian_images,
    inject,
    instance_dependent,
    observed_matrix,
    pairflip_matrix,
    random_pixels,
    shuffle_pixels,
    symmetric_matrix,
    transition_matrix,
)

__all__ = [
    "AS_IT_IS",
    "KINDS",
    "asymmetric_matrix",
    "check_transition",
    "corrupt",
    "gaussian_images",
    "inject",
    "instance_dependent",
    "observed_matrix",
    "pairflip_matrix",
    "random_pixels",
    "shuffle_pixels",
    "symmetric_matrix",
    "transition_matrix",
]
