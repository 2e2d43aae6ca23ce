"""The loops over Rosenbrock steps: those over Runge-Kutta steps, with the field linearised where a step begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop, RungeKutta, StepFunction
from odenet_cli.ode.outputs import AcceptedStep
from odenet_cli.ode.rosenbrock.step import Linearisation, check_derivatives, linearise, rosenbrock_step
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State


@dataclass(kw_only=True)
class _Linearising(RungeKutta):
    """Linearise the field where a step begins; all attempts at the step share it."""

    tableau: Any  # a Rosenbrock method
    at: Linearisation | None = field(default=None, init=False)

    def enter(self, segment: Segment) -> None:
        super().enter(segment)
        self.f0 = None  # a value without its derivatives is of no use

    def derivative_at(self, t: float, y: State) -> State:
        # Rows that are independent here may depend on each other further on, so only a single row is taken as known.
        single = self.at.rows if self.at is not None and self.at.rows.count == 1 else None
        begins = self.at is None
        self.at = linearise(self.vector_field, self.segment, self.time_gradients, t, y, single)
        # Once a solve: an autonomous field pays one evaluation, one whose ∂f/∂t is seen none.
        if begins:
            check_derivatives(self.vector_field, self.segment, t, y, self.at)
        return self.at.f0

    def step_function(self) -> StepFunction:
        return lambda t, y, h, f0: rosenbrock_step(self.tableau, self.f, t, y, h, self.at)  # type: ignore[arg-type]

    def _all_stages(self, accepted: AcceptedStep) -> list[State]:
        return accepted.step.k  # the dense output needs no more


@dataclass(kw_only=True)
class RosenbrockLoop(_Linearising, AdaptiveLoop):
    """Take Rosenbrock steps as long as the tolerance allows."""


@dataclass(kw_only=True)
class FixedRosenbrockLoop(_Linearising, FixedLoop):
    """Take equal Rosenbrock steps between neighbouring output times."""
