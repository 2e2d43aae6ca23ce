"""Find the first zero of a function along a solution, by dense output; differentiable like the solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.autograd.node import as_leaves
from odenet_cli.ode.errors import NotFinite, RandomField
from odenet_cli.ode.field.random_state import Draws
from odenet_cli.ode.outputs import AcceptedStep, Loop, steps
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.scalars import widest
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.settings import OutputTimes
from odenet_cli.ode.state import Field, State, norms, vjp
from odenet_cli.ode.stats import Stats
from odenet_cli.ode.transforms import in_forward_mode, in_function_transform, in_plain_mode, to_numbers

EventFunction = Callable[[Tensor, Any], Tensor]
ROUNDINGS = 100  # accumulated error of an event that should be zero, in roundings of its largest value so far
PARTS = 8  # of the step with a zero, the first of which that has one is searched
ITERATIONS = 100  # at most, in the search for a root, which ends when its interval is as short as rounding


class Crossing(NamedTuple):
    """Hold the zero of an event.

    t         () its time; the end of the solve if there is no zero
    y         the state at t
    happened  whether there is a zero
    stats     the cost of the search and of the solve to the zero
    """

    t: Tensor
    y: Any
    happened: bool
    stats: Stats


class _Found(NamedTuple):
    """Hold a zero at `t`, in the step from state `y` at `begin`; with a rate up to `flat` the event only touches 0."""

    t: float
    begin: float
    y: State
    segment: Segment
    flat: float


@in_plain_mode
def solve_until(
    solver: Any,
    field: Field,
    y0: Tensor | Sequence[Tensor],
    ts: Tensor | Sequence[float],
    event: EventFunction,
    args: Sequence[Any] = (),
    parameters: Iterable[Tensor] = (),
    direction: int = 0,
) -> Crossing:
    """Solve from ts[0] until event(t, y) is zero for the first time, or else to ts[1]; a method of every solver.

    >>> fall = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6)
    >>> y0 = torch.tensor([10.0, 0.0])  # height and velocity
    >>> t, y, *_ = fall.until(lambda t, y: torch.stack([y[1], -9.81 + 0 * y[0]]), y0, [0.0, 9.0], lambda t, y: y[0])

    event      returns a tensor with one real number, a differentiable function of t and y, computed without autocast. A
               zero is found if the signs at the two ends of a step differ, as they do not around an even number of
               zeros: choose `max_step` below the time between two
    direction  1: zeros where it rises, -1: where it falls, 0: both

    Time and state are differentiable like a solve, with respect to all of its inputs and those of the event: once, and
    twice if the solve is. The problem is solved twice, to find the zero and to end there. Raises like a solve, and
    `NotFinite` if the event is not finite, `RandomField` if random numbers are drawn, `ValueError` if the event touches
    zero without crossing it, changes its sign at a jump or a pole, has no derivative, or writes into the state, and
    `NotImplementedError` inside a transform of torch.func.

    With g the event and y* the solution at its zero t*, g(t*, y*) = 0 defines t* as a function of all inputs, whose
    derivative is -dg / ġ with ġ = ∂g/∂t + ∂g/∂y · f (Chen, Amos & Nickel, "Learning neural event functions", ICLR
    2021). A Newton step from the time that was found has this derivative, and its value removes the error of the dense
    output. A second step, along the solution to second order, has the second derivative.
    """
    ts = ts if isinstance(ts, Tensor) else list(ts)
    times = _checked_times(ts, direction)
    rhs = RightHandSide(field, y0, args)
    with torch.no_grad(), _nothing_drawn():
        found, searched = _search(solver, rhs, times.values, event, direction)
    # The search has no gradients; the result is that of an ordinary solve.
    if found is None:
        y, stats = solver(field, y0, ts, args, parameters)
        end = torch.as_tensor(times.values[1], dtype=torch.float64) if times.tensor is None else times.tensor[1]
        return Crossing(end.to(rhs.device, rhs.time_dtype), y, False, stats.add(searched))
    if torch.is_grad_enabled() or in_forward_mode():
        y, stats = solver(field, y0, _times(ts, found.t, rhs.device), args, parameters)
    else:
        # Solve from the start of the step with the zero, about one step, instead of interpolating.
        y, stats = solver(field, rhs.restore(found.y), [found.begin, found.t], args, parameters)
    rhs.stats, rhs.counts_vjps = stats.add(searched), True
    return _newton_steps(rhs, event, found, (y,) if rhs.single else y)


def _checked_times(ts: Tensor | Sequence[float], direction: int) -> OutputTimes:
    """Return the two times; raise an error for arguments that `solve_until` does not support."""
    if in_function_transform():  # the search differentiates the event, by autograd
        raise NotImplementedError(
            "an event is not found inside the transforms of torch.func (grad, jacrev, jvp, vmap, ...); use "
            "torch.autograd.grad, or forward_ad.dual_level() for tangents."
        )
    if direction not in (-1, 0, 1):
        raise ValueError(f"direction={direction} is not one of -1, 0, 1.")
    times = OutputTimes.read(ts)
    if len(times.values) != 2:
        raise ValueError(f"ts must be the time to begin at and the time to end at; got {len(times.values)} times.")
    return times


@contextmanager
def _nothing_drawn() -> Iterator[None]:
    """Raise RandomField if random numbers were drawn inside."""
    draws = Draws(())
    states = draws.states()
    yield
    if source := draws.changed(states):
        raise RandomField(
            f"the vector field or the event draws random numbers from {source} (dropout in training mode, noise): what "
            "is solved up to the zero that was found would have others. Draw them once, and pass them in args."
        )


def _search(
    solver: Any, rhs: RightHandSide, values: list[float], event: EventFunction, direction: int
) -> tuple[_Found | None, Stats]:
    """Return the first zero after the start, found in the dense output of its step; None if there is none.

    A zero at the start does not count, such as the height of a ball that is thrown from the ground.
    """
    problem = Problem(rhs, values, None, solver._for_dense_output())
    loop = problem.loop(interpolated=True)

    def value(t: float, y: State) -> float:
        g: float = to_numbers(_evaluate(rhs, event, _as_time(rhs, t), y))
        if not math.isfinite(g):
            raise NotFinite(f"event(t, y) is {g} at t = {t:.6g}; it must be finite along the whole solution.")
        return g

    with rhs.torch_settings.for_solver():
        start = tuple(part.clone() for part in rhs.y0)
        before = value(values[0], start)
        largest, eps = abs(before), max(RESOLUTION[part.dtype] for part in start)
        # Zero up to rounding counts as zero: a ball that has bounced may start 1e-17 below the ground without crossing
        # it. Rounding is that of the largest number, and moves the zero no further than that of times.
        _, slopes = _slopes(rhs, event, values[0], start)
        near = abs(before) <= 4 * _rounding(values[0], start, norms([start], [math.inf]) * len(start), slopes)
        shortest = 4 * RESOLUTION[rhs.time_dtype] * max(map(abs, values))
        for accepted in steps(loop, problem, [problem.y0]):
            begin, after = accepted.t, value(accepted.end, accepted.step.y)
            largest = max(largest, abs(after))
            # After a zero at the start the event has the sign of its derivative. If the sign differs at the end of the
            # step, start the search at a point where it has this sign, found by halving the distance to the start.
            if near or not before:
                rate, near = _rate_behind(rhs, event, accepted), False
                if abs(before) <= shortest * abs(rate):
                    before = 0.0
                if not before and rate and after * rate <= 0:
                    inside = _dense_output(loop, accepted)
                    places = (begin + accepted.h / 2**n for n in range(1, ITERATIONS))
                    found = ((t, value(t, inside(t))) for t in places)
                    begin, before = next(((t, g) for t, g in found if g * rate > 0), (begin, 0.0))
            if before and (after == 0 or (before < 0) != (after < 0)) and direction * before <= 0:
                inside = _dense_output(loop, accepted)
                at = lambda t: value(t, inside(t))  # noqa: B023, E731
                t = _root(at, *_first_change(at, begin, accepted.end, before, after))
                size = max(abs(before), abs(after))
                _check_zero(rhs, event, t, inside(t), accepted, size)
                # Where a step ends on a zero up to rounding r, the sign may be that of rounding, of a mere touch: a
                # parabola of that size which dips by r has this rate at its zeros, or less.
                rounding = min(ROUNDINGS * eps * largest, 1e-3 * size)
                flat = 4 * math.sqrt(rounding * size) / abs(accepted.h) if abs(after) <= rounding else 0.0
                return _Found(t, accepted.t, accepted.y, accepted.segment, flat), rhs.stats
            # If a step ends on a zero of the other direction, keep the sign from before it.
            before = after or before
    return None, rhs.stats


def _dense_output(loop: Loop, accepted: AcceptedStep) -> Callable[[float], State]:
    """Return the solution inside the last step as a function of time."""
    origin, terms = loop.polynomial(accepted)

    def inside(t: float) -> State:
        x = (t - origin) / accepted.h
        return tuple(sum(c * x**p for p, c in enumerate(part)) for part in zip(*terms))

    return inside


def _rate_behind(rhs: RightHandSide, event: EventFunction, accepted: AcceptedStep) -> float:
    """Return the rate at which an event changes where a step starts, in the direction of the solve; 0 where that is
    unknown."""
    k = rhs(accepted.segment.visible_time(accepted.t), accepted.y)
    rate = _derivative_along(rhs, event, _as_time(rhs, accepted.t), accepted.y, k)
    return 0.0 if rate is None else float(rate) * math.copysign(1.0, accepted.h)


def _derivative_along(rhs: RightHandSide, event: EventFunction, t: Tensor, y: State, k: State) -> Tensor | None:
    """Return ġ, the event's derivative along a solution with y' = k; None where autograd sees none."""
    with torch.enable_grad():
        # As the derivative by s of g(t + s, y + s k).
        s = torch.zeros_like(t, requires_grad=True)
        g = _evaluate(rhs, event, t + s, _moved(tuple(part.detach() for part in y), s, k))
        return torch.autograd.grad(g, s, allow_unused=True)[0] if g.requires_grad else None


def _evaluate(rhs: RightHandSide, event: EventFunction, t: Tensor, y: State) -> Tensor:
    """Return event(t, y), a tensor (), without autocast; raise ValueError for another result or a changed state."""
    versions = [part._version for part in y]
    with rhs.torch_settings.for_solver():
        g = event(t, rhs.restore(y))
    if not isinstance(g, Tensor) or g.numel() != 1 or not g.is_floating_point():
        got = f"{tuple(g.shape)} {g.dtype}" if isinstance(g, Tensor) else type(g).__name__
        raise ValueError(f"event(t, y) must return a tensor of one number, real and floating-point; got {got}.")
    if [part._version for part in y] != versions:
        raise ValueError("the event writes into the state that it is given, and the solver still needs it: use y - c.")
    return g.reshape(())


def _first_change(
    function: Callable[[float], float], a: float, b: float, fa: float, fb: float
) -> tuple[float, float, float, float]:
    """Return the first of `PARTS` parts of a step, and the function at its ends, between which the sign changes."""
    # Of three zeros in a step false position would take any. That of an even number nothing shows at the ends.
    last, flast, step, below = b, fb, (b - a) / PARTS, fa < 0
    for _ in range(PARTS - 1):
        b, fb = a + step, function(a + step)
        if fb and (fb < 0) != below:
            return a, b, fa, fb
        a, fa = b, fb
    return a, last, fa, flast


def _root(function: Callable[[float], float], a: float, b: float, fa: float, fb: float) -> float:
    """Return a zero between a and b, at which the signs differ: the Illinois variant of false position (Dowell &
    Jarratt 1971)."""
    for _ in range(ITERATIONS):
        if fb == 0 or abs(b - a) <= 4 * math.ulp(max(abs(a), abs(b))):
            break
        t = b - fb * (b - a) / (fb - fa)  # where the secant through both ends is 0
        if (f := function(t)) and (f < 0) == (fb < 0):
            # The same end moves again. With half its value the one that stays draws the secant over to its side: false
            # position alone would close in from one side only, at a linear rate.
            fa /= 2
        else:
            a, fa = b, fb
        b, fb = t, f
    return b


def _slopes(rhs: RightHandSide, event: EventFunction, t: float, y: State) -> tuple[Tensor, Sequence[Tensor | None]]:
    """Return the event, and its derivatives by the time and the parts of the state; None where autograd sees none."""
    with torch.enable_grad():
        leaves = as_leaves((_as_time(rhs, t), *y))
        g = _evaluate(rhs, event, leaves[0], leaves[1:])
        return g, vjp([g], [torch.ones_like(g)], leaves)


def _rounding(t: float, y: State, sizes: Iterable[Any], slopes: Sequence[Tensor | None]) -> float:
    """Return by how much the rounding of the time, and of numbers of these sizes, moves an event with such slopes."""
    eps = max(RESOLUTION[part.dtype] for part in y)
    moved = [slope.abs() * size for slope, size in zip(slopes, (abs(t), *sizes)) if slope is not None]
    return eps * sum(float(part.sum()) for part in moved)


def _check_zero(
    rhs: RightHandSide, event: EventFunction, t: float, y: State, accepted: AcceptedStep, largest: float
) -> None:
    """Raise ValueError if the event changes its sign at t without being zero there: it jumps, or has a pole.

    largest  |event| at the ends of the step
    """
    g, slopes = _slopes(rhs, event, t, y)
    # Without a derivative nothing can be said of it; `_newton_steps` refuses it by name.
    if all(slope is None for slope in slopes):
        return
    # Rounding of t and y, which are as large as in the whole step, moves the event by its derivative times that; that
    # of t moves y as well, by y' times it.
    rounding = _rounding(t, y, [torch.maximum(a.abs(), b.abs()) for a, b in zip(accepted.y, accepted.step.y)], slopes)
    for a, b, slope in zip(accepted.y, accepted.step.y, slopes[1:]):
        if slope is not None:
            rounding += math.ulp(t) * to_numbers((slope.abs() * (b - a).abs()).sum()) / abs(accepted.h)
    size = abs(to_numbers(g.detach()))
    # What the event itself rounds, a difference of large numbers say, is not known: it is little beside its change over
    # the step. Towards a pole the derivative, and with it what rounding might explain, grows faster than the event.
    if size > max(1e3 * rounding, 1e-4 * largest) or size > 10 * largest:
        raise ValueError(
            f"the event changes its sign at t = {t:.6g} without being zero there (it is {size:.3g} in size): it jumps "
            "or has a pole. It must be continuous."
        )


def _newton_steps(rhs: RightHandSide, event: EventFunction, found: _Found, y: State) -> Crossing:
    """Return time and state moved to the zero of the event, given the state at a time near it."""
    now = _as_time(rhs, found.t)
    with torch.no_grad():
        # On the side of a jump on which the zero was found.
        k = rhs(found.segment.visible_time(found.t), y)
    rate = _derivative_along(rhs, event, now, y, k)
    if rate is None:
        raise ValueError(
            "the event has no derivative along the solution: it must be a differentiable function of t and y, without "
            "detach(), torch.no_grad(), item() or comparisons."
        )
    if abs(float(rate)) <= found.flat or not bool(torch.isfinite(rate)):
        raise ValueError(
            f"the event only touches zero at t = {found.t:.6g}, or jumps over it: its derivative along the solution is "
            f"{float(rate):g} there."
        )
    shift = -_evaluate(rhs, event, now, y) / rate
    if torch.is_grad_enabled() or in_forward_mode():
        # The shift is all but 0, and has a derivative. The second one needs the solution to second order in it.
        middle = found.segment.visible_time(found.t) + shift / 2
        y, now = _moved(y, shift, rhs(middle, _moved(y, shift / 2, k))), now + shift
        shift = -_evaluate(rhs, event, now, y) / rate
    return Crossing(now + shift, rhs.restore(_moved(y, shift, k)), True, rhs.stats)


def _as_time(rhs: RightHandSide, t: float) -> Tensor:
    """Return a time as the event sees it, and the field."""
    return torch.scalar_tensor(t, dtype=rhs.time_dtype, device=rhs.device)


def _moved(y: State, s: Tensor, k: State) -> State:
    return tuple(part + s.to(part.dtype) * dy for part, dy in zip(y, k))


def _times(ts: Tensor | Sequence[float], end: float, device: torch.device) -> Tensor:
    """Return ts[0], with its gradient, and `end`, as a tensor."""
    start = torch.as_tensor(ts[0], dtype=widest(device), device=device)
    return torch.stack([start, start.new_tensor(end)])
