"""Tasks: a loss and further metrics for any model, `loss(model, batch) -> (loss, metrics)`, one task per file.

Metrics are means over the samples of the batch, as tensors (). Outside of training a metric that is not such a mean is
a score of `common/scores.py`, which is accumulated over batches.

A task lists in `NEEDS` the methods of a model that it calls. It may also have

    figure_data(model, data, per_sample)      the arrays of the figures at the end of a run; per_sample are the values
                                              that `evaluate` kept for every test sample, (N,) each
    sanity_check(model, data, scores, count)  further final numbers, and a warning if the scores of `count` test samples
                                              cannot be true
    calibrate(model, data)                    settings of predictions from held-out samples, plain values for `run.json`
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from odenet_cli import registry

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Any]]]


def task(name: str) -> Loss:
    return _module(name).loss


def optional(name: str, part: str) -> Callable[..., Any] | None:
    """Return `figure_data`, `sanity_check` or `calibrate` of the task; None for a task without it."""
    return getattr(_module(name), part, None)


def needs(name: str) -> tuple[str, ...]:
    """Return the methods of a model that the task calls."""
    return tuple(_module(name).NEEDS)


def missing_method(name: str, kind: type[nn.Module]) -> str | None:
    """Return a method that the task calls and this class of models lacks; None if there is none."""
    return next((need for need in needs(name) if getattr(kind, need, None) in (None, nn.Module.forward)), None)


def _module(name: str) -> Any:
    registry.require("task", name, registry.names(__name__))
    return importlib.import_module(f"{__name__}.{name}")
