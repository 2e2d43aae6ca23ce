"""Derive from a table of observations, before a fit, the state that each column measures, and initial values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from odenet_cli import registry
from odenet_cli.errors import RequestError


def check_columns(count: int, states: Sequence[str], observed: list[str] | None) -> None:
    """Raise ValueError unless `observed` names a state for each of the table's columns."""
    for name in observed or ():
        registry.require("model.observed", name, states)
    if observed is not None and len(observed) != count:
        raise ValueError(
            f"model.observed={observed} names {len(observed)} states, and the table has {count} columns of values. "
            "Select columns: data.values=[…]."
        )
    if observed is None and count > len(states):
        raise ValueError(
            f"the table has {count} columns of values, and the field {len(states)} states ({', '.join(states)}).\n"
            "  Select columns: data.values=[…], or name the state that each shows: model.observed=[…]."
        )


def shown_states(names: Sequence[str], states: Sequence[str], observed: Sequence[str] | None) -> list[str]:
    """Return the state that each column measures: by `observed`, by name or in order; raise RequestError if unknown."""
    lower = [state.lower() for state in states]
    if observed is not None:
        return list(observed)
    if all(name.lower() in lower for name in names):
        return [states[lower.index(name.lower())] for name in names]
    if len(names) == len(states):
        return list(states)
    raise RequestError(
        f"the columns {', '.join(names)} show some of the states {', '.join(states)}, and it is not known "
        f"which.\n  Give the state of each column: model.observed=[{', '.join(states[: len(names)])}], or "
        "choose other columns: data.values=[…]."
    )


def check_values(values: Tensor, names: Sequence[str], noise: str, y0: str) -> None:
    """Raise RequestError for values (S, T, C) that are impossible for a model with these settings."""
    for c, name in enumerate(names):
        column = values[..., c]
        if noise == "log" and bool((column <= 0).any()):
            raise RequestError(
                f"model.noise=log compares logarithms, and column {name} has values of 0 or below: "
                f"{float(column.nan_to_num(torch.inf).min()):g}. Use model.noise=column."
            )
        if y0 == "first" and bool(column[:, 0].isnan().any()):
            raise RequestError(
                f"model.y0=first takes the states at the beginning from the first row of each series, and {name} is "
                "missing there. Use model.y0=fitted, or delete the row."
            )


def first_values(values: Tensor) -> Tensor:
    """Return the first known value of each row of (S, T), (S,); for a row without any, the mean of all."""
    known = ~values.isnan()
    first = values.gather(1, known.to(torch.uint8).argmax(1, keepdim=True)).squeeze(1)
    return torch.where(known.any(1), first, values.nanmean())


def deviations(values: Tensor, known: Tensor) -> Tensor:
    """Return the standard deviation of each column of (S, T, C), (C,); 1 if it is undefined or zero."""
    columns = [values[..., c][known[..., c]] for c in range(values.shape[2])]
    result = torch.stack([x.std(correction=0) if len(x) else x.new_zeros(()) for x in columns])
    return torch.where(result > 0, result, 1.0)
