"""Libraries that solve ODEs, one a file: the module's name is the library's name, `odenet` our own.

A module says what it `NEEDS` to import and how to `INSTALL` it, and makes solves:

    solver(mode, field, ts, method=, rtol=, atol=) -> solve,  solve(y0) -> y

The mode names the library's own function or class. y is the state at ts[1] for two times, those at all for more.
A library is imported inside functions, since any of them may be missing. That of `diffrax` takes fields made of
`jax.numpy`, the others modules `field(t, y)`, where t is a 0-d tensor or one time per instance.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from odenet_cli import registry
from odenet_cli.errors import RequestError

OURS = "odenet"

Solve = Callable[[Any], Any]


def peers() -> list[str]:
    """All libraries but ours."""
    return [name for name in registry.names(__name__) if name != OURS]


def solver(library: str, mode: str, field: Any, ts: Sequence[float], *, method: str, rtol: float, atol: float) -> Solve:
    """A solve of `field` over `ts` by that library."""
    made: Solve = _module(library).solver(mode, field, ts, method=method, rtol=rtol, atol=atol)
    return made


def missing(name: str) -> str | None:
    """Why the library cannot be used; None if it can."""
    needs = _module(name).NEEDS
    try:
        for needed in needs:
            importlib.import_module(needed)
    except ModuleNotFoundError as error:
        absent = error.name in {needed.partition(".")[0] for needed in needs}
        return "is not installed" if absent else f"does not import: no module named {error.name}"
    except Exception as error:  # an import may raise anything
        line = str(error).partition("\n")[0]
        return f"does not import: {type(error).__name__}: {line}"
    return None


def chosen(against: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """The peers to compare with, and those left out with the reason. One asked for by name must be there."""
    for name in against or ():
        registry.require("--against", name, peers())
    found = {name: missing(name) for name in (peers() if against is None else against)}
    absent = {name: reason for name, reason in found.items() if reason}
    if against is not None and absent:
        name, reason = next(iter(absent.items()))
        raise RequestError(f"--against {name}: {name} {reason}.\n  Install it: {_module(name).INSTALL}")
    return [name for name in found if name not in absent], absent


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
