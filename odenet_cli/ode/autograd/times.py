"""Times that move: steps are plain numbers, fixed fractions of their segment, and follow its stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import CountedField, State, Time, VectorField


@dataclass(frozen=True)
class TimeGradients:
    """The times of a solve whose output times have gradients.

    t and h of a step are constant fractions of their segment, whose stops move with the output times there; a jump
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
        share = (t - segment.start) / (segment.end - segment.start)
        return _valued(segment.visible_time(t), (1 - share) * start + share * end)

    def scale_by_dt(self, segment: Segment, slope: State) -> State:
        """Return the slope that makes h f(t, y) of a number h what it is when h moves with its segment."""
        start, end = self._ends(segment)
        span = end - start
        if not isinstance(span, Tensor):
            return slope
        one = span / span.detach()
        return tuple(part * one.to(part.real.dtype) for part in slope)

    def theta(self, segment: Segment, j: int, theta: float, h: float) -> Time:
        """Return θ of output j in a step of length h: the output moves by itself, the step with its segment."""
        start, end = self._ends(segment)
        share = (self.times[j] - start) / (end - start)
        return _valued(theta, share * ((segment.end - segment.start) / h))


def _valued(value: Time, moving: Time) -> Time:
    """Return `value`, with the gradients of `moving`."""
    return value + (moving - moving.detach()) if isinstance(moving, Tensor) else value


def restrict_to_segment(
    evaluate: CountedField, segment: Segment, time_gradients: TimeGradients | None = None
) -> VectorField:
    """Return `evaluate` as the steps of a segment use it: on this side of every jump and, with
    `time_gradients`, at times that move with the output times."""
    if time_gradients is not None:

        def moved(t: Any, y: State, used: bool = True) -> State:
            return time_gradients.scale_by_dt(segment, evaluate(time_gradients.at(segment, t), y, used))

        return moved
    if not segment.bounded:
        return evaluate
    return lambda t, y, used=True: evaluate(segment.visible_time(t), y, used)
