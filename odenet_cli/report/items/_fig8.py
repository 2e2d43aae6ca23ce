"""What figures 8 to 10 show: spirals by model and by points observed, latent paths, and one dimension varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from odenet_cli.report import style
from odenet_cli.report.pictures.series import AFTER, INSIDE, SEEN

Rows = Sequence[dict[str, Any]]
CLOCKWISE, COUNTER = style.CYCLE[1], style.CYCLE[2]


@style.styled
def compared(rows: Mapping[str, Rows], letter: Mapping[str, str] | None = None) -> Figure:
    """A row of panels for each name, a column for each trajectory; all to one scale."""
    columns = max(len(mine) for mine in rows.values())
    height = style.WIDTH / columns + 0.02
    figure, grid = style.grid(len(rows) * columns, columns, height, sharex="col", sharey="col")
    truths = [numpy.array(one["clean"]) for one in next(iter(rows.values()))]
    side = 1.25 * max((truth.max(0) - truth.min(0)).max() for truth in truths)
    for line, (name, mine) in zip(grid, rows.items()):
        for axes, one, truth in zip(line, mine, truths):
            spiral(axes, one)
            axes.set_title(f"RMSE {one['rmse_further_clean']:.2f}", fontsize=6.5, loc="right", color=style.GREY, pad=2)
            frame(axes, truth, side)
        line[0].set_title(f"{(letter or {}).get(name, '')}{name}", pad=2)
        line[0].set_ylabel("$x_2$")
    for axes in grid[-1]:
        axes.set_xlabel("$x_1$")
    handles = [
        style.handle("observed", color=SEEN, marker="o", linestyle="", markersize=3, markeredgewidth=0),
        style.handle("reconstruction", color=INSIDE, linewidth=1.4),
        style.handle("extrapolation", color=AFTER, linewidth=1.4),
        style.handle("truth", color=style.GREY, linewidth=0.8),
    ]
    style.legend(figure, handles)
    return figure


def spiral(axes: Axes, one: dict[str, Any]) -> None:
    """One trajectory: the truth below, then the path in two colours, then what was observed."""
    fine, path = numpy.array(one["fine"]), numpy.array(one["path"])
    axes.plot(*numpy.array(one["clean"]).T, color=style.GREY, linewidth=0.8, alpha=0.8)
    inside = int((fine <= one["end"]).sum())
    axes.plot(*path[:inside].T, color=INSIDE, linewidth=1.4)
    axes.plot(*path[max(0, inside - 1) :].T, color=AFTER, linewidth=1.4)
    axes.plot(*numpy.array(one["values"]).T, "o", color=SEEN, markersize=2, markeredgewidth=0, zorder=5)


def frame(axes: Axes, truth: Any, side: float) -> None:
    """A square around the truth: a path that runs away is cut, and does not shrink all others."""
    middle = (truth.max(0) + truth.min(0)) / 2
    axes.set_xlim(middle[0] - side / 2, middle[0] + side / 2)
    axes.set_ylim(middle[1] - side / 2, middle[1] + side / 2)
    axes.set_aspect("equal", adjustable="box")
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.yaxis.set_major_locator(MultipleLocator(1))


@style.styled
def latents(rows: Rows) -> Figure:
    """Latent trajectories in pairs of dimensions."""
    size = len(rows[0]["z"][0])
    pairs = [(first, min(first + 1, size - 1)) for first in range(0, size, 2)]
    figure = Figure(figsize=(style.WIDTH * min(1.0, 0.42 * len(pairs)), 2.6))
    for axes, (first, second) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs):
        for row in rows:
            z = numpy.array(row["z"])
            colour = COUNTER if row["turns"] > 0 else CLOCKWISE
            axes.plot(z[:, first], z[:, second], color=colour, linewidth=0.7, alpha=0.75)
            axes.plot(z[0, first], z[0, second], "o", color=colour, markersize=2.2, markeredgewidth=0)
        axes.set(xlabel=f"$z_{first + 1}$", ylabel=f"$z_{second + 1}$")
    figure.axes[0].set_title("8c  latent trajectories")
    directions = {"counter-clockwise": COUNTER, "clockwise": CLOCKWISE}
    style.legend(figure, [style.handle(name, color=colour, linewidth=1.2) for name, colour in directions.items()])
    return figure


@style.styled
def variations(rows: Rows) -> Figure:
    """Paths decoded along one dimension of z0, a panel for each value."""
    shown = sorted(rows, key=itemgetter("value"))
    columns = min(5, len(shown))
    every = numpy.concatenate([numpy.array(row["path"]) for row in shown])
    low, high = every.min(0), every.max(0)
    room = 0.08 * (high - low).max()
    wide, tall = high - low + 2 * room
    height = min(2.5, (style.WIDTH - 1.1) / columns * tall / wide)
    figure, grid = style.grid(len(shown), columns, height + 0.22, 0.5, sharex=True, sharey=True)
    grid[0][0].set(xlim=(low[0] - room, high[0] + room), ylim=(low[1] - room, high[1] + room))
    scale = Normalize(0, 2)
    for axes, row in zip(grid.flat, shown):
        path = numpy.array(row["path"])
        pieces = numpy.stack([path[:-1], path[1:]], 1)
        coloured = LineCollection(list(pieces), cmap=style.SHADES, norm=scale, linewidth=1.3, capstyle="round")
        coloured.set_array(numpy.linspace(0, 2, len(pieces)))
        axes.add_collection(coloured)
        axes.plot(*path[0], "o", color=style.SHADES(0.0), markersize=2.6, markeredgewidth=0)
        axes.set_title(f"$z_{row['dimension']}$ = {row['value']:.2f}", fontsize=6.5, pad=2)
        axes.set_aspect("equal", adjustable="box")
    for axes in grid[:, 0]:
        axes.set_ylabel("$x_2$")
    for axes in grid.flat[len(shown) - columns : len(shown)]:  # the last of each column
        axes.set_xlabel("$x_1$")
        axes.tick_params(labelbottom=True)
    bar = style.colorbar(figure, grid, ScalarMappable(scale, style.SHADES), "time, in windows", aspect=30)
    bar.set_ticks([0, 1, 2])
    return figure
