"""What figures 4 and 5 share: flows side by side, each at the learning rate that validation chose."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from odenet_cli.report import style
from odenet_cli.report._rates import Choice, at_best, chosen, last_tenths, rate, settings_tried
from odenet_cli.report.result import Entry, row_of
from odenet_cli.report.runs import Run, number
from odenet_cli.report.table import aligned, plus_minus
from odenet_cli.report.words import plain

RATES = "Learning rates, by the loss on validation samples (nat, mean over seeds):"
Cells = Mapping[tuple[str, str], Sequence[Entry]]  # (data, flow) -> all its cells
Choices = Mapping[tuple[str, str], Choice]


def sorted_out(entries: Sequence[Entry]) -> tuple[Cells, Choices]:
    """The cells of each flow on each target, and those of them to show."""
    cells: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.run.config:
            cells.setdefault((str(entry.run.config["data.name"]), entry.row), []).append(entry)
    return cells, {key: choice for key, mine in cells.items() if (choice := chosen(mine, valid))}


def valid(run: Run) -> float | None:
    return at_best(run, "loss")


def rows(entries: Sequence[Entry], found: Choices, names: Sequence[str]) -> list[dict[str, Any]]:
    """Lines of the CSV."""
    shown = {entry.run.folder for choice in found.values() for entry in choice.entries}
    return [
        {
            **row_of(entry, names),
            **{name: entry.run.config.get(name) for name in ("data.name", "optim.lr", "trainer.steps")},
            **{"validation": valid(entry.run), "shown": entry.run.folder in shown},
        }
        for entry in entries
    ]


def rates(found: Choices) -> str:
    """What was tried, and chosen."""
    every = settings_tried(found.values())
    lines = []
    for (data, flow), choice in found.items():
        tried = [plus_minus(choice.tried.get(setting), 3) for setting in every]
        lines.append([named(data), flow, *tried, choice.setting])
    return aligned(["", "flow", *every, "chosen"], lines, left=2)


def largest_fall(found: Choices, name: str) -> float | None:
    """Of any flow that is shown, how far its validation score `name` fell over the last tenth of training."""
    falls = []
    for choice in found.values():
        tenths = [both for run in choice.group.done if (both := last_tenths(run, name))]
        if tenths:
            falls.append(statistics.fmean(before - after for before, after in tenths))
    return max(falls, default=None)


def arrays(choice: Choice | None, task: str) -> tuple[Run, dict[str, Any]] | None:
    """The first seed's run, and what its figures are drawn from."""
    for entry in sorted(choice.entries, key=lambda entry: entry.run.seed) if choice else ():
        path = entry.run.folder / "figures" / f"{task}.npz"
        if path.exists():
            with numpy.load(path) as file:
                return entry.run, dict(file)
    return None


@style.styled
def curves(
    cells: Cells, found: Choices, name: str, label: str, look: Callable[[str], style.Look], columns: int
) -> Figure:
    """Validation score `name` against time of training, a panel for each target; thick at the rate that is shown."""
    targets, flows = list(dict.fromkeys(d for d, _ in found)), list(dict.fromkeys(f for _, f in found))
    lines = -(-len(targets) // columns)
    figure = Figure(figsize=(style.WIDTH, (style.HEIGHT + 0.1) * lines))
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(targets) :]:
        axes.set_axis_off()
    for axes, target in zip(grid.flat, targets):
        heights: list[float] = []
        for flow in flows:
            choice = found.get((target, flow))
            for setting in choice.tried if choice else ():
                best = choice is not None and setting == choice.setting
                mine = [e.run for e in cells[target, flow] if e.run.done and rate(e.run) == setting]
                seconds, scores = course(mine, name)
                width, alpha = (1.2, 1.0) if best else (0.5, 0.35)
                axes.plot(seconds, scores, **look(flow), linewidth=width, alpha=alpha, zorder=2 + best)
                heights += scores
        positive = [height for height in heights if height > 0]
        if positive:
            logarithmic(axes, positive)
        axes.set(title=named(target), xscale="log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    for axes in grid[-1]:
        axes.set_xlabel("time of training (s)")
    for line in grid:
        line[0].set_ylabel(label)
    style.legend(figure, [Line2D([], [], linewidth=1.2, label=flow, **look(flow)) for flow in flows])
    return figure


def course(mine: Sequence[Run], name: str) -> tuple[list[float], list[float]]:
    """Seconds of training and score at the end of each epoch, means over runs."""
    times: dict[int, list[float]] = {}
    values: dict[int, list[float]] = {}
    for run in mine:
        seconds = 0.0
        for record in run.of("valid"):
            seconds += number(record.get("epoch_s")) or 0.0
            if (value := number(record.get(name))) is not None:
                times.setdefault(record["step"], []).append(seconds)
                values.setdefault(record["step"], []).append(value)
    steps = sorted(values)
    return [statistics.fmean(times[step]) for step in steps], [statistics.fmean(values[step]) for step in steps]


def named(target: str) -> str:
    """As the paper writes it: U1, but moons."""
    return target.upper() if target[1:].isdecimal() else target


def spanned(axis: Axis, values: Sequence[float]) -> None:
    """Ticks of a logarithmic axis that may span less than a decade: some are always labelled."""
    axis.set_minor_formatter(NullFormatter())
    if values and not style.decades(values, 30):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        axis.set_minor_locator(NullLocator())


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis with powers of ten, whatever it spans."""
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.4, max(values) * 1.4)
    axes.yaxis.set_major_locator(LogLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
