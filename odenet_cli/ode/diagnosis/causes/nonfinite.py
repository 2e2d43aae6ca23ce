"""A field that is NaN or infinite at a finite state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.diagnosis.finding import Finding, TracedSolve, stop_before
from odenet_cli.ode.diagnosis.trace import observe
from odenet_cli.ode.errors import NotFinite
from odenet_cli.ode.state import State
from odenet_cli.ode.transforms import in_function_transform, is_finite

DOMAIN = "keep roots, logarithms and divisors in their domain (clamp), or stop before that time"


class Evaluation(NamedTuple):
    """Hold one evaluation of the field, whose value is the derivative `dy`."""

    t: float
    y: State
    dy: State


def find(solve: TracedSolve) -> Finding | None:
    """Find the first value of the field that is not finite though the state is, and whether t or y brings it."""
    if not isinstance(solve.trace.error, NotFinite):
        return None
    met, before = _last_nonfinite(solve)
    if met is None:
        return None
    n, at = next((n, (~torch.isfinite(part)).nonzero()[0]) for n, part in enumerate(met.dy) if not is_finite(part))
    index = tuple(at.tolist())
    place = f"{'' if solve.rhs.single else f'[{n}]'}{str(list(index)) if index else ''}"
    number = float(met.dy[n][index])
    evidence: dict[str, Any] = {f"y{place}": float(met.y[n][index])}
    reason = f"the field is {number:g} at t = {met.t:.6g}, in y'{place}, where the state is finite"
    if before is None:
        return Finding("nonfinite", f"{reason}: the solve begins there", evidence, [{"field": DOMAIN}])
    evidence["finite up to t"] = before.t
    with_t, with_y = _is_nonfinite(solve, met.t, before.y), _is_nonfinite(solve, before.t, met.y)
    if with_t != with_y:
        reason += f"; it comes with {'t, not y' if with_t else 'y, not t'}"
    return Finding("nonfinite", reason, evidence, [{"ts": stop_before(solve, met.t), "field": DOMAIN}])


def _last_nonfinite(solve: TracedSolve) -> tuple[Evaluation | None, Evaluation | None]:
    """Solve again, and return the last evaluation that is not finite at a finite state, and a finite one before it."""
    # Attempts are made shorter until they fail, so the last one is closest to where it begins.
    met: Evaluation | None = None
    finite: Evaluation | None = None
    before: Evaluation | None = None

    def watched(t: Tensor, y: Any, *args: Any) -> Any:
        nonlocal met, finite, before
        dy = solve.case.field(t, y, *args)
        if not in_function_transform():  # of a Jacobian, which has no numbers to look at
            now = Evaluation(float(t), *((part,) if isinstance(part, Tensor) else tuple(part) for part in (y, dy)))
            if all(map(is_finite, now.dy)):
                finite = now
            elif all(map(is_finite, now.y)):
                met, before = now, finite
        return dy

    observe(replace(solve.case, field=watched))
    t, y = solve.trace.end
    # A rejected attempt may have been finite farther on; fixed steps go on with what is not finite.
    if before is not None and all(map(is_finite, y)):
        before = Evaluation(t, y, ())
    return met, before


def _is_nonfinite(solve: TracedSolve, t: float, y: State) -> bool:
    return not all(map(is_finite, solve.f(t, y)))
