"""A flow that matches a density: its way from noise, beside the target."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.pictures import _flow


def draw(arrays: dict[str, Any], run: Any) -> dict[str, Figure]:
    """`density`: densities and samples at moments of the flow; `paths`: single particles."""

    def target(axes: Axes, row: int) -> None:
        if row == 0:
            _flow.density(axes, arrays, arrays["target"])
        else:  # there are no samples of it: its outline says where they belong
            axes.contour(arrays["x"], arrays["y"], arrays["target"], levels=4, colors=style.GREY, linewidths=0.6)

    figures = {"density": _flow.strip(arrays, target, _flow.titled(run))}
    return {**figures, "paths": _flow.paths(arrays)} if "paths" in arrays else figures
