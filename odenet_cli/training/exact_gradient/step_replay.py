"""Record the decisions of a solve, and repeat its steps: in another dtype, by autograd, at other weights.

An adaptive solve bases all of its decisions (the first step, acceptance, length and order of the next step) on scaled
norms of errors. A solve that is given the norms of an earlier solve makes the same decisions, and evaluates the vector
field at the same times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

from odenet_cli.ode import Adaptive, SolveError, Solver
from odenet_cli.ode.control import Norm
from odenet_cli.ode.gradient.backprop import Backprop
from odenet_cli.ode.gradient.reversible import Reversible
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.state import State
from odenet_cli.training import generators


@dataclass
class Recording:
    """Hold the decisions of all solves of a loss, in their order.

    scaled_norms  of errors, in the order of the controller's requests
    random        some vector field drew random numbers
    """

    scaled_norms: list[list[float]] = field(default_factory=list)
    random: bool = False


@dataclass(frozen=True)
class RecordSteps(Norm):
    """Compute norms as `Norm` does, and add them to `recording`."""

    recording: Recording = field(default_factory=Recording)

    def scaled_norms(self, states: Sequence[State], error_scale: State, largest: State | None = None) -> list[float]:
        self.recording.scaled_norms.append(super().scaled_norms(states, error_scale, largest))
        return self.recording.scaled_norms[-1]


@dataclass(frozen=True)
class ReplaySteps(Norm):
    """Return the `recorded` norms one after the other, regardless of the states; raise if there are no more."""

    recorded: Iterator[list[float]] = field(default_factory=lambda: iter(()))

    def scaled_norms(self, states: Sequence[State], error_scale: State, largest: State | None = None) -> list[float]:
        scaled_norms = next(self.recorded, None)
        if scaled_norms is None:
            raise SolveError("in float64 the solve takes other steps than in the run's precision.")
        return scaled_norms


@dataclass(frozen=True)
class SolvedBy:
    """Stand in for a gradient method: `solve` returns the states at the output times, with their gradient."""

    solve: Callable[[Problem], tuple[Tensor, ...]]
    supports = Backprop.supports


def plain_autograd(gradient: Any, recording: Recording) -> SolvedBy:
    """Take the forward steps of a gradient method as part of autograd's graph, so that nothing is evaluated again.

    These are a reversible pair's own steps if it is `reversible`, and the method's steps otherwise.
    """

    def solve(problem: Problem) -> tuple[Tensor, ...]:
        before = generators.fingerprint(problem.rhs.device)
        pair = isinstance(gradient, Reversible)
        outputs = problem.stack(gradient.forward(problem)[0]) if pair else Backprop().solve(problem)
        recording.random |= generators.fingerprint(problem.rhs.device) != before
        return outputs

    return SolvedBy(solve)


@dataclass(frozen=True, kw_only=True)
class WithNorm(Adaptive):
    """Solve with `norm` instead of the forward solve's own norm."""

    norm: Norm

    def loop(self, vector_field: Any, norm: Norm | None = None, *args: Any, **settings: Any) -> Any:
        return super().loop(vector_field, norm or self.norm, *args, **settings)


def recording_solver(solver: Solver, recording: Recording) -> Solver:
    """Return `solver` with plain autograd, adding its decisions to `recording`."""
    plain = replace(solver, gradient=plain_autograd(solver.gradient_method, recording))
    return _with_norm(plain, RecordSteps, recording=recording)


def replaying_solver(solver: Solver, recording: Recording, gradient: str | None = None) -> Solver:
    """Return a solver that takes the recorded steps of `solver`, by the named gradient method or plain autograd."""
    plain = replace(solver, gradient=gradient or plain_autograd(solver.gradient_method, Recording()))
    return _with_norm(plain, ReplaySteps, recorded=iter(recording.scaled_norms))


def _with_norm(solver: Solver, kind: Any, **settings: Any) -> Solver:
    """Return `solver` with a norm of this class; fixed steps need none."""
    if not isinstance(solver, Adaptive):
        return solver
    norm = kind(solver.rtol, solver.atol, **settings)
    return WithNorm(**{key.name: getattr(solver, key.name) for key in fields(Adaptive)}, norm=norm)
