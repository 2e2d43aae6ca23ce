"""Draw a flow that matches a density: its way from noise, beside the target."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.pictures import _flow
from odenet_cli.report.runs import Run


def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """Draw `density`, densities and samples at moments of the flow, and `paths`, single particles."""

    def target(axes: Axes, kind: str) -> None:
        if kind == "density":
            _flow.density(axes, arrays, arrays["target"])
        else:  # it has no samples: its outline shows where they belong
            axes.contour(arrays["x"], arrays["y"], arrays["target"], levels=4, colors=style.GREY, linewidths=0.6)

    return _flow.figures("density", arrays, target, run)
