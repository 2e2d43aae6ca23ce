"""Gradients through a solve, one a file: the module's name is the gradient's name, `GRADIENT` its class.

A gradient has two halves. `forward` solves, and returns the states at the output times and a tape of what it wants to
keep; `backward` turns the cotangents of those states into those of y0, of the output times, and of the tensors the
field captured. It is given a `Problem`, which knows how to evaluate and to integrate, and counts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from odenet_cli import registry
from odenet_cli.ode.loop import Integrator, Taken, outputs
from odenet_cli.ode.state import Evaluate, Evaluation, RightHandSide, State
from odenet_cli.ode.stats import Stats

MaybeTensor = Tensor | None


@dataclass
class Problem:
    """One solve: what is solved, how, and its cost.

    times     the output times as a tensor, where their gradient is wanted
    captured  tensors with gradients that the field reads; `retain` says that its graph reaches beyond them
    opening   the field at y0, already evaluated
    """

    rhs: RightHandSide
    ts: list[float]
    times: Tensor | None
    solver: Any
    stats: Stats
    captured: tuple[Tensor, ...] = ()
    retain: bool = False
    opening: Evaluation | None = None

    def integrate(self, evaluate: Evaluate, keep: Callable[[Taken], None], y0: State | None = None) -> list[State]:
        """The states at the output times; `keep` sees the accepted steps. `y0` may stand in for the problem's own."""
        loop: Integrator = self.solver.loop(evaluate)
        loop.opening = self.opening
        try:
            return outputs(loop, self.ts, y0 or self.rhs.y0, keep)
        finally:
            self.opening = None
            self.stats.accepted, self.stats.rejected = loop.accepted, loop.rejected

    def evaluate(self, t: float | Tensor, y: State, weighty: bool = True) -> Evaluation:
        """The field, counted as forward work."""
        self.stats.nfe_forward += 1
        return Evaluation(self.rhs(t, y))

    def evaluate_again(self, t: float | Tensor, y: State, weighty: bool = True) -> Evaluation:
        """The field, counted as backward work."""
        self.stats.nfe_backward += 1
        return Evaluation(self.rhs(t, y))


class Tape(Protocol):
    """What a gradient keeps between forward and backward; `tensors` are handed to autograd, so that it is seen."""

    @property
    def tensors(self) -> list[Tensor]: ...


class Gradients(NamedTuple):
    """Cotangents of y0, of the output times, and of the captured tensors."""

    y0: Sequence[MaybeTensor]
    times: MaybeTensor
    captured: Sequence[MaybeTensor]


class Gradient(Protocol):
    """The contract of the modules in this package.

    keeps_outputs  backward wants the states at the output times
    multistep      it can differentiate multistep methods too; one that does not say so is refused there
    """

    keeps_outputs: bool

    def forward(self, problem: Problem) -> tuple[list[State], Any]: ...

    def backward(
        self, problem: Problem, tape: Any, states: Sequence[State], cotangents: Sequence[list[MaybeTensor]]
    ) -> Gradients: ...

    def backward_again(
        self, problem: Problem, tape: Any, y0: State, cotangents: Sequence[list[MaybeTensor]], create_graph: bool
    ) -> Gradients: ...


def names() -> list[str]:
    """All gradients."""
    return registry.names(__name__)


def gradient(name: str, **options: Any) -> Gradient:
    """The gradient of that name with its options."""
    made: Gradient = _class(name)(**options)
    return made


def options(name: str) -> list[str]:
    """The options of the gradient of that name."""
    return [option.name for option in fields(_class(name))]


def _class(name: str) -> Any:
    registry.require("gradient.method", name, names())
    return importlib.import_module(f"{__name__}.{name}").GRADIENT


class Differentiable(torch.autograd.Function):
    """A solve as one node of the autograd graph, with parameters and captured tensors as inputs of their own.

    Inputs are `(gradient, problem, *y0, times or None, *captured)`; outputs are the components of the state, stacked
    over the output times where there are more than two.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Gradient, problem: Problem, *inputs: MaybeTensor) -> tuple[Tensor, ...]:
        states, tape = gradient.forward(problem)
        made = stacked(states)
        # Autograd holds y0 for the backward pass and lets go of it afterwards; another reference would not.
        problem.rhs.y0 = ()
        ctx.gradient, ctx.problem, ctx.tape = gradient, problem, tape
        ctx.given, ctx.parts = len(inputs), len(made)
        # Detached: a tensor of the tape may be the leaf of an evaluation's graph, and is only counted here.
        kept = made if gradient.keeps_outputs else [None] * len(made)
        ctx.save_for_backward(*inputs, *kept, *(tensor.detach() for tensor in tape.tensors))
        return made

    @staticmethod
    def backward(ctx: Any, *cotangents: MaybeTensor) -> tuple[Any, ...]:
        saved, problem = ctx.saved_tensors, ctx.problem
        parts = ctx.parts
        problem.rhs.y0 = tuple(part.detach() for part in saved[:parts])
        y0, made = saved[:parts], saved[ctx.given : ctx.given + parts]
        arriving = unstacked(cotangents, len(problem.ts))
        if torch.is_grad_enabled() or getattr(ctx.tape, "spent", False):
            again = ctx.gradient.backward_again
            found = again(problem, ctx.tape, y0, arriving, torch.is_grad_enabled())
        else:
            later = unstacked_states(made, len(problem.ts)) if ctx.gradient.keeps_outputs else ()
            states = [problem.rhs.y0, *zip(*later)]
            found = ctx.gradient.backward(problem, ctx.tape, states, arriving)
        problem.rhs.y0 = ()
        return None, None, *found.y0, found.times, *found.captured


def stacked(states: Sequence[State]) -> tuple[Tensor, ...]:
    """(*S) at the second of two times, (T, *S) for more."""
    if len(states) == 2:
        return tuple(part.clone() if part is first else part for part, first in zip(states[1], states[0]))
    return tuple(torch.stack(part) for part in zip(*states))


def unstacked_states(made: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """For each component its values at the output times after the first."""
    return [[part] if count == 2 else list(part[1:]) for part in made]


def unstacked(cotangents: Sequence[MaybeTensor], count: int) -> list[list[MaybeTensor]]:
    """For each output time the cotangents of the components."""
    rows: list[list[MaybeTensor]] = [[None] * len(cotangents) for _ in range(count)]
    for part, cotangent in enumerate(cotangents):
        if cotangent is not None:
            for j in range(count):
                if count > 2 or j == 1:
                    rows[j][part] = cotangent if count == 2 else cotangent[j]
    return rows
