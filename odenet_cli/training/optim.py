"""Optimisers and their learning rate, a function of the step alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from odenet_cli.config import OptimConfig


def optimizer(config: OptimConfig, parameters: Iterable[nn.Parameter], device: torch.device) -> Optimizer:
    """`optim.name` with its settings; one kernel for all parameters where torch has one."""
    parameters, fused = list(parameters), device.type in ("cpu", "cuda")
    lr, decay, momentum = config.lr, config.weight_decay, config.momentum or 0.0
    assert lr is not None
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay, fused=fused)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=lr, momentum=momentum, weight_decay=decay)
    return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=fused)


def learning_rate(config: OptimConfig, step: int, total: int) -> float:
    """The rate for step `step` of `total`, from 0: multiplied by `decay` at each milestone, a share of the run."""
    assert config.lr is not None
    passed = sum(step >= round(milestone * total) for milestone in config.milestones)
    return float(config.lr * config.decay**passed)
