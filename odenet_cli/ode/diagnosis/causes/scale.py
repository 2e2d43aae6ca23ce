"""Scale: the tolerance does not fit the size of the numbers."""

from __future__ import annotations

import torch

from odenet_cli.ode.diagnosis.finding import Cure, Finding, TracedSolve
from odenet_cli.ode.diagnosis.trace import columns, relative_error
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.ode.solver import Adaptive
from odenet_cli.ode.state import rms


def find(solve: TracedSolve) -> Finding | None:
    """Find a tolerance of a part of the state that is far from that of the others, relative to their sizes."""
    if not isinstance(solve.solver, Adaptive):
        return None
    norm, largest = solve.case.norm, solve.trace.largest
    sizes = torch.cat(columns(largest[solve.controlled]))
    starts = torch.cat(columns(solve.rhs.y0[solve.controlled]))
    # A number that begins at 0 has no size of its own to hold the tolerance against.
    sizes = sizes[(starts > 0) & torch.isfinite(sizes)]
    if not len(sizes):
        return None
    least, most = float(sizes.min()), float(sizes.max())
    if not solve.failed:
        return _unseen(solve, float(starts[starts > 0].min()), most)
    # A number that passes through 0 is allowed atol there, and nothing else.
    if norm.atol <= 1e-9 * norm.rtol * most and _held_by_zeros(solve):
        atol = (norm.rtol or 1e-6) * most
        evidence = {"solver.atol": norm.atol, "size of the state": most}
        reason = f"solver.atol={norm.atol:g} leaves a number that is 0, or passes through it, without a tolerance"
        return Finding("scale", reason, evidence, [{"atol": float(f"{atol:.1g}")}])
    # An absolute tolerance far below the largest part asks for digits that it has not got.
    if norm.rtol == 0 and norm.atol < 1e-9 * most:
        rtol = min(1e-3, max(norm.atol / least, 1e-9))
        evidence = {"solver.atol": norm.atol, "largest part": most, "smallest part": least}
        reason = f"solver.rtol=0 and solver.atol={norm.atol:g} ask for {norm.atol / most:.1g} of a number of {most:.2g}"
        return Finding("scale", reason, evidence, [{"rtol": float(f"{rtol:.1g}")}])
    return None


def _held_by_zeros(solve: TracedSolve) -> bool:
    """Tell whether numbers near 0 hold the step: against their largest size its error would be a tenth at most."""
    trace, norm = solve.trace, solve.case.norm
    if not trace.window:
        return any(bool((part == 0).any()) for part in solve.rhs.y0)
    seen = trace.window[-1]
    if isinstance(solve.solver.formulas, Multistep):
        return False
    # h f stands for the error, to which it is in proportion: only the ratio of the two norms counts.
    change = tuple(abs(seen.h) * part for part in solve.f(seen.t, seen.y))
    own = tuple(part / (norm.rtol * y.abs() + norm.atol) for part, y in zip(change, seen.y))
    fair = tuple(part / (norm.rtol * size + norm.atol) for part, size in zip(change, trace.largest))
    return not rms(own) <= 10 * rms(fair)


def _unseen(solve: TracedSolve, least: float, most: float) -> Finding | None:
    """Return the finding of a part of the state that stays below atol, with an error of half its size or more."""
    norm = solve.case.norm
    if least >= norm.atol:
        return None
    # At an atol below its size that part would be solved for. Whether it matters shows in how far off it is now.
    cure: Cure = {"atol": float(f"{(norm.rtol or 1e-3) * least:.1g}")}
    exact = solve.solved_under(cure, 1000 + 20 * solve.trace.nfe)
    if exact is None:
        return None
    small = min(float(part[part > 0].min()) for part in columns(exact.largest) if (part > 0).any())
    if small >= norm.atol:
        return None
    error = relative_error(solve.trace, exact, by_column=True)
    if not error > 0.5:
        return None
    evidence = {"solver.atol": norm.atol, "smallest part": small, "largest part": most, "its relative error": error}
    reason = f"a part of the state is at most {small:.2g}, below solver.atol={norm.atol:g}: its error is not controlled"
    return Finding("scale", reason, evidence, [cure], by_column=True)
