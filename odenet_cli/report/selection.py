"""Select models on validation data: among cells that differ in tuned settings, choose the setting to show.

Also evaluates validation numbers over training: at the tested weights, towards the end, and as learning curves.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from odenet_cli.markdown import markdown_table
from odenet_cli.report.compare import Group
from odenet_cli.report.result import Entry, csv_row
from odenet_cli.report.runs import Run, finite
from odenet_cli.report.statistics import Key, Spread, grouped, over_seeds
from odenet_cli.report.table import plus_minus
from odenet_cli.report.text import compact

Score = Callable[[Run], float | None]  # on validation data
Setting = Callable[[Run], str]


class Choice(NamedTuple):
    """Hold what a row of a table is made from.

    setting  the chosen one, as the report calls it: the learning rate, then what else was tuned
    entries  its cells
    tried    setting -> validation error over seeds, of the settings with the most finished cells
    """

    setting: str
    entries: list[Entry]
    tried: dict[str, Spread]

    @property
    def group(self) -> Group:
        return Group(runs=[entry.run for entry in self.entries])


def learning_rate(run: Run) -> str:
    return compact(float(run.config["optim.lr"]))


def select(
    entries: Iterable[Entry], key: Callable[[Entry], Key], score: Score, setting: Setting = learning_rate
) -> tuple[dict[Key, list[Entry]], dict[Key, Choice]]:
    """Return all cells by key, and the choice for each key."""
    cells = grouped((key(entry), entry) for entry in entries if entry.run.config)
    return cells, {key: choice for key, same in cells.items() if (choice := choose(same, score, setting))}


def choose(entries: Sequence[Entry], score: Score, setting: Setting = learning_rate) -> Choice | None:
    """Choose the setting with the smallest validation error over all seeds.

    A setting of which a seed diverged, or is not done while others are complete, is not chosen.
    """
    scored = [entry for entry in entries if entry.run.done and score(entry.run) is not None]
    settings = grouped((setting(entry.run), entry) for entry in scored)
    if not settings:
        return None
    complete = max(map(len, settings.values()))
    tried = {
        name: spread
        for name, cells in settings.items()
        if len(cells) == complete
        and (spread := over_seeds([(cell.run.seed, score(cell.run)) for cell in cells], "loss"))
    }
    best = min(tried, key=lambda name: tried[name].mean)
    return Choice(best, settings[best], tried)


def csv_rows(
    entries: Sequence[Entry],
    choices: Mapping[Any, Choice],
    score: Score,
    names: Sequence[str],
    config_keys: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return lines of the CSV: the numbers `names`, keys of the config by their column, and what was chosen by."""
    shown = {entry.run.folder for choice in choices.values() for entry in choice.entries}
    return [
        {
            **csv_row(entry, names),
            **{name: entry.run.config.get(key) for name, key in config_keys.items()},
            **{"validation": score(entry.run), "shown": entry.run.folder in shown},
        }
        for entry in entries
    ]


def settings_table(choices: Mapping[tuple[str, str], Choice], head: Sequence[str], left: int) -> str:
    """Return the table of settings that were tried, by rising learning rate, and the chosen one; lines begin with
    their key."""
    every = {name for choice in choices.values() for name in choice.tried}
    columns = sorted(every, key=lambda name: (float(name.split()[0]), name))
    lines = [
        [*key, *(plus_minus(choice.tried.get(name), 3) for name in columns), choice.setting]
        for key, choice in choices.items()
    ]
    return markdown_table([*head, *columns, "chosen"], lines, left)


def at_best_epoch(run: Run, name: str) -> float | None:
    """Return a number of the validation that chose the tested weights."""
    epoch = run.value("best_epoch")
    records = [record for record in run.records("valid") if record["epoch"] == epoch]
    return finite(records[-1].get(name)) if records else None


def largest_fall(
    choices: Iterable[Choice], name: str, fall: Callable[[float, float], float] = lambda before, after: before - after
) -> float | None:
    """Return the largest `fall` of a validation number from the last tenth of training but one to the last, a mean
    over seeds; None where training was too short."""
    tenths = [[means for run in choice.group.done if (means := _last_tenths(run, name))] for choice in choices]
    return max((statistics.fmean(fall(*means) for means in runs) for runs in tenths if runs), default=None)


def _last_tenths(run: Run, name: str) -> tuple[float, float] | None:
    values = [value for record in run.records("valid") if (value := finite(record.get(name))) is not None]
    tenth = len(values) // 10
    return (statistics.fmean(values[-2 * tenth : -tenth]), statistics.fmean(values[-tenth:])) if tenth else None


class LearningCurve(NamedTuple):
    """Hold a validation number over training: at each step its mean over the runs, the least and the largest."""

    runs: int
    steps: list[int]
    seconds: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def learning_curves(
    cells: Sequence[Entry], choice: Choice | None, name: str, setting: Setting = learning_rate
) -> Iterator[tuple[bool, LearningCurve]]:
    """Yield the curve of each setting that was tried, and whether it is the chosen one."""
    for tried in choice.tried if choice else ():
        yield choice is not None and tried == choice.setting, learning_curve(cells, name, tried, setting)


def learning_curve(cells: Iterable[Entry], name: str, tried: str, setting: Setting = learning_rate) -> LearningCurve:
    """Return the curve of the finished cells at the setting `tried`."""
    points: dict[int, list[tuple[float, float]]] = {}  # step -> (seconds, value) of each run
    runs = [cell.run for cell in cells if cell.run.done and setting(cell.run) == tried]
    for run in runs:
        before_s, epochs = 0.0, 0
        for record in run.records("valid"):
            seconds = before_s + (finite(record.get("epoch_s")) or 0.0)
            if record["epoch"] > epochs:  # else in the middle of one, and the next record has all of it
                before_s, epochs = seconds, record["epoch"]
            if (value := finite(record.get(name))) is not None:
                points.setdefault(record["step"], []).append((seconds, value))
    steps = sorted(points)
    values = [[value for _, value in points[step]] for step in steps]
    return LearningCurve(
        runs=len(runs),
        steps=steps,
        seconds=[statistics.fmean(time for time, _ in points[step]) for step in steps],
        mean=[statistics.fmean(same) for same in values],
        low=[min(same) for same in values],
        high=[max(same) for same in values],
    )
