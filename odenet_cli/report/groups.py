"""Runs side by side: which keys of their configs differ, who belongs together, and what all of them share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from odenet_cli.config.schema import INCIDENTAL
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest
from odenet_cli.report.runs import Run, number
from odenet_cli.report.spread import Spread, over_seeds

IGNORED = INCIDENTAL | {"seed"}  # what may differ between two runs of the same experiment
SOLVING = ("solver.", "gradient.", "eval.solver.")
SECTIONS = ("model", "solver", "gradient", "data", "optim", "trainer", "eval")  # the order of a reader


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that belong together: they share the `values` of the keys that tell groups apart."""

    values: dict[str, Any]
    runs: list[Run]

    @property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.done]

    def spread(self, name: str) -> Spread | None:
        """One number of its finished runs, over their seeds."""
        return over_seeds([(run.seed, run.value(name)) for run in self.done], name)

    def mean(self, name: str) -> float | None:
        found = self.spread(name)
        return found.mean if found else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs in groups.

    keys    what tells the groups apart
    common  what all runs share, where they have it
    mixed   what differs inside a group, for `by` leaves it open
    """

    runs: list[Run]
    keys: list[str]
    groups: list[Group]
    common: dict[str, Any]
    mixed: list[str]

    @property
    def numeric(self) -> list[str]:
        """The keys that can be an axis: numbers, two or more among the groups that have a finished run."""
        found = []
        for key in self.keys:
            values = {group.values[key] for group in self.groups if group.done} - {None}
            if len(values) > 1 and all(number(value) is not None for value in values):
                found.append(key)
        return found

    @property
    def axes(self) -> list[str]:
        """Those of them that do not merely follow another key."""
        told, _ = telling([group for group in self.groups if group.done], self.keys)
        return [key for key in self.numeric if key in told]

    def has(self, name: str) -> bool:
        """Has any group this number?"""
        return any(group.spread(name) for group in self.groups)

    @property
    def solving(self) -> bool:
        """Has any group a solver?"""
        return any(group.mean("nfe_forward") for group in self.groups)


def telling(groups: Sequence[Group], keys: Sequence[str], first: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """As few of the keys as tell the groups apart, `first` among them; and those that change, but only with these."""
    rows = [group.values for group in groups]
    kept = list(first)
    for key in sorted(keys, key=lambda key: -_classes(rows, [key])):
        if _classes(rows, [*kept, key]) > _classes(rows, kept):
            kept.append(key)
    following = [key for key in keys if key not in kept and _classes(rows, [key]) > 1]
    return [key for key in keys if key in kept], following


def compare(runs: Sequence[Run], by: Sequence[str] | None = None) -> Comparison:
    """Group `runs` by the keys that differ between them, or by the keys in `by`."""
    readable = [run for run in runs if run.config]
    settings = _settings(readable)
    told = _told_apart(settings)
    keys = list(by) if by is not None else told
    for key in keys:
        known = list(dict.fromkeys(name for run in readable for name in run.config))
        if key not in known and key not in told:
            raise RequestError(f"by={key}: no run here has that key.{nearest(key, known)}")

    members = defaultdict(list)
    for place, run in enumerate(readable):
        values = tuple(settings[place].get(key, run.config.get(key) if by else None) for key in keys)
        members[values].append(place)
    mixed = [key for key in told if any(len({settings[i].get(key) for i in same}) > 1 for same in members.values())]
    return Comparison(
        runs=list(runs),
        keys=keys,
        groups=[
            Group(values=dict(zip(keys, values)), runs=[readable[i] for i in members[values]])
            for values in _sorted(list(members))
        ],
        common={key: value for key, value in _shared(settings).items() if key not in keys},
        mixed=mixed,
    )


def _settings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The config of each run as far as it tells what was computed."""
    plain = {run.model for run in runs if run.solves is False} - {run.model for run in runs if run.solves}
    digests = defaultdict(set)
    for run in runs:
        digests[run.config.get("data.name")].add(run.digest)
    found = []
    for run in runs:
        setting = {key: value for key, value in run.config.items() if key not in IGNORED}
        if run.model in plain:  # its solver was never called
            setting |= {key: None for key in setting if key.startswith(SOLVING)}
        if setting.get("checkpoint") is not None:  # a path; that the run began from other weights is what counts
            setting["checkpoint"] = "given"
        if len(digests[run.config.get("data.name")]) > 1:
            setting["data.sha256"] = run.digest[:12]
        found.append(setting)
    for tied in {key for setting in found for key in setting if key.endswith(".atol")}:
        if all(setting.get(tied) == setting.get(tied[:-4] + "rtol") for setting in found):
            for setting in found:
                setting.pop(tied, None)
    return found


def _told_apart(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The keys in which the settings differ. An option that only some have, all with one value, is left out where other
    keys tell the same: `model.hidden` says nothing beside `model.name`."""
    every = list(dict.fromkeys(key for setting in settings for key in setting))
    values = {key: {setting.get(key) for setting in settings} for key in every}
    kept = [key for key in every if len(values[key] - {None}) > 1]
    for key in every:
        if key not in kept and len(values[key]) > 1 and _classes(settings, [*kept, key]) > _classes(settings, kept):
            kept.append(key)
    return sorted(kept, key=lambda key: (_place(key), every.index(key)))


def _classes(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(row.get(key) for key in keys) for row in rows})


def _place(key: str) -> int:
    section = key.partition(".")[0]
    return SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)


def _shared(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    every = sorted(dict.fromkeys(key for setting in settings for key in setting), key=_place)
    values = {key: {setting.get(key) for setting in settings} - {None} for key in every}
    return {key: next(iter(found)) for key, found in values.items() if len(found) == 1}


def _sorted(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Numbers by size, words as they came, what is missing last."""
    columns = [list(dict.fromkeys(column)) for column in zip(*rows)]
    ranks = []
    for seen in columns:
        numeric = all(value is None or number(value) is not None for value in seen)
        order = sorted(seen, key=lambda value: (value is None, value or 0 if numeric else 0))
        ranks.append({value: rank for rank, value in enumerate(order)})
    return sorted(rows, key=lambda row: [rank[value] for rank, value in zip(ranks, row)])
