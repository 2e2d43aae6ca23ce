"""Methods, one a file: the module's name is the method's name, `METHOD` its tableau or its formulas."""

from __future__ import annotations

import importlib

from odenet_cli import registry
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.ode.rosenbrock.formulas import Rosenbrock
from odenet_cli.ode.tableau import Tableau


def names() -> list[str]:
    """Return the names of all methods."""
    return registry.names(__name__)


def method(name: str) -> Tableau | Multistep | Rosenbrock:
    """Return the tableau or the formulas of that name; a `RequestError` lists what exists."""
    registry.require("solver.method", name, names())
    formulas: Tableau | Multistep | Rosenbrock = importlib.import_module(f"{__name__}.{name}").METHOD
    return formulas
