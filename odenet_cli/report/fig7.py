"""Figure 7 of Chen et al. 2018: the rate of a Poisson process, inferred through a latent ODE from its events."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odenet_cli.report import style
from odenet_cli.report.pictures import events as picture
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.runs import Run
from odenet_cli.report.spread import Spread, over_seeds
from odenet_cli.report.table import aligned, interval, plus_minus
from odenet_cli.report.words import count, digits

Rows = Sequence[dict[str, Any]]
INFERRED, CONSTANT = style.CYCLE[0], style.GREY
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
    spreads = {name: over(done, name) for name in ("rate_error", "rate_error_constant", "gap", "expected", "events")}
    mean = {name: spread.mean if spread else None for name, spread in spreads.items()}
    error, constant = mean["rate_error"], mean["rate_error_constant"]
    facts: dict[str, float | None] = {EXPECTED: mean["expected"], ERROR: error, CONSTANT_ERROR: constant}
    facts |= {RATIO: error / constant if error and constant else None, GAP: mean["gap"]}
    first = min(done, key=lambda entry: entry.run.seed)
    shown, sequences = of(first, "rate"), of(first, "sequence")
    body = ["![rates]", RATES, table(done, spreads), "![errors]", ERRORS.format(count=len(sequences))]
    body += ["\n".join(f"- {line}" for line in rest["notes"])]
    names = ("parameters", "nfe_forward", "nfe_backward", "saved_mib", "time_s", "nll", "kl", "loss")
    rows = [
        {**row_of(entry, names), **{name: over([entry], name).mean for name in spreads}}  # type: ignore[union-attr]
        for entry in done
    ]
    rows += [row_of(entry, names) for entry in entries if entry not in done]
    figures: dict[str, Figure | None] = {
        "rates": rates(shown, sequences, first.run) if shown else None,
        "errors": errors(done),
    }
    return Result(title=title, body=body, rows=rows, figures=figures, facts=facts)


def of(entry: Entry, kind: str) -> list[dict[str, Any]]:
    return [row for row in entry.measured if row["kind"] == kind]


def over(entries: Sequence[Entry], name: str) -> Spread | None:
    """The mean over test sequences, over seeds."""
    return over_seeds(
        (entry.run.seed, statistics.fmean(row[name] for row in of(entry, "sequence")))
        for entry in entries
        if of(entry, "sequence")
    )


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
        ["amplitude alone, √(2/πN)", f"{math.sqrt(2 / (math.pi * n)):.3f}", "", "", "", "", ""],
    ]
    head = ["", "∫abs(λ̂ - λ) / ∫λ", "95 % interval", "gap, nats an event", "NFE forward", "min", "seeds"]
    return aligned(head, rows, left=1)


def rates(shown: Rows, sequences: Rows, run: Run) -> Figure:
    """One panel a sequence."""
    longest = max(len(row["times"]) for row in shown)
    arrays: dict[str, Any] = {name: numpy.array([row[name] for row in shown]) for name in ("grid", "rate", "path")}
    arrays["times"] = numpy.array([row["times"] + [0.0] * (longest - len(row["times"])) for row in shown])
    arrays["there"] = numpy.array([[n < len(row["times"]) for n in range(longest)] for row in shown])
    figure: Figure = picture.draw(arrays, run)["events"]
    titled(figure, shown, sequences)
    return figure


@style.styled
def titled(figure: Figure, shown: Rows, sequences: Rows) -> None:
    """Above each panel what is wrong with its rate."""
    wrong = {row["sequence"]: row for row in sequences}
    for axes, row in zip(figure.axes, shown):
        one = wrong[row["sequence"]]
        axes.set_title(
            f"{one['events']:.0f} events, $\\int|\\hat\\lambda-\\lambda|/\\int\\lambda$ = {one['rate_error']:.3f}"
        )


@style.styled
def errors(done: Sequence[Entry]) -> Figure:
    """The test sequences by error and by gap."""
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT + 0.25))
    left, right = figure.subplots(1, 2)
    for entry in done:
        rows = of(entry, "sequence")
        shares(left, [row["rate_error"] for row in rows], INFERRED)
        shares(right, [1000 * row["gap"] for row in rows], INFERRED)
    shares(left, [row["rate_error_constant"] for row in of(done[0], "sequence")], CONSTANT)
    n = statistics.fmean(row["expected"] for row in of(done[0], "sequence"))
    left.axvline(math.sqrt(2 / (math.pi * n)), color=CONSTANT, linewidth=0.8, linestyle=style.DASHES[1])
    right.axvline(0, color=CONSTANT, linewidth=0.8)
    left.set(xlabel="$\\int|\\hat\\lambda-\\lambda|\\,/\\int\\lambda$", ylabel="share of sequences", xlim=(0, None))
    right.set(xlabel="likelihood gap (millinats an event)")
    for axes in (left, right):
        axes.set_ylim(0, 1.02)
    style.legend(
        figure,
        [
            Line2D([], [], color=INFERRED, linewidth=1.2, label="inferred rate"),
            Line2D([], [], color=CONSTANT, linewidth=1.2, label="constant rate"),
            Line2D([], [], color=CONSTANT, linewidth=0.8, linestyle=style.DASHES[1], label="amplitude alone"),
        ],
    )
    return figure


def shares(axes: Axes, values: Sequence[float], colour: str) -> None:
    """The share of values below x."""
    ordered = sorted(values)
    axes.step(ordered, [(n + 1) / len(ordered) for n in range(len(ordered))], where="post", color=colour, linewidth=1.1)
