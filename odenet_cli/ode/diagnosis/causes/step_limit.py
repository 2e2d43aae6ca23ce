"""A limit that is too low: the solver does what it was asked."""

from __future__ import annotations

from odenet_cli.ode.diagnosis.finding import Cure, Finding, TracedSolve, round_up
from odenet_cli.ode.errors import StepLimit, StepTooSmall
from odenet_cli.ode.solver import Adaptive


def find(solve: TracedSolve) -> Finding | None:
    """Find a limit of the steps' number or length that the tolerance cannot keep."""
    trace, solver = solve.trace, solve.solver
    if not isinstance(solver, Adaptive) or not isinstance(trace.error, (StepLimit, StepTooSmall)):
        return None
    # A lower bound that the user has set; without one StepTooSmall is another cause's.
    cure: Cure = {}
    if solver.min_step and isinstance(trace.error, StepTooSmall):
        cure["min_step"] = 0.0
    # Steps that are all as long as they may be are held by that limit, not by the tolerance.
    held = solve.h >= 0.99 * solver.max_step
    if held:
        cure["max_step"] = solve.span
    done = abs(trace.end[0] - solve.t0)
    if not held and isinstance(trace.error, StepLimit):
        if not done:
            return None
        # As many again for each part of the span as for the part that was solved, and half as many in reserve.
        cure["max_steps"] = round_up(1.5 * trace.attempts * solve.span / done)
    if not cure:
        return None
    evidence = {"steps": trace.attempts, "reached t": trace.end[0], "of": solve.t1, "h": solve.h}
    limits = ", ".join(f"solver.{key}={getattr(solver, key):g}" for key in cure)
    reason = f"the steps are as long as the tolerance allows, and {limits} is too low for it"
    return Finding("step_limit", reason, evidence, [cure])
