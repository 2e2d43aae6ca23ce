"""What figure 4 shows: densities beside their targets, and the loss against size and cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from matplotlib.figure import Figure

from odenet_cli.report import flows, scales, style
from odenet_cli.report.flows import Choices
from odenet_cli.report.pictures import _flow
from odenet_cli.report.selection import Choice

KINDS: dict[str, style.Look] = {
    "planar": {"color": style.CYCLE[1], "marker": "s"},
    "CNF": {"color": style.CYCLE[0], "marker": "o"},
}
SHADES = {2: 0.35, 8: 0.6, 32: 1.0}  # of a kind's colour, by K or M


def size(flow: str) -> int:
    """K or M: "CNF 32" has 32."""
    return int(flow.split()[1])


def look(flow: str) -> style.Look:
    """Of its curve: the colour of its kind, the darker the larger it is."""
    return {"color": style.mixed(KINDS[flow.split()[0]]["color"], SHADES.get(size(flow), 1.0))}


def evaluations(choice: Choice) -> float:
    """Of the target, by a run: updates times batch."""
    return statistics.fmean((r.value("step") or 0) * r.config["trainer.batch_size"] for r in choice.group.done)


AXES: dict[str, Callable[[Choice], float]] = {
    "K or M": lambda choice: size(choice.entries[0].row),
    "parameters": lambda choice: choice.group.mean("parameters") or 0.0,
    "time (s)": lambda choice: choice.group.mean("time_s") or 0.0,
    "evaluations of the target": evaluations,
}


@style.styled
def densities(found: Choices) -> Figure | None:
    """A row for each energy: its target, then the flows by kind and size."""
    energies, columns = flows.targets(found), flows.flows(found)
    side = style.WIDTH / (len(columns) + 1)
    figure = Figure(figsize=(style.WIDTH, (side + 0.17) * len(energies)))
    style.packed(figure)
    panels = figure.subplots(len(energies), len(columns) + 1, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for line, energy in zip(panels, energies):
        for axes, flow in zip(line[1:], columns):
            read = flows.arrays(found.get((energy, flow)), "density")
            if read is None:
                continue
            run, arrays = read
            top, kl = float(arrays["target"].max()), run.value("kl")
            for panel, values in ((line[0], arrays["target"]), (axes, arrays["density"][-1])):
                panel.set_axis_on()
                _flow.framed(panel, arrays)
                _flow.density(panel, arrays, values, top)
            axes.set_title(flow if kl is None else f"{flow}: {kl:.3f}", loc="center")
            line[0].set_title(f"{flows.named(energy)}, target", loc="center", fontweight="bold")
    return figure if any(axes.axison for axes in panels.flat) else None


@style.styled
def loss(found: Choices) -> Figure:
    """KL against K or M, parameters, time and evaluations of the target; a row for each energy."""
    energies = flows.targets(found)
    figure, panels = style.grid(len(energies) * len(AXES), len(AXES), 1.12, 0.25, sharey="row", sharex="col")
    for line, energy in zip(panels, energies):
        heights: list[float] = []
        for kind, mark in KINDS.items():
            mine = sorted((size(f), choice) for (e, f), choice in found.items() if e == energy and f.startswith(kind))
            known = [(choice, spread) for _, choice in mine if (spread := choice.group.spread("kl"))]
            kl = [spread.mean for _, spread in known]
            heights += [height for height in kl if height > 0]
            for axes, of in zip(line, AXES.values()):
                x = [of(choice) for choice, _ in known]
                axes.plot(x, kl, color=mark["color"], linewidth=0.9)
                for across, (_, spread) in zip(x, known):
                    style.point(axes, (across, spread.mean), (0, spread.sd or 0), **mark)
                axes.set_xscale("log")
        if heights:
            scales.powers(line[0], heights)
        line[0].set_ylabel(f"{flows.named(energy)}: KL (nat)")
    for axes, (label, of) in zip(panels[-1], AXES.items()):
        axes.set_xlabel(label)
        scales.spanned(axes.xaxis, [of(choice) for choice in found.values()])
    scales.ticked(panels[-1][0].xaxis, sorted({float(size(flow)) for flow in flows.flows(found)}))
    style.legend(figure, [style.handle(kind, linewidth=0.9, **mark) for kind, mark in KINDS.items()])
    return figure
