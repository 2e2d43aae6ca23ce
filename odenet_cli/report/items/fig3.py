"""Figure 3 of Chen et al. 2018: what a trained ODE-Net pays for its tolerance, and what the gradient then is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from odenet_cli.report.items._fig3 import MARKS, ORDER, Rows, draw, gradients, means
from odenet_cli.report.regression import power, straight
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.table import aligned
from odenet_cli.report.text import NONE, bullets, count, plain

ORIGIN = ("cell", "machine", "commit", "data")
TRAINING = ("step", "epoch", "loss", "nfe_forward", "nfe_backward")
RATE = "slope of log error of z(1) against log tolerance"
PANELS = (
    "a: evaluations of a forward solve (dopri5) and the relative error of z(1) against a solve at {solve}. b: time of "
    "a forward solve, relative to the longest. c: evaluations forward and backward of the adjoint, both solves at the "
    "same tolerance, by solver and error norm: relative to the incoming gradient (the default here), and absolute (the "
    "paper's). d: evaluations of a training step over training, a thin line a seed, thick their mean. e, which is not "
    "in the paper: the relative error of the gradients of c against one at {gradient} (good to some tenths of a per "
    "cent), and what they cost; from left to right the tolerance falls. All but d in float64, on one trained network."
)


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`entries` are trained networks, a seed each; on the first of them it was measured."""
    entry = next((entry for entry in entries if entry.run.done and entry.measured), None)
    title = "Figure 3, error control of a trained ODE-Net"
    if entry is None:
        return Result(title=title, body=["Nothing could be measured: the network is not trained."], rows=[])
    kinds = {kind: entry.of(kind) for kind in ("solve", "time", "gradient")}
    facts = found(kinds)
    references = {kind: plain(kinds[kind][0]["reference"]) for kind in ("solve", "gradient")}
    rows = [
        {**row, **{name: value for name, value in row_of(entry, ()).items() if name in ORIGIN}}
        for row in entry.measured
    ]
    runs = [entry.run for entry in entries if entry.run.done]
    rows += [line for entry in entries if entry.run.done for line in training(entry)]
    body = ["![panels]", PANELS.format(**references), solves_table(kinds), gradients_table(kinds["gradient"])]
    body += [bullets(rest["notes"])]
    return Result(title=title, body=body, rows=rows, figures={"panels": draw(kinds, runs, facts)}, facts=facts)


def training(entry: Entry) -> list[dict[str, Any]]:
    """Return the lines of the CSV on the training of one network."""
    origin = row_of(entry, ())
    known = {"kind": "training", **{name: origin[name] for name in ORIGIN}, "seed": entry.run.seed}
    return [known | {name: record.get(name) for name in TRAINING} for record in entry.run.of("train")]


def found(kinds: Mapping[str, Rows]) -> dict[str, float | None]:
    """The figure in numbers."""
    errors, nfe = means(kinds["solve"], "error", "rtol"), means(kinds["solve"], "nfe", "rtol")
    ordered = [errors[tol] for tol in sorted(errors, reverse=True)]
    falls = all(later < earlier for earlier, later in pairwise(ordered))
    line = straight([(row["nfe"], row["time_s"]) for row in kinds["time"]])
    facts: dict[str, float | None] = {
        "tolerances": float(len(errors)),
        "error of z(1) falls with every tighter tolerance (1: yes)": float(falls),
        RATE: power([(tol, errors[tol]) for tol in errors]),
        ORDER: power([(nfe[tol], errors[tol]) for tol in errors]),
        "R² of the time of a forward solve against NFE": line.r2 if line else None,
    }
    measured = gradients(kinds["gradient"])
    for setting in MARKS:
        for tol in (1e-2, 1e-3):
            if one := measured.get((setting, tol)):
                at = f"{setting}, {plain(tol)}"
                facts[f"NFE backward over forward ({at})"] = one.backward / one.forward
                facts[f"gradient error ({at}, %)"] = 100 * one.error
    return facts


def solves_table(kinds: Mapping[str, Rows]) -> str:
    """Panels a and b in numbers."""
    errors, nfe = means(kinds["solve"], "error", "rtol"), means(kinds["solve"], "nfe", "rtol")
    rejected, spent = means(kinds["solve"], "rejected", "rtol"), means(kinds["time"], "time_s", "rtol")
    rows = [
        [plain(tol), count(nfe[tol]), count(rejected[tol]), f"{errors[tol]:.2e}", f"{1e3 * spent[tol]:.1f}"]
        for tol in sorted(errors, reverse=True)
    ]
    return aligned(["tolerance", "NFE forward", "rejected", "error of z(1)", "forward solve, ms"], rows, left=0)


def gradients_table(rows: Rows) -> str:
    """Panels c and e in numbers: evaluations forward / backward, error of the gradient."""
    measured = gradients(rows)

    def cell(setting: str, tol: float) -> str:
        one = measured.get((setting, tol))
        return f"{count(one.forward)} / {count(one.backward)}, {100 * one.error:.2g} %" if one else NONE

    tolerances = sorted({tol for _, tol in measured}, reverse=True)
    body = [[plain(tol), *(cell(setting, tol) for setting in MARKS)] for tol in tolerances]
    head = ["tolerance", *(f"{setting}: NFE, gradient error" for setting in MARKS)]
    return aligned(head, body, left=1)
