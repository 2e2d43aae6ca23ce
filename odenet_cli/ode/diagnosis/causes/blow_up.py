"""Blow-up: the solution ends before the last time does."""

from __future__ import annotations

import math
from itertools import takewhile

import torch

from odenet_cli.ode.diagnosis.finding import Finding, TracedSolve, stop_before


def find(solve: TracedSolve) -> Finding | None:
    """Find growth of |f| by a thousand up to where the solve ends: its rate rises like 1/(t* - t), or f overflows."""
    t, end = solve.trace.t, solve.trace.end[0]
    sizes = [*takewhile(math.isfinite, solve.trace.f_size)]
    if not solve.failed or len(sizes) < 8 or not min(sizes) > 0.0:
        return None
    if len(sizes) < len(t):  # fixed steps go on with what is infinite
        end = t[len(sizes)]
    peak = max(range(len(sizes)), key=sizes.__getitem__)
    done, passed = abs(t[peak] - solve.t0), abs(end - t[peak])
    # The last place with a quarter of the peak: from there |f| grew fourfold, in the time `since`.
    rise = max((n for n in range(peak) if sizes[n] <= sizes[peak] / 4), default=peak)
    growth, since = sizes[peak] / min(sizes[: peak + 1]), abs(t[peak] - t[rise])
    # The peak has to be where the solve ended, within 3 % of the way there.
    if growth < 1e3 or passed > 0.03 * done or not since > 0:
        return None
    rate = math.log(sizes[peak] / sizes[rise]) / since
    # In float32 from 10^15 on: such growth ends in an overflow, whatever its rate.
    overflows = math.log10(max(sizes[peak], 1.0)) > 0.4 * math.log10(torch.finfo(solve.rhs.time_dtype).max)
    # An exponential has a rate as well; at 100 a span it would overflow float32 too, and is none to go on with.
    if rate * solve.span < 100 and not overflows:
        return None
    # |f| ~ (t* - t)^-p grows at the rate p / (t* - t): about 1 / rate of time is left.
    until = t[peak] + (1 / rate if not overflows else 0.0) * solve.direction
    evidence = {"ends at t": until, "growth of |f|": growth, "doubling time": math.log(2) / rate}
    if len(solve.rhs.y0[0].shape) > 1:
        last = solve.trace.window[-1]
        evidence["sample"] = int(solve.f(last.t, last.y)[0].abs().flatten(1).amax(1).argmax())
    reason = f"the solution grows without bound: it ends at about t = {until:.3g}, before {solve.t1:.6g}"
    remedy = "bound the field (tanh, a smaller last layer), or stop before that time"
    return Finding("blow_up", reason, evidence, [{"ts": stop_before(solve, until), "field": remedy}])
