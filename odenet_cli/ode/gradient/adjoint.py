"""The continuous adjoint: a second solve, backwards, in O(1) memory (the paper's ODE-Net; Pontryagin 1962).

    dz/dt = f(t, z),   da/dt = -aᵀ ∂f/∂z,   dθ̄/dt = -aᵀ ∂f/∂θ      (Chen et al. 2018, equations 2, 4 and 5)

z is solved backward too, starting again from the stored state at each output; θ̄ is a quadrature along the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.autograd.node import as_leaves, solve_as_node
from odenet_cli.ode.control import Norm
from odenet_cli.ode.errors import FieldChanged, NotFinite, SolveError
from odenet_cli.ode.field.captured import LateTensors
from odenet_cli.ode.gradient import Cotangents, Gradients, MaybeTensor
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.ode.outputs import Loop, integrate
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.rosenbrock.formulas import Rosenbrock
from odenet_cli.ode.segment import split_at_jumps
from odenet_cli.ode.settings import unwrap_scalars
from odenet_cli.ode.state import State, Time, dot, rms, vjp
from odenet_cli.ode.tableau import Tableau

NORMS = ("relative", "absolute", "seminorm")


@dataclass(frozen=True, kw_only=True)
class Adjoint:
    """Solve the adjoint equation backwards.

    norm                relative: the tolerance on `a` is relative to the incoming gradient, so that the scale of the
                        loss does not matter; absolute: the paper's [z, a, θ̄] in one norm; seminorm: the same without θ̄
                        (Kidger, Chen & Lyons 2021)
    control_parameters  also control the error of θ̄ in the relative norm. The absolute norm always does; seminorm never
                        does, and is refused together with it
    solver              of the backward solve; None: the forward one
    """

    norm: str = "relative"
    control_parameters: bool = False
    solver: Any = None
    saves_outputs = True
    supports = (Tableau, Multistep)
    solve = solve_as_node

    def __post_init__(self) -> None:
        unwrap_scalars(self)
        if self.norm not in NORMS:
            raise ValueError(f"gradient.norm={self.norm} is not one of {', '.join(NORMS)}.")
        if self.norm == "seminorm" and self.control_parameters:
            raise ValueError(
                "gradient.norm=seminorm leaves the parameters' gradient out of the error norm, and "
                "gradient.control_parameters=true lets it in; choose one, or gradient.norm=absolute."
            )
        if isinstance(getattr(self.solver, "formulas", None), Rosenbrock):
            raise ValueError(
                f"gradient.solver.method={self.solver.method} needs the Jacobian of what it solves, which the adjoint "
                "equation does not give; use an explicit method such as dopri5, or gradient=backprop."
            )

    def forward(self, problem: Problem) -> tuple[list[State], None, list[Tensor]]:
        # O(1) memory: nothing is kept per step. The node keeps the states at the outputs (`saves_outputs`).
        return integrate(problem.loop(single_steps=False), problem), None, []

    def backward(self, problem: Problem, tape: None, kept: Sequence[State], cotangents: Cotangents) -> Gradients:
        try:
            return _BackwardSolve(self, problem).run(kept, cotangents)
        except FieldChanged:
            raise
        # Say which solve failed: its settings may differ from those of the forward solve, which succeeded.
        except SolveError as error:
            raise type(error)(f"in the backward solve (its keys are gradient.solver.*): {error}") from error

    def double_backward(self, *_: Any, **__: Any) -> Gradients:
        raise NotImplementedError("gradient=adjoint has no second derivative; use gradient=backprop for that.")


class AugmentedField:
    """Evaluate the derivatives of z, a and θ̄ together: one evaluation of f, one vector-Jacobian product.

    uses_input    for each input, whether any value of f depended on it
    has_gradient  whether the last value of f depended on z or any input
    """

    def __init__(self, problem: Problem, retain_graph: bool) -> None:
        self.rhs, self.inputs, self.retain_graph = problem.rhs, problem.inputs, retain_graph
        self.parts = len(problem.rhs.y0)
        self.rhs.counts_vjps = False  # this field counts them itself: no hook per evaluation
        self.zeros = [torch.zeros_like(tensor) for tensor in self.inputs]
        self.uses_input, self.has_gradient = [False] * len(self.inputs), False
        self._late = LateTensors(self.inputs)

    def __call__(self, t: Time, y: State, used: bool = True) -> State:
        z, a = y[: self.parts], y[self.parts :]
        # θ̄ is a quadrature: its derivative is not needed at stages without weight.
        inputs = self.inputs if used else ()
        with torch.enable_grad():
            # Detached: the product needs the graph of this one evaluation only.
            leaves = as_leaves(z)
            dz = self.rhs(t, leaves)
            if not torch.compiler.is_compiling():
                self._late.look(dz, leaves)
            # -aᵀ ∂f/∂(z, θ), equations 4 and 5: the cotangent carries the sign.
            minus_a = [part.neg() if k.requires_grad else None for k, part in zip(dz, a)]
            products = vjp(dz, minus_a, (*leaves, *inputs), retain_graph=self.retain_graph)
        self.has_gradient = any(k.requires_grad for k in dz)
        # Inside a kernel a count would become a constant; its caller uses `count`.
        if self.has_gradient and not torch.compiler.is_compiling():
            self.rhs.stats.vjps += 1
        # The solver needs a tensor for every component; `uses_input` remembers which of them have no gradient at all.
        da = [torch.zeros_like(part) if g is None else g for part, g in zip(z, products)]
        quadrature = products[self.parts :]
        if used:
            self.uses_input = [before or g is not None for before, g in zip(self.uses_input, quadrature)]
        dtheta = [zero if g is None else g for zero, g in zip(self.zeros, quadrature)]
        return (*(k.detach() for k in dz), *da, *dtheta)

    def count(self, evaluations: int) -> None:
        """Add evaluations that a compiled kernel has made, and as many products."""
        self.rhs.count(evaluations)
        self.rhs.stats.vjps += evaluations * self.has_gradient

    def count_vjps(self, values: State, evaluations: int, check: Callable[[], None] | None = None) -> State:
        """Return `values` unchanged: the backward solve is not differentiated."""
        return values


class _BackwardSolve:
    """Solve the adjoint equation from the last output time to the first.

    scale  the largest RMS of `a` right after adding an output's cotangent; the relative norm multiplies atol by it
    """

    def __init__(self, options: Adjoint, problem: Problem) -> None:
        self.problem, self.norm = problem, options.norm
        self.parts = len(problem.rhs.y0)
        self.n_dynamic = 2 * self.parts  # z and a; θ̄ is a quadrature
        self.solver = options.solver or problem.solver
        outside = problem.captured is not None and problem.captured.shares_graph
        if outside or any(tensor.grad_fn is not None for tensor in problem.inputs):
            self.solver = replace(self.solver, compile=False)  # no graph may lead out of a compiled field
        # Jumps belong to the field, so those of either solver count.
        self.jumps = {*getattr(problem.solver, "jumps", ()), *getattr(self.solver, "jumps", ())}
        self.controls_parameters = options.norm == "absolute" or options.control_parameters
        # `run` raises it with incoming gradients; the norm reads it at each step.
        self.scale = 0.0

    def run(self, states: Sequence[State], cotangents: Cotangents) -> Gradients:
        problem, ts = self.problem, self.problem.ts
        field = AugmentedField(problem, retain_graph=not self.solver.compile)  # see Problem.retain_graph
        n_controlled = None if self.controls_parameters else self.n_dynamic
        loop: Loop = self.solver.loop(field, self._error_norm(), self.n_dynamic, n_controlled, interior_outputs=False)
        a: State = tuple(torch.zeros_like(part) for part in problem.rhs.y0)
        # θ̄ starts at 0, and each span adds its integral.
        theta: State = tuple(tensor.clone() for tensor in field.zeros)
        times = [torch.zeros((), dtype=problem.rhs.time_dtype, device=problem.rhs.device) for _ in ts]
        # From each output time back to the previous one; at an output `a` jumps by its cotangent (figure 2).
        for j in range(len(ts) - 1, 0, -1):
            a = tuple(part if g is None else part + g for part, g in zip(a, cotangents[j]))
            self.scale = max(self.scale, _finite_rms(a, ts[j]))
            if not self.scale:
                continue  # no gradient yet
            # `a` has jumped, and z restarts from the stored output, so the derivative at the end of the previous span
            # does not apply here. The step size does.
            loop.f0, dz = None, None
            # The augmented state of the paper's algorithm 1, as a tuple of tensors.
            y = (*states[j], *a, *theta)
            for segment in split_at_jumps(ts, j, j - 1, self.jumps, problem.rhs.time_dtype):
                for accepted in loop.run(segment, y):
                    # The first stage of the first step is f(t_j, y_j): dL/dt_j needs no evaluation of its own.
                    dz = dz or accepted.step.k[0]
                    y = accepted.step.y
            if problem.times is not None and dz is not None:
                times[j] += _along(cotangents[j], dz)  # dL/dt_j = dL/dy_j · f(t_j, y_j)
            a, theta = y[self.parts : self.n_dynamic], y[self.n_dynamic :]
        if problem.times is not None and self.scale:
            # A later t0 shortens the solve: dL/dt0 = -a · f(t0, y0); at a jump f is taken on the side of the solve.
            first, *_ = split_at_jumps(ts, 0, len(ts) - 1, self.jumps, problem.rhs.time_dtype)
            times[0] -= _along(a, problem.rhs(first.visible_time(ts[0]), states[0]))
        if not problem.ends_only:
            _finite_rms(tuple(g for g in cotangents[0] if g is not None), ts[0])
        y0 = [part if g is None else part + g for part, g in zip(a, cotangents[0])]
        # None, not zeros, for unused parameters: optimisers skip those without a gradient.
        inputs = [part if used else None for part, used in zip(theta, field.uses_input)]
        return Gradients(y0, None if problem.times is None else torch.stack(times).to(problem.times), inputs)

    def _error_norm(self) -> Norm | None:
        if not hasattr(self.solver, "rtol"):
            return None
        rtol, atol = self.solver.rtol, self.solver.atol
        # One group of all controlled components: the paper's flat norm; with seminorm `n_controlled` excludes θ̄.
        if self.norm != "relative":
            return Norm(rtol, atol)
        # θ̄ is measured by the scale of `a` too: both grow in proportion to the loss.
        z, a, theta = slice(self.parts), slice(self.parts, self.n_dynamic), slice(self.n_dynamic, None)
        return Norm(rtol, atol, lambda: ((z, 1.0), (a, self.scale), (theta, self.scale)))


def _along(cotangents: Sequence[MaybeTensor], dy: State) -> Tensor | float:
    """Return the derivative of the loss along `dy`."""
    terms = [dot(g, k) for g, k in zip(cotangents, dy) if g is not None]
    return sum(terms[1:], start=terms[0]) if terms else 0.0


def _finite_rms(a: State, t: float) -> float:
    """Return the RMS of an incoming gradient at t; raise NotFinite if it is NaN or infinite."""
    size = rms(a)
    if not math.isfinite(size):
        raise NotFinite(f"the incoming gradient at t = {t:.6g} is NaN or infinite.")
    return size


GRADIENT = Adjoint
