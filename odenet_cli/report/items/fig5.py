"""Figure 5 of Chen et al. 2018: a continuous flow and a planar one fitted to two circles and two moons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import flows, validation
from odenet_cli.report.flows import Choices
from odenet_cli.report.groups import Group
from odenet_cli.report.items._fig5 import FLOWS, film, gathered, strip
from odenet_cli.report.result import Entry, Result
from odenet_cli.report.table import plus_minus
from odenet_cli.report.text import NONE, bullets

NUMBERS = (
    *("nll", "nll_se", "gap", "round_trip", "loss", "parameters", "time_s", "step", "nfe_forward", "nfe_backward"),
    *("saved_mib", "best_epoch"),
)
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


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["notes"]` holds the free choices."""
    cells, found = flows.sorted_out(entries)
    title, rows = "Figure 5, CNF and planar flow by maximum likelihood", flows.rows(entries, found, NUMBERS)
    if not found:
        return Result(title=title, body=["Nothing is trained yet, and there is nothing to compare."], rows=rows)
    targets, drawn = flows.targets(found), gathered(found)
    figures: dict[str, Figure | None] = {data: strip(drawn, data) for data in targets}
    figures["curves"] = flows.curves(
        cells, found, "gap", "NLL above the entropy (nat)", lambda flow: {"color": FLOWS[flow]}, len(targets)
    )
    body = [part for data in targets for part in (f"![{data}]", STRIP.format(data=data))]
    body += ["![film]", FILM] if drawn else []
    body += [flows.table(found, "data", SCORES), TABLE, bullets(rest["notes"]), *flows.training(found, CURVES)]
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
    made = {
        f"NLL of CNF 64 above the entropy on {data} (nat)": gap.get((data, "CNF 64")) for data in flows.targets(found)
    }
    for data in flows.targets(found):
        ours, theirs = gap.get((data, "CNF 64")), gap.get((data, "planar 64"))
        above = None if ours is None or theirs is None else theirs - ours
        made[f"NLL of planar 64 above that of CNF 64 on {data} (nat)"] = above
    smallest = flows.smallest_in_errors(entries, "gap", "nll_se")
    made["smallest NLL above the entropy in standard errors"] = smallest
    fall = validation.largest_fall(found.values(), "gap")
    return {**made, "largest fall of a validation NLL over the last tenth of training (nat)": fall}


def entropy(group: Group) -> str:
    """Of the density that test points come from."""
    nll, gap = group.mean("nll"), group.mean("gap")
    return NONE if nll is None or gap is None else f"{nll - gap:.3f}"


def round_trip(group: Group) -> str:
    trip = group.mean("round_trip")
    return NONE if trip is None else f"{trip:.0e}"


SCORES: dict[str, Callable[[Group], str]] = {
    "NLL, nat": lambda group: plus_minus(group.spread("nll"), 3),
    "entropy": entropy,
    "above it": lambda group: plus_minus(group.spread("gap"), 3),
    "round trip": round_trip,
}
