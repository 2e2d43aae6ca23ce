"""Optimisers and their learning rate, a function of the step alone. Torch is imported where one is made."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from odenet_cli.config.schema import OptimConfig

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

# The class of torch.optim for each `conf/optim/<name>.yaml` but lm.
OPTIMISERS = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}


def optimizer(config: OptimConfig, model: nn.Module, device: torch.device) -> Optimizer:
    """Return `optim.name` with its settings; one kernel for all parameters where torch has one."""
    import torch

    assert config.lr is not None
    if config.least_squares:
        from odenet_cli.training.least_squares import LevenbergMarquardt

        return without_compiler(LevenbergMarquardt)(model, config.lr)  # type: ignore[arg-type]
    kind = without_compiler(getattr(torch.optim, OPTIMISERS[config.name]))
    settings: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.momentum is not None:
        settings["momentum"] = config.momentum
    if "fused" in inspect.signature(kind).parameters:
        settings["fused"] = device.type in ("cpu", "cuda")
    return kind(list(model.parameters()), **settings)


def without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """Return the same optimiser without torch's wrappers for `torch.compile`, which import the compiler: 1 s.

    We compile solves, never the optimiser. What the wrappers do beside that, `step` without gradients, stays.
    """
    import torch

    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


def learning_rate(config: OptimConfig, step: int, total: int) -> float:
    """Return the learning rate of `step`, from 0, in a run of `total` steps, as torch.optim.lr_scheduler defines it.

    steps     MultiStepLR at the milestones, times LinearLR over the warm-up
    cosine    LinearLR over the warm-up, then CosineAnnealingLR down to 0
    onecycle  OneCycleLR with torch's own factors (Smith & Topin 2018); the momentum stays as it is
    """
    assert config.lr is not None
    if config.schedule == "onecycle":
        return _onecycle(config.lr, 0.3 if config.warmup is None else config.warmup, step, total)
    rising = round((config.warmup or 0.0) * total)
    rate = config.lr * min(1.0, (step + 1) / (rising + 1))  # LinearLR from lr / (rising + 1)
    if config.schedule == "cosine":
        return rate if step < rising else _cosine(config.lr, 0.0, (step - rising) / (total - rising))
    passed = sum(step >= round(milestone * total) for milestone in config.milestones)
    return float(rate * config.decay**passed)


def _onecycle(highest: float, warmup: float, step: int, total: int) -> float:
    """Return a rate from highest/25 up over the warm-up, then down to highest/25e4 at the last step, along cosines."""
    lowest, top, last = highest / 25, warmup * total - 1, total - 1
    if step <= top and top > 0:
        return _cosine(lowest, highest, step / top)
    top = max(top, 0.0)
    return _cosine(highest, lowest / 1e4, (step - top) / (last - top) if last > top else 0.0)


def _cosine(first: float, then: float, share: float) -> float:
    """Return half a cosine from `first` at share 0 to `then` at share 1."""
    return then + (first - then) * (1 + math.cos(math.pi * share)) / 2
