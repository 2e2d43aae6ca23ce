"""Draw points beside samples of the flow fitted to them, in the units of the data: one coordinate, or each by each."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.report import style

MAX_SHOWN = 5  # coordinates
BINS = 40
DATA, FLOW = style.GREY, style.CYCLE[0]
MAX_NAME = 18  # letters


@style.styled
def points(arrays: dict[str, Any], names: list[str]) -> Figure:
    """Draw the `points` (N, D) of the data and the `samples` (M, D) of the flow, if any."""
    data, drawn = arrays["points"], arrays.get("samples")
    return line(arrays, names[0]) if data.shape[1] == 1 else corner(data, drawn, names)


def line(arrays: dict[str, Any], name: str) -> Figure:
    """Draw a histogram of the data, and the density that was learnt."""
    figure = Figure(figsize=(style.COLUMN, 1.6))
    axes = figure.subplots()
    axes.hist(arrays["points"][:, 0], bins=BINS, density=True, color=style.PALE)
    axes.plot(arrays["line"], arrays["line_density"], color=FLOW, linewidth=1.5)
    axes.set_xlabel(short(name))
    axes.set_ylabel("density")
    style.legend(figure, [("data", {"color": style.PALE, "linewidth": 5}), ("flow", {"color": FLOW})])
    return figure


def corner(data: Any, drawn: Any, names: list[str]) -> Figure:
    """Draw the first coordinates, each by each: data below the diagonal, samples above it, histograms on it."""
    count = min(data.shape[1], MAX_SHOWN)
    figure = Figure(figsize=(min(style.WIDTH, 1.35 * count + 0.3),) * 2)
    panels = figure.subplots(count, count, squeeze=False)
    style.remove_gaps(figure)
    low, high = np.quantile(data[:, :count], (0.002, 0.998), axis=0)
    margin = 0.08 * (high - low)
    limits = list(zip(low - margin, high + margin))
    for row, of_row in enumerate(panels):
        for column, axes in enumerate(of_row):
            shown = data if row >= column or drawn is None else drawn[: len(data)]
            if row == column:
                histograms(axes, data[:, row], None if drawn is None else drawn[:, row], limits[row])
            elif row > column or drawn is not None:
                color = DATA if row > column else FLOW
                axes.scatter(
                    shown[:, column], shown[:, row], s=1.2, color=color, alpha=0.5, linewidths=0, rasterized=True
                )
                axes.set_ylim(limits[row])
            frame(axes, row, column, count, names)
            axes.set_xlim(limits[column])
    if data.shape[1] > count:
        style.head(figure, f"the first {count} of {data.shape[1]} coordinates")
    style.legend(figure, [("held-out data", {"color": DATA, **style.DOT}), ("flow", {"color": FLOW, **style.DOT})])
    return figure


def histograms(axes: Axes, data: Any, drawn: Any, limits: tuple[float, float]) -> None:
    """Draw how one coordinate is distributed, in the data and in the samples."""
    axes.hist(data, bins=BINS, range=limits, density=True, color=style.PALE)
    if drawn is not None:
        axes.hist(drawn, bins=BINS, range=limits, density=True, histtype="step", color=FLOW, linewidth=0.9)


def frame(axes: Axes, row: int, column: int, count: int, names: list[str]) -> None:
    """Give a panel its labels: numbers and names stand on the outside alone."""
    axes.grid(False)
    axes.spines[:].set_visible(True)
    axes.tick_params(labelleft=column == 0 and row > 0, labelbottom=row == count - 1, labelsize=5.5)
    axes.tick_params(left=column == 0 and row > 0, bottom=row == count - 1)
    axes.locator_params(nbins=4)
    axes.set_xlabel(short(names[column]) if row == count - 1 else "")
    axes.set_ylabel(short(names[row]) if column == 0 else "")


def short(name: str) -> str:
    """Return a column's name in a few letters."""
    return style.plain(name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…")
