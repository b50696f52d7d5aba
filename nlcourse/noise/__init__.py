"""Label noise: transition matrices and injectors; estimates of a matrix; the mistakes of people."""

from .images import gaussian_images as gaussian_images
from .images import random_pixels as random_pixels
from .images import shuffle_pixels as shuffle_pixels
from .injectors import AS_IT_IS as AS_IT_IS
from .injectors import KINDS as KINDS
from .injectors import corrupt as corrupt
from .injectors import inject as inject
from .injectors import instance_dependent as instance_dependent
from .injectors import transition_matrix as transition_matrix
from .matrices import asymmetric_matrix as asymmetric_matrix
from .matrices import check_transition as check_transition
from .matrices import observed_matrix as observed_matrix
from .matrices import pairflip_matrix as pairflip_matrix
from .matrices import symmetric_matrix as symmetric_matrix
