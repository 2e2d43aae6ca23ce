"""Gradients of times: a step is a fixed fraction of its segment, so its times are functions of the segment's ends.

`restrict_to_segment` also keeps the times that the field sees on one side of each jump.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State, Time, VectorField


@dataclass(frozen=True)
class TimeGradients:
    """Make the times of steps depend on the output times in autograd's graph.

    t and h of a step are constant fractions of their segment, whose ends are output times; a jump is a constant. The
    values stay those of the plain numbers, to the bit.

    times  the output times (T,), with gradients
    """

    times: Tensor

    def _ends(self, segment: Segment) -> tuple[Time, Time]:
        # The time of a jump is a constant.
        start = segment.start if segment.i is None else self.times[segment.i]
        return start, segment.end if segment.j is None else self.times[segment.j]

    def at(self, segment: Segment, t: Any) -> Time:
        """Return t as a function of the ends of its segment."""
        start, end = self._ends(segment)
        # Linear between the ends; the value is replaced by t itself, bit for bit, and only the gradient is this one's.
        fraction = (t - segment.start) / (segment.end - segment.start)
        return _with_gradient(segment.visible_time(t), (1 - fraction) * start + fraction * end)

    def scale_by_dt(self, segment: Segment, dy: State) -> State:
        """Return f times span / span, which is 1: then h f(t, y), with h a float, has the derivative of an h that is a
        fraction of the segment. Scaling f, not h, serves every integrator."""
        start, end = self._ends(segment)
        span = end - start
        if not isinstance(span, Tensor):
            return dy
        # 1 exactly in floating point, so that a solve with gradients of times takes the same steps as one without.
        one = span / span.detach()
        return tuple(part * one.to(part.real.dtype) for part in dy)

    def thetas(self, segment: Segment, first: int, thetas: list[float], h: float) -> Tensor:
        """Return `thetas`, those of the outputs from number `first` on in a step of length h, as functions (n,) of the
        output times and of the ends of the segment."""
        # h is a constant share h / span of the segment, so θ is the share of the segment up to the output over that;
        # the share up to the step's start is a constant, and has no part in the gradient.
        start, end = self._ends(segment)
        fraction = (self.times[first : first + len(thetas)] - start) / (end - start)
        share = fraction * ((segment.end - segment.start) / h)
        return torch.tensor(thetas, dtype=share.dtype, device=share.device) + (share - share.detach())


def _with_gradient(value: Time, source: Time) -> Time:
    """Return `value`, with the gradient of `source`."""
    # source - source is 0, in floating point too.
    return value + (source - source.detach()) if isinstance(source, Tensor) else value


def restrict_to_segment(f: VectorField, segment: Segment, time_gradients: TimeGradients | None = None) -> VectorField:
    """Return `f` as the steps of a segment use it: on this side of every jump, and at times that are functions of
    the output times where these have gradients. Without either it is `f` itself, which saves a Python call."""
    if time_gradients is not None:

        def with_time_gradients(t: Any, y: State, used: bool = True) -> State:
            return time_gradients.scale_by_dt(segment, f(time_gradients.at(segment, t), y, used))

        return with_time_gradients
    if not segment.bounded:
        return f
    return lambda t, y, used=True: f(segment.visible_time(t), y, used)
