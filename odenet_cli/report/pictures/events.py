"""Draw held-out sequences of events: the rate the model infers beside the true one, the events below."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.runs import Run

INFERRED: style.Look = {"color": style.CYCLE[0], "linewidth": 1.5}
TRUE: style.Look = {"color": style.GREY, "linewidth": 1.0}


@style.styled
def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """Draw `events`, one panel a sequence."""
    count = len(arrays["rate"])
    columns = min(2, count)
    figure, grid = style.panel_grid(count, columns, 1.45, sharex=True, sharey=True)
    highest = max(arrays["rate"].max(), arrays["path"].max())
    for n, axes in enumerate(grid.flat[:count]):
        sequence = {name: array[n] for name, array in arrays.items()}
        axes.plot(sequence["grid"], sequence["rate"], **TRUE)
        axes.plot(sequence["grid"], sequence["path"], **INFERRED)
        axes.vlines(
            sequence["times"][sequence["there"]], -0.13 * highest, -0.04 * highest, color=style.DARK, linewidth=0.35
        )
        axes.set(xlim=(sequence["grid"][0], sequence["grid"][-1]), ylim=(-0.16 * highest, 1.05 * highest))
        axes.set_xlabel("time" if n >= count - columns else "")
        axes.set_ylabel("rate λ(t)" if n % columns == 0 else "")
    entries: dict[str, style.Look] = {
        "events": {"color": style.DARK, "marker": "|", "linestyle": "none", "markersize": 5},
        "inferred rate": INFERRED,
        "true rate": TRUE,
    }
    style.legend(figure, entries.items())
    return {"events": figure}
