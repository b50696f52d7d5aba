"""The training loop: ``fit(method, data)`` returns a history of one row an epoch."""

from .history import History
from .loop import DivergedError, Options, find_device, fit, predict

__all__ = ["DivergedError", "History", "Options", "find_device", "fit", "predict"]
