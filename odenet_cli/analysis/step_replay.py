"""The steps that a solve takes, taken again: in another precision, by plain autograd, at parameters nearby.

All that a solve decides, the first step, which attempt is accepted, how long the next is and of which order, it decides
by sizes of errors. Told the sizes that were found before, it makes the same evaluations one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

from odenet_cli.ode import Adaptive, SolveError, Solver
from odenet_cli.ode.control import Norm
from odenet_cli.ode.gradient.backprop import Backprop
from odenet_cli.ode.gradient.reversible import Reversible
from odenet_cli.ode.problem import Problem, stacked
from odenet_cli.ode.state import State
from odenet_cli.training import generators


@dataclass
class Decisions:
    """What was decided in all the solves of a loss, in their order.

    sizes   of errors, in tolerances
    random  some field drew random numbers
    """

    scaled_norms: list[list[float]] = field(default_factory=list)
    random: bool = False


@dataclass(frozen=True)
class Recorded(Norm):
    """A norm whose `sizes` are kept."""

    into: Decisions = field(default_factory=Decisions)

    def scaled_norms(self, states: Sequence[State], error_scale: State, largest: State | None = None) -> list[float]:
        self.into.scaled_norms.append(super().scaled_norms(states, error_scale, largest))
        return self.into.scaled_norms[-1]


@dataclass(frozen=True)
class Told(Norm):
    """A norm that returns the sizes of another solve, whatever it is asked; `SolveError` where there are no more."""

    found: Iterator[list[float]] = field(default_factory=lambda: iter(()))

    def scaled_norms(self, states: Sequence[State], error_scale: State, largest: State | None = None) -> list[float]:
        scaled_norms = next(self.found, None)
        if scaled_norms is None:
            raise SolveError("in float64 the solve takes other steps than in the run's precision.")
        return scaled_norms


@dataclass(frozen=True)
class Plain:
    """The forward solve of the gradient `of`, under plain autograd: nothing is evaluated again."""

    of: Any
    into: Decisions
    supports_multistep = True

    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        before = generators.fingerprint(problem.rhs.device)
        pair = isinstance(self.of, Reversible)
        made = stacked(self.of.forward(problem)[0]) if pair else Backprop().solve(problem)
        self.into.random |= generators.fingerprint(problem.rhs.device) != before
        return made


@dataclass(frozen=True, kw_only=True)
class WithNorm(Adaptive):
    """A solver whose forward solves judge errors by `norm`."""

    norm: Norm

    def loop(self, evaluate: Any, norm: Norm | None = None, *args: Any, **settings: Any) -> Any:
        return super().loop(evaluate, norm or self.norm, *args, **settings)

    def pair_loop(self, evaluate: Any, coupling: float, parts: int, norm: Norm | None = None) -> Any:
        return super().pair_loop(evaluate, coupling, parts, norm or self.norm)


def recording(solver: Solver, decisions: Decisions) -> Solver:
    """Return `solver` under plain autograd; what it decides goes into `decisions`."""
    plain = replace(solver, gradient=Plain(solver.gradient_method, decisions))
    return _with(plain, Recorded(plain.rtol, plain.atol, into=decisions)) if isinstance(plain, Adaptive) else plain


def retracing(solver: Solver, decisions: Decisions, gradient: str | None = None) -> Solver:
    """Return a solver that takes the steps of `solver` in the loss that `decisions` are of.

    gradient  None: plain autograd
    """
    plain = replace(solver, gradient=gradient or Plain(solver.gradient_method, Decisions()))
    if not isinstance(plain, Adaptive):
        return plain
    return _with(plain, Told(plain.rtol, plain.atol, found=iter(decisions.scaled_norms)))


def _with(solver: Adaptive, norm: Norm) -> WithNorm:
    return WithNorm(**{key.name: getattr(solver, key.name) for key in fields(Adaptive)}, norm=norm)
