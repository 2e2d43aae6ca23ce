"""Figure 7 of Chen et al. 2018: the rate of a Poisson process, inferred through a latent ODE from its events."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from matplotlib.figure import Figure

from odenet_cli.markdown import markdown_table, mean_count, three_digits
from odenet_cli.report import style
from odenet_cli.report.compare import Group
from odenet_cli.report.pictures import events
from odenet_cli.report.result import Entry, Facts, Result, csv_row
from odenet_cli.report.runs import Run
from odenet_cli.report.statistics import Spread, over_seeds
from odenet_cli.report.table import interval, plus_minus
from odenet_cli.report.text import bullets, seeds_text

TITLE = "Figure 7, inferred rates of Poisson processes"
LABELS = {
    "expected_events": "expected events of a sequence",
    "rate_error": "∫|λ̂ - λ| / ∫λ on test sequences",
    "rate_error_constant": "∫|λ̂ - λ| / ∫λ of a constant rate",
    "rate_error_ratio": "∫|λ̂ - λ| / ∫λ over that of a constant rate",
    "gap": "likelihood gap (nats an event)",
}
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
INFERRED, CONSTANT = style.CYCLE[0], style.GREY
AMPLITUDE: style.Look = {"color": CONSTANT, "linewidth": 0.8, "linestyle": style.DASHES[1]}

Rows = Sequence[dict[str, Any]]
Spreads = Mapping[str, Spread | None]


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `entries` are trained networks, one a seed, with what was measured on them."""
    done = [entry for entry in entries if entry.run.done and entry.measured]
    if not done:
        return Result(body=["Nothing could be measured: no network is trained."])
    spreads = {name: over_seeds([(e.run.seed, sequence_mean(e, name)) for e in done], name) for name in MEASURED}
    first = min(done, key=lambda entry: entry.run.seed)
    shown, sequences = first.measurements("rate"), first.measurements("sequence")
    body = ["![rates]", RATES, table(done, spreads), "![errors]", ERRORS.format(count=len(sequences))]
    rows = [{**csv_row(entry, NUMBERS), **{name: sequence_mean(entry, name) for name in MEASURED}} for entry in done]
    return Result(
        body=[*body, bullets(rest["notes"])],
        rows=rows + [csv_row(entry, NUMBERS) for entry in entries if entry not in done],
        figures={"rates": rates(shown, sequences, first.run) if shown else None, "errors": errors(done)},
        seeds={"rates": seeds_text([first.run.seed])},
        facts=facts(spreads),
    )


def facts(spreads: Spreads) -> Facts:
    mean = {name: spread.mean if spread else None for name, spread in spreads.items()}
    error, constant = mean["rate_error"], mean["rate_error_constant"]
    return {
        "expected_events": mean["expected"],
        "rate_error": error,
        "rate_error_constant": constant,
        "rate_error_ratio": error / constant if error and constant else None,
        "gap": mean["gap"],
    }


def sequence_mean(entry: Entry, name: str) -> float | None:
    values = [row[name] for row in entry.measurements("sequence")]
    return statistics.fmean(values) if values else None


def table(done: Sequence[Entry], spreads: Spreads) -> str:
    """Return the errors of the inferred rate, of a constant one, and of one wrong in its amplitude alone."""
    networks, expected, error = Group(runs=[entry.run for entry in done]), spreads["expected"], spreads["rate_error"]
    seconds = networks.mean("time_s")
    minutes = None if seconds is None else seconds / 60
    costs = [mean_count(networks.mean("nfe_forward")), three_digits(minutes), mean_count(len(done))]
    rows = [
        ["latent ODE", plus_minus(error, 3), interval(error, 3), plus_minus(spreads["gap"], 4), *costs],
        ["constant rate", plus_minus(spreads["rate_error_constant"], 3), *[""] * 5],
        ["amplitude alone, √(2/πN)", f"{amplitude_error(expected.mean if expected else math.inf):.3f}", *[""] * 5],
    ]
    head = ["", "∫|λ̂ - λ| / ∫λ", "95 % interval", "gap, nats an event", "NFE forward", "min", "seeds"]
    return markdown_table(head, rows, left=1)


def amplitude_error(events: float) -> float:
    """Return the error that is left when only the amplitude is to be inferred from so many events."""
    return math.sqrt(2 / (math.pi * events))


# The drawing.


@style.styled
def rates(shown: Rows, sequences: Rows, run: Run) -> Figure:
    """Draw one panel a sequence, its error in the title."""
    longest = max(len(row["times"]) for row in shown)
    arrays: dict[str, Any] = {name: numpy.array([row[name] for row in shown]) for name in ("grid", "rate", "path")}
    arrays["times"] = numpy.array([row["times"] + [0.0] * (longest - len(row["times"])) for row in shown])
    arrays["there"] = numpy.array([[n < len(row["times"]) for n in range(longest)] for row in shown])
    figure: Figure = events.draw(arrays, run)["events"]
    by_sequence = {row["sequence"]: row for row in sequences}
    for axes, row in zip(figure.axes, shown):
        scores = by_sequence[row["sequence"]]
        error = f"$\\int|\\hat\\lambda-\\lambda|/\\int\\lambda$ = {scores['rate_error']:.3f}"
        axes.set_title(f"{scores['events']:.0f} events, {error}")
    return figure


@style.styled
def errors(done: Sequence[Entry]) -> Figure:
    """Draw the distribution of the test sequences over the error, and over the gap."""
    figure, ((left, right),) = style.panel_grid(2, 2, style.HEIGHT + 0.25)
    for entry in done:
        rows = entry.measurements("sequence")
        left.ecdf([row["rate_error"] for row in rows], color=INFERRED, linewidth=1.1)
        right.ecdf([1000 * row["gap"] for row in rows], color=INFERRED, linewidth=1.1)
    first = done[0].measurements("sequence")
    left.ecdf([row["rate_error_constant"] for row in first], color=CONSTANT, linewidth=1.1)
    left.axvline(amplitude_error(statistics.fmean(row["expected"] for row in first)), **AMPLITUDE)
    right.axvline(0, color=CONSTANT, linewidth=0.8)
    left.set(xlabel="$\\int|\\hat\\lambda-\\lambda|\\,/\\int\\lambda$", ylabel="share of sequences", xlim=(0, None))
    right.set(xlabel="likelihood gap (millinats an event)")
    for axes in (left, right):
        axes.set_ylim(0, 1.02)
    entries: dict[str, style.Look] = {
        "inferred rate": {"color": INFERRED, "linewidth": 1.2},
        "constant rate": {"color": CONSTANT, "linewidth": 1.2},
        "amplitude alone": AMPLITUDE,
    }
    style.legend(figure, entries.items())
    return figure
