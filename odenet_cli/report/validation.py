"""What validation said over training: of the weights that were kept, towards the end, and step by step."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run, number
from odenet_cli.report.selection import Choice, Setting, rate


def at_best(run: Run, name: str) -> float | None:
    """A number of the validation that chose the weights which were tested."""
    epoch = run.value("best_epoch")
    records = [record for record in run.of("valid") if record["epoch"] == epoch]
    return number(records[-1].get(name)) if records else None


def largest_fall(
    choices: Iterable[Choice], name: str, fall: Callable[[float, float], float] = lambda before, after: before - after
) -> float | None:
    """The largest `fall` of a validation number from the last tenth of training but one to the last, a mean over seeds;
    None where training was too short to say."""
    falls = []
    for choice in choices:
        tenths = [found for run in choice.group.done if (found := _last_tenths(run, name))]
        if tenths:
            falls.append(statistics.fmean(fall(*found) for found in tenths))
    return max(falls, default=None)


def _last_tenths(run: Run, name: str) -> tuple[float, float] | None:
    values = [value for record in run.of("valid") if (value := number(record.get(name))) is not None]
    tenth = len(values) // 10
    if not tenth:
        return None
    return statistics.fmean(values[-2 * tenth : -tenth]), statistics.fmean(values[-tenth:])


class Course(NamedTuple):
    """A number of the validation over training: at each step its mean over the runs, the least and the largest."""

    runs: int
    steps: list[int]
    seconds: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def course(cells: Iterable[Entry], name: str, tried: str, setting: Setting = rate) -> Course:
    """Of the finished cells at the setting `tried`."""
    found: dict[int, list[tuple[float, float]]] = {}
    runs = [cell.run for cell in cells if cell.run.done and setting(cell.run) == tried]
    for run in runs:
        spent = 0.0
        for record in run.of("valid"):
            spent += number(record.get("epoch_s")) or 0.0
            if (value := number(record.get(name))) is not None:
                found.setdefault(record["step"], []).append((spent, value))
    steps = sorted(found)
    values = [[value for _, value in found[step]] for step in steps]
    return Course(
        runs=len(runs),
        steps=steps,
        seconds=[statistics.fmean(time for time, _ in found[step]) for step in steps],
        mean=[statistics.fmean(same) for same in values],
        low=[min(same) for same in values],
        high=[max(same) for same in values],
    )
