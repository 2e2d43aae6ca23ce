"""Figure 4 of Chen et al. 2018: planar flows against continuous ones, matched to energies in the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import scales, selection, style
from odenet_cli.report.compare import Group
from odenet_cli.report.items import _flows
from odenet_cli.report.items._flows import Choices
from odenet_cli.report.pictures import _flow
from odenet_cli.report.result import Entry, Facts, Result
from odenet_cli.report.selection import Choice
from odenet_cli.report.table import plus_minus
from odenet_cli.report.text import bullets

TITLE = "Figure 4, planar flows against CNF"
LABELS = {
    "cnf_below_planar": "energies on which CNF 32 is below planar 32",
    "kl_u1": "KL of CNF 32 on u1 (nat)",
    "smallest_kl": "smallest KL in standard errors",
    "kl_fall": "largest fall of a validation KL over the last tenth of training (nat)",
}
NUMBERS = (
    *("kl", "kl_se", "outside", "loss", "parameters", "time_s", "step", "nfe_forward", "nfe_backward", "saved_mib"),
    "best_epoch",
)
SCORES: dict[str, Callable[[Group], str]] = {
    "KL, nat": lambda group: plus_minus(group.spread("kl"), 4),
    "outside %": lambda group: plus_minus(group.spread("outside"), 2, 100),
}
DENSITIES = (
    "Densities of one seed; above each its KL. All panels of a row have the colours of their target: what is "
    "brighter than the target has too much mass, what is dark has none."
)
TABLE = (
    "KL(q‖p) in nat, mean ± standard deviation over seeds, on samples that chose nothing. Outside: the share of them "
    "beyond the wall. NFE: field evaluations of a training step. Time: of training and scoring, beside other work."
)
LOSS = (
    "KL against K or M, the same against parameters and against time of training and scoring, each mark with its K or "
    "M. Bars: standard deviation over seeds."
)
CURVES = "KL on validation samples over training; thick at the rate that is shown, thin at others that are drawn."

NUMBER: dict[str, Any] = {"fontsize": 6, "xytext": (4, 2), "textcoords": "offset points"}
FROM_ROWS = ("loss",)  # figures that need the rows of the CSV alone
KINDS: dict[str, style.Look] = {
    "planar": {"color": style.CYCLE[1], "marker": "s"},
    "CNF": {"color": style.CYCLE[0], "marker": "o"},
}
TINTS = {2: 0.35, 8: 0.6, 32: 1.0}  # of a kind's colour, by K or M


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `rest["notes"]` holds the free choices."""
    cells, choices, rows = _flows.select(entries, NUMBERS)
    if not choices:
        return Result(body=["Nothing is trained yet, and there is nothing to compare."], rows=rows)
    columns = min(2, len(_flows.targets(choices)))
    figures = {
        "densities": densities(choices),
        "loss": loss(choices),
        "curves": _flows.curves(cells, choices, "kl", "KL on validation (nat)", look, columns),
    }
    body = ["![densities]", DENSITIES, _flows.table(choices, "energy", SCORES), TABLE, "![loss]", LOSS]
    body += [bullets(rest["notes"]), *_flows.training(choices, CURVES)]
    seeds = {"densities": _flows.first_seed(choices)}
    return Result(body=body, rows=rows, figures=figures, seeds=seeds, facts=facts(choices, entries))


def facts(choices: Choices, entries: Sequence[Entry]) -> Facts:
    kl = {key: choice.group.mean("kl") for key, choice in choices.items()}
    pairs = [(kl.get((energy, "CNF 32")), kl.get((energy, "planar 32"))) for energy in _flows.targets(choices)]
    known = [(cnf, planar) for cnf, planar in pairs if cnf is not None and planar is not None]
    return {
        "cnf_below_planar": float(sum(cnf < planar for cnf, planar in known)) if known else None,
        "kl_u1": kl.get(("u1", "CNF 32")),
        "smallest_kl": _flows.smallest_in_errors(entries, "kl", "kl_se"),
        "kl_fall": selection.largest_fall(choices.values(), "kl"),
    }


# The drawing.


def size(flow: str) -> int:
    """Return K or M: "CNF 32" has 32."""
    return int(flow.split()[1])


def look(flow: str) -> style.Look:
    """Return the colour of the flow's kind, the darker the larger it is."""
    return {"color": style.tint(KINDS[flow.split()[0]]["color"], TINTS.get(size(flow), 1.0))}


TIME = "time (s)"
X_AXES: dict[str, Callable[[Choice], float]] = {
    "K or M": lambda choice: size(choice.entries[0].row),
    "parameters": lambda choice: choice.group.mean("parameters") or 0.0,
    TIME: lambda choice: choice.group.mean("time_s") or 0.0,
}


@style.styled
def densities(choices: Choices) -> Figure | None:
    """Draw a row for each energy: its target, then the flows by kind and size."""
    energies, flows = _flows.targets(choices), _flows.flows(choices)
    columns = len(flows) + 1
    figure, panels = style.panel_grid(len(energies) * columns, columns, style.WIDTH / columns + 0.17)
    style.remove_gaps(figure)
    for axes in panels.flat:
        axes.set_axis_off()
    for line, energy in zip(panels, energies):
        for axes, flow in zip(line[1:], flows):
            first = _flows.arrays(choices.get((energy, flow)), "density")
            if first is None:
                continue
            run, arrays = first
            top, kl = float(arrays["target"].max()), run.value("kl")
            for panel, values in ((line[0], arrays["target"]), (axes, arrays["density"][-1])):
                panel.set_axis_on()
                _flow.frame(panel, arrays)
                _flow.density(panel, arrays, values, top)
            title = flow if kl is None else f"{flow}, KL {kl:.3f}"
            axes.set_title(title, loc="center", fontsize=6)
            line[0].set_title(f"{_flows.target_title(energy)}, target", loc="center", fontsize=6, fontweight="bold")
    return figure if any(axes.axison for axes in panels.flat) else None


@style.styled
def loss(choices: Choices) -> Figure:
    """Draw KL against K or M, parameters and time; a row for each energy.

    Time does not grow with K or M, which also cost updates: its marks are not joined but numbered.
    """
    energies = _flows.targets(choices)
    figure, panels = style.panel_grid(len(energies) * len(X_AXES), len(X_AXES), 1.12, 0.25, sharey="row", sharex="col")
    for line, energy in zip(panels, energies):
        heights: list[float] = []
        for kind, mark in KINDS.items():
            ordered = sorted(
                (size(f), choice) for (e, f), choice in choices.items() if e == energy and f.startswith(kind)
            )
            known = [(choice, spread) for _, choice in ordered if (spread := choice.group.spread("kl"))]
            kl = [spread.mean for _, spread in known]
            heights += [height for height in kl if height > 0]
            heights += [spread.mean + (spread.sd or 0) for _, spread in known]
            for axes, (label, x_of) in zip(line, X_AXES.items()):
                x = [x_of(choice) for choice, _ in known]
                if label != TIME:
                    axes.plot(x, kl, color=mark["color"], linewidth=0.9)
                for across, (choice, spread) in zip(x, known):
                    style.point(axes, (across, spread.mean), (0, spread.sd or 0), **mark)
                    if label == TIME:
                        number = str(size(choice.entries[0].row))
                        axes.annotate(number, (across, spread.mean), color=mark["color"], **NUMBER)
                axes.set_xscale("log")
        if heights:
            scales.decade_limits(line[0], heights)
        line[0].set_ylabel(f"{_flows.target_title(energy)}: KL (nat)")
    for axes, (label, x_of) in zip(panels[-1], X_AXES.items()):
        axes.set_xlabel(label)
        scales.log_ticks(axes.xaxis, [x_of(choice) for choice in choices.values()])
    scales.ticks_at(panels[-1][0].xaxis, sorted({float(size(flow)) for flow in _flows.flows(choices)}))
    style.legend(figure, [(kind, mark | {"linewidth": 0.9}) for kind, mark in KINDS.items()])
    return figure
