"""Gradients through a solve, one a file: the module's name is the gradient's name, `GRADIENT` its class.

Either autograd sees the solve itself (`backprop`), or the solve is one node of its graph (`solve_as_node`): then
`forward` solves and says what it keeps, and `backward` turns the cotangents of the states at the output times into
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

MaybeTensor = Tensor | None  # None stands for a gradient of zeros that nobody has to make
Cotangents = Sequence[list[MaybeTensor]]  # by output time, then by component of the state


class Gradients(NamedTuple):
    """Hold the cotangents of y0, of the output times, and of the problem's inputs."""

    y0: Sequence[MaybeTensor]
    times: MaybeTensor
    inputs: Sequence[MaybeTensor]


class Gradient(Protocol):
    """The contract of the modules in this package.

    solve     the states at the output times, stacked, with their gradient
    supports  the kinds of methods that it differentiates; one that does not say so has Tableau alone
    exact     whether it differentiates the very steps that any gradient's forward solve takes; one that does not say so
              does not
    rounding  by how many times the rounding of its dtype it may be off the exact gradient of its own steps; one that
              does not say so solves another equation backward, and may be off by more
    grows     what it keeps by accepted step: 2 for the graphs of evaluations, 1 for a state; one that does not say so
              keeps numbers alone
    """

    def solve(self, problem: Problem) -> tuple[Tensor, ...]: ...


# Two passes and a third for second derivatives. Saving, freeing and checking is the node's: `autograd.node`.
class NodeGradient(Gradient, Protocol):
    """A gradient whose solve is one node of the graph.

    saves_outputs    backward wants the states at the output times
    repeats_steps    backward evaluates the field where the forward solve did, step by step from the last, and so can
                     draw its random numbers again; a gradient that does not say so cannot
    forward          solves; returns the states, the tape (anything without tensors), and the tensors to keep
    backward         is given back what was kept, in front of it the states if it `saves_outputs`
    double_backward  returns the same gradients, made by plain autograd for second derivatives
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
    """Return whether a gradient, or its class, goes back through steps of such formulas."""
    return isinstance(formulas, getattr(gradient, "supports", (Tableau,)))


def exact_gradients(formulas: Any) -> str:
    """Return `gradient=NAME or NAME`: those that differentiate the very steps of such formulas."""
    exact = (name for name in supporting(formulas) if getattr(_class(name), "exact", False))
    return f"gradient={' or '.join(exact)}"


def rounding(name: str) -> float | None:
    """Return how many times rounding a gradient may be off the exact one of its steps; None: by errors of a solve."""
    return getattr(_class(name), "rounding", None)


def leaner(name: str, formulas: Any) -> list[str]:
    """Return the gradients through steps of such formulas that keep less than this one, those that keep more first."""
    own = {other: getattr(_class(other), "grows", 0) for other in (name, *supporting(formulas))}
    return sorted((other for other in own if own[other] < own[name]), key=lambda other: (-own[other], other))


def supporting(formulas: Any) -> list[str]:
    """Return the names of the gradients that go back through steps of such formulas."""
    return [name for name in names() if supports(_class(name), formulas)]


def _class(name: str) -> Any:
    registry.require("gradient.method", name, names())
    return importlib.import_module(f"{__name__}.{name}").GRADIENT
