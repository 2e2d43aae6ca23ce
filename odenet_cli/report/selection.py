"""Model selection: of cells that differ in what was tuned, the setting to show is chosen on validation data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from odenet_cli.report.groups import Group
from odenet_cli.report.result import Entry, row_of
from odenet_cli.report.runs import Run
from odenet_cli.report.spread import Spread, over_seeds
from odenet_cli.report.table import aligned, plus_minus
from odenet_cli.report.text import plain

Key = TypeVar("Key", bound=Hashable)
Valid = Callable[[Run], float | None]
Setting = Callable[[Run], str]


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


def sorted_out(
    entries: Iterable[Entry], key: Callable[[Entry], Key], valid: Valid, setting: Setting = rate
) -> tuple[dict[Key, list[Entry]], dict[Key, Choice]]:
    """The cells by key, and of each key those to show."""
    cells: dict[Key, list[Entry]] = {}
    for entry in entries:
        if entry.run.config:
            cells.setdefault(key(entry), []).append(entry)
    return cells, {key: choice for key, mine in cells.items() if (choice := chosen(mine, valid, setting))}


def chosen(entries: Sequence[Entry], valid: Valid, setting: Setting = rate) -> Choice | None:
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
        if len(cells) == whole and (found := over_seeds([(cell.run.seed, valid(cell.run)) for cell in cells], "loss")):
            tried[name] = found
    best = min(tried, key=lambda name: tried[name].mean)
    return Choice(best, settings[best], tried)


def rows(
    entries: Sequence[Entry], found: Mapping[Any, Choice], valid: Valid, names: Sequence[str], keys: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Lines of the CSV: the numbers `names`, the keys of the config under these names, and what was chosen by."""
    shown = {entry.run.folder for choice in found.values() for entry in choice.entries}
    return [
        {
            **row_of(entry, names),
            **{name: entry.run.config.get(key) for name, key in keys.items()},
            **{"validation": valid(entry.run), "shown": entry.run.folder in shown},
        }
        for entry in entries
    ]


def tried(choices: Mapping[tuple[str, str], Choice], head: Sequence[str], left: int) -> str:
    """A table of the settings that were tried, by rising rate, and the chosen one; a line begins with its key."""
    every = {name for choice in choices.values() for name in choice.tried}
    columns = sorted(every, key=lambda name: (float(name.split()[0]), name))
    lines = [
        [*key, *(plus_minus(choice.tried.get(name), 3) for name in columns), choice.setting]
        for key, choice in choices.items()
    ]
    return aligned([*head, *columns, "chosen"], lines, left)
