"""Cells that differ in learning rate: the one to show is chosen on validation data."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from odenet_cli.report.groups import Group
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run, number
from odenet_cli.report.spread import Spread, over_seeds

Valid = Callable[[Run], float | None]


class Choice(NamedTuple):
    """What a row of a table is made from.

    rate     the learning rate chosen
    entries  its cells
    tried    learning rate -> the validation error over seeds; of those that are done as far as any is
    """

    rate: float
    entries: list[Entry]
    tried: dict[float, Spread]

    @property
    def group(self) -> Group:
        return Group(values={}, runs=[entry.run for entry in self.entries])


def chosen(entries: Sequence[Entry], valid: Valid) -> Choice | None:
    """The learning rate with the smallest validation error over all seeds. One of which a seed diverged, or is not done
    yet, while others are complete, is not shown."""
    rates: dict[float, list[Entry]] = {}
    for entry in entries:
        if entry.run.done and valid(entry.run) is not None:
            rates.setdefault(float(entry.run.config["optim.lr"]), []).append(entry)
    if not rates:
        return None
    whole = max(map(len, rates.values()))
    tried = {}
    for rate, cells in sorted(rates.items()):
        if len(cells) == whole and (found := over_seeds((cell.run.seed, valid(cell.run)) for cell in cells)):
            tried[rate] = found
    best = min(tried, key=lambda rate: tried[rate].mean)
    return Choice(best, rates[best], tried)


def at_best(run: Run, name: str) -> float | None:
    """A number of the validation that chose the weights which were tested."""
    epoch = run.value("best_epoch")
    records: list[dict[str, Any]] = [record for record in run.of("valid") if record["epoch"] == epoch]
    return number(records[-1].get(name)) if records else None


def last_tenths(run: Run, name: str) -> tuple[float, float] | None:
    """A number of the validation over the last tenth of training but one, and over the last: is it still falling? None
    where training was too short to say."""
    values = [value for record in run.of("valid") if (value := number(record.get(name))) is not None]
    tenth = len(values) // 10
    if not tenth:
        return None
    return statistics.fmean(values[-2 * tenth : -tenth]), statistics.fmean(values[-tenth:])
