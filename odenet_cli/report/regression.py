"""The straight line of least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from odenet_cli.report.runs import number


class Line(NamedTuple):
    """y = intercept + slope x; `r2` is the share of the variance of y that it explains."""

    slope: float
    intercept: float
    r2: float

    def at(self, x: float) -> float:
        return self.intercept + self.slope * x


def straight(points: Sequence[tuple[float, float]]) -> Line | None:
    """The line through the points; None for fewer than three points or equal abscissae."""
    count = len(points)
    if count < 3:
        return None
    mean_x, mean_y = (sum(values) / count for values in zip(*points))
    xx = sum((x - mean_x) ** 2 for x, _ in points)
    yy = sum((y - mean_y) ** 2 for _, y in points)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in points)
    if not xx:
        return None
    return Line(xy / xx, mean_y - xy / xx * mean_x, xy**2 / (xx * yy) if yy else 1.0)


def power(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent p of y ~ x^p: the slope of the line through the logarithms."""
    line = straight([(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0])
    return line.slope if line else None


def finite(points: Sequence[tuple[Any, Any]]) -> list[tuple[float, float]]:
    """Those of the points whose coordinates are both numbers."""
    return [(x, y) for x, y in points if number(x) is not None and number(y) is not None]
