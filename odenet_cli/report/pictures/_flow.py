"""A flow in pictures: its density and its samples on the way from noise to data, and the paths of single particles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from odenet_cli.report import style

Arrays = dict[str, Any]
DENSITY = "viridis"
SHADE: dict[str, Any] = {"cmap": "Greys", "alpha": 0.55, "interpolation": "bilinear"}
INK = style.CYCLE[0]
SHOWN = 60  # particles whose paths are drawn


@style.styled
def strip(arrays: Arrays, target: Callable[[Axes, int], None], name: str) -> Figure:
    """A column for each moment, and the target's; a row of densities and a row of samples, where there are any.

    target  draws what is aimed at into the last panel of row 0 (density) or 1 (samples)
    """
    rows = [kind for kind in ("density", "particles") if kind in arrays]
    times = arrays["times"]
    side = style.WIDTH / (len(times) + 1)
    figure = Figure(figsize=(style.WIDTH, side * len(rows) + 0.22))
    panels = figure.subplots(len(rows), len(times) + 1, squeeze=False)
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    for row, kind in enumerate(rows):
        for column, time in enumerate(times):
            axes = panels[row][column]
            framed(axes, arrays)
            if kind == "density":
                density(axes, arrays, arrays["density"][column])
            else:
                samples(axes, arrays, arrays["particles"][column])
            if row == 0:
                axes.set_title(moment(time, first=column == 0), loc="center")
        framed(panels[row][-1], arrays)
        target(panels[row][-1], 0 if kind == "density" else 1)
        panels[row][0].set_ylabel(f"{name}: {'density' if kind == 'density' else 'samples'}")
    panels[0][-1].set_title("target", loc="center", fontweight="bold")
    return figure


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
        x, y = arrays["x"], arrays["y"]
        axes.imshow(arrays["density"][-1], origin="lower", extent=(x[0], x[-1], y[0], y[-1]), **SHADE)
    lines = LineCollection(list(ways.transpose(1, 0, 2)), colors=INK, linewidths=0.5, alpha=0.75)
    axes.add_collection(lines)
    axes.scatter(ways[0][:, 0], ways[0][:, 1], s=6, facecolors="none", edgecolors=style.GREY, linewidths=0.6, zorder=3)
    axes.scatter(ways[-1][:, 0], ways[-1][:, 1], s=6, color=style.CYCLE[1], linewidths=0, zorder=4)
    axes.set_title("particles from noise (rings) to data (dots)", loc="center")
    return figure


def moment(time: float, first: bool) -> str:
    """The title of a column."""
    return f"{100 * time:.0f} %" + " of the way" * first


def _widened(limits: tuple[float, float], reached: Any) -> tuple[float, float]:
    return min(limits[0], float(reached[0])), max(limits[1], float(reached[1]))


def framed(axes: Axes, arrays: Arrays) -> None:
    """A square panel of the grid's frame, without numbers."""
    x, y = arrays["x"], arrays["y"]
    axes.spines[:].set_visible(True)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xticks=[], yticks=[], aspect="equal")
    axes.grid(False)


def density(axes: Axes, arrays: Arrays, values: Any, top: float | None = None) -> None:
    """A density on the grid, dark where there is none; the scale ends at `top`, or is the panel's own."""
    x, y = arrays["x"], arrays["y"]
    if top is None:  # one spike must not blacken the rest: a thousandth of the panel lies above
        top = float(np.quantile(values, 0.999)) or 1.0
    extent = (x[0], x[-1], y[0], y[-1])
    axes.imshow(values, origin="lower", extent=extent, cmap=DENSITY, vmin=0, vmax=top, interpolation="bilinear")


def samples(axes: Axes, arrays: Arrays, points: Any) -> None:
    """Points as small dots."""
    axes.scatter(points[:, 0], points[:, 1], s=1.2, color=INK, alpha=0.5, linewidths=0, rasterized=True)


def titled(run: Any) -> str:
    """The name of the run's model."""
    return str(run.model[0] or "flow")
