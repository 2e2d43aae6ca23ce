"""What a cause has to go by, and what it shows."""

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
    """Return a cure of more steps as well, where some were accepted and it was their number that ended the solve."""
    if not isinstance(again.trace.error, StepLimit) or not again.trace.accepted:
        return None
    assert isinstance(again.solver, Adaptive)
    # Three times as many, so that a few rounds reach any number.
    return {**cure, "max_steps": round_up(3 * again.solver.max_steps)}


@dataclass
class Finding:
    """Hold what one cause shows.

    cures      to try, the best first
    repair     what the field or the state of the problem is replaced by while a cure is tried
    extend     returns a longer cure where one was not enough, or None
    budget     evaluations below which a cure is one, where the solve did not fail: without such a cure it is sound
    by_column  judge a cure by the error of each column of the state
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
    """Hold a watched solve, and evaluate its field anew."""

    def __init__(self, case: Case, trace: Trace) -> None:
        self.case, self.trace, self.solver = case, trace, case.solver
        # Of its own, so that what is evaluated here counts in nobody's statistics.
        self.rhs = RightHandSide(case.field, case.y0, case.args)
        self.times = case.times
        self.t0, self.t1 = self.times[0], self.times[-1]
        self.span = abs(self.t1 - self.t0)
        self.direction = math.copysign(1.0, self.t1 - self.t0)
        # What the error norm does not see cannot be why a step was rejected.
        self.controlled = slice(getattr(self.solver, "n_controlled", None))

    @property
    def failed(self) -> bool:
        return self.trace.error is not None

    @cached_property
    def h(self) -> float:
        """The median length of the last steps."""
        return statistics.median(abs(seen.h) for seen in self.trace.window) if self.trace.window else self.span

    def f(self, t: float, y: State) -> State:
        # As in a solve: the solver's own arithmetic is never autocast.
        with self.rhs.torch_settings.for_solver():
            return self.rhs(t, y)

    def tolerances(self, x: State, y: State) -> float:
        """Return the RMS of `x` in units of the error that the solver allows around `y`."""
        # By the forward solve's own norm, so that 1 is what it would have accepted.
        scale = self.case.norm.error_scale(y[self.controlled], y[self.controlled])
        ratio: float = self.case.norm.scaled_norms([x[self.controlled]], scale)[0]
        return ratio

    def solved_under(self, cure: Cure, budget: int) -> Trace | None:
        """Return the same solve under a cure; None where it fails, or takes more than `budget` evaluations."""
        with contextlib.suppress(OverBudget), self.case.under(cure) as treated:
            trace = observe(treated, budget)
            return trace if trace.error is None else None
        return None


def round_up(number: float) -> int:
    """Return the next number of two digits and zeros: what a person would have written."""
    unit: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit
