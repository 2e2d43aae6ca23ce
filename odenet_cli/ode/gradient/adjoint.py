"""The continuous adjoint: a second solve, backwards, in O(1) memory (the paper's ODE-Net; Pontryagin 1962).

    dz/dt = f(t, z),   da/dt = -aᵀ ∂f/∂z,   dθ̄/dt = -aᵀ ∂f/∂θ      (Chen et al. 2018, equations 2, 4 and 5)

z is restored by solving it backwards from the stored outputs; θ̄ is a quadrature along the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.autograd.node import as_leaves, solve_as_node
from odenet_cli.ode.control import Norm
from odenet_cli.ode.errors import NotFinite, SolveError
from odenet_cli.ode.gradient import Cotangents, Gradients, MaybeTensor
from odenet_cli.ode.outputs import Integrator
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.segment import split_at_jumps
from odenet_cli.ode.settings import unwrap_scalars
from odenet_cli.ode.state import CountedField, State, Time, dot, rms

NORMS = ("relative", "absolute", "seminorm")


@dataclass(frozen=True, kw_only=True)
class Adjoint:
    """Solve the adjoint equation backwards.

    norm                relative: the tolerance on `a` is relative to the gradient that came in, so that the scale of
                        the loss changes nothing; absolute: the paper's [z, a, θ̄] in one norm; seminorm: the same
                        without θ̄ (Kidger, Chen & Lyons 2021)
    control_parameters  let the error of θ̄ into the relative norm too
    solver              of the backward solve; None: the forward one
    """

    norm: str = "relative"
    control_parameters: bool = False
    solver: Any = None
    saves_outputs = True
    supports_multistep = True

    def __post_init__(self) -> None:
        unwrap_scalars(self)
        if self.norm not in NORMS:
            raise ValueError(f"gradient.norm={self.norm} is not one of {', '.join(NORMS)}.")

    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        if self.solver is not None:
            self.solver.check_resolution(problem.rhs, problem.ts, "gradient.solver")
        return solve_as_node(self, problem)

    def forward(self, problem: Problem) -> tuple[list[State], None, list[Tensor]]:
        return problem.integrate(problem.evaluate), None, []

    def backward(self, problem: Problem, tape: None, kept: Sequence[State], cotangents: Cotangents) -> Gradients:
        try:
            return _Backwards(self, problem).run(kept, cotangents)
        except SolveError as error:
            raise type(error)(f"in the backward solve (its keys are gradient.solver.*): {error}") from error

    def double_backward(self, *_: Any, **__: Any) -> Gradients:
        raise NotImplementedError("gradient=adjoint has no second derivative; use gradient=backprop for that.")


class _Backwards:
    """The backward solve of one adjoint, from the last output time to the first."""

    def __init__(self, options: Adjoint, problem: Problem) -> None:
        self.problem, self.norm = problem, options.norm
        self.parts = len(problem.rhs.y0)
        self.n_dynamic = 2 * self.parts
        self.solver = options.solver or problem.solver
        if problem.shares_graph or any(tensor.grad_fn is not None for tensor in problem.captured):
            self.solver = replace(self.solver, compile=False)  # a compiler does not follow a graph out of the field
        # A jump is the field's, whichever solver comes by.
        self.jumps = {*getattr(problem.solver, "jumps", ()), *getattr(self.solver, "jumps", ())}
        self.retain = not self.solver.compile  # see Problem.retain
        self.controls_parameters = options.norm == "absolute" or options.control_parameters
        self.scale = 0.0
        self.nothing = [torch.zeros_like(tensor) for tensor in problem.captured]
        self.used, self.pulled = [False] * len(problem.captured), False

    def run(self, states: Sequence[State], cotangents: Cotangents) -> Gradients:
        problem, ts = self.problem, self.problem.ts
        n_controlled = None if self.controls_parameters else self.n_dynamic
        # Not an attribute: it holds `self.evaluate`, and a cycle would keep these states until the collector runs.
        loop: Integrator = self.solver.loop(
            CountedField(self.augmented_field, self.count), self._norm(), self.n_dynamic, n_controlled, False
        )
        a: State = tuple(torch.zeros_like(part) for part in problem.rhs.y0)
        theta: State = tuple(tensor.clone() for tensor in self.nothing)
        times = [torch.zeros((), dtype=problem.rhs.time_dtype, device=problem.rhs.device) for _ in ts]
        for j in range(len(ts) - 1, 0, -1):
            a = tuple(part if g is None else part + g for part, g in zip(a, cotangents[j]))
            self.scale = max(self.scale, _size(a, ts[j]))
            if not self.scale or ts[j] == ts[j - 1]:
                continue
            loop.f0 = None
            state = (*states[j], *a, *theta)
            slope = None
            for segment in split_at_jumps(ts, j, j - 1, self.jumps, problem.rhs.time_dtype):
                for taken in loop.run(segment, state):
                    slope = slope or taken.step.k[0]
                    state = taken.step.y
            if problem.times is not None and slope is not None:
                # Neighbours at the same time share one slope.
                for i in range(j, len(ts)):
                    if ts[i] == ts[j]:
                        times[i] += self._along(cotangents[i], slope)
            a, theta = state[self.parts : self.n_dynamic], state[self.n_dynamic :]
        if problem.times is not None and self.scale:
            first, *_ = split_at_jumps(ts, 0, len(ts) - 1, self.jumps, problem.rhs.time_dtype)
            slope = problem.evaluate_again(first.visible_time(ts[0]), states[0])
            times[0] -= self._along(a, slope)
            for i in range(1, len(ts)):
                if ts[i] == ts[0]:
                    times[i] += self._along(cotangents[i], slope)
        found = [part if used else None for part, used in zip(theta, self.used)]
        if len(ts) > 2:
            _size(tuple(g for g in cotangents[0] if g is not None), ts[0])
        y0 = [part if g is None else part + g for part, g in zip(a, cotangents[0])]
        return Gradients(y0, None if problem.times is None else torch.stack(times).to(problem.times), found)

    def augmented_field(self, t: Time, y: State, used: bool = True) -> State:
        """The slopes of z, of a, and, where they have a weight, of θ̄: one evaluation, one vector-Jacobian product."""
        z, a = y[: self.parts], y[self.parts :]
        with torch.enable_grad():
            start = as_leaves(z)
            slope = self.problem.rhs(t, start)
            ends = [(k, part.neg()) for k, part in zip(slope, a) if k.requires_grad]
            wanted = self.problem.captured if used else ()
            found: Sequence[MaybeTensor] = [None] * (self.parts + len(wanted))
            self.pulled = bool(ends)
            if ends:
                found = torch.autograd.grad(
                    [k for k, _ in ends],
                    (*start, *wanted),
                    [part for _, part in ends],
                    retain_graph=self.retain,
                    allow_unused=True,
                )
        da = [torch.zeros_like(part) if g is None else g for part, g in zip(z, found)]
        quadrature = found[self.parts :]
        self.used = [before or g is not None for before, g in zip(self.used, quadrature)] if used else self.used
        dtheta = [nothing if g is None else g for nothing, g in zip(self.nothing, quadrature)]
        return (*(k.detach() for k in slope), *da, *dtheta)

    def count(self, evaluations: int) -> None:
        self.problem.stats.nfe_backward += evaluations
        self.problem.stats.vjps += evaluations * self.pulled

    def _norm(self) -> Norm | None:
        if not hasattr(self.solver, "rtol"):
            return None
        rtol, atol = self.solver.rtol, self.solver.atol
        if self.norm != "relative":
            return Norm(rtol, atol)
        parts, n_dynamic = self.parts, self.n_dynamic
        return Norm(
            rtol,
            atol,
            lambda: ((slice(parts), 1.0), (slice(parts, n_dynamic), self.scale), (slice(n_dynamic, None), self.scale)),
        )

    def _along(self, cotangents: Sequence[MaybeTensor], slope: State) -> Tensor | float:
        terms = [dot(g, k) for g, k in zip(cotangents, slope) if g is not None]
        return sum(terms[1:], start=terms[0]) if terms else 0.0


def _size(a: State, t: float) -> float:
    size = rms(a)
    if not math.isfinite(size):
        raise NotFinite(f"the gradient that came in at t = {t:.6g} is NaN or infinite.")
    return size


GRADIENT = Adjoint
