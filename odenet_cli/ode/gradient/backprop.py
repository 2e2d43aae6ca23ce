"""Backpropagation through the solver: the exact gradient of its steps (the paper's RK-Net).

The solve is made of differentiable operations, and autograd sees them all: it keeps the graphs of the accepted steps'
evaluations, O(L~) memory, and evaluates nothing again, so `nfe_backward` is 0. Step sizes are plain numbers to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from odenet_cli.ode.problem import Problem, stacked


@dataclass(frozen=True)
class Backprop:
    """Let autograd keep the accepted steps."""

    supports_multistep = True

    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        return stacked(problem.integrate(problem.evaluate_marked, time_gradients=problem.time_gradients(problem.times)))


GRADIENT = Backprop
