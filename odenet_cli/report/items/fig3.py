"""Figure 3 of Chen et al. 2018: the cost of a trained ODE-Net against its tolerance, and the error of its gradient."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from odenet_cli.markdown import MISSING, markdown_table, mean_count
from odenet_cli.report import scales, style
from odenet_cli.report.result import Entry, Facts, Result, csv_row
from odenet_cli.report.runs import Run, finite
from odenet_cli.report.statistics import fit_exponent, fit_line, grouped
from odenet_cli.report.text import bullets, compact, seeds_text

TITLE = "Figure 3, error control of a trained ODE-Net"
LABELS = {
    "tolerances": "tolerances",
    "error_falls": "error of z(1) falls with every tighter tolerance (1: yes)",
    "error_vs_tolerance": "slope of log error of z(1) against log tolerance",
    "error_vs_nfe": "slope of log error of z(1) against log NFE",
    "time_vs_nfe_r2": "R² of the time of a forward solve against NFE",
    "nfe_ratio": "NFE backward over forward ({}, {})",
    "gradient_error": "gradient error ({}, {}, %)",
}
PANELS = (
    "a: evaluations of a forward solve (dopri5) and the relative error of z(1) against a solve at {solve}. b: time of "
    "a forward solve, relative to the longest. c: evaluations forward and backward of the adjoint, both solves at the "
    "same tolerance, by solver and error norm: relative to the incoming gradient (the default here), and absolute (the "
    "paper's). d: evaluations of a training step over training, a thin line a seed, thick their mean. e, which is not "
    "in the paper: the relative error of the gradients of c against one at {gradient} (good to some tenths of a per "
    "cent), and what they cost; from left to right the tolerance falls. All but d in float64, on one trained network."
)
ORIGIN = ("cell", "machine", "commit", "data")
TRAINING = ("step", "epoch", "loss", "nfe_forward", "nfe_backward")

SETTINGS: dict[str, style.Look] = {  # of panels c and e
    "dopri5, relative norm": {"color": style.CYCLE[0], "marker": "o", "linestyle": style.DASHES[0]},  # ours
    "dopri5, absolute norm": {"color": style.CYCLE[1], "marker": "s", "linestyle": style.DASHES[1]},  # the paper's
    "Adams, relative norm": {"color": style.CYCLE[2], "marker": "^", "linestyle": style.DASHES[2]},
    "Adams, absolute norm": {"color": style.CYCLE[3], "marker": "D", "linestyle": style.DASHES[3]},
}
LINE: style.Look = {"markersize": 3.2, "linewidth": 0.9}
LINE_LABEL: dict[str, Any] = {  # of text behind the end of a line
    **{"color": style.GREY, "fontsize": 6, "ha": "left", "va": "center"},
    **{"textcoords": "offset points", "annotation_clip": False},
}
DIRECTIONS: dict[str, style.Look] = {  # of the solves of a training step
    "forward": {"color": style.CYCLE[6], "linestyle": "-"},
    "backward": {"color": style.CYCLE[4], "linestyle": style.DASHES[1]},
}

Rows = Sequence[dict[str, Any]]


class Gradient(NamedTuple):
    """Hold the evaluations of a gradient, and its relative error; means over batches."""

    nfe_forward: float
    nfe_backward: float
    error: float


Gradients = Mapping[tuple[str, float], Gradient]  # (setting, tolerance) -> its gradient


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `entries` are trained networks, one a seed, of which the first that was measured is shown."""
    entry = next((entry for entry in entries if entry.run.done and entry.measured), None)
    if entry is None:
        return Result(body=["Nothing could be measured: the network is not trained."])
    kinds = {kind: entry.measurements(kind) for kind in ("solve", "time", "gradient")}
    numbers = facts(kinds)
    references = {kind: compact(kinds[kind][0]["reference"]) for kind in ("solve", "gradient")}
    origin = {name: value for name, value in csv_row(entry).items() if name in ORIGIN}
    done = [entry for entry in entries if entry.run.done]
    rows = [{**row, **origin} for row in entry.measured] + [row for entry in done for row in training_rows(entry)]
    more = f" (d: {seeds_text(entry.run.seed for entry in done)})" if len(done) > 1 else ""
    body = ["![panels]", PANELS.format(**references), solves_table(kinds), gradients_table(kinds["gradient"])]
    return Result(
        body=[*body, bullets(rest["notes"])],
        rows=rows,
        figures={"panels": draw(kinds, [entry.run for entry in done], numbers["error_vs_nfe"])},
        seeds={"panels": seeds_text([entry.run.seed]) + more},
        facts=numbers,
    )


def training_rows(entry: Entry) -> list[dict[str, Any]]:
    """Return the lines of the CSV on the training of one network."""
    origin = csv_row(entry)
    base = {"kind": "training", **{name: origin[name] for name in ORIGIN}, "seed": entry.run.seed}
    return [base | {name: record.get(name) for name in TRAINING} for record in entry.run.records("train")]


def batch_means(rows: Rows, name: str, *keys: str) -> dict[Any, float]:
    """Return the mean of one number over batches, by the other keys."""
    known = [(itemgetter(*keys)(row), value) for row in rows if (value := finite(row.get(name))) is not None]
    return {key: statistics.fmean(values) for key, values in grouped(known).items()}


def gradients_of(rows: Rows) -> Gradients:
    """Return the gradients by setting and tolerance, without those whose solve failed."""
    parts = [batch_means(rows, name, "setting", "rtol") for name in Gradient._fields]
    return {key: Gradient(*(part[key] for part in parts)) for key in parts[-1]}


def facts(kinds: Mapping[str, Rows]) -> Facts:
    errors, nfe = batch_means(kinds["solve"], "error", "rtol"), batch_means(kinds["solve"], "nfe", "rtol")
    by_tolerance = [errors[tol] for tol in sorted(errors, reverse=True)]
    line = fit_line((row["nfe"], row["time_s"]) for row in kinds["time"])
    numbers: Facts = {
        "tolerances": float(len(errors)),
        "error_falls": float(all(later < earlier for earlier, later in pairwise(by_tolerance))),
        "error_vs_tolerance": fit_exponent((tol, errors[tol]) for tol in errors),
        "error_vs_nfe": fit_exponent((nfe[tol], errors[tol]) for tol in errors),
        "time_vs_nfe_r2": line.r2 if line else None,
    }
    gradients = gradients_of(kinds["gradient"])
    for setting in SETTINGS:
        for tol in (1e-2, 1e-3):
            if gradient := gradients.get((setting, tol)):
                case = f"{setting}/{compact(tol)}"
                numbers[f"nfe_ratio/{case}"] = gradient.nfe_backward / gradient.nfe_forward
                numbers[f"gradient_error/{case}"] = 100 * gradient.error
    return numbers


def solves_table(kinds: Mapping[str, Rows]) -> str:
    """Return panels a and b in numbers."""
    errors, nfe, rejected = (batch_means(kinds["solve"], name, "rtol") for name in ("error", "nfe", "rejected"))
    seconds = batch_means(kinds["time"], "time_s", "rtol")
    rows = [
        [compact(tol), mean_count(nfe[tol]), mean_count(rejected[tol]), f"{error:.2e}", f"{1e3 * seconds[tol]:.1f}"]
        for tol, error in sorted(errors.items(), reverse=True)
    ]
    return markdown_table(["tolerance", "NFE forward", "rejected", "error of z(1)", "forward solve, ms"], rows, left=0)


def gradients_table(rows: Rows) -> str:
    """Return panels c and e in numbers: evaluations forward / backward, error of the gradient."""
    gradients = gradients_of(rows)

    def cell(setting: str, tol: float) -> str:
        if (gradient := gradients.get((setting, tol))) is None:
            return MISSING
        nfe = f"{mean_count(gradient.nfe_forward)} / {mean_count(gradient.nfe_backward)}"
        return f"{nfe}, {100 * gradient.error:.2g} %"

    tolerances = sorted({tol for _, tol in gradients}, reverse=True)
    body = [[compact(tol), *(cell(setting, tol) for setting in SETTINGS)] for tol in tolerances]
    head = ["tolerance", *(f"{setting}: NFE, gradient error" for setting in SETTINGS)]
    return markdown_table(head, body, left=1)


# The drawing.


@style.styled
def draw(kinds: Mapping[str, Rows], runs: Sequence[Run], order: float | None) -> Figure:
    """Draw five panels, a to d as in the paper; colour is the tolerance in a and b, the setting in c and e."""
    figure = Figure(figsize=(style.WIDTH, 2 * style.HEIGHT + 0.75))
    panels = figure.subplot_mosaic("aaabbb\nccddee")
    tolerances = [row["rtol"] for row in kinds["solve"]]
    scale = LogNorm(min(tolerances), max(tolerances))

    def color(tolerance: float) -> Any:
        return style.SHADES(1 - scale(tolerance))  # the tighter the brighter

    error_panel(panels["a"], kinds["solve"], color, order)
    time_panel(panels["b"], kinds["time"], color)
    gradients = gradients_of(kinds["gradient"])
    nfe_panel(panels["c"], gradients)
    training_panel(panels["d"], runs)
    for look, curve in curves(gradients):
        nfe = [gradient.nfe_forward + gradient.nfe_backward for gradient in curve]
        panels["e"].plot(nfe, [100 * gradient.error for gradient in curve], **look, **LINE)
    panels["e"].set(xscale="log", yscale="log", xlabel="NFE forward + backward", ylabel="gradient error (%)")
    panels["e"].set_title("e   error of the gradient")
    shades = ScalarMappable(scale, style.SHADES.reversed())
    bar = style.colorbar(figure, [panels["a"], panels["b"]], shades, "tolerance", aspect=24)
    bar.ax.minorticks_off()
    entries = [(setting.removesuffix(" norm"), look | LINE) for setting, look in SETTINGS.items()]
    style.legend(figure, entries, "c and e: solver, and error norm of the adjoint")
    return figure


def error_panel(axes: Axes, rows: Rows, color: Callable[[float], Any], order: float | None) -> None:
    for row in rows:
        axes.plot(row["nfe"], row["error"], "o", color=color(row["rtol"]), markersize=3.2)
    axes.set(xscale="log", yscale="log", xlabel="NFE forward", ylabel="relative error of z(1)")
    scales.log_ticks(axes.xaxis, [row["nfe"] for row in rows], 100)
    axes.set_title(f"a   error ∝ NFE$^{{{order:.1f}}}$" if order else "a")


def time_panel(axes: Axes, rows: Rows, color: Callable[[float], Any]) -> None:
    longest = max(row["time_s"] for row in rows)
    for row in rows:
        axes.plot(row["nfe"], row["time_s"] / longest, "o", color=color(row["rtol"]), markersize=3.2, zorder=3)
    line = fit_line((row["nfe"], row["time_s"] / longest) for row in rows)
    if line:
        ends = [0, max(row["nfe"] for row in rows)]
        axes.plot(ends, [line.at(x) for x in ends], color=style.GREY, linewidth=0.8)
    axes.set_title(f"b   time against NFE: R² = {line.r2:.4f}" if line else "b")
    axes.set(xlabel="NFE forward", ylabel="relative time", xlim=(0, None), ylim=(0, None))


def curves(gradients: Gradients) -> Iterator[tuple[style.Look, list[Gradient]]]:
    """Yield the look of each setting, and its gradients from the largest tolerance to the smallest."""
    for setting, look in SETTINGS.items():
        tolerances = sorted({tol for name, tol in gradients if name == setting}, reverse=True)
        if tolerances:
            yield look, [gradients[setting, tol] for tol in tolerances]


def nfe_panel(axes: Axes, gradients: Gradients) -> None:
    for look, curve in curves(gradients):
        nfe = [(gradient.nfe_forward, gradient.nfe_backward) for gradient in curve]
        axes.plot(*zip(*nfe), **look, **LINE)
    forward = [gradient.nfe_forward for gradient in gradients.values()]
    if forward:
        ends = [min(forward), max(forward)]
        for ratio, drop in ((1, 0), (2, -1)):
            heights = [x / ratio for x in ends]
            axes.plot(ends, heights, color=style.PALE, linewidth=0.8, zorder=1)
            axes.annotate(f"1 : {ratio}", (ends[1], heights[1]), xytext=(2, drop), **LINE_LABEL)
    axes.set(xscale="log", yscale="log", xlabel="NFE forward", ylabel="NFE backward", title="c   adjoint, both ways")
    scales.log_ticks(axes.xaxis, forward, 100)


def training_panel(axes: Axes, runs: Sequence[Run]) -> None:
    for direction, look in DIRECTIONS.items():
        lines = [
            [(r["step"] / (run.steps_per_epoch or 1), r[f"nfe_{direction}"]) for r in run.records("train")]
            for run in runs
        ]
        for line in lines if len(runs) > 1 else ():
            axes.plot(*zip(*line), **look, linewidth=0.5, alpha=0.5)
        by_epoch = grouped(point for line in lines for point in line)
        mean = {x: statistics.fmean(nfe) for x, nfe in sorted(by_epoch.items()) if len(nfe) == len(runs)}
        axes.plot(list(mean), list(mean.values()), **look, linewidth=1.1, label=direction)
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    axes.set(xlabel="epoch", ylabel="NFE of a training step", title=f"d   training{seeds}", xlim=(0, None))
    axes.set_ylim(0, None)
    scales.integer_ticks(axes.xaxis)
    axes.legend(loc="lower right")
