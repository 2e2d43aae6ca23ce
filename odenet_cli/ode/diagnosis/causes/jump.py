"""Jumps: the field is discontinuous on the way."""

from __future__ import annotations

import math
from itertools import pairwise

from odenet_cli.ode.diagnosis.finding import Cure, Finding, TracedSolve, take_longer
from odenet_cli.ode.diagnosis.trace import TracedStep
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.solver import Adaptive
from odenet_cli.ode.state import State

MAX_JUMPS = 200


def find(solve: TracedSolve) -> Finding | None:
    """Find discontinuities of f along the path near rejected steps, each found by bisection."""
    solver = solve.solver
    if not solve.failed or not isinstance(solver, Adaptive):
        return None
    found = jumps_along(solve)
    if not found:
        return None
    at = sorted(found, reverse=solve.direction < 0)
    evidence = {"jumps at t": tuple(at[:6]), "rejected steps": solve.trace.rejected, "of": solve.trace.attempts}
    many = f"jumps {len(at)} times, first" if len(at) > 1 else "jumps"
    reason = f"the field {many} at t = {at[0]:.6g}, and steps are rejected until they are short enough there"
    if not any(found.values()):
        cure = {"max_steps": 4 * solver.max_steps, "field": SMOOTH}
        return Finding("jump", f"{reason}; it switches with y, not t", evidence, [cure])
    return Finding("jump", reason, evidence, [_declared(solver, found)], extend=_more_jumps)


SMOOTH = "smooth the switch (torch.sigmoid(y / width) instead of y > 0)"


def _declared(solver: Adaptive, found: dict[float, bool]) -> Cure:
    """Return the cure that declares the jumps in time, beside those that are."""
    return {"jumps": tuple(sorted({*solver.jumps, *(t for t, in_time in found.items() if in_time)}))}


def _more_jumps(cure: Cure, again: TracedSolve) -> Cure | None:
    """Return a cure that declares also those jumps that are met once others are declared; None if there are none."""
    assert isinstance(again.solver, Adaptive)
    longer = _declared(again.solver, jumps_along(again))
    more = len(cure["jumps"]) < len(longer["jumps"]) <= MAX_JUMPS
    return {**cure, **longer} if more else take_longer(cure, again)


def jumps_along(solve: TracedSolve) -> dict[float, bool]:
    """Return the times at which f is discontinuous along the path, those declared left out; True: also where y stays
    as it is."""
    known, found = getattr(solve.solver, "jumps", ()), dict[float, bool]()
    end_t, end_y = solve.trace.end
    stuck = TracedStep(end_t, solve.h * solve.direction, end_y, 1)  # where the solve failed, the next attempt's window
    for seen in [*([stuck] if solve.failed else []), *reversed(solve.trace.retried)]:
        # Each rejection shortens a step to a fifth at most, so the first attempt reached this far, across the jump.
        reach = min(abs(seen.h) * 5.0**seen.rejected, abs(solve.t1 - seen.t)) * solve.direction
        if any(0 <= (t - seen.t) * solve.direction <= abs(reach) for t in found):
            continue  # it was rejected for a jump that a later, shorter step has located better
        met = _discontinuity(solve, seen.t, seen.y, solve.f(seen.t, seen.y), reach)
        if met is not None and all(abs(met[0] - other) > 1e-6 * solve.span for other in (*known, *found)):
            found[met[0]] = met[1]
    return found


def _discontinuity(solve: TracedSolve, t: float, y: State, f0: State, reach: float) -> tuple[float, bool] | None:
    """Return the time of the largest jump of f along y + (s - t) f0 for s from t to t + reach, by bisection, and
    whether f jumps there with y as it is."""

    def state(s: float) -> State:
        return tuple(part + (s - t) * dy for part, dy in zip(y, f0))

    def apart(a: State, b: State) -> float:
        return max(float((p - q).abs().max()) for p, q in zip(a, b))

    # Along the tangent instead of the solution, which needs no solve and preserves jumps.
    times = [t + reach * n / 8 for n in range(9)]
    values = [solve.f(s, state(s)) for s in times]
    changes = [apart(a, b) for a, b in pairwise(values)]
    n = max(range(8), key=changes.__getitem__)
    # A smooth field spreads its change over the eighths of the step; a jump lies in one of them.
    if changes[n] < 0.4 * sum(changes):
        return None  # it changes everywhere
    (low, high), (f_low, f_high) = times[n : n + 2], values[n : n + 2]
    first, size = apart(f_low, f_high), max(float(part.abs().max()) for v in values for part in v)
    # Halved until the two times are neighbours in the dtype in which the field sees them.
    spacing = RESOLUTION[solve.rhs.time_dtype] * max(abs(low), abs(high), 1e-3 * solve.span)
    wide = math.inf
    while abs(high - low) > spacing:
        middle = (low + high) / 2
        f_middle = solve.f(middle, state(middle))
        # Continue with the half across which f changes more.
        if apart(f_low, f_middle) >= apart(f_middle, f_high):
            high, f_high = middle, f_middle
        else:
            low, f_low = middle, f_middle
        if abs(high - low) <= 32 * spacing and wide == math.inf:
            wide = apart(f_low, f_high)
    left = apart(f_low, f_high)
    # The change of a continuous field shrinks with the interval; across a jump it is as large for 1 as for 32 roundings
    # of t.
    if not (left > 0.1 * first and left > 1e-5 * size and wide < 3 * left):
        return None
    # With constant y, f jumps only if the jump depends on time.
    return _shortest_between(low, high), apart(solve.f(low, state(low)), solve.f(high, state(low))) > 0.5 * left


def _shortest_between(low: float, high: float) -> float:
    """Return the shortest decimal number between two times."""
    a, b = sorted((low, high))
    short = (float(f"{b:.{digits}g}") for digits in range(1, 18))
    return next((t for t in short if a <= t <= b), high)
