"""What figure 3 shows: what was measured at each tolerance, in five panels."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from odenet_cli.report import scales, style
from odenet_cli.report.regression import straight
from odenet_cli.report.runs import Run, number

MARKS = {  # of the settings of panel c
    "dopri5, relative norm": "o",  # ours
    "dopri5, absolute norm": "s",  # the paper's
    "Adams, relative norm": "^",
    "Adams, absolute norm": "D",
}
DASH = dict(zip(MARKS, style.DASHES))
BESIDE: dict[str, Any] = {  # what stands behind the end of a line
    **{"color": style.GREY, "fontsize": 6, "ha": "left", "va": "center"},
    **{"textcoords": "offset points", "annotation_clip": False},
}
RATE = "slope of log error of z(1) against log tolerance"

Rows = Sequence[dict[str, Any]]
Shade = Callable[[float], Any]  # the colour of a tolerance


class Gradient(NamedTuple):
    """What a gradient cost in evaluations, and its relative error; means over batches."""

    forward: float
    backward: float
    error: float


def gradients(rows: Rows) -> dict[tuple[str, float], Gradient]:
    """By setting and tolerance; without those that could not be had."""
    parts = [means(rows, name, "setting", "rtol") for name in ("nfe_forward", "nfe_backward", "error")]
    return {key: Gradient(*(part[key] for part in parts)) for key in parts[-1]}


def means(rows: Rows, name: str, *keys: str) -> dict[Any, float]:
    """The mean of one number over batches, by the other keys."""
    groups: dict[Any, list[float]] = {}
    for row in rows:
        if (value := number(row.get(name))) is not None:
            groups.setdefault(itemgetter(*keys)(row), []).append(value)
    return {key: statistics.fmean(values) for key, values in groups.items()}


@style.styled
def draw(kinds: Mapping[str, Rows], run: Run, facts: dict[str, float | None]) -> Figure:
    """Five panels; colour is the tolerance wherever there is one."""
    figure = Figure(figsize=(style.WIDTH, 2 * style.HEIGHT + 0.75))
    panels = figure.subplot_mosaic("aaabbb\nccddee")
    tolerances = [row["rtol"] for row in kinds["solve"]]
    scale = LogNorm(min(tolerances), max(tolerances))

    def shade(tolerance: float) -> Any:
        return style.SHADES(1 - scale(tolerance))  # the tighter the brighter

    error_panel(panels["a"], kinds["solve"], shade, facts)
    time_panel(panels["b"], kinds["time"], shade, facts)
    nfe_panel(panels["c"], kinds["gradient"], shade)
    gradient_panel(panels["d"], kinds["gradient"], shade)
    training_panel(panels["e"], run)
    shades = ScalarMappable(scale, style.SHADES.reversed())
    bar = style.colorbar(figure, [panels["a"], panels["b"]], shades, "tolerance", aspect=24)
    bar.ax.minorticks_off()
    handles = [
        style.handle(setting.removesuffix(" norm"), color=style.GREY, marker=mark, linestyle=DASH[setting])
        for setting, mark in MARKS.items()
    ]
    style.legend(figure, handles, "c: solver, and error norm of the adjoint")
    return figure


def error_panel(axes: Axes, rows: Rows, shade: Shade, facts: dict[str, float | None]) -> None:
    for row in rows:
        axes.plot(row["nfe"], row["error"], "o", color=shade(row["rtol"]), markersize=3.2)
    axes.set(xscale="log", yscale="log", xlabel="NFE forward", ylabel="relative error of z(1)")
    axes.xaxis.set_minor_formatter(NullFormatter())
    rate = facts[RATE]
    axes.set_title(f"a   error ∝ tolerance$^{{{rate:.2f}}}$" if rate else "a")


def time_panel(axes: Axes, rows: Rows, shade: Shade, facts: dict[str, float | None]) -> None:
    longest = max(row["time_s"] for row in rows)
    for row in rows:
        axes.plot(row["nfe"], row["time_s"] / longest, "o", color=shade(row["rtol"]), markersize=3.2, zorder=3)
    line = straight([(row["nfe"], row["time_s"] / longest) for row in rows])
    if line:
        ends = [0, max(row["nfe"] for row in rows)]
        axes.plot(ends, [line.at(x) for x in ends], color=style.GREY, linewidth=0.8)
        axes.set_title(f"b   R² = {line.r2:.4f}")
    axes.set(xlabel="NFE forward", ylabel="relative time", xlim=(0, None), ylim=(0, None))


def nfe_panel(axes: Axes, rows: Rows, shade: Shade) -> None:
    for row in rows:
        if "failed" not in row:
            at = (row["nfe_forward"], row["nfe_backward"])
            axes.plot(*at, MARKS[row["setting"]], color=shade(row["rtol"]), markersize=3.2, zorder=3)
    forward = [row["nfe_forward"] for row in rows if "failed" not in row]
    span = [min(forward), max(forward)]
    for part, dash, drop in ((1, "-", 0), (2, style.DASHES[2], -1)):
        ends = [x / part for x in span]
        axes.plot(span, ends, color=style.GREY, linewidth=0.8, linestyle=dash)
        axes.annotate(f"1 : {part}", (span[1], ends[1]), xytext=(2, drop), **BESIDE)
    axes.set(xscale="log", yscale="log", xlabel="NFE forward", ylabel="NFE backward", title="c")
    axes.xaxis.set_minor_formatter(NullFormatter())


def gradient_panel(axes: Axes, rows: Rows, shade: Shade) -> None:
    measured = gradients(rows)
    for setting, mark in MARKS.items():
        tolerances = sorted({tol for one, tol in measured if one == setting}, reverse=True)
        mine = [measured[setting, tol] for tol in tolerances]
        points = [(one.forward + one.backward, 100 * one.error) for one in mine]
        if points:
            axes.plot(*zip(*points), color=style.PALE, linewidth=0.8, linestyle=DASH[setting])
        for tol, at in zip(tolerances, points):
            axes.plot(*at, mark, color=shade(tol), markersize=3.2, zorder=3)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="NFE forward + backward",
        ylabel="gradient error (%)",
        title="c   error of the gradient",
    )


def training_panel(axes: Axes, run: Run) -> None:
    per_epoch = run.per_epoch or 1
    records = run.of("train")
    epochs = [record["step"] / per_epoch for record in records]
    for way, dash in {"forward": "-", "backward": style.DASHES[2]}.items():
        nfe = [record[f"nfe_{way}"] for record in records]
        axes.plot(epochs, nfe, color=style.CYCLE[6], linewidth=1, linestyle=dash, label=way)
    axes.set(xlabel="epoch", ylabel="NFE of a training step", title="d", xlim=(0, None), ylim=(0, None))
    scales.counted(axes.xaxis)
    axes.legend(loc="lower right")
