"""Draw the training of a regression, and its predictions against the true values of the test samples."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import curves, style
from odenet_cli.report.runs import Run
from odenet_cli.scores import value_names

SHOWN = 4  # values of a sample
POINTS = 2_000


def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """Draw `training`, the learning curves and function evaluations, and `predicted` over the truth."""
    return {**curves.while_training(run), "predicted": predicted(arrays, value_names(run.record.get("data") or {}))}


@style.styled
def predicted(arrays: dict[str, Any], names: list[str]) -> Figure:
    """Draw one panel for each value of a sample, the first few; on the line prediction and truth agree."""
    target, answer = arrays["target"][:POINTS], arrays["predicted"][:POINTS]
    count = min(SHOWN, target.shape[1])
    columns = min(2, count)
    side = 0.8 * style.COLUMN
    figure, panels = style.panel_grid(count, columns, side, width=side * columns)
    for n, (axes, name) in enumerate(zip(panels.flat[:count], names)):
        y, p = target[:, n], answer[:, n]
        ends = [min(y.min(), p.min()), max(y.max(), p.max())]
        axes.plot(ends, ends, color=style.GREY, linewidth=0.8)
        axes.plot(y, p, "o", color=style.CYCLE[0], markersize=2.5, markeredgewidth=0, alpha=0.6)
        axes.set(xlabel=f"{style.plain(name)} of the test samples", ylabel="predicted")
        axes.locator_params(nbins=4)
        axes.set_aspect("equal", adjustable="datalim")
    return figure
