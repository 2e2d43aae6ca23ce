"""Resolution: what the dtype can tell apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch

from odenet_cli.ode.diagnosis.finding import Cure, Finding, TracedSolve
from odenet_cli.ode.diagnosis.trace import TracedStep
from odenet_cli.ode.field.torch_settings import Dtypes
from odenet_cli.ode.resolution import NAMES, RESOLUTION
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.solver import Adaptive

ROUNDED = 0.5  # tolerances


def find(solve: TracedSolve) -> Finding | None:
    """Find rounding that the error estimate takes for an error: of y and t by one or two units in the last place."""
    dtype = max((part.dtype for part in solve.rhs.y0), key=RESOLUTION.__getitem__)
    eps, double = RESOLUTION[dtype], RESOLUTION[dtype] <= RESOLUTION[torch.float64]
    cures: list[Cure] = [] if double else [{"dtype": "float64"}]
    cures.append({"rtol": 100 * eps, "atol": max(solve.case.norm.atol, 100 * eps)})
    # What the solver refuses, or warns of, it does for this reason; the steps of the others tell.
    if solve.trace.refused or (solve.trace.warned and not solve.failed):
        text = (str(solve.trace.error) if solve.failed else solve.trace.warned).rstrip(".")
        return Finding("resolution", text, {"rtol": solve.case.norm.rtol, "eps": eps}, cures)
    # Eight of the last steps are enough, two evaluations each.
    steps = [*solve.trace.window][::6]
    troubled = solve.failed or solve.trace.rejected > 0.2 * solve.trace.accepted
    if not steps or not troubled or not isinstance(solve.solver, Adaptive):
        return None
    # What the field computes in a coarser dtype has the rounding of that one.
    dtype = max((dtype, *_inside(solve, steps[-1])), key=RESOLUTION.__getitem__)
    eps = RESOLUTION[dtype]
    error = statistics.median(_moved(solve, seen, eps) for seen in steps)
    # Rounding inside the field, of an inner product say, may be far more than that of y: float64 tells.
    if error < ROUNDED and not double:
        error = statistics.median(_rounded(solve, steps))
    if not ROUNDED <= error < math.inf:
        return None
    evidence = {"error of a step by rounding, in tolerances": error, "rtol": solve.case.norm.rtol, "eps": eps}
    reason = (
        f"rounding in {NAMES[dtype]} alone changes a step of h = {solve.h:.2g} by {error:.2g} times what "
        f"solver.rtol={solve.case.norm.rtol:g}, solver.atol={solve.case.norm.atol:g} allow"
    )
    # Rounding is then a quarter of what the tolerance allows.
    coarser = [min(0.1, max(10 * eps, 4 * error * tol)) for tol in (solve.case.norm.rtol, solve.case.norm.atol)]
    cures[-1] = dict(zip(("rtol", "atol"), (float(f"{tol:.2g}") for tol in coarser)))
    return Finding("resolution", reason, evidence, cures)


def _inside(solve: TracedSolve, seen: TracedStep) -> set[torch.dtype]:
    """Return the dtypes in which the field computes; those of single numbers, as of constants, left out."""
    with Dtypes(least_dim=1) as dtypes:
        solve.f(seen.t, seen.y)
    return {dtype for dtype in dtypes.seen if dtype in RESOLUTION}


def _moved(solve: TracedSolve, seen: TracedStep, eps: float) -> float:
    """Return how much a step changes, in tolerances, when y and t move by a rounding error."""
    t = seen.t + 2 * RESOLUTION[solve.rhs.time_dtype] * max(abs(seen.t), 1e-30)
    # Two units in the last place of y and of t: what the stages of a step are off by in any case.
    near = tuple(part * (1 + 2 * eps) for part in seen.y)
    change = tuple(a - b for a, b in zip(solve.f(t, near), solve.f(seen.t, seen.y)))
    return solve.tolerances(tuple(abs(seen.h) * part for part in change), seen.y)


def _rounded(solve: TracedSolve, steps: Sequence[TracedStep]) -> list[float]:
    """Return how much steps change, in tolerances, when the field is evaluated in float64."""
    try:
        with solve.case.under({"dtype": "float64"}) as double:
            rhs = RightHandSide(double.field, double.y0, double.args)
            values = [rhs(seen.t, tuple(part.double() for part in seen.y)) for seen in steps]
    except (RuntimeError, TypeError, ValueError):  # a field that computes in one dtype alone
        return [0.0]
    single = [solve.f(seen.t, seen.y) for seen in steps]
    changes = [tuple((a.double() - b).to(a) for a, b in zip(f, exact)) for f, exact in zip(single, values)]
    return [
        solve.tolerances(tuple(abs(seen.h) * part for part in change), seen.y) for seen, change in zip(steps, changes)
    ]
