"""Draw the forecast of one series: observed and held-out values, mean and band, one panel per column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from odenet_cli.report import style

MAX_PANELS = 8
DAY = 86400
STEPS = (60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200)  # between marks of a clock, in seconds
MEAN = style.CYCLE[0]
DOT: style.Look = {"marker": "o", "linestyle": "none", "markersize": 2.8}
SEEN: style.Look = {**DOT, "color": style.DARK, "markeredgewidth": 0}
HELD_BACK: style.Look = {**DOT, "color": style.GREY, "markerfacecolor": "w", "markeredgewidth": 0.6}
TRUE: style.Look = {"color": style.GREY, "linewidth": 0.9}
BAND = style.tint(MEAN, 0.25)


@style.styled
def draw(series: dict[str, Any], header: Sequence[str], known: str, clock: bool = False) -> Figure:
    """Return the figure of a series, arrays (M,) by the names of the columns of `odenet predict`; of the first columns.

    header  the names of series and time, and of the values
    known   what the truth is: observations are dots, anything else is a line
    clock   times are seconds of a day, or since a beginning
    """
    name_column, time, *columns = header
    columns, dots = columns[:MAX_PANELS], known == "observations"
    rows = min(2, len(columns))
    figure, panels = style.panel_grid(len(columns), -(-len(columns) // rows), 1.9, extra=0.3, sharex=True)
    t, seen = series[time], series["seen"]
    for axes, name in zip(panels.flat, columns):
        axes.fill_between(t, series[f"{name}_5"], series[f"{name}_95"], color=BAND, linewidth=0)
        axes.plot(t, series[f"{name}_mean"], color=MEAN, linewidth=1.3)
        if dots:
            axes.plot(t[~seen], series[name][~seen], **HELD_BACK)
            axes.plot(t[seen], series[name][seen], zorder=5, **SEEN)
        else:
            there = ~numpy.isnan(series[name])
            axes.plot(t[there], series[name][there], **TRUE)
        axes.set_ylabel(style.plain(name))
    for column in panels.T:
        axes = next(axes for axes in reversed(column) if axes.axison)  # below it there may be no panel
        axes.set_xlabel(style.plain(time))
        axes.tick_params(labelbottom=True)
        axes.xaxis.get_offset_text().set_visible(True)
        if clock:
            span = t[-1] - t[0]
            step = next((step for step in STEPS if 8 * step > span), DAY * math.ceil(span / (8 * DAY)))
            axes.xaxis.set_major_locator(MultipleLocator(step))
            axes.xaxis.set_major_formatter(lambda at, _: f"{int(at // 3600):02d}:{int(at % 3600 // 60):02d}")
    figure.suptitle(style.plain(f"{name_column} {series[name_column][0]}"))
    entries = {"mean": {"color": MEAN, "linewidth": 1.3}, "5 to 95 %": {"color": BAND, "linewidth": 5}}
    if not dots:
        entries["true"] = TRUE
    else:
        entries["seen"] = SEEN
        if any((~seen & ~numpy.isnan(series[name])).any() for name in columns):
            entries["not seen"] = HELD_BACK
    style.legend(figure, entries.items())
    return figure
