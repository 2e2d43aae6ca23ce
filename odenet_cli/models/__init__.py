"""Networks, one per file: the module's name is the model's name, `MODEL` its class.

The constructor takes `shape` (of one input), `classes`, `solver` if the model solves an ODE, and the options of its
preset in `conf/model/`. `common/` has shared parts.
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
FLOW_OPTIONS = tuple(inspect.signature(ContinuousFlow).parameters)[3:]


def names() -> list[str]:
    return registry.names(__name__)


def network_class(name: str, options: Mapping[str, Any], flow: bool = False) -> type[nn.Module]:
    """Return the class of the network that `model` constructs."""
    if name != "custom":
        registry.require("model", name, names())
        return importlib.import_module(f"{__name__}.{name}").MODEL
    own: Any = registry.load_target("model", options)[0]
    return ContinuousFlow if flow and not hasattr(own, "log_prob") else own


def model(
    name: str,
    options: Mapping[str, Any],
    *,
    shape: tuple[int, ...],
    classes: int,
    solver: Solver | None,
    flow: bool = False,
) -> nn.Module:
    """Return the network of that name; raise RequestError for an invalid option.

    flow  the task needs a flow: a user's class without `log_prob` is then the field of a `ContinuousFlow`, which takes
          the options that the field does not
    """
    flow_options: dict[str, Any] = {}
    if name == "custom":
        make, options = registry.load_target("model", options)
        if flow and not hasattr(make, "log_prob"):
            accepted = inspect.signature(make).parameters
            flow_options = {key: options[key] for key in options if key in FLOW_OPTIONS and key not in accepted}
            options = {key: options[key] for key in options if key not in flow_options}
    else:
        make = network_class(name, options)
    registry.check_options("model", make, options, given=GIVEN, sign="+" * (name == "custom"))
    if flow_options:
        registry.check_options("model", ContinuousFlow, flow_options, given=(*GIVEN, "field"))
    given = {"shape": shape, "classes": classes, "solver": solver}
    accepted = inspect.signature(make).parameters
    try:
        network: nn.Module = make(**{key: value for key, value in given.items() if key in accepted}, **options)
        if name == "custom" and flow and solver is not None and not hasattr(network, "log_prob"):
            network = ContinuousFlow(network, shape, solver, **flow_options)
    except ValueError as error:
        raise RequestError(str(error)) from error
    return network


def solvers(network: nn.Module) -> list[Any]:
    """Return the modules of a network that hold a solver, so that it can be replaced."""
    return [module for module in network.modules() if getattr(module, "solver", None) is not None]
