"""Live panels: sliders in, curves out.

A panel is state, compute (with its runner), render and view apart; only the view needs Jupyter. See
:class:`Explorer`, which all lessons use.
"""

from .compute import MethodChoice, Parameter, method_choice
from .explorer import Explorer
from .state import Goal, Run, Settings

__all__ = [
    "Explorer",
    "Goal",
    "MethodChoice",
    "Parameter",
    "Run",
    "Settings",
    "method_choice",
]
