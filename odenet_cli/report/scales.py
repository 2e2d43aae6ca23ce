"""The scales of axes and colours: linear or logarithmic, from where to where, and with which ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from odenet_cli.report.text import plain


def norm(values: Sequence[float]) -> Normalize:
    """From values to [0, 1], by decades where they span some."""
    low, high = min(values), max(values)
    return LogNorm(low, high) if decades(values) else Normalize(low, high)


def decades(values: Iterable[float], factor: float = 10) -> bool:
    """Do the values span a decade (or `factor`), so that a logarithmic axis is due?"""
    found = list(values)
    return bool(found) and min(found) > 0 and max(found) / min(found) >= factor


def swept(axes: Axes, values: Iterable[float]) -> None:
    """The x axis of a swept key: logarithmic where it spans decades, a tick at each value where they are few."""
    found = sorted(set(values))
    if decades(found):
        axes.set_xscale("log")
    ticked(axes.xaxis, found)


def ticked(axis: Axis, values: Sequence[float]) -> None:
    """A tick at each of the values; powers of ten, and more than eight, are left to the scale."""
    tens = decades(values) and all(math.isclose(math.log10(v), round(math.log10(v)), abs_tol=1e-9) for v in values)
    if tens:
        axis.set_minor_formatter(NullFormatter())
    elif len(values) <= 8:
        axis.set_major_locator(FixedLocator(list(values)))
        axis.set_minor_locator(NullLocator())
        labelled(axis)


def spanned(axis: Axis, values: Sequence[float], factor: float = 30) -> None:
    """Ticks of a logarithmic axis: powers of ten, or 1, 2, 5, 10 and so on where the values span less than `factor`."""
    axis.set_minor_formatter(NullFormatter())
    if values and not decades(values, factor):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        labelled(axis)


def tens(axis: Axis) -> None:
    """Ticks of a logarithmic axis: powers of ten, written as in the tables."""
    axis.set_minor_formatter(NullFormatter())
    labelled(axis)


def labelled(axis: Axis) -> None:
    """Numbers at the ticks as in the tables: 0.01, 1e-5."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def counted(axis: Axis) -> None:
    """An axis of whole numbers."""
    axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def from_zero(axes: Axes, values: Iterable[float]) -> None:
    """The y axis of a cost: from zero, or logarithmic where it spans decades."""
    found = list(values)
    if decades(found, 50):
        logarithmic(axes, found)
    else:
        axes.set_ylim(0, 1.08 * max([*found, 1e-9]))


def fitted(axes: Axes, values: Iterable[float]) -> None:
    """The y axis of a score: the range of `values`, logarithmic where it spans a decade."""
    found = list(values)
    if decades(found):
        logarithmic(axes, found)
    elif found:
        room = 0.06 * (max(found) - min(found)) or 0.05 * abs(max(found)) or 1.0
        axes.set_ylim(min(found) - room, max(found) + room)


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis around the values; up to three decades are labelled 1, 2, 5, 10 and so on."""
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.25, max(values) * 1.25)
    spanned(axes.yaxis, values, 1000)


def powers(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis around the values, labelled at powers of ten."""
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.4, max(values) * 1.4)
    tens(axes.yaxis)
