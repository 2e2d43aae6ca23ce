"""Workloads, one per file: the module's name is the argument of `odenet bench`, its docstring's first line the title.

A module has a class `Workload`, a frozen dataclass whose fields are the sizes, and `run(settings) -> list[Table]`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from odenet_cli import registry

if TYPE_CHECKING:
    import torch

# Writes the log of a training step: (step, values, cost) -> nothing.
Log = Callable[[int, dict[str, Any], Any], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold the settings of a measurement.

    peers    the libraries to compare with
    repeats  number of measurements of each subject; None: the workload's own number
    log      writes the log of a run, for `train`; None: nothing is written
    note     receives the progress, outside of the timing
    """

    peers: tuple[str, ...]
    device: torch.device
    repeats: int | None = None
    log: Log | None = None
    note: Callable[[str], None] = lambda text: None


def names() -> list[str]:
    return registry.names(__name__)


def workload(name: str) -> Any:
    """Return the workload of that name, with its default sizes."""
    return importlib.import_module(f"{__name__}.{registry.require('workload', name, names())}").Workload()
