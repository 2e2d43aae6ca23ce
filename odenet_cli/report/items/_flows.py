"""Share between figures 4 and 5: flows side by side on targets, each at the learning rate that validation chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from matplotlib.figure import Figure

from odenet_cli.markdown import markdown_table, mean_count, three_digits
from odenet_cli.report import scales, selection, style
from odenet_cli.report.compare import Group
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run
from odenet_cli.report.selection import Choice
from odenet_cli.report.table import parameters, runs_and_seeds
from odenet_cli.report.text import seeds_text

RATES = "Learning rates, by the loss on validation samples (nat, mean over seeds):"
COSTS = ("rate", "parameters", "updates", "NFE", "time, s", "runs (seeds)")
CONFIG_KEYS = {name: name for name in ("data.name", "optim.lr", "trainer.steps")}
Cells = Mapping[tuple[str, str], Sequence[Entry]]  # (target, flow) -> all its cells
Choices = Mapping[tuple[str, str], Choice]


def select(entries: Sequence[Entry], names: Sequence[str]) -> tuple[Cells, Choices, list[dict[str, Any]]]:
    """Return the cells of each flow on each target, the choice among them, target by target, and the lines of the CSV
    with the numbers `names`."""
    cells, choices = selection.select(entries, lambda entry: (str(entry.run.config["data.name"]), entry.row), _score)
    order = list(dict.fromkeys(target for target, _ in cells))
    choices = dict(sorted(choices.items(), key=lambda item: order.index(item[0][0])))
    return cells, choices, selection.csv_rows(entries, choices, _score, names, CONFIG_KEYS)


def _score(run: Run) -> float | None:
    return selection.at_best_epoch(run, "loss")


def targets(choices: Choices) -> list[str]:
    return list(dict.fromkeys(target for target, _ in choices))


def flows(choices: Choices) -> list[str]:
    return list(dict.fromkeys(flow for _, flow in choices))


def target_title(target: str) -> str:
    """Return U1 as the paper writes it, but moons."""
    return target.upper() if target[1:].isdecimal() else target


def table(choices: Choices, head: str, scores: Mapping[str, Callable[[Group], str]]) -> str:
    """Return the scores of each flow, and what it cost; `head` stands above the targets."""
    lines = []
    for (target, flow), choice in choices.items():
        group = choice.group
        costs = [choice.setting, parameters(group), mean_count(group.mean("step"))]
        costs += [mean_count(group.mean("nfe_forward") or None), three_digits(group.mean("time_s"))]
        values = [score(group) for score in scores.values()]
        lines.append([target_title(target), flow, *values, *costs, runs_and_seeds(group)])
    return markdown_table([head, "flow", *scores, *COSTS], lines, left=2)


def training(choices: Choices, about: str) -> list[str]:
    """Return the section on training: learning rates, and the figure `curves`, which `about` explains."""
    titled = {(target_title(target), flow): choice for (target, flow), choice in choices.items()}
    return ["## Training", RATES, selection.settings_table(titled, ["", "flow"], 2), "![curves]", about]


def smallest_in_errors(entries: Sequence[Entry], score: str, error: str) -> float | None:
    """Return the smallest score of any finished run, in its own standard errors."""
    pairs = [(entry.run.value(score), entry.run.value(error)) for entry in entries if entry.run.done]
    return min((value / se for value, se in pairs if value is not None and se), default=None)


def first_seed(choices: Choices) -> str:
    """Return the seed of the networks whose `arrays` are drawn, in words."""
    return seeds_text([min(entry.run.seed for choice in choices.values() for entry in choice.entries)])


def arrays(choice: Choice | None, task: str) -> tuple[Run, dict[str, Any]] | None:
    """Return the first seed's run that has them, and the arrays its figures are drawn from."""
    for entry in sorted(choice.entries, key=lambda entry: entry.run.seed) if choice else ():
        path = entry.run.folder / "figures" / f"{task}.npz"
        if path.exists():
            with numpy.load(path) as file:
                return entry.run, dict(file)
    return None


@style.styled
def curves(
    cells: Cells, choices: Choices, name: str, label: str, look: Callable[[str], style.Look], columns: int
) -> Figure:
    """Draw the validation score `name` against time of training, a panel a target; thick at the chosen rate."""
    names = targets(choices)
    figure, grid = style.panel_grid(len(names), columns, style.HEIGHT + 0.1)
    for axes, target in zip(grid.flat, names):
        heights: list[float] = []
        for flow in flows(choices):
            key = target, flow
            for best, curve in selection.learning_curves(cells.get(key, ()), choices.get(key), name):
                width, alpha = (1.2, 1.0) if best else (0.5, 0.35)
                axes.plot(curve.seconds, curve.mean, **look(flow), linewidth=width, alpha=alpha, zorder=2 + best)
                heights += [height for height in curve.mean if height > 0]
        if heights:
            scales.decade_limits(axes, heights)
        axes.set(title=target_title(target), xscale="log")
        scales.decade_ticks(axes.xaxis)
    for axes in grid[-1]:
        axes.set_xlabel("time of training (s)")
    for line in grid:
        line[0].set_ylabel(label)
    style.legend(figure, [(flow, look(flow) | {"linewidth": 1.2}) for flow in flows(choices)])
    return figure
