"""Held-out series of a run: what was observed, the path reconstructed inside the window and extrapolated after it."""

from __future__ import annotations

from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odenet_cli.report import style
from odenet_cli.report.runs import Run

INSIDE, AFTER, SEEN = style.CYCLE[0], style.CYCLE[1], style.DARK
FURTHER = 2  # what the arrays' `scope` says of a time after the window; inside it is 1, elsewhere 0

Arrays = dict[str, Any]


@style.styled
def draw(arrays: Arrays, run: Run) -> dict[str, Figure]:
    """`series`: in the plane where there are two coordinates that belong together, else the first against time."""
    planar = arrays["path"].shape[2] == 2 and arrays["clean"].shape[2] == 2
    count = len(arrays["path"])
    columns = min(4, count)
    figure, grid = style.grid(count, columns, 1.62 if planar else 1.3, sharex=planar, sharey=True)
    for n, axes in enumerate(grid.flat[:count]):
        one = {name: array[n] for name, array in arrays.items()}
        _panel(axes, one, planar)
        if planar:
            axes.set_aspect("equal", adjustable="box")
        axes.set_xlabel(("$x_1$" if planar else "time") if n >= count - columns else "")
        axes.set_ylabel(("$x_2$" if planar else "$x_1$") if n % columns == 0 else "")
    style.legend(figure, _handles(arrays))
    return {"series": figure}


def _panel(axes: Axes, one: Arrays, planar: bool) -> None:
    inside, seen = one["fine"] <= one["end"], one["seen"]
    # Both parts have the point where they meet.
    parts = (inside, INSIDE), (numpy.arange(len(inside)) >= inside.sum() - 1, AFTER)
    if one["clean"].shape[1]:
        true = one["scope"] > 0
        axes.plot(*_line(one["at"][true], one["clean"][true], planar), color=style.GREY, linewidth=0.8, alpha=0.75)
    else:
        later = one["scope"] == FURTHER
        held_back = _line(one["at"][later], one["noisy"][later], planar)
        axes.plot(*held_back, "o", color=style.GREY, markerfacecolor="w", markersize=2.2, markeredgewidth=0.6)
    for part, colour in parts:
        axes.plot(*_line(one["fine"][part], one["path"][part], planar), color=colour, linewidth=1.5)
    dots = _line(one["times"][seen], one["values"][seen], planar)
    axes.plot(*dots, "o", color=SEEN, markersize=2.2, markeredgewidth=0, zorder=5)


def _line(times: Any, values: Any, planar: bool) -> tuple[Any, Any]:
    return (values[:, 0], values[:, 1]) if planar else (times, values[:, 0])


def _handles(arrays: Arrays) -> list[Line2D]:
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 3}
    handles = [
        style.handle("observed", color=SEEN, markeredgewidth=0, **dot),
        style.handle("reconstruction", color=INSIDE, linewidth=1.5),
        style.handle("extrapolation", color=AFTER, linewidth=1.5),
    ]
    if arrays["clean"].shape[2]:
        return [*handles, style.handle("truth", color=style.GREY, linewidth=0.8)]
    return [*handles, style.handle("held back", color=style.GREY, markerfacecolor="w", markeredgewidth=0.6, **dot)]
