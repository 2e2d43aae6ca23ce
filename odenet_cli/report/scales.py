"""Set the scales of axes and colours: linear or logarithmic, the limits and the ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from odenet_cli.report.text import compact


def spans(values: Sequence[float], factor: float = 10) -> bool:
    """Return whether the values span a decade (or `factor`), so that a logarithmic axis is due."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= factor


def ticks_at(axis: Axis, values: Sequence[float]) -> None:
    """Put a tick at each of the values; powers of ten, and more than eight values, are left to the scale."""
    if spans(values) and all(math.isclose(math.log10(v), round(math.log10(v)), abs_tol=1e-9) for v in values):
        axis.set_minor_formatter(NullFormatter())
    elif len(values) <= 8:
        axis.set_major_locator(FixedLocator(list(values)))
        axis.set_minor_locator(NullLocator())
        compact_labels(axis)


def log_ticks(axis: Axis, values: Sequence[float], factor: float = 30) -> None:
    """Mark a logarithmic axis at powers of ten, or at 1, 2, 5, 10 … where the values span less than `factor`."""
    axis.set_minor_formatter(NullFormatter())
    if values and not spans(values, factor):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        compact_labels(axis)


def decade_ticks(axis: Axis) -> None:
    """Mark a logarithmic axis at powers of ten, written as in the tables."""
    axis.set_minor_formatter(NullFormatter())
    compact_labels(axis)


def compact_labels(axis: Axis) -> None:
    """Write the numbers at the ticks as in the tables: 0.01, 1e-5."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def integer_ticks(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def cost_limits(axes: Axes, values: Sequence[float]) -> None:
    """Set the y axis of a cost: from zero, or logarithmic where it spans a factor of 50."""
    if spans(values, 50):
        log_limits(axes, values)
    else:
        axes.set_ylim(0, 1.08 * max([*values, 1e-9]))


def score_limits(axes: Axes, values: Sequence[float]) -> None:
    """Set the y axis of a score: the range of the values, logarithmic where it spans a decade."""
    if spans(values):
        log_limits(axes, values)
    elif values:
        room = 0.06 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0
        axes.set_ylim(min(values) - room, max(values) + room)


def log_limits(axes: Axes, values: Sequence[float]) -> None:
    """Set a logarithmic y axis around the values; up to three decades are labelled 1, 2, 5, 10 …"""
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.25, max(values) * 1.25)
    log_ticks(axes.yaxis, values, 1000)


def decade_limits(axes: Axes, values: Sequence[float]) -> None:
    """Set a logarithmic y axis around the values, labelled at powers of ten."""
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.4, max(values) * 1.4)
    decade_ticks(axes.yaxis)
