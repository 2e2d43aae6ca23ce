"""Resolution: what the dtype can tell apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch

from odenet_cli.ode.diagnosis.finding import Cure, Finding, Look
from odenet_cli.ode.diagnosis.trace import Place
from odenet_cli.ode.resolution import NAMES, RESOLUTION
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.solver import Adaptive

ROUNDED = 0.5  # tolerances


def find(look: Look) -> Finding | None:
    """Find rounding that the error estimate takes for an error: of y and t by one or two units in the last place."""
    dtypes = [part.dtype for part in look.rhs.y0]
    dtype = max(dtypes, key=RESOLUTION.__getitem__)
    eps, double = RESOLUTION[dtype], RESOLUTION[dtype] <= RESOLUTION[torch.float64]
    rtol = max(look.case.norm.rtol, 10 * eps)
    cures: list[Cure] = [] if double else [{"dtype": "float64"}]
    cures.append({"rtol": 100 * eps, "atol": max(look.case.norm.atol, 100 * eps)})
    if look.trace.refused:
        return Finding("resolution", str(look.trace.error), {"rtol": look.case.norm.rtol, "eps": eps}, cures)
    # Eight of the last steps are enough, two evaluations each.
    places = [*look.trace.window][::6]
    troubled = look.failed or look.trace.rejected > 0.2 * look.trace.accepted
    if not places or not troubled or not isinstance(look.solver, Adaptive):
        return None
    error = statistics.median(_moved(look, place, eps) for place in places)
    if error < ROUNDED and not double:
        error = statistics.median(_rounded(look, places))
    if not ROUNDED <= error < math.inf:
        return None
    evidence = {"error of a step by rounding, in tolerances": error, "rtol": look.case.norm.rtol, "eps": eps}
    reason = (
        f"rounding in {NAMES[dtype]} alone changes a step of h = {look.h:.2g} by {error:.2g} times what "
        f"solver.rtol={look.case.norm.rtol:g}, solver.atol={look.case.norm.atol:g} allow"
    )
    # Rounding is then a quarter of what the tolerance allows.
    cures[-1] = {"rtol": min(0.1, 4 * error * rtol), "atol": min(0.1, 4 * error * max(look.case.norm.atol, eps))}
    return Finding("resolution", reason, evidence, cures)


def _moved(look: Look, place: Place, eps: float) -> float:
    """Return how much a step changes, in tolerances, when y and t move by a rounding error."""
    t = place.t + 2 * RESOLUTION[look.rhs.time_dtype] * max(abs(place.t), 1e-30)
    # Two units in the last place of y and of t: what the stages of a step are off by in any case.
    near = tuple(part * (1 + 2 * eps) for part in place.y)
    change = tuple(a - b for a, b in zip(look.f(t, near), look.f(place.t, place.y)))
    return look.tolerances(tuple(abs(place.h) * part for part in change), place.y)


def _rounded(look: Look, places: Sequence[Place]) -> list[float]:
    """Return how much steps change, in tolerances, when the field is evaluated in float64."""
    try:
        with look.case.under({"dtype": "float64"}) as double:
            rhs = RightHandSide(double.field, double.y0, double.args)
            values = [rhs(place.t, tuple(part.double() for part in place.y)) for place in places]
    except (RuntimeError, TypeError, ValueError):  # a field that computes in one dtype alone
        return [0.0]
    changes = [tuple((a.double() - b).to(a) for a, b in zip(place.f, f)) for place, f in zip(places, values)]
    return [
        look.tolerances(tuple(abs(place.h) * part for part in change), place.y)
        for place, change in zip(places, changes)
    ]
