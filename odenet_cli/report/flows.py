"""What figures 4 and 5 share: flows side by side on targets, each at the learning rate that validation chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from matplotlib.figure import Figure

from odenet_cli.report import scales, selection, style, validation
from odenet_cli.report.groups import Group
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run
from odenet_cli.report.selection import Choice
from odenet_cli.report.table import aligned, parameters, runs
from odenet_cli.report.text import count, digits

RATES = "Learning rates, by the loss on validation samples (nat, mean over seeds):"
COSTS = ("rate", "parameters", "updates", "NFE", "time, s", "runs (seeds)")
KEYS = {name: name for name in ("data.name", "optim.lr", "trainer.steps")}
Cells = Mapping[tuple[str, str], Sequence[Entry]]  # (target, flow) -> all its cells
Choices = Mapping[tuple[str, str], Choice]


def sorted_out(entries: Sequence[Entry]) -> tuple[Cells, Choices]:
    """The cells of each flow on each target, and those of them to show."""
    return selection.sorted_out(entries, lambda entry: (str(entry.run.config["data.name"]), entry.row), valid)


def valid(run: Run) -> float | None:
    return validation.at_best(run, "loss")


def targets(found: Choices) -> list[str]:
    return list(dict.fromkeys(target for target, _ in found))


def flows(found: Choices) -> list[str]:
    return list(dict.fromkeys(flow for _, flow in found))


def named(target: str) -> str:
    """As the paper writes it: U1, but moons."""
    return target.upper() if target[1:].isdecimal() else target


def rows(entries: Sequence[Entry], found: Choices, names: Sequence[str]) -> list[dict[str, Any]]:
    """Lines of the CSV."""
    return selection.rows(entries, found, valid, names, KEYS)


def table(found: Choices, target: str, scores: Mapping[str, Callable[[Group], str]]) -> str:
    """The scores of each flow, and what it cost; `target` is what stands above the first column."""
    lines = []
    for (data, flow), choice in found.items():
        group = choice.group
        costs = [choice.setting, parameters(group), count(group.mean("step")), count(group.mean("nfe_forward") or None)]
        costs += [digits(group.mean("time_s")), runs(group)]
        lines.append([named(data), flow, *(score(group) for score in scores.values()), *costs])
    return aligned([target, "flow", *scores, *COSTS], lines, left=2)


def training(found: Choices, about: str) -> list[str]:
    """The part of a report on training: learning rates, and the figure `curves`, which `about` explains."""
    tried = selection.tried({(named(data), flow): choice for (data, flow), choice in found.items()}, ["", "flow"], 2)
    return ["## Training", RATES, tried, "![curves]", about]


def smallest_in_errors(entries: Sequence[Entry], score: str, error: str) -> float | None:
    """The smallest score of any finished run, in its own standard errors."""
    pairs = [(entry.run.value(score), entry.run.value(error)) for entry in entries if entry.run.done]
    return min((value / se for value, se in pairs if value is not None and se), default=None)


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
    aims = targets(found)
    figure, grid = style.grid(len(aims), columns, style.HEIGHT + 0.1)
    for axes, target in zip(grid.flat, aims):
        heights: list[float] = []
        for flow in flows(found):
            choice = found.get((target, flow))
            for setting in choice.tried if choice else ():
                best = choice is not None and setting == choice.setting
                over = validation.course(cells[target, flow], name, setting)
                width, alpha = (1.2, 1.0) if best else (0.5, 0.35)
                axes.plot(over.seconds, over.mean, **look(flow), linewidth=width, alpha=alpha, zorder=2 + best)
                heights += [height for height in over.mean if height > 0]
        if heights:
            scales.powers(axes, heights)
        axes.set(title=named(target), xscale="log")
        scales.tens(axes.xaxis)
    for axes in grid[-1]:
        axes.set_xlabel("time of training (s)")
    for line in grid:
        line[0].set_ylabel(label)
    style.legend(figure, [style.handle(flow, linewidth=1.2, **look(flow)) for flow in flows(found)])
    return figure
