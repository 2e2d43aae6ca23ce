"""A task is a loss and what to log beside it, for any model: `loss(model, batch)`, one task a file."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from odenet_cli import registry

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]


def task(name: str) -> Loss:
    """The loss of the task of that name."""
    registry.require("task", name, registry.names(__name__))
    loss: Loss = importlib.import_module(f"{__name__}.{name}").loss
    return loss
