"""Figure 7 of Chen et al. 2018: the rate of a Poisson process, inferred through a latent ODE from its events."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report.items._fig7 import amplitude_alone, errors, rates
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.spread import Spread, over_seeds
from odenet_cli.report.table import aligned, interval, plus_minus
from odenet_cli.report.text import bullets, count, digits

MEASURED = ("rate_error", "rate_error_constant", "gap", "expected", "events")
NUMBERS = ("parameters", "nfe_forward", "nfe_backward", "saved_mib", "time_s", "nll", "kl", "loss")
RATES = (
    "First test sequences: events below, the rate that the latent ODE infers from them (the mean of q(z0 | events)), "
    "and the true one. Above each ∫|λ̂ - λ| / ∫λ."
)
ERRORS = (
    "Share of the {count} test sequences with an error, or a gap, below; a line a seed. Left: ∫|λ̂ - λ| / ∫λ of the "
    "inferred rate, and of the best guess that knows no model, as many events at a constant rate; dashed, what the "
    "amplitude alone costs with so many events. Right: log-likelihood of the true rate above that of the inferred "
    "one, by event; below 0 a draw of the inferred rate fits these events better than the truth."
)
EXPECTED = "expected events of a sequence"
ERROR, CONSTANT_ERROR = "∫|λ̂ - λ| / ∫λ on test sequences", "∫|λ̂ - λ| / ∫λ of a constant rate"
RATIO, GAP = "∫|λ̂ - λ| / ∫λ over that of a constant rate", "likelihood gap (nats an event)"


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`entries` are trained networks, one a seed, with what was measured on them."""
    done = [entry for entry in entries if entry.run.done and entry.measured]
    title = "Figure 7, inferred rates of Poisson processes"
    if not done:
        return Result(title=title, body=["Nothing could be measured: no network is trained."], rows=[])
    spreads = {name: over_seeds([(e.run.seed, mean_of(e, name)) for e in done], name) for name in MEASURED}
    mean = {name: spread.mean if spread else None for name, spread in spreads.items()}
    error, constant = mean["rate_error"], mean["rate_error_constant"]
    facts: dict[str, float | None] = {EXPECTED: mean["expected"], ERROR: error, CONSTANT_ERROR: constant}
    facts |= {RATIO: error / constant if error and constant else None, GAP: mean["gap"]}
    first = min(done, key=lambda entry: entry.run.seed)
    shown, sequences = first.of("rate"), first.of("sequence")
    body = ["![rates]", RATES, table(done, spreads), "![errors]", ERRORS.format(count=len(sequences))]
    body += [bullets(rest["notes"])]
    rows = [{**row_of(entry, NUMBERS), **{name: mean_of(entry, name) for name in MEASURED}} for entry in done]
    rows += [row_of(entry, NUMBERS) for entry in entries if entry not in done]
    figures: dict[str, Figure | None] = {
        "rates": rates(shown, sequences, first.run) if shown else None,
        "errors": errors(done),
    }
    return Result(title=title, body=body, rows=rows, figures=figures, facts=facts)


def mean_of(entry: Entry, name: str) -> float | None:
    """The mean over test sequences."""
    values = [row[name] for row in entry.of("sequence")]
    return statistics.fmean(values) if values else None


def table(done: Sequence[Entry], spreads: dict[str, Spread | None]) -> str:
    seconds = statistics.fmean(entry.run.value("time_s") or 0 for entry in done)
    nfe = statistics.fmean(entry.run.value("nfe_forward") or 0 for entry in done)
    n = spreads["expected"].mean if spreads["expected"] else math.inf
    rows = [
        [
            "latent ODE",
            plus_minus(spreads["rate_error"], 3),
            interval(spreads["rate_error"], 3),
            plus_minus(spreads["gap"], 4),
            count(nfe),
            digits(seconds / 60),
            count(len(done)),
        ],
        ["constant rate", plus_minus(spreads["rate_error_constant"], 3), "", "", "", "", ""],
        ["amplitude alone, √(2/πN)", f"{amplitude_alone(n):.3f}", "", "", "", "", ""],
    ]
    head = ["", "∫abs(λ̂ - λ) / ∫λ", "95 % interval", "gap, nats an event", "NFE forward", "min", "seeds"]
    return aligned(head, rows, left=1)
