"""Backpropagation through the solver: the exact gradient of its steps (the paper's RK-Net).

The solve consists of differentiable operations, which autograd records. It keeps the graphs of the accepted steps'
evaluations, so memory grows with their number, and evaluates nothing again: `nfe_backward` is 0. Step sizes are
constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.ode.outputs import integrate
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.rosenbrock.formulas import Rosenbrock
from odenet_cli.ode.tableau import Tableau


@dataclass(frozen=True)
class Backprop:
    """Let autograd keep the accepted steps."""

    supports = (Tableau, Multistep, Rosenbrock)
    exact = True
    rounding = 1.0
    kept_per_step = 2

    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        # There is no backward pass of ours in which to count products, so each evaluation gets a hook.
        problem.rhs.counts_vjps = True
        # If the output times have gradients, the times of all steps are tensors of the graph.
        loop = problem.loop(problem.make_time_gradients(problem.times))
        return problem.stack(integrate(loop, problem))


GRADIENT = Backprop
