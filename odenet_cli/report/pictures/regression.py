"""Draw the training of a regression, and its predictions against the true values of the test samples."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import curves, style
from odenet_cli.report.runs import Run

SHOWN = 4  # values of a sample
POINTS = 2_000


def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """Draw `training`, the learning curves and function evaluations, and `predicted` over the truth."""
    return {**curves.while_training(run), "predicted": predicted(arrays)}


@style.styled
def predicted(arrays: dict[str, Any]) -> Figure:
    """Draw one panel for each value of a sample, the first few; on the line prediction and truth agree."""
    target, answer = arrays["target"][:POINTS], arrays["predicted"][:POINTS]
    count = min(SHOWN, target.shape[1])
    columns = min(2, count)
    side = 0.8 * style.COLUMN
    figure, panels = style.panel_grid(count, columns, side, width=side * columns)
    for n, axes in enumerate(panels.flat[:count]):
        y, p = target[:, n], answer[:, n]
        ends = [min(y.min(), p.min()), max(y.max(), p.max())]
        axes.plot(ends, ends, color=style.GREY, linewidth=0.8)
        axes.plot(y, p, "o", color=style.CYCLE[0], markersize=2.5, markeredgewidth=0, alpha=0.6)
        name = f"y {n + 1}" if target.shape[1] > 1 else "y"
        axes.set(xlabel=f"{name} of the test samples", ylabel="predicted")
        axes.set_aspect("equal", adjustable="datalim")
    return figure
