"""Check the names and numbers in the keys `model.start`, `model.bounds` and `model.fixed` of a fit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from odenet_cli.registry import nearest

Bounds = tuple[float, float]


def flat_names(field: nn.Module) -> list[str]:
    """Return a name for each scalar of the parameters: alpha, or weight[0,1]."""
    names = []
    for name, weight in field.named_parameters():
        places = itertools.product(*map(range, weight.shape))
        names += [name + (f"[{','.join(map(str, place))}]" if place else "") for place in places]
    return names


def check_names(known: Collection[str], **keys: Any) -> None:
    """Raise ValueError for a name that is neither a parameter nor a state."""
    for key, names in keys.items():
        if key != "fixed" and not isinstance(names, Mapping | None):
            raise ValueError(f"model.{key}={names} must name values: +model.{key}.{next(iter(known))}=…")
        for name in names or ():
            if name not in known:
                raise ValueError(
                    f"model.{key}: {name} is neither a parameter nor a state of the field.{nearest(name, known)}\n"
                    f"  Available: {', '.join(known)}."
                )


def start_of(field: nn.Module, states: Sequence[str], start: Mapping[str, Any]) -> dict[str, float]:
    """Set the parameters to the values in `start`; return the known or given initial states."""
    for name, weight in field.named_parameters():
        if name in start:
            value = torch.tensor(_numbers(f"model.start.{name}", start[name]), dtype=weight.dtype, device="cpu")
            if value.numel() not in (1, weight.numel()):
                raise ValueError(f"model.start.{name} has {value.numel()} numbers, and {name} {weight.numel()}.")
            with torch.no_grad():
                weight.copy_(value.reshape(weight.shape) if value.numel() > 1 else value.reshape(()))
    given = {state: _number(f"model.start.{state}", start[state]) for state in states if state in start}
    return {**getattr(field, "initial", {}), **given}


def bounds_of(
    field: nn.Module, names: Sequence[str], states: Sequence[str], bounds: Mapping[str, Any], start: Mapping[str, Any]
) -> list[Bounds]:
    """Return the bounds of each parameter, then of each state; a missing bound is infinite.

    Raises ValueError for a start outside the bounds.
    """
    positive = dict.fromkeys(getattr(field, "positive", ()), (0.0, math.inf))
    known = {**positive, **{name: _pair(name, pair) for name, pair in bounds.items()}}
    for name, (low, high) in known.items():
        for value in _numbers(f"model.start.{name}", start[name]) if name in start else ():
            if not low < value < high:
                span = f"above {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
                span = f"below {high:g}" if low == -math.inf else span
                raise ValueError(
                    f"model.start.{name}={value:g} must be {span}, the bounds of {name}. To change them: "
                    f"'+model.bounds.{name}=[LOW,HIGH]', null for no bounds."
                )
    open_ends = (-math.inf, math.inf)
    return [known.get(name.partition("[")[0], open_ends) for name in names] + [known.get(s, open_ends) for s in states]


def _pair(name: str, pair: Any) -> Bounds:
    if not (
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(x) in (int, float, type(None)) for x in pair)
    ):
        raise ValueError(f"model.bounds.{name}={pair} must be two numbers, such as [0,2]; use null for an open side.")
    low, high = (-math.inf if pair[0] is None else pair[0]), (math.inf if pair[1] is None else pair[1])
    if not low < high:
        raise ValueError(f"model.bounds.{name}={pair}: the first must be smaller.")
    return float(low), float(high)


def _number(key: str, value: Any) -> float:
    numbers: list[float] = list(_numbers(key, value))
    if len(numbers) != 1:
        raise ValueError(f"{key}={value} must be one number.")
    return numbers[0]


def _numbers(key: str, value: Any) -> Iterable[float]:
    """Return the numbers of a possibly nested value."""
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in _numbers(key, part)]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key}={value} is not a number.")
    return [float(value)]
