"""What figure 7 shows: inferred rates beside the true ones, and the test sequences by how wrong they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.pictures import events
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run

Rows = Sequence[dict[str, Any]]
INFERRED, CONSTANT = style.CYCLE[0], style.GREY


@style.styled
def rates(shown: Rows, sequences: Rows, run: Run) -> Figure:
    """One panel a sequence; above each what is wrong with its rate."""
    longest = max(len(row["times"]) for row in shown)
    arrays: dict[str, Any] = {name: numpy.array([row[name] for row in shown]) for name in ("grid", "rate", "path")}
    arrays["times"] = numpy.array([row["times"] + [0.0] * (longest - len(row["times"])) for row in shown])
    arrays["there"] = numpy.array([[n < len(row["times"]) for n in range(longest)] for row in shown])
    figure: Figure = events.draw(arrays, run)["events"]
    wrong = {row["sequence"]: row for row in sequences}
    for axes, row in zip(figure.axes, shown):
        one = wrong[row["sequence"]]
        said = f"$\\int|\\hat\\lambda-\\lambda|/\\int\\lambda$ = {one['rate_error']:.3f}"
        axes.set_title(f"{one['events']:.0f} events, {said}")
    return figure


@style.styled
def errors(done: Sequence[Entry]) -> Figure:
    """The test sequences by error and by gap."""
    figure = Figure(figsize=(style.WIDTH, style.HEIGHT + 0.25))
    left, right = figure.subplots(1, 2)
    for entry in done:
        rows = entry.of("sequence")
        shares(left, [row["rate_error"] for row in rows], INFERRED)
        shares(right, [1000 * row["gap"] for row in rows], INFERRED)
    shares(left, [row["rate_error_constant"] for row in done[0].of("sequence")], CONSTANT)
    n = statistics.fmean(row["expected"] for row in done[0].of("sequence"))
    left.axvline(amplitude_alone(n), color=CONSTANT, linewidth=0.8, linestyle=style.DASHES[1])
    right.axvline(0, color=CONSTANT, linewidth=0.8)
    left.set(xlabel="$\\int|\\hat\\lambda-\\lambda|\\,/\\int\\lambda$", ylabel="share of sequences", xlim=(0, None))
    right.set(xlabel="likelihood gap (millinats an event)")
    for axes in (left, right):
        axes.set_ylim(0, 1.02)
    handles = [
        style.handle("inferred rate", color=INFERRED, linewidth=1.2),
        style.handle("constant rate", color=CONSTANT, linewidth=1.2),
        style.handle("amplitude alone", color=CONSTANT, linewidth=0.8, linestyle=style.DASHES[1]),
    ]
    style.legend(figure, handles)
    return figure


def amplitude_alone(events: float) -> float:
    """The error that is left when only the amplitude is to be told from so many events."""
    return math.sqrt(2 / (math.pi * events))


def shares(axes: Axes, values: Sequence[float], colour: str) -> None:
    """The share of values below x."""
    ordered = sorted(values)
    axes.step(ordered, [(n + 1) / len(ordered) for n in range(len(ordered))], where="post", color=colour, linewidth=1.1)
