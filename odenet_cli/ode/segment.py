"""Segments: a solve runs from one forced stop to the next, an output time that is solved for or a declared jump."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch


class Segment(NamedTuple):
    """Hold one stretch of time without a jump inside.

    start, end  times of its stops
    i, j        start and end have the gradients of ts[i] and ts[j]; None at a jump, whose time is a constant
    low, high   the times a vector field may see, so that it never looks across a jump
    span_end    the output time at which the last segment of this span ends
    """

    start: float
    end: float
    i: int | None
    j: int | None
    low: float
    high: float
    span_end: float

    def visible_time(self, t: float) -> float:
        """Return `t` as the vector field sees it: at a jump, the next time on this side of it."""
        return min(max(t, self.low), self.high)

    @property
    def bounded(self) -> bool:
        """Return whether there is a jump that the field must not look across."""
        return self.low != -math.inf or self.high != math.inf

    @property
    def ends_at_jump(self) -> bool:
        """Return whether it ends at a jump, after which the derivative at its end does not apply."""
        # An output may lie on a jump: then the field sees the end of the segment from this side.
        return self.j is None or self.visible_time(self.end) != self.end


def split_at_jumps(ts: Sequence[float], i: int, j: int, jumps: Collection[float], dtype: torch.dtype) -> list[Segment]:
    """Return the segments from `ts[i]` to `ts[j]`, either way in time; none where no time passes.

    Together they cover the whole span: only the times that the field *sees* keep off the jumps, by the resolution of
    `dtype`, in which it sees them. A segment that ends at an output on a jump inside the solve ends at a
    constant.
    """
    t, end = ts[i], ts[j]
    if t == end:
        return []
    # Without jumps a span is one segment, whose field may look anywhere.
    if not jumps:
        return [Segment(t, end, i, j, -math.inf, math.inf, end)]
    direction, ordered = math.copysign(1.0, end - t), sorted(jumps)
    # Jumps are met in the order of the solve, which may run backwards in time.
    inside = ordered[bisect_right(ordered, min(t, end)) : bisect_left(ordered, max(t, end))]
    stops = [t]
    for jump in inside if direction > 0 else reversed(inside):
        # A jump within rounding of a stop makes no segment of its own: nothing could be solved in it.
        if min(direction * (jump - stops[-1]), direction * (end - jump)) > _time_tolerance(jump):
            stops.append(jump)
    stops.append(end)

    def follows_output(n: int) -> bool:
        """Return whether a stop at output n has the gradient of its time: at the ends of a solve, and off all jumps."""
        k = bisect_left(ordered, ts[n])
        nearest = ordered[max(0, k - 1) : k + 1]
        return ts[n] in (ts[0], ts[-1]) or all(abs(ts[n] - jump) > _time_tolerance(jump) for jump in nearest)

    # Only the span's own ends can move; a jump between them stands still.
    indices = [i if follows_output(i) else None, *[None] * (len(stops) - 2), j if follows_output(j) else None]
    ends = zip(pairwise(stops), pairwise(indices))
    return [Segment(a, b, k, m, *_visible_range(min(a, b), max(a, b), ordered, dtype), end) for (a, b), (k, m) in ends]


def _visible_range(a: float, b: float, jumps: Sequence[float], dtype: torch.dtype) -> tuple[float, float]:
    """Return the first and the last time that a field sees from a to b: behind the last jump until a, and before the
    first one from b, of jumps that rise. Where `dtype` has no time between them, both are the middle."""
    behind, ahead = bisect_right(jumps, a + _time_tolerance(a)), bisect_left(jumps, b - _time_tolerance(b))
    low = _next_to_jump(jumps[behind - 1], 1, dtype) if behind else -math.inf
    high = _next_to_jump(jumps[ahead], -1, dtype) if ahead < len(jumps) else math.inf
    return (low, high) if low <= high else ((a + b) / 2, (a + b) / 2)


def _next_to_jump(jump: float, side: int, dtype: torch.dtype) -> float:
    """Return the time of `dtype` two units in the last place to one side of a jump: one is left to a field that
    computes the jump's time with a rounding of its own."""
    limits, nearest = torch.finfo(dtype), torch.tensor(jump, dtype=dtype).item()
    # 2^(e-1) <= |t| < 2^e, for which frexp gives e: so eps · 2^(e-1) is one unit in the last place.
    return nearest + 2 * side * max(limits.eps * 2.0 ** (math.frexp(nearest)[1] - 1), limits.tiny)


def _time_tolerance(t: float) -> float:
    """Return the distance below which two times count as one, in the solver's own float64."""
    # As long as the shortest step that is tried (`AdaptiveBase.fit_step`).
    return 4 * math.ulp(t)
