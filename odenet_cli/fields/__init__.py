"""Parametric vector fields, one a file: the module's name is the name of `model.field=`, `FIELD` its class.

A field is an `nn.Module` whose parameters have names, called as `field(t (), y (D,)) -> (D,)`, the time as it stands in
the table and the state in its units. It says

    states    names of the components of y, in order
    positive  names of parameters, and of states, that are above 0: their logarithms are fitted
    fixed     states whose value at the beginning is known, unless they are observed; `initial` has it

A class of one's own may say the same.
"""

from __future__ import annotations

import importlib

import torch
from torch import nn

from odenet_cli import registry


def names() -> list[str]:
    return registry.names(__name__)


def field_class(name: str) -> type[nn.Module]:
    registry.require("model.field", name, names())
    kind: type[nn.Module] = importlib.import_module(f"{__name__}.{name}").FIELD
    return kind


def parameters(*start: float) -> list[nn.Parameter]:
    """Return parameters, () each, that begin with these values."""
    return [nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in start]
