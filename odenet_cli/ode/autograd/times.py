"""Gradients of times: steps are plain numbers, fixed fractions of their segment, and follow its ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State, Time, VectorField


@dataclass(frozen=True)
class TimeGradients:
    """Make the times of a solve move with its output times, where these have gradients.

    t and h of a step are constant fractions of their segment, whose ends move with the output times there; a jump
    stands still. The values stay those of the plain numbers, to the bit.

    times  the output times (T,), with gradients
    """

    times: Tensor

    def _ends(self, segment: Segment) -> tuple[Time, Time]:
        start = segment.start if segment.i is None else self.times[segment.i]
        return start, segment.end if segment.j is None else self.times[segment.j]

    def at(self, segment: Segment, t: Any) -> Time:
        """Return t, moving with the ends of its segment."""
        start, end = self._ends(segment)
        fraction = (t - segment.start) / (segment.end - segment.start)
        return _with_gradient(segment.visible_time(t), (1 - fraction) * start + fraction * end)

    def scale_by_dt(self, segment: Segment, dy: State) -> State:
        """Return f times span / span, which is 1: so h f(t, y), with h a number, gets the derivative of an h that
        moves with its segment. One factor per evaluation serves every integrator."""
        start, end = self._ends(segment)
        span = end - start
        if not isinstance(span, Tensor):
            return dy
        one = span / span.detach()
        return tuple(part * one.to(part.real.dtype) for part in dy)

    def theta(self, segment: Segment, j: int, theta: float, h: float) -> Time:
        """Return θ of output j in a step of length h: the output moves by itself, the step with its segment."""
        start, end = self._ends(segment)
        fraction = (self.times[j] - start) / (end - start)
        return _with_gradient(theta, fraction * ((segment.end - segment.start) / h))


def _with_gradient(value: Time, moving: Time) -> Time:
    """Return `value`, with the gradient of `moving`."""
    return value + (moving - moving.detach()) if isinstance(moving, Tensor) else value


def restrict_to_segment(f: VectorField, segment: Segment, time_gradients: TimeGradients | None = None) -> VectorField:
    """Return `f` as the steps of a segment use it: on this side of every jump, and at times that move with the output
    times where these have gradients. Without either it is `f` itself."""
    if time_gradients is not None:

        def moving(t: Any, y: State, used: bool = True) -> State:
            return time_gradients.scale_by_dt(segment, f(time_gradients.at(segment, t), y, used))

        return moving
    if not segment.bounded:
        return f
    return lambda t, y, used=True: f(segment.visible_time(t), y, used)
