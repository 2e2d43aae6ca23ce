"""Optimisers and their learning rate, a function of the step alone. Torch is imported where one is made."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from odenet_cli.config import OptimConfig
from odenet_cli.registry import require

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

# The class of torch.optim for each `conf/optim/<name>.yaml`.
OPTIMISERS = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}


def check(config: OptimConfig) -> None:
    """Refuse an optimiser that does not exist."""
    require("optim.name", config.name, OPTIMISERS)


def optimizer(config: OptimConfig, parameters: Iterable[nn.Parameter], device: torch.device) -> Optimizer:
    """`optim.name` with its settings; one kernel for all parameters where torch has one."""
    import torch

    check(config)
    assert config.lr is not None
    kind = getattr(torch.optim, OPTIMISERS[config.name])
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.momentum is not None:
        settings["momentum"] = config.momentum
    if "fused" in inspect.signature(kind).parameters:
        settings["fused"] = device.type in ("cpu", "cuda")
    made: Optimizer = kind(list(parameters), **settings)
    return made


def learning_rate(config: OptimConfig, step: int, total: int) -> float:
    """The rate for step `step` of `total`, from 0: multiplied by `decay` at each milestone, a share of the run."""
    assert config.lr is not None
    passed = sum(step >= round(milestone * total) for milestone in config.milestones)
    return float(config.lr * config.decay**passed)
