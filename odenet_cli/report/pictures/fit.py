"""Draw a least-squares fit: the observations, the path through them, and the band of 90 % of observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.runs import Run

PATH, HELD, OBSERVED = style.CYCLE[0], style.CYCLE[1], style.DARK
MAX_PANELS = 24


@style.styled
def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """Draw `fit`: a row of panels a column of the table, a panel a series."""
    data = run.record.get("data") or {}
    names, series = ([*map(style.plain, data.get(key) or ())] for key in ("columns", "series"))
    names, drawn = names[1:], arrays.get("series", range(len(series)))  # older runs show the first of the record
    count, columns = len(arrays["times"]), arrays["values"].shape[2]
    shown = min(count, max(1, MAX_PANELS // columns))
    across = shown if shown > 1 else min(columns, 3)
    figure, grid = style.panel_grid(shown * columns, across, 1.5)
    low, middle, high = arrays["band"]
    fine, times = (on_calendar(arrays[name], data) for name in ("fine", "times"))
    for n, axes in enumerate(grid.flat[: shown * columns]):
        c, s = divmod(n, shown)
        axes.fill_between(fine[s], low[s, :, c], high[s, :, c], color=style.tint(PATH, 0.25), linewidth=0)
        axes.plot(fine[s], middle[s, :, c], color=PATH, linewidth=1.3)
        for held, look in ((False, {"color": OBSERVED}), (True, {"color": HELD})):
            points = arrays["held_out"][s] == held
            axes.plot(times[s][points], arrays["values"][s, points, c], "o", markersize=2.2, **look)
        if data.get("dates") == "date":
            dates = ConciseDateFormatter(axes.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
            axes.xaxis.set_major_formatter(dates)
        else:
            axes.locator_params(axis="x", nbins=4)
        axes.set_ylabel(names[1 + c] if s == 0 and len(names) > 1 + c else "")
        axes.set_xlabel(names[0] if n >= shown * columns - across and names else "")
        if shown > 1 and c == 0 and drawn[s] < len(series):
            axes.set_title(series[drawn[s]], fontsize=6)
    if shown < len(series):
        style.head(figure, f"the first {shown} of {len(series):,} series")
    entries = {
        "observed": {"color": OBSERVED, **style.DOT},
        "fitted": {"color": PATH, "linewidth": 1.3},
        "90 % of observations": {"color": style.tint(PATH, 0.25), "linewidth": 5},
    }
    if arrays["held_out"].any():
        entries["held out"] = {"color": HELD, **style.DOT}
    style.legend(figure, entries.items())
    return {"fit": figure}


def on_calendar(times: Any, data: Mapping[str, Any]) -> Any:
    """Return times as dates where those of the table are, else as they are."""
    if data.get("dates") != "date":
        return times
    return (times * data["time_unit"] * 1e6).round().astype("datetime64[us]")
