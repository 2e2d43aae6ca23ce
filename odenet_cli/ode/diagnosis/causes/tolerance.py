"""Tolerance: so loose that the solve follows another solution."""

from __future__ import annotations

from odenet_cli.ode.diagnosis.finding import Cure, Finding, TracedSolve
from odenet_cli.ode.solver import Adaptive


def find(solve: TracedSolve) -> Finding | None:
    """Find a solve that passes at a hundredth of the tolerance, in no more evaluations than it failed with."""
    solver, finer = solve.solver, solve.case.tighter().solver
    if not solve.failed or solve.trace.refused or not (isinstance(solver, Adaptive) and isinstance(finer, Adaptive)):
        return None
    # A finer solve that is cheaper than the failed one: nothing but a wrong path can explain that.
    cure: Cure = {"rtol": finer.rtol, "atol": finer.atol}
    # A budget of its own, since a solve that failed early says little about what a sound one costs.
    exact = solve.solved_under(cure, min(1000 + solve.trace.nfe, 3000))
    if exact is None or exact.nfe > solve.trace.nfe:
        return None
    evidence = {"evaluations": solve.trace.nfe, "at a hundredth of the tolerance": exact.nfe}
    reason = (
        f"solver.rtol={solver.rtol:g}, solver.atol={solver.atol:g} are so loose that the solve leaves the "
        f"solution, and failed after {solve.trace.nfe:,} evaluations; at a hundredth it takes {exact.nfe:,}"
    )
    return Finding("tolerance", reason, evidence, [cure])
