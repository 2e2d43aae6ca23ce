"""Neural Ordinary Differential Equations (Chen, Rubanova, Bettencourt, Duvenaud 2018), from the command line.

In Python: `load` a run, `train` one, ask the `doctor` about a solve, and the solvers in `ode`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odenet_cli import ode
    from odenet_cli.api import LoadedRun, doctor, load, train

__version__ = "0.1.0"
__all__ = ["LoadedRun", "doctor", "load", "ode", "train"]


def __getattr__(name: str) -> Any:
    """Import the Python API on first use, so that the command line starts without torch."""
    if name == "ode":
        return importlib.import_module("odenet_cli.ode")
    if name in __all__:
        return getattr(importlib.import_module("odenet_cli.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
