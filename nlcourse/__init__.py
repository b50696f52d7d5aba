"""nlcourse: learning with noisy labels, hands on.

The package behind the notebooks. Its rooms, from the ground up: ``datasets``, ``noise``,
``methods``, ``training``, ``panels``, ``experiments``, ``lessons``, ``course``; an arrow between
two of them points down (``docs/architecture.md``). Importing the package loads none of them, so
that the command line answers at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__version__ = "0.1.0"

# Short names that notebooks use, and where they live.
_SHORT = {
    f"{__name__}.{name}": f"{__name__}.{home}"
    for name, home in {
        "checks": "lessons.checks",
        "linear": "lessons.l04.linear",
        "losses": "methods.losses",
        "memorization": "lessons.l02.memorization",
    }.items()
}


class _ShortNames(MetaPathFinder, Loader):
    """Let ``import nlcourse.losses`` and the like find the module in its room."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in _SHORT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(_SHORT[spec.name])
        self._own = module.__spec__  # the import system is about to write the short one over it
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own


sys.meta_path.append(_ShortNames())
