"""Figure 4 of Chen et al. 2018: planar flows against continuous ones, matched to energies in the plane."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odenet_cli.report import _matched, style
from odenet_cli.report._matched import Choices
from odenet_cli.report._rates import Choice
from odenet_cli.report.pictures import _flow
from odenet_cli.report.result import Entry, Result
from odenet_cli.report.table import aligned, parameters, plus_minus, runs
from odenet_cli.report.words import count, digits

NUMBERS = (
    *("kl", "kl_se", "outside", "loss", "parameters", "time_s", "step", "nfe_forward", "nfe_backward", "saved_mib"),
    "best_epoch",
)
KINDS = {"planar": style.CYCLE[1], "CNF": style.CYCLE[0]}
SHADES = {2: 0.35, 8: 0.6, 32: 1.0}  # of a kind's colour, by K or M
DENSITIES = (
    "Densities of the first seed; above each its KL. All panels of a row have the colours of their target: what is "
    "brighter than the target has too much mass, what is dark has none."
)
TABLE = (
    "KL(q‖p) in nat, mean ± standard deviation over seeds, on samples that chose nothing. Outside: the share of them "
    "beyond the wall. NFE: field evaluations of a training step. Time: of training and scoring, beside another run."
)
LOSS = (
    "KL against K or M; the same against parameters, time of training and evaluations of the target (updates times "
    "batch). Bars: standard deviation over seeds."
)
CURVES = "KL on validation samples over training; thick at the learning rate that is shown, thin at the others."


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["notes"]` holds the free choices."""
    cells, found = _matched.sorted_out(entries)
    body = ["Nothing is trained yet, and there is nothing to compare."]
    if found:
        body = ["![densities]", DENSITIES, table(found), TABLE, "![loss]", LOSS]
        body += ["\n".join(f"- {line}" for line in rest["notes"]), "## Training", _matched.RATES, _matched.rates(found)]
        body += ["![curves]", CURVES]
    figures: dict[str, Figure | None] = {}
    if found:
        figures = {"densities": densities(found), "loss": loss(found)}
        columns = min(2, len({energy for energy, _ in found}))
        figures["curves"] = _matched.curves(cells, found, "kl", "KL on validation (nat)", look, columns)
    return Result(
        title="Figure 4, planar flows against CNF",
        body=body,
        rows=_matched.rows(entries, found, NUMBERS),
        figures=figures,
        facts=facts(found, entries) if found else {},
    )


def size(flow: str) -> int:
    """K or M: "CNF 32" has 32."""
    return int(flow.split()[1])


def look(flow: str) -> style.Look:
    return {"color": style.mixed(KINDS[flow.split()[0]], SHADES.get(size(flow), 1.0))}


def facts(found: Choices, entries: Sequence[Entry]) -> dict[str, float | None]:
    """What was found, in numbers."""
    kl = {key: choice.group.mean("kl") for key, choice in found.items()}
    pairs = [(kl.get((energy, "CNF 32")), kl.get((energy, "planar 32"))) for energy in dict.fromkeys(e for e, _ in kl)]
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    scores = [(e.run.value("kl"), e.run.value("kl_se")) for e in entries if e.run.done]
    return {
        "energies on which CNF 32 is below planar 32": float(sum(a < b for a, b in known)) if known else None,
        "KL of CNF 32 on u1 (nat)": kl.get(("u1", "CNF 32")),
        "smallest KL in standard errors": min((k / s for k, s in scores if k is not None and s), default=None),
        "largest fall of a validation KL over the last tenth of training (nat)": _matched.largest_fall(found, "kl"),
    }


def table(found: Choices) -> str:
    head = ["energy", "flow", "KL, nat", "outside %", "rate", "parameters", "updates", "NFE", "time, s", "runs (seeds)"]
    rows = []
    for (energy, flow), choice in found.items():
        group = choice.group
        cells = [
            _matched.named(energy),
            flow,
            plus_minus(group.spread("kl"), 4),
            plus_minus(group.spread("outside"), 2, 100),
        ]
        cells += [choice.setting, parameters(group), count(group.mean("step"))]
        cells += [count(group.mean("nfe_forward") or None), digits(group.mean("time_s")), runs(group)]
        rows.append(cells)
    return aligned(head, rows, left=2)


@style.styled
def densities(found: Choices) -> Figure | None:
    """A row for each energy: its target, then the flows by kind and size."""
    energies, flows = list(dict.fromkeys(e for e, _ in found)), list(dict.fromkeys(f for _, f in found))
    side = style.WIDTH / (len(flows) + 1)
    figure = Figure(figsize=(style.WIDTH, (side + 0.17) * len(energies)))
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    panels = figure.subplots(len(energies), len(flows) + 1, squeeze=False)
    drawn = 0
    for line, energy in zip(panels, energies):
        for axes in line:
            axes.set_axis_off()
        for axes, flow in zip(line[1:], flows):
            read = _matched.arrays(found.get((energy, flow)), "density")
            if read is None:
                continue
            run, arrays = read
            top, kl = float(arrays["target"].max()), run.value("kl")
            for panel, values in ((line[0], arrays["target"]), (axes, arrays["density"][-1])):
                panel.set_axis_on()
                _flow.framed(panel, arrays)
                _flow.density(panel, arrays, values, top)
            axes.set_title(flow if kl is None else f"{flow}: {kl:.3f}", loc="center")
            line[0].set_title(f"{_matched.named(energy)}, target", loc="center", fontweight="bold")
            drawn += 1
    return figure if drawn else None


@style.styled
def loss(found: Choices) -> Figure:
    """KL against K or M, parameters, time and evaluations of the target; a row for each energy."""
    energies = list(dict.fromkeys(energy for energy, _ in found))
    figure = Figure(figsize=(style.WIDTH, 1.12 * len(energies) + 0.25))
    panels = figure.subplots(len(energies), len(AXES), squeeze=False, sharey="row", sharex="col")
    for line, energy in zip(panels, energies):
        heights: list[float] = []
        for kind, color in KINDS.items():
            mine = sorted((size(f), choice) for (e, f), choice in found.items() if e == energy and f.startswith(kind))
            known = [(choice, spread) for _, choice in mine if (spread := choice.group.spread("kl"))]
            kl = [spread.mean for _, spread in known]
            heights += [height for height in kl if height > 0]
            for axes, of in zip(line, AXES.values()):
                x = [of(choice) for choice, _ in known]
                axes.plot(x, kl, color=color, linewidth=0.9)
                for across, (_, spread) in zip(x, known):
                    style.point(axes, (across, spread.mean), (0, spread.sd or 0), color=color, marker=MARKS[kind])
                axes.set_xscale("log")
        if heights:
            _matched.logarithmic(line[0], heights)
        line[0].set_ylabel(f"{_matched.named(energy)}: KL (nat)")
    for axes, (label, of) in zip(panels[-1], AXES.items()):
        axes.set_xlabel(label)
        _matched.spanned(axes.xaxis, [of(choice) for choice in found.values()])
    style.ticked(panels[-1][0].xaxis, sorted({float(size(flow)) for _, flow in found}))
    handles = [Line2D([], [], color=c, marker=MARKS[kind], linewidth=0.9, label=kind) for kind, c in KINDS.items()]
    style.legend(figure, handles)
    return figure


def evaluations(choice: Choice) -> float:
    return statistics.fmean((r.value("step") or 0) * r.config["trainer.batch_size"] for r in choice.group.done)


MARKS = {"planar": "s", "CNF": "o"}
AXES: dict[str, Callable[[Choice], float]] = {
    "K or M": lambda choice: size(choice.entries[0].row),
    "parameters": lambda choice: choice.group.mean("parameters") or 0.0,
    "time (s)": lambda choice: choice.group.mean("time_s") or 0.0,
    "evaluations of the target": evaluations,
}
