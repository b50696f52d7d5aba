"""The training loop: ``fit(method, data)`` returns a history of one row an epoch."""

from .device import find_device
from .history import History
from .loop import DivergedError, Options, fit
from .measure import predict

__all__ = ["DivergedError", "History", "Options", "find_device", "fit", "predict"]
