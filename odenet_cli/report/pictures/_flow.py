"""Draw a flow: its density and its samples on the way from noise to data, and the paths of single particles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.runs import Run

Arrays = dict[str, Any]
Target = Callable[[Axes, str], None]  # draws the target, of one of the kinds
KINDS = {"density": "density", "particles": "samples"}  # name of the arrays -> what the figures call it
DENSITY = "viridis"
SHADE: dict[str, Any] = {"cmap": "Greys", "alpha": 0.55, "interpolation": "bilinear"}
COLOR = style.CYCLE[0]
MAX_PATHS = 60


def figures(task: str, arrays: Arrays, target: Target, run: Run) -> dict[str, Figure]:
    """Draw `task`, densities and samples of one run at moments of the flow, and `paths`, single particles if any."""
    strips = {task: strip(arrays, target, str(run.network[0] or "flow"))}
    return {**strips, "paths": paths(arrays)} if "paths" in arrays else strips


@style.styled
def strip(arrays: Arrays, target: Target, name: str) -> Figure:
    """Draw a column for each moment, and the target's; a row of densities and a row of samples, where there are any."""
    kinds = [kind for kind in KINDS if kind in arrays]
    columns = len(arrays["times"]) + 1
    figure, panels = style.panel_grid(len(kinds) * columns, columns, style.WIDTH / columns, 0.22)
    style.remove_gaps(figure)
    draw_rows(dict(zip(kinds, panels)), arrays, target, name)
    title_columns(panels[0], arrays)
    return figure


def draw_rows(rows: Mapping[str, Sequence[Axes]], arrays: Arrays, target: Target, name: str) -> None:
    """Draw the flow `name` from noise to data, a row of panels for each kind, and the target in the last of a row."""
    for kind, row in rows.items():
        draw = density if kind == "density" else samples
        for axes, values in zip(row[:-1], arrays[kind]):
            frame(axes, arrays)
            draw(axes, arrays, values)
        frame(row[-1], arrays)
        target(row[-1], kind)
        row[0].set_ylabel(f"{name}: {KINDS[kind]}")


def title_columns(row: Sequence[Axes], arrays: Arrays) -> None:
    """Write the moment above each column."""
    for place, (axes, time) in enumerate(zip(row, arrays["times"])):
        axes.set_title(f"{100 * time:.0f} %" + " of the way" * (not place), loc="center")
    row[-1].set_title("target", loc="center", fontweight="bold")


@style.styled
def paths(arrays: Arrays) -> Figure:
    """Draw where single particles go from noise (open circles) to data (dots), over the density at the end."""
    points = arrays["paths"][:, :MAX_PATHS]  # (moments, particles, 2)
    figure = Figure(figsize=(2.6, 2.6))
    axes = figure.subplots()
    frame(axes, arrays)
    low, high = np.quantile(points.reshape(-1, 2), (0.01, 0.99), axis=0)  # layers may lead far out of the frame
    left, right, bottom, top = extent(arrays)
    axes.set(xlim=(min(left, low[0]), max(right, high[0])), ylim=(min(bottom, low[1]), max(top, high[1])))
    if "density" in arrays:
        axes.imshow(arrays["density"][-1], origin="lower", extent=extent(arrays), **SHADE)
    axes.add_collection(LineCollection(list(points.transpose(1, 0, 2)), colors=COLOR, linewidths=0.5, alpha=0.75))
    (x0, y0), (x1, y1) = points[0].T, points[-1].T
    axes.scatter(x0, y0, s=6, facecolors="none", edgecolors=style.GREY, linewidths=0.6, zorder=3)
    axes.scatter(x1, y1, s=6, color=style.CYCLE[1], linewidths=0, zorder=4)
    axes.set_title("particles from noise (rings) to data (dots)", loc="center")
    return figure


def frame(axes: Axes, arrays: Arrays) -> None:
    """Make a square panel of the grid's extent, without numbers."""
    left, right, bottom, top = extent(arrays)
    axes.spines[:].set_visible(True)
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
    axes.grid(False)


def density(axes: Axes, arrays: Arrays, values: Any, top: float | None = None) -> None:
    """Draw a density on the grid, dark where it is 0; the scale ends at `top`, or is the panel's own."""
    if top is None:  # a single spike must not darken the rest: a thousandth of the panel lies above
        top = float(np.quantile(values, 0.999)) or 1.0
    look: dict[str, Any] = {"cmap": DENSITY, "vmin": 0, "vmax": top, "interpolation": "bilinear"}
    axes.imshow(values, origin="lower", extent=extent(arrays), **look)


def samples(axes: Axes, arrays: Arrays, points: Any) -> None:
    """Draw points as small dots."""
    axes.scatter(points[:, 0], points[:, 1], s=1.2, color=COLOR, alpha=0.5, linewidths=0, rasterized=True)


def extent(arrays: Arrays) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of the grid."""
    x, y = arrays["x"], arrays["y"]
    return x[0], x[-1], y[0], y[-1]
