"""Figure 3 of Chen et al. 2018: what a trained ODE-Net pays for its tolerance, and what the gradient then is worth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from odenet_cli.report import style
from odenet_cli.report.result import Entry, Result, row_of, straight
from odenet_cli.report.runs import Run, number
from odenet_cli.report.table import aligned
from odenet_cli.report.words import NONE, count, plain

Rows = Sequence[dict[str, Any]]
OURS, PAPERS = "dopri5, relative norm", "dopri5, absolute norm"
MARKS = {  # of the settings of panel c
    OURS: "o",
    PAPERS: "s",
    "Adams, relative norm": "^",
    "Adams, absolute norm": "D",
}
DASH = {setting: style.DASHES[place] for place, setting in enumerate(MARKS)}
PANELS = (
    "a: evaluations of a forward solve (dopri5) and the relative error of z(1) against a solve at {reference}. b: time "
    "of a forward solve, relative to that of the loosest tolerance. c: evaluations forward and backward of the "
    "adjoint, both solves at the same tolerance, by solver and error norm: relative to the incoming gradient (the "
    "default here), and absolute (the paper's); on the right the relative error of that gradient against one at "
    "{gradient_reference} (good to about 0.1 %), and what it cost. d: evaluations of a training step over training. "
    "All of a to c in float64, on one trained network."
)


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`entries` is one trained network with what was measured on it."""
    entry = next((entry for entry in entries if entry.run.done and entry.measured), None)
    title = "Figure 3, error control of a trained ODE-Net"
    if entry is None:
        return Result(title=title, body=["Nothing could be measured: the network is not trained."], rows=[])
    kinds = {kind: [row for row in entry.measured if row["kind"] == kind] for kind in ("solve", "time", "gradient")}
    facts = found(kinds)
    told = PANELS.format(
        reference=plain(kinds["solve"][0]["reference"]),
        gradient_reference=plain(kinds["gradient"][0]["reference"]),
    )
    origin = row_of(entry, ())
    rows = [{**row, "cell": origin["cell"]} for row in entry.measured]
    names = ("step", "epoch", "loss", "nfe_forward", "nfe_backward")
    rows += [
        {"kind": "training", **{n: r.get(n) for n in names}, "cell": origin["cell"]} for r in entry.run.of("train")
    ]
    rows = [{**row, **{n: origin[n] for n in ("machine", "commit", "data")}} for row in rows]
    body = ["![panels]", told, solves_table(kinds), gradients_table(kinds["gradient"])]
    body += ["\n".join(f"- {line}" for line in rest["notes"])]
    return Result(title=title, body=body, rows=rows, figures={"panels": draw(kinds, entry.run, facts)}, facts=facts)


def means(rows: Rows, name: str, *keys: str) -> dict[Any, float]:
    """The mean of one number over batches, by the other keys."""
    groups: dict[Any, list[float]] = {}
    for row in rows:
        value = number(row.get(name))
        if value is not None:
            key = tuple(row[k] for k in keys)
            groups.setdefault(key if len(keys) > 1 else key[0], []).append(value)
    return {key: statistics.fmean(values) for key, values in groups.items()}


def found(kinds: Mapping[str, Rows]) -> dict[str, float | None]:
    """The figure in numbers."""
    errors, nfe = means(kinds["solve"], "error", "rtol"), means(kinds["solve"], "nfe", "rtol")
    ordered = [errors[tol] for tol in sorted(errors, reverse=True)]
    facts: dict[str, float | None] = {
        "tolerances": float(len(errors)),
        "error of z(1) falls with every tighter tolerance (1: yes)": float(
            all(later < earlier for earlier, later in pairwise(ordered))
        ),
        "slope of log error of z(1) against log tolerance": slope([(tol, errors[tol]) for tol in errors]),
        "slope of log NFE against log error of z(1)": slope([(errors[tol], nfe[tol]) for tol in errors]),
    }
    line = straight([(row["nfe"], row["time_s"]) for row in kinds["time"]])
    facts["R² of the time of a forward solve against NFE"] = line[2] if line else None
    gradient = kinds["gradient"]
    forward, backward = (means(gradient, name, "setting", "rtol") for name in ("nfe_forward", "nfe_backward"))
    wrong = means(gradient, "error", "setting", "rtol")
    for setting in MARKS:
        for tol in (1e-2, 1e-3):
            if (setting, tol) in wrong:
                at = f"{setting}, {plain(tol)}"
                facts[f"NFE backward over forward ({at})"] = backward[setting, tol] / forward[setting, tol]
                facts[f"gradient error ({at}, %)"] = 100 * wrong[setting, tol]
    return facts


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Of the straight line through the points in logarithms."""
    line = straight([(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0])
    return line[0] if line else None


def solves_table(kinds: Mapping[str, Rows]) -> str:
    """Panels a and b in numbers."""
    errors, nfe = means(kinds["solve"], "error", "rtol"), means(kinds["solve"], "nfe", "rtol")
    rejected, spent = means(kinds["solve"], "rejected", "rtol"), means(kinds["time"], "time_s", "rtol")
    rows = [
        [plain(tol), count(nfe[tol]), count(rejected[tol]), f"{errors[tol]:.2e}", f"{1e3 * spent[tol]:.1f}"]
        for tol in sorted(errors, reverse=True)
    ]
    return aligned(["tolerance", "NFE forward", "rejected", "error of z(1)", "forward solve, ms"], rows, left=0)


def gradients_table(rows: Rows) -> str:
    """Panels c and d in numbers: evaluations forward / backward, error of the gradient."""
    forward, backward = (means(rows, name, "setting", "rtol") for name in ("nfe_forward", "nfe_backward"))
    wrong = means(rows, "error", "setting", "rtol")

    def cell(setting: str, tol: float) -> str:
        if (setting, tol) not in wrong:
            return NONE
        cost = f"{count(forward[setting, tol])} / {count(backward[setting, tol])}"
        return f"{cost}, {100 * wrong[setting, tol]:.2g} %"

    tolerances = sorted({tol for _, tol in wrong}, reverse=True)
    body = [[plain(tol), *(cell(setting, tol) for setting in MARKS)] for tol in tolerances]
    head = ["tolerance", *(f"{setting}: NFE, gradient error" for setting in MARKS)]
    return aligned(head, body, left=1)


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
    bar = figure.colorbar(ScalarMappable(scale, style.SHADES.reversed()), ax=[panels["a"], panels["b"]], aspect=24)
    bar.set_label("tolerance")
    bar.outline.set_linewidth(0.5)
    bar.ax.minorticks_off()
    handles = [
        Line2D([], [], color=style.GREY, marker=mark, linestyle=DASH[setting], label=setting.removesuffix(" norm"))
        for setting, mark in MARKS.items()
    ]
    style.legend(figure, handles, "c: solver, and error norm of the adjoint")
    return figure


def error_panel(axes: Axes, rows: Rows, shade: Callable[[float], Any], facts: dict[str, float | None]) -> None:
    for row in rows:
        axes.plot(row["nfe"], row["error"], "o", color=shade(row["rtol"]), markersize=3.2)
    axes.set(xscale="log", yscale="log", xlabel="NFE forward", ylabel="relative error of z(1)")
    axes.xaxis.set_minor_formatter(NullFormatter())
    rate = facts["slope of log error of z(1) against log tolerance"]
    axes.set_title(f"a   error ∝ tolerance$^{{{rate:.2f}}}$" if rate else "a")


def time_panel(axes: Axes, rows: Rows, shade: Callable[[float], Any], facts: dict[str, float | None]) -> None:
    loosest = max(rows, key=lambda row: row["rtol"])["time_s"]
    for row in rows:
        axes.plot(row["nfe"], row["time_s"] / loosest, "o", color=shade(row["rtol"]), markersize=3.2, zorder=3)
    line = straight([(row["nfe"], row["time_s"] / loosest) for row in rows])
    if line:
        ends = [0, max(row["nfe"] for row in rows)]
        axes.plot(ends, [line[1] + line[0] * x for x in ends], color=style.GREY, linewidth=0.8)
        axes.set_title(f"b   R² = {line[2]:.4f}")
    axes.set(xlabel="NFE forward", ylabel="relative time", xlim=(0, None), ylim=(0, None))


def nfe_panel(axes: Axes, rows: Rows, shade: Callable[[float], Any]) -> None:
    for row in rows:
        if "failed" not in row:
            at = (row["nfe_forward"], row["nfe_backward"])
            axes.plot(*at, MARKS[row["setting"]], color=shade(row["rtol"]), markersize=3.2, zorder=3)
    ends = [row["nfe_forward"] for row in rows if "failed" not in row]
    span = [min(ends), max(ends)]
    axes.plot(span, span, color=style.GREY, linewidth=0.8)
    axes.plot(span, [x / 2 for x in span], color=style.GREY, linewidth=0.8, linestyle=style.DASHES[2])
    axes.annotate(
        "1 : 1",
        (span[1], span[1]),
        color=style.GREY,
        fontsize=6,
        ha="left",
        va="center",
        xytext=(2, 0),
        textcoords="offset points",
        annotation_clip=False,
    )
    axes.annotate(
        "1 : 2",
        (span[1], span[1] / 2),
        color=style.GREY,
        fontsize=6,
        ha="left",
        va="center",
        xytext=(2, -1),
        textcoords="offset points",
        annotation_clip=False,
    )
    axes.set(xscale="log", yscale="log", xlabel="NFE forward", ylabel="NFE backward", title="c")
    axes.xaxis.set_minor_formatter(NullFormatter())


def gradient_panel(axes: Axes, rows: Rows, shade: Callable[[float], Any]) -> None:
    wrong = means(rows, "error", "setting", "rtol")
    forward, backward = (means(rows, name, "setting", "rtol") for name in ("nfe_forward", "nfe_backward"))
    for setting, mark in MARKS.items():
        tolerances = sorted({tol for one, tol in wrong if one == setting}, reverse=True)
        points = [(forward[setting, tol] + backward[setting, tol], 100 * wrong[setting, tol]) for tol in tolerances]
        if points:
            axes.plot(*zip(*points), color="#BBBBBB", linewidth=0.8, linestyle=DASH[setting])
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
    for name, look in {"nfe_forward": {"linestyle": "-"}, "nfe_backward": {"linestyle": style.DASHES[2]}}.items():
        label = name.removeprefix("nfe_")
        axes.plot(epochs, [record[name] for record in records], color=style.CYCLE[6], linewidth=1, label=label, **look)
    axes.set(xlabel="epoch", ylabel="NFE of a training step", title="d", xlim=(0, None), ylim=(0, None))
    style.counted(axes.xaxis)
    axes.legend(loc="lower right")
