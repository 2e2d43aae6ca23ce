"""Draw held-out series: the observations, the path reconstructed in the window and extrapolated after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.runs import Run

INSIDE, AFTER, OBSERVED = style.CYCLE[0], style.CYCLE[1], style.DARK
SPANS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
SCOPE_AFTER = 2  # `scope` of a time after the window; inside it is 1, elsewhere 0

Arrays = dict[str, Any]


@style.styled
def draw(arrays: Arrays, run: Run) -> dict[str, Figure]:
    """Draw `series`, in the plane where there are two coordinates that belong together, else the first against time."""
    arrays, time, value = in_own_units(arrays, run.record.get("data") or {})
    planar = arrays["path"].shape[2] == 2 and arrays["clean"].shape[2] == 2
    count = len(arrays["path"])
    columns = min(4, count)
    figure, grid = style.panel_grid(count, columns, 1.62 if planar else 1.3, sharex=planar, sharey=True)
    for n, axes in enumerate(grid.flat[:count]):
        series = {name: array[n] for name, array in arrays.items()}
        _panel(axes, series, planar)
        if planar:
            axes.set_aspect("equal", adjustable="box")
        axes.set_xlabel(("$x_1$" if planar else time) if n >= count - columns else "")
        axes.set_ylabel(("$x_2$" if planar else value) if n % columns == 0 else "")
    legend(figure, 1.5, truth=arrays["clean"].shape[2] > 0)
    return {"series": figure}


def in_own_units(arrays: Arrays, data: Mapping[str, Any]) -> tuple[Arrays, str, str]:
    """Return the arrays with times and first column in the units of a user's table, if any, and the labels of both."""
    if "time_unit" not in data:
        return arrays, "time", "$x_1$"
    _, unit, value, *_ = data["columns"]
    size, span = 1.0, arrays["at"].max() * data["time_unit"]
    if data.get("dates"):  # times are seconds
        size, unit = next((part for part in SPANS if span >= 2 * part[0]), SPANS[-1])
    mean, sd = data["mean"][0], data["standard_deviation"][0]
    times = {key: arrays[key] * data["time_unit"] / size for key in ("times", "at", "fine", "end")}
    values = {key: arrays[key] * sd + mean for key in ("values", "noisy", "path")}
    return {**arrays, **times, **values}, style.plain(f"{unit} since the first point"), style.plain(value)


def _panel(axes: Axes, series: Arrays, planar: bool) -> None:
    inside, observed = series["fine"] <= series["end"], series["seen"]
    # Both parts include the point where they meet.
    parts = (inside, INSIDE), (numpy.arange(len(inside)) >= inside.sum() - 1, AFTER)
    if series["clean"].shape[1]:
        true = series["scope"] > 0
        axes.plot(
            *_line(series["at"][true], series["clean"][true], planar), color=style.GREY, linewidth=0.8, alpha=0.75
        )
    else:
        later = series["scope"] == SCOPE_AFTER
        held_back = _line(series["at"][later], series["noisy"][later], planar)
        axes.plot(*held_back, "o", color=style.GREY, markerfacecolor="w", markersize=2.2, markeredgewidth=0.6)
    for part, color in parts:
        axes.plot(*_line(series["fine"][part], series["path"][part], planar), color=color, linewidth=1.5)
    dots = _line(series["times"][observed], series["values"][observed], planar)
    axes.plot(*dots, "o", color=OBSERVED, markersize=2.2, markeredgewidth=0, zorder=5)


def _line(times: Any, values: Any, planar: bool) -> tuple[Any, Any]:
    return (values[:, 0], values[:, 1]) if planar else (times, values[:, 0])


def legend(figure: Figure, linewidth: float, truth: bool = True) -> None:
    """Explain what was observed, both parts of the path, and the truth or what was held back of noisy values."""
    entries: dict[str, style.Look] = {
        "observed": {"color": OBSERVED, "markeredgewidth": 0, **style.DOT},
        "reconstruction": {"color": INSIDE, "linewidth": linewidth},
        "extrapolation": {"color": AFTER, "linewidth": linewidth},
    }
    if truth:
        entries["truth"] = {"color": style.GREY, "linewidth": 0.8}
    else:
        entries["held back"] = {"color": style.GREY, **style.DOT, "markerfacecolor": "w", "markeredgewidth": 0.6}
    style.legend(figure, entries.items())
