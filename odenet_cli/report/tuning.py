"""Draw the results of `odenet tune`: accuracy against time, memory and function evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.config.presets import options
from odenet_cli.report import scales, style

PANELS = (
    ("time", "ms a training step", "gradient"),
    ("memory", "MiB saved for the backward pass", "gradient"),
    ("nfe", "function evaluations, there and back", "state"),
)
RING: style.Look = {"linestyle": "", "markerfacecolor": "none", "color": style.DARK}
RINGS = (("best", "o", "cheapest that fits"), ("own", "s", "as trained"))
ERRORS = {"gradient": "error of the gradient (%)", "state": "error of the states (%)"}


@style.styled
def draw(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> Figure:
    """Draw each setting as a point of three panels, error against cost; limits are dashed lines.

    rows  as `tune.json` has them: one of them may be `own`, one `best`, and those of the `front` are filled
    """
    figure, panels = style.panel_grid(len(PANELS), len(PANELS), style.HEIGHT)
    for axes, (cost, label, error) in zip(panels[0], PANELS):
        for row in rows:
            at = _cost(row, cost), 100 * row[error]
            axes.plot(*at, markersize=4.5, clip_on=False, **_look(row))
            for mark, ring, _ in RINGS:
                if row.get(mark):
                    axes.plot(*at, marker=ring, markersize=10, clip_on=False, **RING)
        if error in limits:
            axes.axhline(100 * limits[error], color=style.GREY, linestyle=style.DASHES[1], linewidth=0.8)
        if cost in limits:
            axes.axvline(limits[cost], color=style.GREY, linestyle=style.DASHES[1], linewidth=0.8)
        axes.set(xscale="log", xlabel=label, title=ERRORS[error])
        scales.log_ticks(axes.xaxis, [_cost(row, cost) for row in rows])
        scales.log_limits(axes, [100 * row[error] for row in rows])
    used = [name for name in options("gradient") if any(row["gradient_method"] == name for row in rows)]
    entries = [(name, _look({"gradient_method": name, "front": True})) for name in used]
    entries += [(text, RING | {"marker": ring}) for mark, ring, text in RINGS if any(row.get(mark) for row in rows)]
    style.legend(figure, entries)
    return figure


def write(folder: Path, rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float], about: str) -> list[Path]:
    figure = draw(rows, limits)
    style.head(figure, f"{about}; hollow: others beat it in time, memory and error of the gradient")
    folder.mkdir(exist_ok=True)
    return style.save(figure, folder / "tune", about)


def _cost(row: Mapping[str, Any], name: str) -> float:
    return float(row["nfe_forward"] + row["nfe_backward"] if name == "nfe" else row[name])


def _look(row: Mapping[str, Any]) -> style.Look:
    place = options("gradient").index(row["gradient_method"]) % len(style.CYCLE)
    color = style.CYCLE[place]
    face = color if row.get("front") else "none"
    return {"color": color, "linestyle": "", "marker": style.MARKERS[place], "markerfacecolor": face}
