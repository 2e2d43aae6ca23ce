"""The part of table 1 on memory and time of a training step, by depth and by tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.regression import finite, straight
from odenet_cli.report.result import Entry
from odenet_cli.report.table import aligned
from odenet_cli.report.text import NONE, digits, plain

LOOKS: dict[str, style.Look] = {  # of the lines of the figure
    "ResNet": {"color": style.CYCLE[6], "marker": "s"},
    "RK-Net": {"color": style.CYCLE[1], "marker": "^"},
    "ODE-Net (replay)": {"color": style.CYCLE[2], "marker": "v"},
    "ODE-Net (absolute norm)": {"color": style.CYCLE[5], "marker": "D"},
    "ODE-Net": {"color": style.CYCLE[0], "marker": "o"},
}
ABOUT = (
    "One training step of each network, by depth and by tolerance (1e-1 to 1e-6). L: residual blocks; L~: field "
    "evaluations forward, for RK-Net those of the accepted steps, whose graph it keeps. ODE-Net: the adjoint, its "
    "tolerance relative to the incoming gradient or absolute as in the paper (figure 3 shows what these gradients are "
    "worth); replay: the exact gradient of the steps, from one state kept a step. Lines on the left are least squares."
)

Scaled = dict[str, list[dict[str, Any]]]  # network -> its steps by depth


def by_depth(entries: Sequence[Entry]) -> Scaled:
    """The steps of each network."""
    steps = {name: [one for entry in entries if entry.row == name and (one := step(entry))] for name in LOOKS}
    return {name: sorted(mine, key=lambda one: one["depth"]) for name, mine in steps.items()}


def step(entry: Entry) -> dict[str, Any] | None:
    """Depth, memory and time of a training step of this cell; None where it is not one of these, or not done."""
    run, train = entry.run, entry.run.of("train")
    if entry.part != "scaling" or not run.done or len(train) < 2:
        return None
    last = train[-1]
    depth = {"ResNet": run.config.get("model.blocks"), "RK-Net": last["vjps"]}.get(entry.row, last["nfe_forward"])
    return {
        "depth": depth,
        "rtol": None if entry.row == "ResNet" else run.config.get("solver.rtol"),
        "saved_mib": last["saved_mib"],
        "peak_mib": last["peak_mib"],
        "step_ms": run.step_ms,
        "nfe_forward": last["nfe_forward"],
        "nfe_backward": last["nfe_backward"],
    }


def letter(name: str) -> str:
    """What the paper calls the depth of this network."""
    return "L" if name == "ResNet" else "L~"


def facts(scaled: Scaled) -> dict[str, float | None]:
    """What the paper's O(1), O(L) and O(L~) are when measured."""
    saved = [one["saved_mib"] for one in scaled["ODE-Net"]]
    spread = 100 * (max(saved) / min(saved) - 1) if len(saved) > 1 else None
    found: dict[str, float | None] = {"saved memory of ODE-Net, largest over smallest, minus 1 (%)": spread}
    for name in LOOKS:
        for measure, said in (("saved_mib", "saved memory"), ("step_ms", "time")):
            if measure == "step_ms" or not name.startswith("ODE-Net"):
                line = straight(finite([(one["depth"], one[measure]) for one in scaled[name]]))
                found[f"R² of {name}'s {said} against {letter(name)}"] = line.r2 if line else None
    return found


def table(scaled: Scaled) -> str:
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
def draw(scaled: Scaled) -> Figure | None:
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
            ends = [0, max(depths)]
            memory.plot(ends, [line.at(depth) for depth in ends], color=look["color"], linewidth=0.9)
        spent.plot(depths, seconds, **look, linewidth=0.9)
    memory.set(title="saved for backward (MiB)", xlim=(0, None), ylim=(0, None))
    spent.set(title="time of a step (s)", xscale="log", yscale="log")
    for axes in (memory, spent):
        axes.set_xlabel("L: blocks, or L~: evaluations of the field, forward")
    handles = [style.handle(said(name, steps), **LOOKS[name], linewidth=0.9) for name, steps in found.items()]
    style.legend(figure, handles, "memory")
    return figure


def said(name: str, steps: Sequence[dict[str, Any]]) -> str:
    """A line of the legend: how the memory grows."""
    saved = [one["saved_mib"] for one in steps]
    if max(saved) < 1.05 * min(saved):
        return f"{name}: flat"
    line = straight([(one["depth"], one["saved_mib"]) for one in steps])
    if not line:
        return name
    unit = "a block" if name == "ResNet" else "an evaluation"
    return f"{name}: {line.slope:.2g} MiB {unit}, R² = {line.r2:.4f}"
