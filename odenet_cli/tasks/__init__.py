"""A task is a loss and what to log beside it, for any model: `loss(model, batch)`, one task a file.

What it logs are means over the samples of the batch, as tensors. Outside of training a number that is no such mean is a
score of `_scores`, which adds up over batches.

A task says in `NEEDS` which methods of a model it calls. It may also have

    figure_data(model, data)                  the arrays that its figures are drawn from, once a run is over
    sanity_check(model, data, scores, count)  numbers for the end of a run, and a complaint if its scores, of so many
                                              test samples, cannot be true
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from odenet_cli import registry

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Any]]]
FigureData = Callable[[nn.Module, Any], dict[str, Tensor]]
SanityCheck = Callable[[nn.Module, Any, dict[str, Any], int], tuple[dict[str, float], str | None]]


def task(name: str) -> Loss:
    """The loss of the task of that name."""
    loss: Loss = _module(name).loss
    return loss


def figure_data(name: str) -> FigureData | None:
    """What the figures of the task of that name are drawn from; None for a task without figures."""
    return getattr(_module(name), "figure_data", None)


def sanity_check(name: str) -> SanityCheck | None:
    """How the task of that name closes a run; None for a task that says nothing."""
    return getattr(_module(name), "sanity_check", None)


def missing_method(name: str, model: nn.Module) -> str | None:
    """A method that the task of that name calls and the model does not have."""
    mine = type(model)
    return next((need for need in _module(name).NEEDS if getattr(mine, need, None) in (None, nn.Module.forward)), None)


def _module(name: str) -> Any:
    registry.require("task", name, registry.names(__name__))
    return importlib.import_module(f"{__name__}.{name}")
