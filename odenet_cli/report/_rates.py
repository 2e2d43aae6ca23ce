"""Cells that differ in what was tuned: the setting to show is chosen on validation data."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from odenet_cli.report.groups import Group
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run, number
from odenet_cli.report.spread import Spread, over_seeds
from odenet_cli.report.words import plain

Valid = Callable[[Run], float | None]


class Choice(NamedTuple):
    """What a row of a table is made from.

    setting  the one chosen, as the report calls it: the learning rate, and what else was tuned behind it
    entries  its cells
    tried    setting -> the validation error over seeds; of those that are done as far as any is
    """

    setting: str
    entries: list[Entry]
    tried: dict[str, Spread]

    @property
    def group(self) -> Group:
        return Group(values={}, runs=[entry.run for entry in self.entries])


def rate(run: Run) -> str:
    """The learning rate."""
    return plain(float(run.config["optim.lr"]))


def chosen(entries: Sequence[Entry], valid: Valid, setting: Callable[[Run], str] = rate) -> Choice | None:
    """The setting with the smallest validation error over all seeds. One of which a seed diverged, or is not done yet,
    while others are complete, is not shown."""
    settings: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.run.done and valid(entry.run) is not None:
            settings.setdefault(setting(entry.run), []).append(entry)
    if not settings:
        return None
    whole = max(map(len, settings.values()))
    tried = {}
    for name, cells in settings.items():
        if len(cells) == whole and (found := over_seeds((cell.run.seed, valid(cell.run)) for cell in cells)):
            tried[name] = found
    best = min(tried, key=lambda name: tried[name].mean)
    return Choice(best, settings[best], tried)


def settings_tried(choices: Iterable[Choice]) -> list[str]:
    """All settings that any of them tried, by rising rate."""
    every = {name for choice in choices for name in choice.tried}
    return sorted(every, key=lambda name: (float(name.split()[0]), name))


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
