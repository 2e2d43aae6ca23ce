"""The first zero of a function along a solution: found by the dense output, and differentiable as the solution is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.outputs import AcceptedStep, integrate
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.scalars import widest
from odenet_cli.ode.settings import OutputTimes
from odenet_cli.ode.state import Field, State
from odenet_cli.ode.stats import Stats

if TYPE_CHECKING:
    from odenet_cli.ode.solver import Solver

EventFunction = Callable[[Tensor, Any], Tensor]
ITERATIONS = 100  # of the search for the root, which ends where its interval is no longer than rounding


class Crossing(NamedTuple):
    """Hold where a solution met an event.

    t         () its time; the end of the solve where it did not happen
    y         the state there
    happened  whether it did
    stats     what both solves cost, the search and the way to what it found
    """

    t: Tensor
    y: Any
    happened: bool
    stats: Stats


class _Found(Exception):
    """End a search."""

    def __init__(self, t: float, begin: float, y: State) -> None:
        super().__init__()
        self.t, self.begin, self.y = t, begin, y


def solve_until(
    solver: Solver,
    field: Field,
    y0: Any,
    ts: Tensor | Sequence[float],
    event: EventFunction,
    args: Sequence[Any] = (),
    parameters: Iterable[Tensor] = (),
    direction: int = 0,
) -> Crossing:
    """Solve from ts[0] until `event` is zero, or to ts[1]; see `Adaptive.until`.

    With g the event and y* the solution at its zero t*, g(t*, y*) = 0 defines t* as a function of all inputs, whose
    derivative is -dg / ġ with ġ = ∂g/∂t + ∂g/∂y · f (Chen, Amos & Nickel, "Learning neural event functions", ICLR
    2021). A Newton step from the time that was found has this derivative, and its value takes off what the dense output
    was inaccurate by.
    """
    if direction not in (-1, 0, 1):
        raise ValueError(f"direction={direction} is not one of -1, 0, 1.")
    if len(values := OutputTimes.read(ts).values) != 2:
        raise ValueError(f"ts must be the time to begin at and the time to end at; got {len(values)} times.")
    with torch.no_grad():
        found, searched = _search(solver, RightHandSide(field, y0, args), values, event, direction)
    if found is None:
        y, stats = solver(field, y0, ts, args, parameters)
        _add(stats, searched)
        return Crossing(_times(ts, values[1], y)[1], y, False, stats)
    if torch.is_grad_enabled():
        y, stats = solver(field, y0, _times(ts, found.t, y0), args, parameters)
    else:
        # One step or so, from where the step began in which it happened, in place of the interpolation.
        rhs = RightHandSide(field, y0, args)
        y, stats = solver(field, rhs.restore(found.y), [found.begin, found.t], args, parameters)
    _add(stats, searched)
    return _newton_step(field, event, found.t, y, args, stats)


def _search(
    solver: Solver, rhs: RightHandSide, values: list[float], event: EventFunction, direction: int
) -> tuple[_Found | None, Stats]:
    """Return the first step over a zero, with the root inside it; None where there is no such step."""
    problem = Problem(rhs, values, None, solver._for_dense_output())
    loop = problem.loop(interpolated=True)

    def value(t: float, y: State) -> float:
        g = event(torch.scalar_tensor(t, dtype=rhs.time_dtype, device=rhs.device), rhs.restore(y))
        if not isinstance(g, Tensor) or g.numel() != 1:
            raise ValueError("event(t, y) must return a tensor of one number.")
        return float(g)

    before = value(values[0], tuple(part.clone() for part in rhs.y0))

    def on_step(accepted: AcceptedStep) -> None:
        nonlocal before
        after = value(accepted.end, accepted.step.y)
        # A zero where the solve begins is no event: what is thrown from the ground has not come down yet.
        if before and (after == 0 or (before < 0) != (after < 0)) and direction * before <= 0:
            origin, terms = loop.polynomial(accepted)

            def inside(t: float) -> float:
                x = (t - origin) / accepted.h
                return value(t, tuple(sum(c * x**p for p, c in enumerate(part)) for part in zip(*terms)))

            raise _Found(_root(inside, accepted.t, accepted.end, before, after), accepted.t, accepted.y)
        before = after or before

    try:
        with rhs.torch_settings.for_solver():
            integrate(loop, problem, on_step)
    except _Found as found:
        return found, rhs.stats
    return None, rhs.stats


def _root(function: Callable[[float], float], a: float, b: float, fa: float, fb: float) -> float:
    """Return a zero between a and b, at which the signs differ: the Illinois variant of false position (Dowell &
    Jarratt 1971)."""
    for _ in range(ITERATIONS):
        if fb == 0 or abs(b - a) <= 4 * math.ulp(max(abs(a), abs(b))):
            break
        t = b - fb * (b - a) / (fb - fa)
        if (f := function(t)) and (f < 0) == (fb < 0):
            fa /= 2  # the same end again: the other one counts less
        else:
            a, fa = b, fb
        b, fb = t, f
    return b


def _newton_step(field: Field, event: EventFunction, t: float, y: Any, args: Sequence[Any], stats: Stats) -> Crossing:
    """Return time and state moved to the zero of the event, given the state at a time near it."""
    parts = (y,) if isinstance(y, Tensor) else tuple(y)
    now = torch.scalar_tensor(
        t, dtype=max(parts, key=lambda part: part.dtype.itemsize).real.dtype, device=parts[0].device
    )
    with torch.no_grad():
        slope = field(now, y, *args)
    stats.nfe_forward += 1
    slopes = (slope,) if isinstance(slope, Tensor) else tuple(slope)
    with torch.enable_grad():
        # ġ along the solution, as the derivative by s of g(t + s, y + s f).
        s = torch.zeros_like(now, requires_grad=True)
        moved = tuple(part.detach() + s.to(part.dtype) * k for part, k in zip(parts, slopes))
        g = event(now + s, moved[0] if isinstance(y, Tensor) else moved)
        (rate,) = torch.autograd.grad(g.sum(), s)
    if not rate:
        raise ValueError(f"the event only touches zero at t = {t:.6g}: its derivative along the solution is 0 there.")
    shift = -event(now, y).reshape(()) / rate
    parts = tuple(part + shift.to(part.dtype) * k for part, k in zip(parts, slopes))
    return Crossing(now + shift, parts[0] if isinstance(y, Tensor) else parts, True, stats)


def _times(ts: Tensor | Sequence[float], end: float, like: Any) -> Tensor:
    """Return ts[0], with its gradient, and `end`, as a tensor."""
    first = like if isinstance(like, Tensor) else like[0]
    start = torch.as_tensor(ts[0], dtype=widest(first.device), device=first.device)
    return torch.stack([start, start.new_tensor(end)])


def _add(stats: Stats, searched: Stats) -> None:
    stats.nfe_forward += searched.nfe_forward
    stats.accepted += searched.accepted
    stats.rejected += searched.rejected
