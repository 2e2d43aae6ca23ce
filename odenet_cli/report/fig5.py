"""Figure 5 of Chen et al. 2018: a continuous flow and a planar one fitted to two circles and two moons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from odenet_cli.report import _matched, style
from odenet_cli.report._matched import Choices
from odenet_cli.report.pictures import _flow
from odenet_cli.report.result import Entry, Result
from odenet_cli.report.table import aligned, parameters, plus_minus, runs
from odenet_cli.report.words import NONE, count, digits

NUMBERS = (
    *("nll", "nll_se", "gap", "round_trip", "loss", "parameters", "time_s", "step", "nfe_forward", "nfe_backward"),
    *("saved_mib", "best_epoch"),
)
FLOWS = {"CNF 64": style.CYCLE[0], "planar 64": style.CYCLE[1]}
STRIP = (
    "On {data}: density and samples of each flow on the way from noise to data, and what it was trained on. A CNF "
    "moves along its field, a planar flow by layers. The first seed; each panel of a density has its own scale."
)
FILM = "Samples of both flows on their way from noise to data, and back."
TABLE = (
    "Negative log-likelihood of test points in nat, beside the entropy of the density that they come from, below "
    "which no flow can be; mean ± standard deviation over seeds. CNFs are scored by dopri5 at 1e-7 in float64. Round "
    "trip: the largest distance at which test points come back from the noise that they are mapped to. Time: of "
    "training and scoring, beside another run."
)
CURVES = (
    "NLL above the entropy on validation samples over training; thick at the rate that is shown, thin at the others."
)
HOLD = 12  # frames at noise, and at data

Drawn = dict[tuple[str, str], dict[str, Any]]  # (data, flow) -> arrays


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["notes"]` holds the free choices."""
    cells, found = _matched.sorted_out(entries)
    title, rows = "Figure 5, CNF and planar flow by maximum likelihood", _matched.rows(entries, found, NUMBERS)
    if not found:
        return Result(title=title, body=["Nothing is trained yet, and there is nothing to compare."], rows=rows)
    targets = list(dict.fromkeys(data for data, _ in found))
    figures: dict[str, Figure | None] = {data: strip(found, data) for data in targets}
    figures["curves"] = _matched.curves(
        cells, found, "gap", "NLL above the entropy (nat)", lambda flow: {"color": FLOWS[flow]}, len(targets)
    )
    drawn = paths(found, targets)
    body = [part for data in targets for part in (f"![{data}]", STRIP.format(data=data))]
    body += ["![film]", FILM] if drawn else []
    body += [table(found), TABLE, "\n".join(f"- {line}" for line in rest["notes"])]
    body += ["## Training", _matched.RATES, _matched.rates(found), "![curves]", CURVES]
    return Result(
        title=title,
        body=body,
        rows=rows,
        figures=figures,
        films={"film": lambda: film(drawn, targets)} if drawn else {},
        facts=facts(found, entries),
    )


def facts(found: Choices, entries: Sequence[Entry]) -> dict[str, float | None]:
    """What was found, in numbers."""
    gap = {key: choice.group.mean("gap") for key, choice in found.items()}
    made = {f"NLL of CNF 64 above the entropy on {data} (nat)": gap.get((data, "CNF 64")) for data, _ in found}
    for data in dict.fromkeys(data for data, _ in found):
        ours, theirs = gap.get((data, "CNF 64")), gap.get((data, "planar 64"))
        above = None if ours is None or theirs is None else theirs - ours
        made[f"NLL of planar 64 above that of CNF 64 on {data} (nat)"] = above
    scores = [(e.run.value("gap"), e.run.value("nll_se")) for e in entries if e.run.done]
    made["smallest NLL above the entropy in standard errors"] = min(
        (g / s for g, s in scores if g is not None and s), default=None
    )
    fall = _matched.largest_fall(found, "gap")
    return {**made, "largest fall of a validation NLL over the last tenth of training (nat)": fall}


def table(found: Choices) -> str:
    head = ["data", "flow", "NLL, nat", "entropy", "above it", "round trip", "rate", "parameters", "updates", "NFE"]
    rows = []
    for (data, flow), choice in found.items():
        group = choice.group
        nll, gap, trip = group.mean("nll"), group.mean("gap"), group.mean("round_trip")
        cells = [data, flow, plus_minus(group.spread("nll"), 3)]
        cells += [NONE if nll is None or gap is None else f"{nll - gap:.3f}", plus_minus(group.spread("gap"), 3)]
        cells += [NONE if trip is None else f"{trip:.0e}", choice.setting, parameters(group)]
        cells += [count(group.mean("step")), count(group.mean("nfe_forward") or None)]
        rows.append([*cells, digits(group.mean("time_s")), runs(group)])
    return aligned([*head, "time, s", "runs (seeds)"], rows, left=2)


@style.styled
def strip(found: Choices, data: str) -> Figure | None:
    """Densities and samples of both flows on the way from noise, and the target."""
    drawn = {flow: read[1] for flow in FLOWS if (read := _matched.arrays(found.get((data, flow)), "likelihood"))}
    if not drawn:
        return None
    columns = max(len(arrays["times"]) for arrays in drawn.values()) + 1
    side = style.WIDTH / columns
    figure = Figure(figsize=(style.WIDTH, side * 2 * len(drawn) + 0.2))
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    panels = figure.subplots(2 * len(drawn), columns, squeeze=False)
    for place, (flow, arrays) in enumerate(drawn.items()):
        densities, samples = panels[2 * place : 2 * place + 2]
        for column, time in enumerate(arrays["times"]):
            for axes in (densities[column], samples[column]):
                _flow.framed(axes, arrays)
            _flow.density(densities[column], arrays, arrays["density"][column])
            _flow.samples(samples[column], arrays, arrays["particles"][column])
            if not place:
                densities[column].set_title(_flow.moment(time, first=not column), loc="center")
        for axes in (densities[-1], samples[-1]):
            _flow.framed(axes, arrays)
        _flow.density(densities[-1], arrays, arrays["target"])
        _flow.samples(samples[-1], arrays, arrays["target_samples"])
        densities[0].set_ylabel(f"{flow}: density")
        samples[0].set_ylabel(f"{flow}: samples")
    panels[0][-1].set_title("target", loc="center", fontweight="bold")
    return figure


def paths(found: Choices, targets: Sequence[str]) -> Drawn:
    """What the film is made of."""
    read = {(data, flow): found.get((data, flow)) for data in targets for flow in FLOWS}
    return {key: one[1] for key, choice in read.items() if (one := _matched.arrays(choice, "likelihood"))}


@style.styled
def film(drawn: Drawn, targets: Sequence[str]) -> FuncAnimation:
    """The particles of both flows, a row for each target, there and back."""
    side = 1.7
    figure = Figure(figsize=(side * (len(FLOWS) + 1), side * len(targets) + 0.3))
    panels = figure.subplots(len(targets), len(FLOWS) + 1, squeeze=False)
    dots, moments = [], 0
    for line, data in zip(panels, targets):
        for axes in line:
            axes.set_axis_off()
        for axes, (flow, color) in zip(line, FLOWS.items()):
            if (arrays := drawn.get((data, flow))) is None:
                continue
            for panel in (axes, line[-1]):
                panel.set_axis_on()
                _flow.framed(panel, arrays)
            ways, moments = arrays["paths"], len(arrays["paths"])
            dots.append((axes.scatter(*ways[0].T, s=2.5, color=color, linewidths=0), ways))
            axes.set_title(flow, loc="center")
            points = arrays["target_samples"][: ways.shape[1]]
            line[-1].scatter(*points.T, s=2.5, color=style.GREY, linewidths=0)
            line[-1].set_title(data, loc="center", fontweight="bold")
    there = list(range(moments))
    order = [0] * HOLD + there + [moments - 1] * HOLD + there[::-1]

    def draw(frame: int) -> list[Any]:
        for scatter, ways in dots:
            scatter.set_offsets(ways[min(frame, len(ways) - 1)])
        return [scatter for scatter, _ in dots]

    return FuncAnimation(figure, draw, frames=order, cache_frame_data=False)
