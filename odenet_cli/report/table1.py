"""Table 1 of Chen et al. 2018: seven networks side by side, and what memory and time cost by depth and tolerance."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odenet_cli.report import style
from odenet_cli.report.groups import Group
from odenet_cli.report.result import Entry, Result, finite, row_of, straight
from odenet_cli.report.table import aligned, backward, interval, parameters, plus_minus, runs
from odenet_cli.report.words import NONE, count, digits, plain

NUMBERS = ("error", "valid_error", "parameters", "saved_mib", "peak_mib", "epoch_s", "nfe_forward", "nfe_backward")
LOOKS = {  # of the lines of the figure
    "ResNet": {"color": style.CYCLE[6], "marker": "s", "linestyle": style.DASHES[1]},
    "RK-Net": {"color": style.CYCLE[1], "marker": "^"},
    "ODE-Net": {"color": style.CYCLE[0], "marker": "o"},
}
DEPTH = {"ResNet": ("blocks", "L")}  # what the lines are drawn against
DEPTH |= dict.fromkeys(("RK-Net", "ODE-Net"), ("evaluations", "L~"))
ABOUT = (
    "±: standard deviation over seeds; interval: 95 %, of the mean, by Student's t. Saved: what autograd holds for the "
    "backward pass at its peak. NFE: field evaluations of a training step at the end of training. The test error is "
    "that of the weights with the smallest error on the validation digits."
)
STEP = (
    "One training step of each network, by depth and by tolerance (1e-1 to 1e-6). L: residual blocks; L~: field "
    "evaluations forward, for RK-Net those of the accepted steps, whose graph it keeps. R² is that of a straight line."
)


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["paper"]` holds the paper's own numbers, `rest["notes"]` the free choices."""
    compared = [entry for entry in entries if entry.part == "compare"]
    scaled = {}
    for name in LOOKS:
        steps = [found for entry in entries if entry[:2] == ("scaling", name) if (found := step(entry))]
        scaled[name] = sorted(steps, key=lambda one: one["depth"])
    groups = {
        row: Group(values={}, runs=[e.run for e in compared if e.row == row])
        for row in dict.fromkeys(e.row for e in compared)
    }
    facts: dict[str, float | None] = {}
    for row, group in groups.items():
        error = group.mean("error")
        facts[f"test error of {row} (%)"] = None if error is None else 100 * error
    facts |= costs(scaled)
    body = [table(groups, rest["paper"]), ABOUT, "\n".join(f"- {line}" for line in rest["notes"])]
    if any(scaled.values()):
        body += ["## Memory and time of a step", STEP, "![scaling]", scaling_table(scaled)]
    rows = [row_of(entry, NUMBERS) | (step(entry) or {} if entry.part == "scaling" else {}) for entry in entries]
    return Result(
        title="Table 1, MLP, ResNets, RK-Net and ODE-Net",
        body=body,
        rows=rows,
        figures={"scaling": scaling(scaled)},
        facts=facts,
    )


def table(groups: dict[str, Group], paper: dict[str, dict[str, Any]]) -> str:
    """The seven rows, the paper's numbers beside them."""
    on_gpu = any(group.spread("peak_mib") for group in groups.values())
    head = ["", "test error %", "95 % interval", "paper", "parameters", "paper", "saved MiB", *["peak MiB"] * on_gpu]
    head += ["paper", "s / epoch", "paper", "NFE forward", "NFE backward", "runs (seeds)"]
    rows = []
    for row, group in groups.items():
        quoted = {name: str(value) for name, value in paper.get(row, {}).items()}
        cells = [row, plus_minus(group.spread("error"), 2, 100), interval(group.spread("error"), 2, 100)]
        cells += [quoted.get("error", NONE), parameters(group), quoted.get("parameters", NONE)]
        cells += [digits(group.mean("saved_mib")), *[digits(group.mean("peak_mib"))] * on_gpu]
        cells += [quoted.get("memory", NONE), digits(group.mean("epoch_s")), quoted.get("time", NONE)]
        cells += [count(group.mean("nfe_forward") or None), backward(group), runs(group) if group.done else "not done"]
        rows.append(cells)
    return aligned(head, rows, left=1)


def step(entry: Entry) -> dict[str, Any] | None:
    """Depth, memory and time of a training step of this run; None where it is not done."""
    run, train = entry.run, entry.run.of("train")
    if not run.done or len(train) < 2:
        return None
    last = train[-1]
    depth = {"ResNet": run.config.get("model.blocks"), "RK-Net": last["vjps"]}.get(entry.row, last["nfe_forward"])
    return {
        "depth": depth,
        "rtol": None if entry.row == "ResNet" else run.config.get("solver.rtol"),
        "saved_mib": last["saved_mib"],
        "peak_mib": last["peak_mib"],
        "step_ms": statistics.median(record["step_ms"] for record in train[1:]),  # the first pays for warming up
        "nfe_forward": last["nfe_forward"],
        "nfe_backward": last["nfe_backward"],
    }


def costs(scaled: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """What the paper's O(1), O(L) and O(L~) are when measured."""
    saved = [one["saved_mib"] for one in scaled["ODE-Net"]]
    spread = 100 * (max(saved) / min(saved) - 1) if len(saved) > 1 else None
    facts: dict[str, float | None] = {"saved memory of ODE-Net, largest over smallest, minus 1 (%)": spread}
    for name, (_, letter) in DEPTH.items():
        for measure, said in (("saved_mib", "saved memory"), ("step_ms", "time")):
            if (name, measure) != ("ODE-Net", "saved_mib"):
                line = straight(finite([(one["depth"], one[measure]) for one in scaled[name]]))
                facts[f"R² of {name}'s {said} against {letter}"] = line[2] if line else None
    return facts


def scaling_table(scaled: dict[str, list[dict[str, Any]]]) -> str:
    """The numbers of the figure."""
    rows = []
    for name, steps in scaled.items():
        unit, letter = DEPTH[name]
        for one in steps:
            tolerance = "" if one["rtol"] is None else plain(one["rtol"])
            forward = f"{one['nfe_forward']} / {one['nfe_backward']}" if one["nfe_forward"] else NONE
            cells = [f"{letter} = {one['depth']} {unit}", tolerance, forward]
            rows.append([name, *cells, digits(one["saved_mib"]), digits(one["step_ms"])])
    return aligned(["", "depth", "rtol", "NFE forward / backward", "saved MiB", "ms / step"], rows, left=2)


@style.styled
def scaling(scaled: dict[str, list[dict[str, Any]]]) -> Figure | None:
    """Memory and time of a step against L or L~; lines are least squares."""
    if not all(len(steps) > 1 for steps in scaled.values()):
        return None
    figure = Figure(figsize=(style.WIDTH * 2 / 3 + 0.4, style.HEIGHT + 0.35))
    panels = {"saved for backward (MiB)": "saved_mib", "time of a step (s)": "step_ms"}
    for axes, (title, measure) in zip(figure.subplots(1, 2), panels.items()):
        axes.set(title=title, xlabel="L: blocks; L~: field evaluations")
        heights = []
        for name, steps in scaled.items():
            points = [(one["depth"], one[measure] / (1000 if measure == "step_ms" else 1)) for one in steps]
            heights += [y for _, y in points]
            line, look = straight(points), LOOKS[name]
            axes.plot(*zip(*points), **{**look, "linestyle": ""}, zorder=3)
            if line:
                ends = [0, max(x for x, _ in points)]
                axes.plot(ends, [line[1] + line[0] * x for x in ends], color=look["color"], linewidth=0.9)
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.08 * max(heights))
    handles = [
        Line2D([], [], **{**LOOKS[name], "linestyle": "-", "linewidth": 0.9}, label=said(name, steps))
        for name, steps in scaled.items()
    ]
    style.legend(figure, handles)
    return figure


def said(name: str, steps: Sequence[dict[str, Any]]) -> str:
    """A line of the legend: what grows, and how straight."""
    letter = DEPTH[name][1]
    line = straight([(one["depth"], one["saved_mib"]) for one in steps])
    flat = max(one["saved_mib"] for one in steps) / min(one["saved_mib"] for one in steps) < 1.05
    if flat:
        return f"{name}: memory flat in {letter}"
    return f"{name}: memory R² = {line[2]:.4f} in {letter}" if line else name
