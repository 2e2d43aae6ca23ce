"""Draw the forecast of one series: what the network saw, what was held back, mean and band, a panel for each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.figure import Figure

from odenet_cli.report import style

MAX_PANELS = 8
MEAN, SEEN = style.CYCLE[0], style.DARK
DOT: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 2.8}
HELD_BACK: dict[str, Any] = {**DOT, "color": style.GREY, "markerfacecolor": "w", "markeredgewidth": 0.6}
BAND = style.tint(MEAN, 0.25)


@style.styled
def draw(series: dict[str, Any], header: Sequence[str], known: str) -> Figure:
    """Return the figure of a series, arrays (M,) by the names of the columns of `odenet predict`; of the first columns.

    header  the names of series and time, and of the values
    known   what the truth is: observations are dots, anything else is a line
    """
    _, time, *columns = header
    columns, dots = columns[:MAX_PANELS], known == "observations"
    rows = min(2, len(columns))
    figure, panels = style.panel_grid(len(columns), -(-len(columns) // rows), 1.9, extra=0.3, sharex=True)
    t, seen = series[time], series["seen"]
    for axes, name in zip(panels.flat, columns):
        axes.fill_between(t, series[f"{name}_5"], series[f"{name}_95"], color=BAND, linewidth=0)
        axes.plot(t, series[f"{name}_mean"], color=MEAN, linewidth=1.3)
        if dots:
            axes.plot(t[~seen], series[name][~seen], **HELD_BACK)
            axes.plot(t[seen], series[name][seen], color=SEEN, markeredgewidth=0, zorder=5, **DOT)
        else:
            there = ~numpy.isnan(series[name])
            axes.plot(t[there], series[name][there], color=style.GREY, linewidth=0.9)
        axes.set_ylabel(name)
    for axes in panels[-1]:
        axes.set_xlabel(time)
    handles = [style.handle("mean", color=MEAN, linewidth=1.3), style.handle("5 to 95 %", color=BAND, linewidth=5)]
    if dots:
        handles.append(style.handle("seen", color=SEEN, markeredgewidth=0, **DOT))
        if any((~seen & ~numpy.isnan(series[name])).any() for name in columns):
            handles.append(style.handle("not seen", **HELD_BACK))
    else:
        handles.append(style.handle("true", color=style.GREY, linewidth=0.9))
    style.legend(figure, handles)
    return figure
