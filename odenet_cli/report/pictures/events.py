"""Held-out sequences of events: the rate the model infers beside the true one, the events below."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odenet_cli.report import style
from odenet_cli.report.runs import Run


@style.styled
def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """`events`: one panel a sequence."""
    count = len(arrays["rate"])
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(style.WIDTH, 1.45 * rows))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    highest = max(arrays["rate"].max(), arrays["path"].max())
    for n, axes in enumerate(grid.flat):
        if n >= count:
            axes.set_axis_off()
            continue
        one = {name: array[n] for name, array in arrays.items()}
        axes.plot(one["grid"], one["rate"], color=style.GREY, linewidth=1.0)
        axes.plot(one["grid"], one["path"], color=style.CYCLE[0], linewidth=1.5)
        axes.vlines(one["times"][one["there"]], -0.13 * highest, -0.04 * highest, color="#222222", linewidth=0.35)
        axes.set_ylim(-0.16 * highest, 1.05 * highest)
        axes.set_xlim(one["grid"][0], one["grid"][-1])
        axes.set_xlabel("time" if n >= count - columns else "")
        axes.set_ylabel("rate λ(t)" if n % columns == 0 else "")
    style.legend(
        figure,
        [
            Line2D([], [], color="#222222", marker="|", linestyle="none", markersize=5, label="events"),
            Line2D([], [], color=style.CYCLE[0], linewidth=1.5, label="inferred rate"),
            Line2D([], [], color=style.GREY, linewidth=1.0, label="true rate"),
        ],
    )
    return {"events": figure}
