"""Networks, one a file: the module's name is the model's name, `MODEL` its class.

A constructor takes `shape` (of one input) and `classes`, `solver` where the model solves an ODE, and the options of its
preset in `conf/model/`. Modules that start with `_` are shared parts.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from odenet_cli import registry
from odenet_cli.errors import RequestError
from odenet_cli.models.cnf import ContinuousFlow
from odenet_cli.ode import Solver

GIVEN = ("shape", "classes", "solver")
FLOW = tuple(inspect.signature(ContinuousFlow).parameters)[3:]  # its options


def names() -> list[str]:
    """All models."""
    return registry.names(__name__)


def model(
    name: str,
    options: Mapping[str, Any],
    *,
    shape: tuple[int, ...],
    classes: int,
    solver: Solver | None,
    flow: bool = False,
) -> nn.Module:
    """The network of that name; a `RequestError` names an option that does not fit.

    flow  a flow is wanted: a class of one's own without `log_prob` is the field of a `ContinuousFlow`, which takes the
          options that the field does not
    """
    along: dict[str, Any] = {}
    if name == "custom":
        make, options = registry.target("model", options)
        if flow and not hasattr(make, "log_prob"):
            accepted = inspect.signature(make).parameters
            along = {key: options[key] for key in options if key in FLOW and key not in accepted}
            options = {key: options[key] for key in options if key not in along}
    else:
        registry.require("model", name, names())
        make = importlib.import_module(f"{__name__}.{name}").MODEL
    registry.fitting("model", make, options, given=GIVEN)
    if along:
        registry.fitting("model", ContinuousFlow, along, given=(*GIVEN, "field"))
    given = {"shape": shape, "classes": classes, "solver": solver}
    accepted = inspect.signature(make).parameters
    try:
        made: nn.Module = make(**{key: value for key, value in given.items() if key in accepted}, **options)
        if name == "custom" and flow and solver is not None and not hasattr(made, "log_prob"):
            made = ContinuousFlow(made, shape, solver, **along)
    except ValueError as error:
        raise RequestError(str(error)) from error
    return made


def solvers(network: nn.Module) -> list[Any]:
    """The modules of a network that hold a solver, so that it can be exchanged."""
    return [module for module in network.modules() if getattr(module, "solver", None) is not None]
