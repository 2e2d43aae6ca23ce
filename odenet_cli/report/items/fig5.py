"""Figure 5 of Chen et al. 2018: a continuous flow and a planar one fitted to two circles and two moons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from odenet_cli.markdown import MISSING
from odenet_cli.report import selection, style
from odenet_cli.report.compare import Group
from odenet_cli.report.items import _flows
from odenet_cli.report.items._flows import Choices
from odenet_cli.report.pictures import _flow, likelihood
from odenet_cli.report.result import Entry, Facts, Result
from odenet_cli.report.table import plus_minus
from odenet_cli.report.text import bullets

TITLE = "Figure 5, CNF and planar flow by maximum likelihood"
CNF, PLANAR = "CNF 64", "planar 64"
LABELS = {
    "cnf_gap": "NLL of CNF 64 above the entropy on {} (nat)",
    "planar_above_cnf": "NLL of planar 64 above that of CNF 64 on {} (nat)",
    "smallest_gap": "smallest NLL above the entropy in standard errors",
    "nll_fall": "largest fall of a validation NLL over the last tenth of training (nat)",
}
NUMBERS = (
    *("nll", "nll_se", "gap", "round_trip", "loss", "parameters", "time_s", "step", "nfe_forward", "nfe_backward"),
    *("saved_mib", "best_epoch"),
)
STRIP = (
    "On {data}: density and samples of each flow on the way from noise to data, and what it was trained on. A CNF "
    "moves along its field, a planar flow by layers. The first seed; each panel of a density has its own scale."
)
FILM = "Samples of both flows on their way from noise to data, and back; above them how far they are."
TABLE = (
    "Negative log-likelihood of test points in nat, beside the entropy of the density that they come from, below "
    "which no flow can be; mean ± standard deviation over seeds. CNFs are scored by dopri5 at 1e-7 in float64. Round "
    "trip: the largest distance at which test points come back from the noise that they are mapped to. Time: of "
    "training and scoring, beside another run."
)
CURVES = (
    "NLL above the entropy on validation samples over training; thick at the rate that is shown, thin at others that "
    "are drawn."
)
FROM_ROWS = ()  # no figure: each needs logs or arrays
COLORS = {CNF: style.CYCLE[0], PLANAR: style.CYCLE[1]}
HOLD_FRAMES = 12  # of the film, at noise and at data

Arrays = dict[tuple[str, str], dict[str, Any]]  # (data, flow) -> arrays of its first seed


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `rest["notes"]` holds the free choices."""
    cells, choices, rows = _flows.select(entries, NUMBERS)
    if not choices:
        return Result(body=["Nothing is trained yet, and there is nothing to compare."], rows=rows)
    targets = _flows.targets(choices)
    keys = [(data, flow) for data in targets for flow in COLORS]
    drawn = {key: first[1] for key in keys if (first := _flows.arrays(choices.get(key), "likelihood"))}
    figures: dict[str, Figure | None] = {data: strip(drawn, data) for data in targets}
    figures["curves"] = _flows.curves(
        cells, choices, "gap", "NLL above the entropy (nat)", lambda flow: {"color": COLORS[flow]}, len(targets)
    )
    body = [part for data in targets for part in (f"![{data}]", STRIP.format(data=data))]
    body += ["![film]", FILM, _flows.table(choices, "data", SCORES), TABLE, bullets(rest["notes"])]
    body += _flows.training(choices, CURVES)
    return Result(
        body=body,
        rows=rows,
        figures=figures,
        films={"film": lambda text: film(drawn, targets, text)} if drawn else {},
        seeds=dict.fromkeys([*targets, "film"], _flows.first_seed(choices)),
        facts=facts(choices, entries),
    )


def facts(choices: Choices, entries: Sequence[Entry]) -> Facts:
    gap, targets = {key: choice.group.mean("gap") for key, choice in choices.items()}, _flows.targets(choices)
    numbers: Facts = {f"cnf_gap/{data}": gap.get((data, CNF)) for data in targets}
    for data in targets:
        cnf, planar = gap.get((data, CNF)), gap.get((data, PLANAR))
        numbers[f"planar_above_cnf/{data}"] = None if cnf is None or planar is None else planar - cnf
    numbers["smallest_gap"] = _flows.smallest_in_errors(entries, "gap", "nll_se")
    return {**numbers, "nll_fall": selection.largest_fall(choices.values(), "gap")}


def entropy(group: Group) -> str:
    """Return the entropy of the density that test points come from."""
    nll, gap = group.mean("nll"), group.mean("gap")
    return MISSING if nll is None or gap is None else f"{nll - gap:.3f}"


def round_trip(group: Group) -> str:
    distance = group.mean("round_trip")
    return MISSING if distance is None else f"{distance:.0e}"


SCORES: dict[str, Callable[[Group], str]] = {
    "NLL, nat": lambda group: plus_minus(group.spread("nll"), 3),
    "entropy": entropy,
    "above it": lambda group: plus_minus(group.spread("gap"), 3),
    "round trip": round_trip,
}


# The drawing.


@style.styled
def strip(drawn: Arrays, data: str) -> Figure | None:
    """Draw densities and samples of both flows on the way from noise, and the target."""
    by_flow = {flow: drawn[data, flow] for flow in COLORS if (data, flow) in drawn}
    if not by_flow:
        return None
    columns = max(len(arrays["times"]) for arrays in by_flow.values()) + 1
    figure, panels = style.panel_grid(2 * len(by_flow) * columns, columns, style.WIDTH / columns, 0.2)
    style.remove_gaps(figure)
    for place, (flow, arrays) in enumerate(by_flow.items()):
        _flow.draw_rows(dict(zip(_flow.KINDS, panels[2 * place :])), arrays, likelihood.target(arrays), flow)
    _flow.title_columns(panels[0], next(iter(by_flow.values())))
    return figure


@style.styled
def film(drawn: Arrays, targets: Sequence[str], text: str) -> FuncAnimation:
    """Draw the particles of both flows moving from noise to data and back, a row for each target; `text` and the share
    of the way stand above."""
    side, columns = 1.7, len(COLORS) + 1
    figure, panels = style.panel_grid(len(targets) * columns, columns, side, 0.3, side * columns)
    heading = style.head(figure, text)
    dots, moments = [], 0
    for axes in panels.flat:
        axes.set_axis_off()
    for line, data in zip(panels, targets):
        for axes, (flow, color) in zip(line, COLORS.items()):
            if (arrays := drawn.get((data, flow))) is None:
                continue
            for panel in (axes, line[-1]):
                panel.set_axis_on()
                _flow.frame(panel, arrays)
            paths, moments = arrays["paths"], len(arrays["paths"])
            dots.append((axes.scatter(*paths[0].T, s=2.5, color=color, linewidths=0), paths))
            axes.set_title(flow, loc="center")
            points = arrays["target_samples"][: paths.shape[1]]
            line[-1].scatter(*points.T, s=2.5, color=style.GREY, linewidths=0)
            line[-1].set_title(data, loc="center", fontweight="bold")
    forth = list(range(moments))
    frames = [0] * HOLD_FRAMES + forth + [moments - 1] * HOLD_FRAMES + forth[::-1]

    def draw(frame: int) -> list[Any]:
        for scatter, paths in dots:
            scatter.set_offsets(paths[min(frame, len(paths) - 1)])
        heading.set_text(f"{text}: {100 * frame / (moments - 1):.0f} % of the way from noise to data")
        return [heading, *(scatter for scatter, _ in dots)]

    return FuncAnimation(figure, draw, frames=frames, cache_frame_data=False)
