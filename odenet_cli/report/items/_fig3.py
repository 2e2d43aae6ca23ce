"""What figure 3 shows: what was measured at each tolerance, in five panels; a to d are the paper's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from odenet_cli.report import scales, style
from odenet_cli.report.regression import straight
from odenet_cli.report.runs import Run, number

MARKS: dict[str, style.Look] = {  # of the settings of panels c and e
    "dopri5, relative norm": {"color": style.CYCLE[0], "marker": "o", "linestyle": style.DASHES[0]},  # ours
    "dopri5, absolute norm": {"color": style.CYCLE[1], "marker": "s", "linestyle": style.DASHES[1]},  # the paper's
    "Adams, relative norm": {"color": style.CYCLE[2], "marker": "^", "linestyle": style.DASHES[2]},
    "Adams, absolute norm": {"color": style.CYCLE[3], "marker": "D", "linestyle": style.DASHES[3]},
}
LINE: style.Look = {"markersize": 3.2, "linewidth": 0.9}
BESIDE: dict[str, Any] = {  # what stands behind the end of a line
    **{"color": style.GREY, "fontsize": 6, "ha": "left", "va": "center"},
    **{"textcoords": "offset points", "annotation_clip": False},
}
ORDER = "slope of log error of z(1) against log NFE"

Rows = Sequence[dict[str, Any]]
Shade = Callable[[float], Any]  # the colour of a tolerance
TRAINING: dict[str, style.Look] = {  # the two ways of a training step
    "forward": {"color": style.CYCLE[6], "linestyle": "-"},
    "backward": {"color": style.CYCLE[4], "linestyle": style.DASHES[1]},
}


class Gradient(NamedTuple):
    """What a gradient cost in evaluations, and its relative error; means over batches."""

    forward: float
    backward: float
    error: float


Measured = Mapping[tuple[str, float], Gradient]  # (setting, tolerance) -> its gradient


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
def draw(kinds: Mapping[str, Rows], runs: Sequence[Run], facts: Mapping[str, float | None]) -> Figure:
    """Draw five panels; colour is the tolerance in a and b, the setting in c and e."""
    figure = Figure(figsize=(style.WIDTH, 2 * style.HEIGHT + 0.75))
    panels = figure.subplot_mosaic("aaabbb\nccddee")
    tolerances = [row["rtol"] for row in kinds["solve"]]
    scale = LogNorm(min(tolerances), max(tolerances))

    def shade(tolerance: float) -> Any:
        return style.SHADES(1 - scale(tolerance))  # the tighter the brighter

    error_panel(panels["a"], kinds["solve"], shade, facts)
    time_panel(panels["b"], kinds["time"], shade)
    nfe_panel(panels["c"], gradients(kinds["gradient"]))
    training_panel(panels["d"], runs)
    gradient_panel(panels["e"], gradients(kinds["gradient"]))
    shades = ScalarMappable(scale, style.SHADES.reversed())
    bar = style.colorbar(figure, [panels["a"], panels["b"]], shades, "tolerance", aspect=24)
    bar.ax.minorticks_off()
    handles = [style.handle(setting.removesuffix(" norm"), **look, **LINE) for setting, look in MARKS.items()]
    style.legend(figure, handles, "c and e: solver, and error norm of the adjoint")
    return figure


def error_panel(axes: Axes, rows: Rows, shade: Shade, facts: Mapping[str, float | None]) -> None:
    for row in rows:
        axes.plot(row["nfe"], row["error"], "o", color=shade(row["rtol"]), markersize=3.2)
    axes.set(xscale="log", yscale="log", xlabel="NFE forward", ylabel="relative error of z(1)")
    scales.spanned(axes.xaxis, [row["nfe"] for row in rows], 100)
    order = facts[ORDER]
    axes.set_title(f"a   error ∝ NFE$^{{{order:.1f}}}$" if order else "a")


def time_panel(axes: Axes, rows: Rows, shade: Shade) -> None:
    longest = max(row["time_s"] for row in rows)
    for row in rows:
        axes.plot(row["nfe"], row["time_s"] / longest, "o", color=shade(row["rtol"]), markersize=3.2, zorder=3)
    line = straight([(row["nfe"], row["time_s"] / longest) for row in rows])
    if line:
        ends = [0, max(row["nfe"] for row in rows)]
        axes.plot(ends, [line.at(x) for x in ends], color=style.GREY, linewidth=0.8)
    axes.set_title(f"b   time against NFE: R² = {line.r2:.4f}" if line else "b")
    axes.set(xlabel="NFE forward", ylabel="relative time", xlim=(0, None), ylim=(0, None))


def curves(measured: Measured) -> Iterator[tuple[style.Look, list[Gradient]]]:
    """Yield the look of each setting, and what it came to from the largest tolerance to the smallest."""
    for setting, look in MARKS.items():
        tolerances = sorted({tol for one, tol in measured if one == setting}, reverse=True)
        if tolerances:
            yield look, [measured[setting, tol] for tol in tolerances]


def nfe_panel(axes: Axes, measured: Measured) -> None:
    for look, mine in curves(measured):
        axes.plot([one.forward for one in mine], [one.backward for one in mine], **look, **LINE)
    forward = [one.forward for one in measured.values()]
    if forward:
        span = [min(forward), max(forward)]
        for part, drop in ((1, 0), (2, -1)):
            ends = [x / part for x in span]
            axes.plot(span, ends, color=style.PALE, linewidth=0.8, zorder=1)
            axes.annotate(f"1 : {part}", (span[1], ends[1]), xytext=(2, drop), **BESIDE)
    axes.set(xscale="log", yscale="log", xlabel="NFE forward", ylabel="NFE backward", title="c   adjoint, both ways")
    scales.spanned(axes.xaxis, forward, 100)


def gradient_panel(axes: Axes, measured: Measured) -> None:
    for look, mine in curves(measured):
        axes.plot([one.forward + one.backward for one in mine], [100 * one.error for one in mine], **look, **LINE)
    axes.set(xscale="log", yscale="log", xlabel="NFE forward + backward", ylabel="gradient error (%)")
    axes.set_title("e   error of the gradient")


def training_panel(axes: Axes, runs: Sequence[Run]) -> None:
    for way, look in TRAINING.items():
        epochs: dict[int, float] = {}
        values: dict[int, list[float]] = {}
        for run in runs:
            records = run.of("train")
            mine = {record["step"]: record[f"nfe_{way}"] for record in records}
            epochs |= {step: step / (run.per_epoch or 1) for step in mine}
            for step, nfe in mine.items():
                values.setdefault(step, []).append(nfe)
            if len(runs) > 1:
                axes.plot([epochs[step] for step in mine], list(mine.values()), **look, linewidth=0.5, alpha=0.5)
        steps = [step for step in sorted(values) if len(values[step]) == len(runs)]
        mean = [statistics.fmean(values[step]) for step in steps]
        axes.plot([epochs[step] for step in steps], mean, **look, linewidth=1.1, label=way)
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    axes.set(
        xlabel="epoch", ylabel="NFE of a training step", title=f"d   training{seeds}", xlim=(0, None), ylim=(0, None)
    )
    scales.counted(axes.xaxis)
    axes.legend(loc="lower right")
