"""A flow fitted to points: its way from noise, beside the points."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.report.pictures import _flow


def draw(arrays: dict[str, Any], run: Any) -> dict[str, Figure]:
    """`likelihood`: densities and samples at moments of the flow; `paths`: single particles."""
    points, x, y = arrays["target_samples"], arrays["x"], arrays["y"]

    def target(axes: Axes, row: int) -> None:
        if row == 0 and "target" in arrays:
            _flow.density(axes, arrays, arrays["target"])
        elif row == 0:
            counts, *_ = np.histogram2d(points[:, 0], points[:, 1], bins=60, range=[(x[0], x[-1]), (y[0], y[-1])])
            _flow.density(axes, arrays, counts.T)
        else:
            _flow.samples(axes, arrays, points)

    figures = {"likelihood": _flow.strip(arrays, target, _flow.titled(run))}
    return {**figures, "paths": _flow.paths(arrays)} if "paths" in arrays else figures
