"""Draw what `odenet tune` measured: what accuracy costs, in time, memory and evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import scales, style

GRADIENTS = ("backprop", "replay", "adjoint", "reversible")
PANELS = (
    ("time", "ms a training step", "gradient"),
    ("memory", "MiB saved for the backward pass", "gradient"),
    ("nfe", "function evaluations, there and back", "state"),
)
ERRORS = {"gradient": "error of the gradient (%)", "state": "error of the states (%)"}


@style.styled
def draw(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]) -> Figure:
    """Draw each setting as a point of three panels, error against cost; limits are dashed lines.

    rows  as `tune.json` has them: one of them may be `own`, one `best`, and those of the `front` are filled
    """
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT))
    for axes, (cost, label, error) in zip(figure.subplots(1, len(PANELS)), PANELS):
        for row in rows:
            look = _look(row)
            axes.plot(_cost(row, cost), 100 * row[error], linestyle="", markersize=4.5, clip_on=False, **look)
            for mark, ring in (("best", "o"), ("own", "s")):
                if row.get(mark):
                    ringed = {"marker": ring, "markersize": 10, "markerfacecolor": "none", "color": style.DARK}
                    axes.plot(_cost(row, cost), 100 * row[error], linestyle="", clip_on=False, **ringed)
        if error in limits:
            axes.axhline(100 * limits[error], color=style.GREY, linestyle=style.DASHES[1], linewidth=0.8)
        if cost in limits:
            axes.axvline(limits[cost], color=style.GREY, linestyle=style.DASHES[1], linewidth=0.8)
        axes.set(xscale="log", xlabel=label, title=ERRORS[error])
        scales.log_ticks(axes.xaxis, [_cost(row, cost) for row in rows])
        scales.log_limits(axes, [100 * row[error] for row in rows])
    used = [name for name in GRADIENTS if any(row["gradient_method"] == name for row in rows)]
    handles = [style.handle(name, linestyle="", **_look({"gradient_method": name, "front": True})) for name in used]
    open_mark = {"linestyle": "", "markerfacecolor": "none", "color": style.DARK}
    rings = {"best": ("cheapest that fits", "o"), "own": ("as trained", "s")}
    shown = [ring for mark, ring in rings.items() if any(row.get(mark) for row in rows)]
    handles += [style.handle(text, marker=marker, **open_mark) for text, marker in shown]
    style.legend(figure, handles)
    return figure


def write(folder: Path, rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float], about: str) -> list[Path]:
    """Write the figure to `folder`/tune.svg and .png."""
    figure = draw(rows, limits)
    style.head(figure, f"{about}; hollow: others beat it in time, memory and error of the gradient")
    folder.mkdir(exist_ok=True)
    return style.save(figure, folder / "tune", about)


def _cost(row: Mapping[str, Any], name: str) -> float:
    return float(row["nfe_forward"] + row["nfe_backward"] if name == "nfe" else row[name])


def _look(row: Mapping[str, Any]) -> dict[str, Any]:
    place = GRADIENTS.index(row["gradient_method"])
    color = style.CYCLE[place]
    face = color if row.get("front") else "none"
    return {"color": color, "marker": style.MARKERS[place], "markerfacecolor": face}
