"""Live panels: sliders in, curves out.

A panel is state, compute (with its runner), render and view apart; only the view needs Jupyter. See
:class:`Explorer`, which all lessons use.
"""

from .arena import Arena
from .compute import MethodChoice, Parameter, method_choice
from .explorer import Explorer
from .state import Goal, Run, Settings
from .sweep_explorer import NoiseSweep

__all__ = [
    "Arena",
    "Explorer",
    "Goal",
    "MethodChoice",
    "NoiseSweep",
    "Parameter",
    "Run",
    "Settings",
    "method_choice",
]
