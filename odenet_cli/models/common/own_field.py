"""Use a user's own vector field in a model: `model.field=package.module:Class`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from odenet_cli import registry
from odenet_cli.errors import RequestError
from odenet_cli.ode import Fixed

MAX_TRIED = 2**28  # largest number of parameters of a field that is called once in advance


def check_no_options(field_args: Mapping[str, Any] | None) -> None:
    """Raise ValueError for options of a user's own field if there is none."""
    if field_args:
        raise ValueError("model.field_args are options of your own field: set model.field=package.module:Class.")


def own_field(
    target: str, field_args: Mapping[str, Any] | None, shape: tuple[int, ...], controls: int = 0
) -> nn.Module:
    """Return the user's vector field `forward(t (), y (B, *shape)) -> (B, *shape)`, constructed with `field_args`.

    With controls its forward also takes their values u (B, controls). Its constructor also receives `shape`, that of
    one state, and the number of `controls`, if it has these arguments. The field is called once, on two states; raises
    RequestError if this fails, or the result is not like the state.
    """
    own, options = registry.load_class("model.field", target), dict(field_args or {})
    given: dict[str, Any] = {"shape": shape} | ({"controls": controls} if controls else {})
    registry.check_options("model.field_args", own, options, given=tuple(given), sign="+")
    options |= {key: value for key, value in given.items() if key in inspect.signature(own).parameters}
    field: nn.Module = own(**options)
    with torch.random.fork_rng(devices=()), torch.device("cpu"):  # the call must not advance the run's generator
        if sum(parameter.numel() for parameter in field.parameters()) < MAX_TRIED:
            # Tensors on the meta device hold no numbers to compute with.
            on_meta = any(parameter.is_meta for parameter in field.parameters())
            u = (torch.randn(2, controls),) if controls else ()
            try_field(target, own(**options) if on_meta else field, torch.randn(2, *shape), u)
    return field


def try_field(target: str, field: nn.Module, y: torch.Tensor, u: tuple[torch.Tensor, ...] = ()) -> None:
    """Call the field as a solver does; raise RequestError naming it if that fails."""
    training = field.training
    try:
        with torch.no_grad():
            Fixed(method="euler", steps=1)(field.eval(), y, [0.0, 1.0], u)
    except (Exception, SystemExit) as error:
        called = ", ".join(["t", *(f"{name} {tuple(x.shape)}" for name, x in zip("yu", (y, *u)))])
        words = f"{error}" if isinstance(error, ValueError) else registry.describe(error)
        raise RequestError(f"model.field={target}, called with ({called}): {words}") from error
    finally:
        field.train(training)
