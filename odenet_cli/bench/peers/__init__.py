"""Libraries that solve ODEs, one per file: the module's name is the library's name, `odenet` is our own.

A module states what it `NEEDS` to import and how to `INSTALL` it, and makes solves:

    solver(mode, field, ts, method=, rtol=, atol=) -> solve,  solve(y0) -> y

The mode names the library's own function or class. y is the state at ts[1] for two times, and the states at all times
for more. Libraries are imported inside functions, since any of them may be missing. `diffrax` takes fields written with
`jax.numpy`, the others modules `field(t, y)`, where t is a 0-d tensor or one time per instance.

For `odenet verify RUN` a module lists the MODES in which it solves for a single vector, its METHODS, dopri5 first, and
in TRAIT what is needed to interpret its numbers. `witness` makes such a solve of a torch field, if `solver` does not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from odenet_cli import registry
from odenet_cli.errors import RequestError, first_line

OURS = "odenet"

Solve = Callable[[Any], Any]


def peers() -> list[str]:
    """Return the names of all libraries but ours."""
    return [name for name in registry.names(__name__) if name != OURS]


def library(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def missing(name: str) -> str | None:
    """Return the reason why the library cannot be used; None if it can."""
    needs = library(name).NEEDS
    try:
        for needed in needs:
            importlib.import_module(needed)
    except ModuleNotFoundError as error:
        absent = error.name in {needed.partition(".")[0] for needed in needs}
        return "is not installed" if absent else f"does not import: no module named {error.name}"
    except Exception as error:  # an import may raise anything
        return f"does not import: {type(error).__name__}: {first_line(error)}"
    return None


def select(against: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """Return the peers to compare with, and the omitted ones with the reason; raise for an unusable one requested."""
    for name in against or ():
        registry.require("--against", name, peers())
    reasons = {name: missing(name) for name in (peers() if against is None else against)}
    absent = {name: reason for name, reason in reasons.items() if reason}
    if against is not None and absent:
        name, reason = next(iter(absent.items()))
        raise RequestError(f"--against {name}: {name} {reason}.\n  Install it: {library(name).INSTALL}")
    return [name for name in reasons if name not in absent], absent


def witness(name: str, mode: str, field: Any, ts: Sequence[float], *, method: str, rtol: float, atol: float) -> Solve:
    """Return a library's solve of a torch field of one vector, by dopri5 if the library lacks the method."""
    module = library(name)
    known = method if method in module.METHODS else "dopri5"
    make = getattr(module, "witness", module.solver)
    return make(mode, field, ts, method=known, rtol=rtol, atol=atol)
