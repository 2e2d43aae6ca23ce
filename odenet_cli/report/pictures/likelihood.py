"""Draw a flow fitted to points: its way from noise, beside the points."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.report.pictures import _flow, _points
from odenet_cli.report.runs import Run


def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """Draw `likelihood`, densities and samples at moments of the flow, and `paths`, single particles, in the plane; of
    a user's points `points`, beside samples."""
    figures = _flow.figures("likelihood", arrays, target(arrays), run) if "x" in arrays else {}
    if "points" in arrays:
        figures["points"] = _points.points(arrays, (run.record.get("data") or {})["columns"])
    return figures


def target(arrays: dict[str, Any]) -> _flow.Target:
    """Return what draws the points, and their density: the true one if it is known, or a histogram."""
    points, x, y = arrays["target_samples"], arrays["x"], arrays["y"]

    def draw_target(axes: Axes, kind: str) -> None:
        if kind != "density":
            _flow.samples(axes, arrays, points)
        elif "target" in arrays:
            _flow.density(axes, arrays, arrays["target"])
        else:
            counts, *_ = np.histogram2d(points[:, 0], points[:, 1], bins=60, range=[(x[0], x[-1]), (y[0], y[-1])])
            _flow.density(axes, arrays, counts.T)

    return draw_target
