"""The input of a cause, a traced solve, and its output, a finding."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from odenet_cli.ode.diagnosis.trace import Case, OverBudget, Trace, observe
from odenet_cli.ode.errors import StepLimit
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.solver import Adaptive
from odenet_cli.ode.state import State

Cure = dict[str, Any]


def take_longer(cure: Cure, again: TracedSolve) -> Cure | None:
    """Return the cure with more steps, if the solve made progress and ended at its limit of steps; else None."""
    if not isinstance(again.trace.error, StepLimit) or not again.trace.accepted:
        return None
    assert isinstance(again.solver, Adaptive)
    # Three times as many, so that a few rounds reach any number.
    return {**cure, "max_steps": round_up(3 * again.solver.max_steps)}


@dataclass
class Finding:
    """Hold a cause that was found.

    cures      to try, the best first
    repair     replaces the field or the state of the problem while a cure is tried
    extend     returns an extended cure if one was not enough, or None
    budget     evaluations that a cure must stay below if the solve did not fail; if none does, the solve is sound
    by_column  measure the error of a cure for each column of the state
    """

    kind: str
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    cures: list[Cure] = field(default_factory=list)
    repair: Callable[[Case], Case] | None = None
    extend: Callable[[Cure, TracedSolve], Cure | None] = take_longer
    budget: int | None = None
    by_column: bool = False


class TracedSolve:
    """Hold a traced solve, and evaluate its field further."""

    def __init__(self, case: Case, trace: Trace) -> None:
        self.case, self.trace, self.solver = case, trace, case.solver
        # Its own right-hand side, so that these evaluations are not counted in any statistics.
        self.rhs = RightHandSide(case.field, case.y0, case.args)
        self.times = case.times
        self.t0, self.t1 = self.times[0], self.times[-1]
        self.span = abs(self.t1 - self.t0)
        self.direction = math.copysign(1.0, self.t1 - self.t0)
        # Only controlled components can be the reason for a rejection.
        self.controlled = slice(getattr(self.solver, "n_controlled", None))

    @property
    def failed(self) -> bool:
        return self.trace.error is not None

    @cached_property
    def h(self) -> float:
        """The median length of the last steps."""
        return statistics.median(abs(seen.h) for seen in self.trace.window) if self.trace.window else self.span

    def f(self, t: float, y: State) -> State:
        # Without autocast in the solver's own arithmetic, as in a solve.
        with self.rhs.torch_settings.for_solver():
            return self.rhs(t, y)

    def tolerances(self, x: State, y: State) -> float:
        """Return the RMS of `x` in units of the tolerance at `y`."""
        # By the forward solve's norm, so that a step is accepted up to 1.
        scale = self.case.norm.error_scale(y[self.controlled], y[self.controlled])
        ratio: float = self.case.norm.scaled_norms([x[self.controlled]], scale)[0]
        return ratio

    def solved_under(self, cure: Cure, budget: int) -> Trace | None:
        """Return the trace of the solve with a cure; None if it fails or takes more than `budget` evaluations."""
        with contextlib.suppress(OverBudget), self.case.under(cure) as treated:
            trace = observe(treated, budget)
            return trace if trace.error is None else None
        return None


def stop_before(solve: TracedSolve, t: float) -> tuple[float, ...]:
    """Return the output times up to 0.95 of the way to `t`, and that time."""
    before = solve.t0 + 0.95 * (t - solve.t0)
    return (*(s for s in solve.times if (before - s) * solve.direction > 0), before)


def round_up(number: float) -> int:
    """Round up to two significant digits."""
    unit: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit
