"""Noise: the field is not a function of t and y."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import Tensor

from odenet_cli.ode.diagnosis.finding import Finding, TracedSolve
from odenet_cli.ode.diagnosis.trace import Case
from odenet_cli.ode.field.random_state import Draws
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.state import State, rms
from odenet_cli.ode.transforms import is_finite


def find(solve: TracedSolve) -> Finding | None:
    """Find evaluations at one point that differ by more than rounding does."""
    # Where the solve began, where it ended, and where steps were rejected: noise may come with time, or with a state.
    points = [(solve.t0, solve.rhs.y0), solve.trace.end, *((seen.t, seen.y) for seen in [*solve.trace.retried][-1:])]
    return next((found for t, y in points if (found := _at(solve, t, y)) is not None), None)


def _at(solve: TracedSolve, t: float, y: State) -> Finding | None:
    """Find evaluations at (t, y) that differ."""
    draws = Draws(solve.case.reads().generators)
    states = draws.states()
    size, apart = _spread(solve, t, y, 4)
    if apart == 0.0:
        return None
    generators = draws.changed(states)
    source = f"it draws from {generators} at each evaluation" if generators else "it changes from call to call"
    remedy = (
        "draw once per solve and pass the numbers in args; switch dropout off inside the field (field.eval(), p=0)"
        if generators
        else "the field should have no internal state: pass what changes between solves in args"
    )

    # For the trial the field is changed as the remedy says: each evaluation draws the same numbers.
    def repair(case: Case) -> Case:
        def frozen(t: Tensor, y: Any, *args: Any) -> Any:
            draws.restore(states)
            return (case.field if generators else copy.deepcopy(case.field))(t, y, *args)

        return replace(case, field=frozen)

    # State that a copy does not include, such as a closure variable, keeps changing: then nothing can be tried.
    held = _spread(TracedSolve(repair(solve.case), solve.trace), t, y, 2)[1] == 0.0
    evidence = {"difference of two evaluations, relative": apart / size}
    reason = f"two evaluations at t = {t:.6g} differ: {source}, so it defines no differential equation"
    return Finding("noise", reason, evidence, [{"field": remedy}], repair if held else None)


def _spread(solve: TracedSolve, t: float, y: State, count: int) -> tuple[float, float]:
    """Return the size of `count` evaluations at (t, y), and by how much they differ; 0 if by rounding alone."""
    # Clones, so that a field which writes into its state is not taken for a noisy one.
    values = [solve.f(t, tuple(part.clone() for part in y)) for _ in range(count)]
    if not all(is_finite(part) for value in values for part in value):
        return 0.0, 0.0
    size = max(map(rms, values))
    apart = max(
        rms(tuple(a.cpu().double() - b.cpu().double() for a, b in zip(value, values[0]))) for value in values[1:]
    )
    # Up to a thousand roundings are not noise, since reductions on a GPU may round differently each time.
    return size, apart if apart > 1e3 * max(RESOLUTION[part.dtype] for part in y) * size else 0.0
