"""Stiffness: the step is held by stability."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import torch

from odenet_cli.ode.diagnosis.finding import Cure, Finding, TracedSolve, round_up
from odenet_cli.ode.diagnosis.trace import relative_error
from odenet_cli.ode.errors import NotFinite, StepLimit
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.rosenbrock.formulas import Rosenbrock
from odenet_cli.ode.solver import Adaptive, Fixed
from odenet_cli.ode.state import State, dot, rms
from odenet_cli.ode.tableau import Tableau

MANY_STEPS = 300  # of a solve that reached its end: fewer are no matter, whatever holds them
MAX_DEGREE = 5  # of a polynomial through equally spaced states; beyond, it enlarges what is left of rounding and noise
LESS_STIFF = ("bosh3", "heun_euler")  # 2.5 and 2 of the negative axis for 3 and 2 evaluations a step; dopri5: 3.3 for 6


def find(solve: TracedSolve) -> Finding | None:
    """Find steps at the bound of the method's region of stability where the solution itself would allow longer ones.

    The spectral radius is that of a nonlinear power iteration (Sommeijer, Shampine & Verwer, RKC, 1998, section 2.2);
    the bound is where |R(z)| = 1 in the direction of that eigenvalue (Hairer & Wanner II, IV.2).
    """
    trace, solver = solve.trace, solve.solver
    ended = not solve.failed and (isinstance(solver, Fixed) or trace.accepted >= MANY_STEPS)
    if not ended and not isinstance(trace.error, (StepLimit, NotFinite)):
        return None
    # Fixed steps were overrun by growth: the Jacobian is taken where the state was still sound.
    t, y = (solve.t0, solve.rhs.y0) if isinstance(solver, Fixed) else trace.end
    radius, real = spectral_radius(solve, t, y)
    real *= solve.direction  # backward in time it is the modes that grow with t which decay
    h = max(abs(b - a) for a, b in pairwise(solve.times)) / solver.steps if isinstance(solver, Fixed) else solve.h
    bound = stability_bound(solver.formulas, real)
    if not math.isfinite(radius) or real > -0.05 or not h * radius > 0.5 * bound:
        return None
    if isinstance(solver, Fixed):
        steps = math.ceil(solver.steps * h * radius / (0.5 * bound))
        if ended and not (h * radius > bound and _is_far_off(solve, steps)):
            return None
        evidence = {"spectral radius": radius, "h times it": h * radius, "bound of stability": bound}
        reason = f"fixed steps of {h:.2g} are {h * radius / bound:.2g} times the largest stable step"
        return Finding("stiff", reason, evidence, [{"steps": steps}])
    # Far beyond the bound steps would not be accepted: then it is something else that the power iteration has met.
    if h * radius > 4 * bound or not _smooth(solve):
        return None
    done = abs(trace.end[0] - solve.t0)
    # To the end in steps as long as those so far were on average, or in steps at 0.7 of the bound: the more of the two.
    ahead = max(trace.attempts * solve.span / done, (solve.span - done) * radius / (0.7 * bound) + trace.attempts)
    evidence = {"h": h, "spectral radius": radius, "h times it": h * radius, "bound of stability": bound}
    reason = (
        f"{trace.attempts:,} steps, the last of {h:.2g}, are at the limit of stability (h times the spectral radius is "
        f"{h * radius:.2g}, the bound {bound:.2g}), while the solution is smooth over {len(trace.window)} of them"
    )
    if ended:
        cheaper: list[Cure] = [{"method": name} for name in LESS_STIFF if name != getattr(solver, "method", None)]
        return Finding("stiff", reason, evidence, [_implicit(solver), *cheaper], budget=trace.nfe)
    return Finding("stiff", reason, evidence, [_implicit(solver), {"max_steps": round_up(1.5 * ahead)}])


def _implicit(solver: Adaptive) -> Cure:
    """Return the change to a method for stiff fields, and to a gradient that goes back through its steps."""
    able = Rosenbrock in getattr(solver.gradient_method, "supports", ())
    return {"method": "rodas4"} if able else {"method": "rodas4", "gradient": "replay"}


def spectral_radius(solve: TracedSolve, t: float, y: State) -> tuple[float, float]:
    """Return |λ| of the largest eigenvalue of ∂f/∂y, and the cosine of its angle: -1 where it is real and negative."""
    generator = torch.Generator().manual_seed(0)
    f0 = solve.f(t, y)
    v = tuple(torch.randn(part.shape, generator=generator).to(part) for part in y)
    # The step of a finite difference whose rounding and truncation errors are about equal.
    size = math.sqrt(RESOLUTION[solve.rhs.time_dtype]) * max(rms(y), 1e-3)
    radius, cosines = math.nan, []
    for _ in range(40):
        length = rms(v)
        if not 0 < length < math.inf:
            return 0.0 if length == 0 else math.nan, 0.0
        v = tuple(part / length for part in v)
        moved = tuple(part + size * direction for part, direction in zip(y, v))
        change = tuple((after - before) / size for after, before in zip(solve.f(t, moved), f0))  # J v
        previous, radius = radius, rms(change)
        # vᵀ J v / (|v| |J v|), where the root mean square of v is 1.
        count = sum(part.numel() for part in v)
        cosines.append(sum(float(dot(a, b)) for a, b in zip(change, v)) / max(radius * count, 1e-300))
        v = change
        if abs(radius - previous) < 1e-3 * radius:
            break
    return radius, statistics.mean(cosines[-6:])


def stability_bound(formulas: Tableau | Multistep | Rosenbrock, cosine: float) -> float:
    """Return the least |z| with |R(z)| > 1 in the direction of an eigenvalue in the left half plane: 1 for Adams, about
    that of PECE; infinite for Rosenbrock methods, which are A-stable."""
    if isinstance(formulas, Rosenbrock):
        return math.inf
    if isinstance(formulas, Multistep):
        return 1.0
    # R(z) = 1 + Σ_n z^(n+1) bᵀ Aⁿ 1: a polynomial for an explicit method, whose Aˢ is 0.
    a = [[float(x) for x in row] for row in formulas.a]
    powers, coefficients = [1.0] * formulas.stages, [1.0]
    for _ in range(formulas.stages):
        coefficients.append(sum(float(b) * p for b, p in zip(formulas.b, powers)))
        powers = [sum(x * p for x, p in zip(row, powers)) for row in a]
    direction = complex(cosine, math.sqrt(max(0.0, 1 - cosine * cosine)))
    for radius in (0.02 * n for n in range(1, 2000)):
        if abs(sum(c * (radius * direction) ** n for n, c in enumerate(coefficients))) > 1.001:
            return radius
    return 40.0


def _is_far_off(solve: TracedSolve, steps: int) -> bool:
    """Return whether the error of fixed steps at the end is at least half the size of the state."""
    exact = solve.solved_under({"steps": steps}, 1000 + 20 * solve.trace.nfe)
    return exact is not None and not relative_error(solve.trace, exact) <= 0.5


def _smooth(solve: TracedSolve) -> bool:
    """Tell whether a polynomial of the method's order through a few of the last states meets those between within ten
    tolerances: for accuracy alone a step could then be many times as long."""
    steps = [*solve.trace.window]
    if len(steps) < 16:
        return False
    last, degree = len(steps) - 1, min(MAX_DEGREE, getattr(solve.solver.formulas, "order", MAX_DEGREE))
    # Lagrange's polynomial through evenly chosen states, held against those in the middles between.
    nodes = [round(last * n / degree) for n in range(degree + 1)]
    tests = [round(last * (n + 0.5) / degree) for n in range(degree)]
    worst = 0.0
    for n in tests:
        t, total = steps[n].t, [torch.zeros_like(part) for part in steps[n].y]
        for i in nodes:
            weight = math.prod((t - steps[j].t) / (steps[i].t - steps[j].t) for j in nodes if j != i)
            total = [part + weight * y for part, y in zip(total, steps[i].y)]
        worst = max(worst, solve.tolerances(tuple(a - b for a, b in zip(total, steps[n].y)), steps[n].y))
    return worst <= 10.0
