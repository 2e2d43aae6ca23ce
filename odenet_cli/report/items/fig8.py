"""Figures 8 to 10 of Chen et al. 2018: spirals reconstructed and extrapolated, and the latent space behind them."""

from __future__ import annotations

import statistics
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

from odenet_cli.markdown import MISSING, markdown_table
from odenet_cli.report import style
from odenet_cli.report.items.table2 import ODE, Choices, select
from odenet_cli.report.pictures import series
from odenet_cli.report.result import Entry, Facts, Result, csv_row
from odenet_cli.report.statistics import grouped
from odenet_cli.report.text import bullets

TITLE = "Figures 8 to 10, spirals reconstructed, extrapolated and varied"
LABELS = {
    "trajectories": "trajectories drawn",
    "error_ratio": "mean error of the trajectories drawn, latent ODE over RNN",
    "turns_both_ways": "spirals turn from one direction to the other along the varied dimension (1: yes)",
}
NUMBERS = ("series", "turns", "rmse_window_clean", "rmse_further_clean")
PATHS = (
    "Figure 8, a the RNN and b the latent ODE: test trajectories of which {fewest} of 100 points were observed; "
    "reconstruction inside the window and extrapolation after it, the true path in grey. Above each its RMSE after the "
    "window against the true path. A path that leaves the frame is cut. "
    "Inside the window, what the RNNs show are predictions of the next observation from those before it."
)
LATENT = (
    "Figure 8c: z(t) inside the window for {count} test trajectories, in pairs of latent dimensions, by the direction "
    "in which the spiral turns; a dot where it begins."
)
VARIED = (
    "Figure 9: paths decoded while dimension {dimension} of z0 goes through the middle 95 % of its values on the test "
    "trajectories, all others at their mean; colour is time, from the start of the window to twice its length."
)
POINTS = "Figure 10: the latent ODE by the number of points observed, on the same trajectories."
LETTERS = {"RNN": "8a  ", ODE: "8b  "}  # the paper's panels, in its order
CLOCKWISE, COUNTER = style.CYCLE[1], style.CYCLE[2]

Rows = Sequence[dict[str, Any]]


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `entries` are networks of table 2, of which those at the settings chosen there are drawn."""
    _, choices = select(entry for entry in entries if entry.run.done and entry.measured)
    shown = {key: choice.entries[0] for key, choice in choices.items()}
    if not shown:
        return Result(body=["Nothing could be measured: no network is trained."])

    fewest = min(size for _, size in shown)
    by_model = {model: entry.measurements("path") for (model, size), entry in shown.items() if size == fewest}
    by_size = {size: entry.measurements("path") for (model, size), entry in sorted(shown.items()) if model == ODE}
    ode = shown.get((ODE, fewest))
    latent, varied = (ode.measurements(kind) if ode else [] for kind in ("latent", "varied"))
    dimension = turning_dimension(varied)
    order = [model for model in (*LETTERS, *by_model.keys() - LETTERS.keys()) if model in by_model]
    titled = {f"{LETTERS.get(model, '')}{model}": by_model[model] for model in order}
    figures: dict[str, Figure | None] = {
        "spirals": trajectories(titled),
        "latent": latents(latent) if latent else None,
        "varied": variations([row for row in varied if row["dimension"] == dimension]) if varied else None,
        "points": trajectories({f"{size} points": rows for size, rows in by_size.items()}) if by_size else None,
    }
    body = ["![spirals]", PATHS.format(fewest=fewest), "![latent]", LATENT.format(count=len(latent)), "![varied]"]
    body += [VARIED.format(dimension=dimension), "![points]", POINTS, table(shown, choices), bullets(rest["notes"])]
    rows = [
        {**csv_row(entry), "observed": size, **{name: path[name] for name in NUMBERS}}
        for (_, size), entry in shown.items()
        for path in entry.measurements("path")
    ]
    numbers = facts(by_model, varied, dimension)
    return Result(body=body, rows=rows, figures=figures, facts=numbers)


def turning_dimension(varied: Rows) -> int | None:
    """Return the latent dimension that changes the direction of turning most."""
    turns = grouped((row["dimension"], row["turns"]) for row in varied)
    # Both directions should be reached well: what counts is how far the lesser of them is.
    return max(turns, key=lambda d: (min(max(turns[d]), -min(turns[d])), max(turns[d])), default=None)


def facts(by_model: Mapping[str, Rows], varied: Rows, dimension: int | None) -> Facts:
    errors = {
        model: statistics.fmean(map(itemgetter("rmse_further_clean"), rows)) for model, rows in by_model.items() if rows
    }
    ode, rnn = errors.get(ODE), errors.get("RNN")
    turns = [row["turns"] for row in varied if row["dimension"] == dimension]
    return {
        "trajectories": float(max(map(len, by_model.values()), default=0)),
        "error_ratio": ode / rnn if ode and rnn else None,
        "turns_both_ways": float(min(turns) < -0.5 and max(turns) > 0.5) if turns else None,
    }


def table(shown: Mapping[tuple[str, int], Entry], choices: Choices) -> str:
    rows = []
    for (model, size), entry in shown.items():
        errors = [path["rmse_further_clean"] for path in entry.measurements("path")]
        mean = f"{statistics.fmean(errors):.3f}" if any(errors) else MISSING
        rows.append([model, str(size), *(f"{error:.3f}" for error in errors), mean, choices[model, size].setting])
    count = max(len(row) for row in rows) - 4
    head = ["RMSE after the window", "points", *(f"trajectory {n + 1}" for n in range(count)), "mean", "setting"]
    return markdown_table(head, [row for row in rows if len(row) == len(head)], left=1)


# The drawing.


@style.styled
def trajectories(rows: Mapping[str, Rows]) -> Figure:
    """Draw a row of panels for each title, a column for each trajectory; all to one scale."""
    columns = max(map(len, rows.values()))
    height = style.WIDTH / columns + 0.02
    figure, grid = style.panel_grid(len(rows) * columns, columns, height, sharex="col", sharey="col")
    truths = [numpy.array(path["clean"]) for path in next(iter(rows.values()))]
    side = 1.25 * max((truth.max(0) - truth.min(0)).max() for truth in truths)
    for line, (title, paths) in zip(grid, rows.items()):
        for axes, path, truth in zip(line, paths, truths):
            spiral(axes, path)
            error = f"RMSE {path['rmse_further_clean']:.2f}"
            axes.set_title(error, fontsize=6.5, loc="right", color=style.GREY, pad=2)
            frame(axes, truth, side)
        line[0].set_title(title, pad=2)
        line[0].set_ylabel("$x_2$")
    for axes in grid[-1]:
        axes.set_xlabel("$x_1$")
    series.legend(figure, 1.4)
    return figure


def spiral(axes: Axes, row: dict[str, Any]) -> None:
    """Draw one trajectory: the truth below, then the path in two colours, then what was observed."""
    times, path = numpy.array(row["fine"]), numpy.array(row["path"])
    axes.plot(*numpy.array(row["clean"]).T, color=style.GREY, linewidth=0.8, alpha=0.8)
    inside = int((times <= row["end"]).sum())
    axes.plot(*path[:inside].T, color=series.INSIDE, linewidth=1.4)
    axes.plot(*path[max(0, inside - 1) :].T, color=series.AFTER, linewidth=1.4)
    axes.plot(*numpy.array(row["values"]).T, "o", color=series.OBSERVED, markersize=2, markeredgewidth=0, zorder=5)


def frame(axes: Axes, truth: Any, side: float) -> None:
    """Limit the panel to a square around the truth: a path that runs away is cut, and does not shrink all others."""
    x, y = (truth.max(0) + truth.min(0)) / 2
    axes.set(xlim=(x - side / 2, x + side / 2), ylim=(y - side / 2, y + side / 2))
    axes.set_aspect("equal", adjustable="box")
    axes.xaxis.set_major_locator(MultipleLocator(1))
    axes.yaxis.set_major_locator(MultipleLocator(1))


@style.styled
def latents(rows: Rows) -> Figure:
    """Draw latent trajectories in pairs of dimensions."""
    size = len(rows[0]["z"][0])
    pairs = [(first, min(first + 1, size - 1)) for first in range(0, size, 2)]
    figure = Figure(figsize=(style.WIDTH * min(1.0, 0.42 * len(pairs)), 2.6))
    for axes, (first, second) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs):
        for row in rows:
            z = numpy.array(row["z"])
            color = COUNTER if row["turns"] > 0 else CLOCKWISE
            axes.plot(z[:, first], z[:, second], color=color, linewidth=0.7, alpha=0.75)
            axes.plot(z[0, first], z[0, second], "o", color=color, markersize=2.2, markeredgewidth=0)
        axes.set(xlabel=f"$z_{first + 1}$", ylabel=f"$z_{second + 1}$")
    figure.axes[0].set_title("8c  latent trajectories")
    directions = {"counter-clockwise": COUNTER, "clockwise": CLOCKWISE}
    style.legend(figure, [(name, {"color": color, "linewidth": 1.2}) for name, color in directions.items()])
    return figure


@style.styled
def variations(rows: Rows) -> Figure:
    """Draw paths decoded along one dimension of z0, a panel for each value."""
    rows = sorted(rows, key=itemgetter("value"))
    columns = min(5, len(rows))
    points = numpy.concatenate([numpy.array(row["path"]) for row in rows])
    low, high = points.min(0), points.max(0)
    room = 0.08 * (high - low).max()
    wide, tall = high - low + 2 * room
    height = min(2.5, (style.WIDTH - 1.1) / columns * tall / wide)
    figure, grid = style.panel_grid(len(rows), columns, height + 0.22, 0.5, sharex=True, sharey=True)
    grid[0][0].set(xlim=(low[0] - room, high[0] + room), ylim=(low[1] - room, high[1] + room))
    scale = Normalize(0, 2)
    for axes, row in zip(grid.flat, rows):
        path = numpy.array(row["path"])
        pieces = numpy.stack([path[:-1], path[1:]], 1)
        line = LineCollection(list(pieces), cmap=style.SHADES, norm=scale, linewidth=1.3, capstyle="round")
        line.set_array(numpy.linspace(0, 2, len(pieces)))
        axes.add_collection(line)
        axes.plot(*path[0], "o", color=style.SHADES(0.0), markersize=2.6, markeredgewidth=0)
        axes.set_title(f"$z_{row['dimension']}$ = {row['value']:.2f}", fontsize=6.5, pad=2)
        axes.set_aspect("equal", adjustable="box")
    for axes in grid[:, 0]:
        axes.set_ylabel("$x_2$")
    for axes in grid.flat[len(rows) - columns : len(rows)]:  # the last of each column
        axes.set_xlabel("$x_1$")
        axes.tick_params(labelbottom=True)
    bar = style.colorbar(figure, grid, ScalarMappable(scale, style.SHADES), "time, in windows", aspect=30)
    bar.set_ticks([0, 1, 2])
    return figure
