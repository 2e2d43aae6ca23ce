"""Figures 8 to 10 of Chen et al. 2018: spirals reconstructed and extrapolated, and the latent space behind them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from odenet_cli.report import style
from odenet_cli.report._rates import Choice, chosen
from odenet_cli.report._table2 import ODE, setting
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.table import aligned
from odenet_cli.report.table2 import points, valid
from odenet_cli.report.words import NONE

Rows = Sequence[dict[str, Any]]
INSIDE, AFTER, SEEN = style.CYCLE[0], style.CYCLE[1], "#222222"
CLOCKWISE, COUNTER = style.CYCLE[1], style.CYCLE[2]
PATHS = (
    "Figure 8, a and b: test trajectories of which {fewest} of 100 points were observed; reconstruction inside the "
    "window and extrapolation after it, the true path in grey. Above each its RMSE after the window against the true "
    "path. A path that leaves the frame is cut. "
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


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`entries` are networks of table 2 with what was measured on them; those at the chosen settings are drawn."""
    cells: dict[tuple[str, int], list[Entry]] = {}
    for entry in entries:
        if entry.run.done and entry.measured:
            cells.setdefault((entry.row, points(entry.run)), []).append(entry)
    choices = {key: choice for key, mine in cells.items() if (choice := chosen(mine, valid, setting))}
    drawn = {key: choice.entries[0] for key, choice in choices.items()}
    title = "Figures 8 to 10, spirals reconstructed, extrapolated and varied"
    if not drawn:
        return Result(title=title, body=["Nothing could be measured: no network is trained."], rows=[])

    fewest = min(size for _, size in drawn)
    few = {row: of(entry, "path") for (row, size), entry in drawn.items() if size == fewest}
    many = {size: of(entry, "path") for (row, size), entry in sorted(drawn.items()) if row == ODE}
    ours = drawn.get((ODE, fewest))
    latent, varied = (of(ours, kind) if ours else [] for kind in ("latent", "varied"))
    dimension = turning(varied)
    figures: dict[str, Figure | None] = {
        "spirals": compared(few, letters(few)) if few else None,
        "latent": latents(latent) if latent else None,
        "varied": variations([row for row in varied if row["dimension"] == dimension]) if varied else None,
        "points": compared({f"{size} points": rows for size, rows in many.items()}) if many else None,
    }
    body = ["![spirals]", PATHS.format(fewest=fewest), "![latent]", LATENT.format(count=len(latent)), "![varied]"]
    body += [VARIED.format(dimension=dimension), "![points]", POINTS, table(drawn, choices)]
    body += ["\n".join(f"- {line}" for line in rest["notes"])]
    names = ("series", "turns", "rmse_window_clean", "rmse_further_clean")
    rows = [
        {**row_of(entry, ()), "observed": size, **{name: one[name] for name in names}}
        for (_, size), entry in drawn.items()
        for one in of(entry, "path")
    ]
    return Result(title=title, body=body, rows=rows, figures=figures, facts=facts(few, varied, dimension))


def of(entry: Entry, kind: str) -> list[dict[str, Any]]:
    return [row for row in entry.measured if row["kind"] == kind]


def letters(rows: Mapping[str, Rows]) -> dict[str, str]:
    """The paper's panels; it has none for other models."""
    return {name: {ODE: "8a  ", "RNN": "8b  "}.get(name, "") for name in rows}


def turning(varied: Rows) -> int | None:
    """The dimension that changes the direction of turning most."""
    spans: dict[int, list[float]] = {}
    for row in varied:
        spans.setdefault(row["dimension"], []).append(row["turns"])
    # Both directions are to be well on their side: what counts is how far the lesser of them is.
    return max(spans, key=lambda one: (min(max(spans[one]), -min(spans[one])), max(spans[one])), default=None)


def facts(few: Mapping[str, Rows], varied: Rows, dimension: int | None) -> dict[str, float | None]:
    errors = {row: statistics.fmean(one["rmse_further_clean"] for one in rows) for row, rows in few.items() if rows}
    ours, theirs = errors.get(ODE), errors.get("RNN")
    turned = [row["turns"] for row in varied if row["dimension"] == dimension]
    return {
        "trajectories drawn": float(max(map(len, few.values()), default=0)),
        "mean error of the trajectories drawn, latent ODE over RNN": ours / theirs if ours and theirs else None,
        "spirals turn from one direction to the other along the varied dimension (1: yes)": float(
            min(turned) < -0.5 and max(turned) > 0.5
        )
        if turned
        else None,
    }


def table(drawn: Mapping[tuple[str, int], Entry], choices: Mapping[tuple[str, int], Choice]) -> str:
    """The errors of what is drawn."""
    rows = []
    for (row, size), entry in drawn.items():
        errors = [f"{one['rmse_further_clean']:.3f}" for one in of(entry, "path")]
        mean = statistics.fmean(one["rmse_further_clean"] for one in of(entry, "path")) if errors else None
        rows.append([row, str(size), *errors, f"{mean:.3f}" if mean else NONE, choices[row, size].setting])
    count = max(len(row) for row in rows) - 4
    head = ["RMSE after the window", "points", *(f"trajectory {n + 1}" for n in range(count)), "mean", "setting"]
    return aligned(head, [row for row in rows if len(row) == len(head)], left=1)


@style.styled
def compared(rows: Mapping[str, Rows], letter: Mapping[str, str] | None = None) -> Figure:
    """A row of panels for each name, a column for each trajectory; all to one scale."""
    columns = max(len(mine) for mine in rows.values())
    figure = Figure(figsize=(style.WIDTH, (style.WIDTH / columns + 0.02) * len(rows)))
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex="col", sharey="col")
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
    style.legend(
        figure,
        [
            Line2D([], [], color=SEEN, marker="o", linestyle="", markersize=3, markeredgewidth=0, label="observed"),
            Line2D([], [], color=INSIDE, linewidth=1.4, label="reconstruction"),
            Line2D([], [], color=AFTER, linewidth=1.4, label="extrapolation"),
            Line2D([], [], color=style.GREY, linewidth=0.8, label="truth"),
        ],
    )
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
    style.legend(
        figure,
        [
            Line2D([], [], color=COUNTER, linewidth=1.2, label="counter-clockwise"),
            Line2D([], [], color=CLOCKWISE, linewidth=1.2, label="clockwise"),
        ],
    )
    return figure


@style.styled
def variations(rows: Rows) -> Figure:
    """Paths decoded along one dimension of z0, a panel for each value."""
    order: Callable[[dict[str, Any]], float] = lambda row: row["value"]  # noqa: E731
    shown = sorted(rows, key=order)
    columns = min(5, len(shown))
    lines = -(-len(shown) // columns)
    every = numpy.concatenate([numpy.array(row["path"]) for row in shown])
    low, high = every.min(0), every.max(0)
    room = 0.08 * (high - low).max()
    wide, tall = high - low + 2 * room
    height = min(2.5, (style.WIDTH - 1.1) / columns * tall / wide)
    figure = Figure(figsize=(style.WIDTH, lines * (height + 0.22) + 0.5))
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
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
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("$x_2$")
    for column in range(columns):
        last = max(line for line in range(lines) if line * columns + column < len(shown))
        grid[last][column].set_xlabel("$x_1$")
        grid[last][column].tick_params(labelbottom=True)
    bar = figure.colorbar(ScalarMappable(scale, style.SHADES), ax=grid, aspect=30)
    bar.set_ticks([0, 1, 2])
    bar.set_label("time, in windows")
    bar.outline.set_linewidth(0.5)
    return figure
