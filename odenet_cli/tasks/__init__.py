"""A task is a loss and what to log beside it, for any model: `loss(model, batch)`, one task a file.

A task that can be seen also has `sketch(model, data)`: the arrays that its figures are drawn from, once a run is over.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from odenet_cli import registry

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]
Sketch = Callable[[nn.Module, Any], dict[str, Tensor]]


def task(name: str) -> Loss:
    """The loss of the task of that name."""
    loss: Loss = _module(name).loss
    return loss


def sketch(name: str) -> Sketch | None:
    """What the figures of the task of that name are drawn from; None for a task without figures."""
    return getattr(_module(name), "sketch", None)


def _module(name: str) -> Any:
    registry.require("task", name, registry.names(__name__))
    return importlib.import_module(f"{__name__}.{name}")
