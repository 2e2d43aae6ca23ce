"""A flow in pictures: its density and its samples on the way from noise to data, and the paths of single particles."""

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
Target = Callable[[Axes, str], None]  # draws what is aimed at, of one of the kinds
KINDS = {"density": "density", "particles": "samples"}  # what the arrays call it, and the figures
DENSITY = "viridis"
SHADE: dict[str, Any] = {"cmap": "Greys", "alpha": 0.55, "interpolation": "bilinear"}
INK = style.CYCLE[0]
SHOWN = 60  # particles whose paths are drawn


def figures(task: str, arrays: Arrays, target: Target, run: Run) -> dict[str, Figure]:
    """Of one run: `task`, its densities and samples at moments of the flow; `paths`, single particles if there are."""
    drawn = {task: strip(arrays, target, str(run.model[0] or "flow"))}
    return {**drawn, "paths": paths(arrays)} if "paths" in arrays else drawn


@style.styled
def strip(arrays: Arrays, target: Target, name: str) -> Figure:
    """A column for each moment, and the target's; a row of densities and a row of samples, where there are any."""
    kinds = [kind for kind in KINDS if kind in arrays]
    columns = len(arrays["times"]) + 1
    figure = Figure(figsize=(style.WIDTH, style.WIDTH / columns * len(kinds) + 0.22))
    panels = figure.subplots(len(kinds), columns, squeeze=False)
    style.packed(figure)
    way(dict(zip(kinds, panels)), arrays, target, name)
    moments(panels[0], arrays)
    return figure


def way(rows: Mapping[str, Sequence[Axes]], arrays: Arrays, target: Target, name: str) -> None:
    """The flow `name` from noise to data, a row of panels for each kind; into the last of a row goes the target."""
    for kind, row in rows.items():
        show = density if kind == "density" else samples
        for axes, values in zip(row[:-1], arrays[kind]):
            framed(axes, arrays)
            show(axes, arrays, values)
        framed(row[-1], arrays)
        target(row[-1], kind)
        row[0].set_ylabel(f"{name}: {KINDS[kind]}")


def moments(row: Sequence[Axes], arrays: Arrays) -> None:
    """The titles of the columns."""
    for place, (axes, time) in enumerate(zip(row, arrays["times"])):
        axes.set_title(f"{100 * time:.0f} %" + " of the way" * (not place), loc="center")
    row[-1].set_title("target", loc="center", fontweight="bold")


@style.styled
def paths(arrays: Arrays) -> Figure:
    """Where single particles go from noise (open circles) to data (dots), over the density at the end."""
    ways = arrays["paths"][:, :SHOWN]
    figure = Figure(figsize=(2.6, 2.6))
    axes = figure.subplots()
    framed(axes, arrays)
    reached = np.quantile(ways.reshape(-1, 2), (0.01, 0.99), axis=0)  # layers may lead far out of the frame, and back
    axes.set_xlim(*_widened(axes.get_xlim(), reached[:, 0]))
    axes.set_ylim(*_widened(axes.get_ylim(), reached[:, 1]))
    if "density" in arrays:
        axes.imshow(arrays["density"][-1], origin="lower", extent=extent(arrays), **SHADE)
    lines = LineCollection(list(ways.transpose(1, 0, 2)), colors=INK, linewidths=0.5, alpha=0.75)
    axes.add_collection(lines)
    axes.scatter(ways[0][:, 0], ways[0][:, 1], s=6, facecolors="none", edgecolors=style.GREY, linewidths=0.6, zorder=3)
    axes.scatter(ways[-1][:, 0], ways[-1][:, 1], s=6, color=style.CYCLE[1], linewidths=0, zorder=4)
    axes.set_title("particles from noise (rings) to data (dots)", loc="center")
    return figure


def _widened(limits: tuple[float, float], reached: Any) -> tuple[float, float]:
    return min(limits[0], float(reached[0])), max(limits[1], float(reached[1]))


def framed(axes: Axes, arrays: Arrays) -> None:
    """A square panel of the grid's frame, without numbers."""
    left, right, bottom, top = extent(arrays)
    axes.spines[:].set_visible(True)
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
    axes.grid(False)


def density(axes: Axes, arrays: Arrays, values: Any, top: float | None = None) -> None:
    """A density on the grid, dark where there is none; the scale ends at `top`, or is the panel's own."""
    if top is None:  # one spike must not blacken the rest: a thousandth of the panel lies above
        top = float(np.quantile(values, 0.999)) or 1.0
    look: dict[str, Any] = {"cmap": DENSITY, "vmin": 0, "vmax": top, "interpolation": "bilinear"}
    axes.imshow(values, origin="lower", extent=extent(arrays), **look)


def samples(axes: Axes, arrays: Arrays, points: Any) -> None:
    """Points as small dots."""
    axes.scatter(points[:, 0], points[:, 1], s=1.2, color=INK, alpha=0.5, linewidths=0, rasterized=True)


def extent(arrays: Arrays) -> tuple[float, float, float, float]:
    """The frame of the grid: left, right, bottom, top."""
    x, y = arrays["x"], arrays["y"]
    return x[0], x[-1], y[0], y[-1]
