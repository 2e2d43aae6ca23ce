"""Gradients through a solve, one per file: the module's name is the gradient's name, `GRADIENT` its class.

Either autograd records the solve itself (`backprop`), or the solve is one node of its graph (`solve_as_node`). Then
`forward` solves and returns what to keep, and `backward` turns the cotangents of the states at the output times into
those of y0, of the times, and of the tensors that the field depends on.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from odenet_cli import registry
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.state import State
from odenet_cli.ode.tableau import Tableau

MaybeTensor = Tensor | None  # None: a gradient of zeros, without a tensor
Cotangents = Sequence[list[MaybeTensor]]  # by output time, then by component of the state


class Gradients(NamedTuple):
    """Hold the cotangents of y0, of the output times, and of the problem's inputs."""

    y0: Sequence[MaybeTensor]
    times: MaybeTensor
    inputs: Sequence[MaybeTensor]


class Gradient(Protocol):
    """The contract of the modules in this package.

    solve          the states at the output times, stacked, with their gradient
    supports       kinds of methods that it differentiates; by default `Tableau` alone
    exact          whether it is the exact gradient of the forward steps that other gradients take too; by default False
    rounding       bound on its deviation from the exact gradient of its own steps, in units of the dtype's rounding;
                   by default there is none, since its backward solve has errors of its own
    kept_per_step  rank of the memory kept for each accepted step: 2 for the graphs of its evaluations, 1 for a state,
                   0 (the default) for numbers alone
    """

    def solve(self, problem: Problem) -> tuple[Tensor, ...]: ...


# Saving, freeing and checking is done by `autograd.node`.
class NodeGradient(Gradient, Protocol):
    """A gradient whose solve is one node of the graph.

    saves_outputs    backward needs the states at the output times
    repeats_steps    backward evaluates the field at the same points as the forward solve, step by step from the last,
                     and so can draw its random numbers again; by default False
    forward          solves; returns the states, the tape (anything without tensors), and the tensors to keep
    backward         gets the kept tensors back, preceded by the states if it `saves_outputs`
    double_backward  returns the same gradients with a graph, for second derivatives
    """

    saves_outputs: bool

    def forward(self, problem: Problem) -> tuple[list[State], Any, list[Tensor]]: ...

    def backward(self, problem: Problem, tape: Any, kept: Sequence[Any], cotangents: Cotangents) -> Gradients: ...

    def double_backward(self, problem: Problem, tape: Any, y0: State, cotangents: Cotangents) -> Gradients: ...


def names() -> list[str]:
    """Return the names of all gradients."""
    return registry.names(__name__)


def gradient(name: str, **options: Any) -> Gradient:
    """Return the gradient of that name with its options."""
    instance: Gradient = _class(name)(**options)
    return instance


def options(name: str) -> list[str]:
    """Return the names of the options of a gradient."""
    # Gradients are dataclasses: their fields are the keys `gradient.*` of the command line.
    return [option.name for option in fields(_class(name))]


def supports(gradient: Any, formulas: Any) -> bool:
    """Return whether a gradient, or its class, differentiates steps of such formulas."""
    return isinstance(formulas, getattr(gradient, "supports", (Tableau,)))


def exact_gradients(formulas: Any) -> str:
    """Return `gradient=NAME or NAME`: the exact gradients for steps of such formulas."""
    exact = (name for name in supporting(formulas) if getattr(_class(name), "exact", False))
    return f"gradient={' or '.join(exact)}"


def rounding(name: str) -> float | None:
    """Return the `rounding` of a gradient (see `Gradient`); None if it has none."""
    return getattr(_class(name), "rounding", None)


def leaner(name: str, formulas: Any) -> list[str]:
    """Return the gradients for such formulas that keep less per step than `name`, in order of falling memory."""
    own = {other: getattr(_class(other), "kept_per_step", 0) for other in (name, *supporting(formulas))}
    return sorted((other for other in own if own[other] < own[name]), key=lambda other: (-own[other], other))


def supporting(formulas: Any) -> list[str]:
    """Return the names of the gradients that differentiate steps of such formulas."""
    return [name for name in names() if supports(_class(name), formulas)]


def _class(name: str) -> Any:
    registry.require("gradient.method", name, names())
    return importlib.import_module(f"{__name__}.{name}").GRADIENT
