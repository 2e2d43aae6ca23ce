"""Figure 4 of Chen et al. 2018: planar flows against continuous ones, matched to energies in the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from odenet_cli.report import flows, validation
from odenet_cli.report.flows import Choices
from odenet_cli.report.groups import Group
from odenet_cli.report.items._fig4 import densities, look, loss
from odenet_cli.report.result import Entry, Result
from odenet_cli.report.table import plus_minus
from odenet_cli.report.text import bullets

NUMBERS = (
    *("kl", "kl_se", "outside", "loss", "parameters", "time_s", "step", "nfe_forward", "nfe_backward", "saved_mib"),
    "best_epoch",
)
SCORES: dict[str, Callable[[Group], str]] = {
    "KL, nat": lambda group: plus_minus(group.spread("kl"), 4),
    "outside %": lambda group: plus_minus(group.spread("outside"), 2, 100),
}
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
    cells, found = flows.sorted_out(entries)
    title, rows = "Figure 4, planar flows against CNF", flows.rows(entries, found, NUMBERS)
    if not found:
        return Result(title=title, body=["Nothing is trained yet, and there is nothing to compare."], rows=rows)
    columns = min(2, len(flows.targets(found)))
    figures = {
        "densities": densities(found),
        "loss": loss(found),
        "curves": flows.curves(cells, found, "kl", "KL on validation (nat)", look, columns),
    }
    body = ["![densities]", DENSITIES, flows.table(found, "energy", SCORES), TABLE, "![loss]", LOSS]
    body += [bullets(rest["notes"]), *flows.training(found, CURVES)]
    return Result(title=title, body=body, rows=rows, figures=figures, facts=facts(found, entries))


def facts(found: Choices, entries: Sequence[Entry]) -> dict[str, float | None]:
    """What was found, in numbers."""
    kl = {key: choice.group.mean("kl") for key, choice in found.items()}
    pairs = [(kl.get((energy, "CNF 32")), kl.get((energy, "planar 32"))) for energy in flows.targets(found)]
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    fall = validation.largest_fall(found.values(), "kl")
    return {
        "energies on which CNF 32 is below planar 32": float(sum(a < b for a, b in known)) if known else None,
        "KL of CNF 32 on u1 (nat)": kl.get(("u1", "CNF 32")),
        "smallest KL in standard errors": flows.smallest_in_errors(entries, "kl", "kl_se"),
        "largest fall of a validation KL over the last tenth of training (nat)": fall,
    }
