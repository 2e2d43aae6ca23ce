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
LOOKS: dict[str, style.Look] = {  # of the lines of the figure
    "ResNet": {"color": style.CYCLE[6], "marker": "s"},
    "RK-Net": {"color": style.CYCLE[1], "marker": "^"},
    "ODE-Net (replay)": {"color": style.CYCLE[2], "marker": "v"},
    "ODE-Net (absolute norm)": {"color": style.CYCLE[5], "marker": "D"},
    "ODE-Net": {"color": style.CYCLE[0], "marker": "o"},
}
ABOUT = (
    "±: standard deviation over seeds; interval: 95 %, of the mean, by Student's t. Saved: what autograd holds for the "
    "backward pass at its peak. NFE: field evaluations of a training step at the end of training. The test error is "
    "that of the weights with the smallest error on the validation digits."
)
STEP = (
    "One training step of each network, by depth and by tolerance (1e-1 to 1e-6). L: residual blocks; L~: field "
    "evaluations forward, for RK-Net those of the accepted steps, whose graph it keeps. ODE-Net: the adjoint, its "
    "tolerance relative to the incoming gradient or absolute as in the paper (figure 3 shows what these gradients are "
    "worth); replay: the exact gradient of the steps, from one state kept a step. Lines on the left are least squares."
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


def letter(name: str) -> str:
    """What the paper calls the depth of this network."""
    return "L" if name == "ResNet" else "L~"


def costs(scaled: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """What the paper's O(1), O(L) and O(L~) are when measured."""
    saved = [one["saved_mib"] for one in scaled["ODE-Net"]]
    spread = 100 * (max(saved) / min(saved) - 1) if len(saved) > 1 else None
    facts: dict[str, float | None] = {"saved memory of ODE-Net, largest over smallest, minus 1 (%)": spread}
    for name in LOOKS:
        for measure, said in (("saved_mib", "saved memory"), ("step_ms", "time")):
            if measure == "step_ms" or not name.startswith("ODE-Net"):
                line = straight(finite([(one["depth"], one[measure]) for one in scaled[name]]))
                facts[f"R² of {name}'s {said} against {letter(name)}"] = line[2] if line else None
    return facts


def scaling_table(scaled: dict[str, list[dict[str, Any]]]) -> str:
    """The numbers of the figure."""
    rows = []
    for name, steps in scaled.items():
        unit = "blocks" if name == "ResNet" else "evaluations"
        for one in steps:
            tolerance = "" if one["rtol"] is None else plain(one["rtol"])
            forward = f"{one['nfe_forward']} / {one['nfe_backward']}" if one["nfe_forward"] else NONE
            cells = [f"{letter(name)} = {one['depth']} {unit}", tolerance, forward]
            rows.append([name, *cells, digits(one["saved_mib"]), digits(one["step_ms"])])
    return aligned(["", "depth", "rtol", "NFE forward / backward", "saved MiB", "ms / step"], rows, left=2)


@style.styled
def scaling(scaled: dict[str, list[dict[str, Any]]]) -> Figure | None:
    """Memory and time of a step against L or L~."""
    found = {name: steps for name, steps in scaled.items() if len(steps) > 1}
    if not found:
        return None
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT + 0.5))
    memory, spent = figure.subplots(1, 2)
    for name, steps in found.items():
        look, depths = LOOKS[name], [one["depth"] for one in steps]
        saved, seconds = [one["saved_mib"] for one in steps], [one["step_ms"] / 1000 for one in steps]
        memory.plot(depths, saved, **look, linestyle="", zorder=3)
        if line := straight(list(zip(depths, saved))):
            memory.plot(
                [0, max(depths)], [line[1], line[1] + line[0] * max(depths)], color=look["color"], linewidth=0.9
            )
        spent.plot(depths, seconds, **look, linewidth=0.9)
    memory.set(title="saved for backward (MiB)", xlim=(0, None), ylim=(0, None))
    spent.set(title="time of a step (s)", xscale="log", yscale="log")
    for axes in (memory, spent):
        axes.set_xlabel("L: blocks, or L~: evaluations of the field, forward")
    handles = [Line2D([], [], **LOOKS[name], linewidth=0.9, label=said(name, steps)) for name, steps in found.items()]
    style.legend(figure, handles, "memory")
    return figure


def said(name: str, steps: Sequence[dict[str, Any]]) -> str:
    """A line of the legend: how the memory grows."""
    saved = [one["saved_mib"] for one in steps]
    if max(saved) < 1.05 * min(saved):
        return f"{name}: flat"
    line = straight([(one["depth"], one["saved_mib"]) for one in steps])
    return (
        f"{name}: {line[0]:.2g} MiB {'a block' if name == 'ResNet' else 'an evaluation'}, R² = {line[2]:.4f}"
        if line
        else name
    )
