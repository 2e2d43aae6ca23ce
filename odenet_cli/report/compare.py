"""Compare runs: find the keys in which their configs differ, group the runs, and collect what all of them share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from odenet_cli.config.saved import SECTIONS
from odenet_cli.config.schema import INCIDENTAL
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest
from odenet_cli.report.runs import Run, finite
from odenet_cli.report.statistics import Spread, grouped, over_seeds

IGNORED = INCIDENTAL | {"seed"}  # may differ between two runs of the same experiment
SOLVER_KEYS = ("solver.", "gradient.", "eval.solver.")
IDENTITY = ("model", "data", "trainer")  # sections that no mean is taken over, nor over the presets of others
PRESETS = ("name", "method")  # RK-Net and ODE-Net differ in gradient.method alone

Setting = dict[str, Any]  # full key -> value, of what was computed


@dataclass(frozen=True, kw_only=True)
class Group:
    """Hold runs that share the `values` of the keys that distinguish groups."""

    values: Setting = field(default_factory=dict)
    runs: list[Run]

    @property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.done]

    def spread(self, name: str) -> Spread | None:
        """Return the spread of one number over the seeds of the finished runs."""
        return over_seeds([(run.seed, run.value(name)) for run in self.done], name)

    def mean(self, name: str) -> float | None:
        spread = self.spread(name)
        return spread.mean if spread else None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold runs in groups.

    keys     what distinguishes the groups
    common   what all runs share
    partial  what those runs share that have it, and not all have
    mixed    keys that differ inside a group, because `by` left them out
    """

    runs: list[Run]
    keys: list[str]
    groups: list[Group]
    common: Setting
    partial: Setting
    mixed: list[str]

    @property
    def numeric(self) -> list[str]:
        """Return the keys that can be an axis: two or more numbers among the groups that have a finished run."""
        columns = {key: {group.values[key] for group in self.groups if group.done} - {None} for key in self.keys}
        return [
            key
            for key, values in columns.items()
            if len(values) > 1 and all(finite(value) is not None for value in values)
        ]

    @property
    def axes(self) -> list[str]:
        """Return the numeric keys that do not merely change along with another key."""
        distinguishing, _ = distinguishing_keys([group for group in self.groups if group.done], self.keys)
        return [key for key in self.numeric if key in distinguishing]

    def has(self, name: str) -> bool:
        return any(group.spread(name) for group in self.groups)


def distinguishing_keys(
    groups: Sequence[Group], keys: Sequence[str], first: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Return as few keys as distinguish the groups, `first` among them; and the keys that change only with these."""
    rows = [group.values for group in groups]
    chosen = list(first)
    for key in sorted(keys, key=lambda key: -_count_distinct(rows, [key])):
        if _count_distinct(rows, [*chosen, key]) > _count_distinct(rows, chosen):
            chosen.append(key)
    following = [key for key in keys if key not in chosen and _count_distinct(rows, [key]) > 1]
    return [key for key in keys if key in chosen], following


def compare(runs: Sequence[Run], by: Sequence[str] | None = None) -> Comparison:
    """Group `runs` by the keys that differ between them, or by those in `by` and the identity of network and data."""
    readable = [run for run in runs if run.config]
    settings = _settings(readable)
    differing = _differing_keys(settings)
    keys = differing
    if by is not None:
        known = [*dict.fromkeys(name for run in readable for name in run.config), *differing]
        for key in by:
            if key not in known:
                raise RequestError(f"by={key}: no run here has that key.{nearest(key, known)}")
        identity = _differing_keys([{k: v for k, v in s.items() if _is_identity(k)} for s in settings])
        keys = [*by, *(key for key in identity if key not in by)]

    values_of = [
        tuple(setting.get(key, run.config.get(key) if by else None) for key in keys)
        for run, setting in zip(readable, settings)
    ]
    members = grouped((values, index) for index, values in enumerate(values_of))
    mixed = [
        key for key in differing if any(len({settings[i].get(key) for i in same}) > 1 for same in members.values())
    ]
    common, partial = _shared(settings, keys)
    return Comparison(
        runs=list(runs),
        keys=keys,
        groups=[
            Group(values=dict(zip(keys, values)), runs=[readable[i] for i in members[values]])
            for values in _sorted_rows(list(members))
        ],
        common=common,
        partial=partial,
        mixed=mixed,
    )


def _settings(runs: Sequence[Run]) -> list[Setting]:
    """Return for each run the part of its config that determines its results."""
    without_solver = {run.network for run in runs if run.has_solver is False}
    without_solver -= {run.network for run in runs if run.has_solver}
    digests, several_starts = defaultdict(set), _have_several_starts(runs)
    for run in runs:
        if run.record.get("data"):  # one that failed before may have none
            digests[run.config.get("data.name")].add(run.data_digest)
    settings = []
    for run in runs:
        setting = {key: value for key, value in run.config.items() if key not in IGNORED}
        if run.lengthened:
            setting["trainer.lengthened"] = run.lengthened
        if run.network in without_solver:  # its solver was never called
            setting |= {key: None for key in setting if key.startswith(SOLVER_KEYS)}
        if len((run.record.get("data") or {}).get("input") or ()) == 1:  # vectors, for which every stem is linear
            setting.pop("model.stem", None)
        if setting.get("checkpoint") is not None:  # a path, and each seed may have been trained from weights of its own
            setting["checkpoint"] = run.origin if several_starts else "given"
        if len(digests[run.config.get("data.name")]) > 1:
            setting["data.sha256"] = run.data_digest[:12] or None
        settings.append(setting)
    for atol in {key for setting in settings for key in setting if key.endswith(".atol")}:
        if all(setting.get(atol) == setting.get(atol[:-4] + "rtol") for setting in settings):
            for setting in settings:
                setting.pop(atol, None)
    return settings


def _have_several_starts(runs: Sequence[Run]) -> bool:
    """Return whether runs that differ in nothing else, seed included, began from different weights."""
    origins = defaultdict(set)
    for run in runs:
        if run.config.get("checkpoint") is not None:
            same = IGNORED - {"seed"} | {"checkpoint"}
            origins[frozenset((key, x) for key, x in run.config.items() if key not in same)].add(run.origin)
    return any(len(each) > 1 for each in origins.values())


def _differing_keys(settings: Sequence[Setting]) -> list[str]:
    """Return the keys in which the settings differ, in reading order.

    An option that only some have, all with one value, counts only where no other key distinguishes the same:
    `model.hidden` says nothing beside `model.name`.
    """
    every = list(dict.fromkeys(key for setting in settings for key in setting))
    values = {key: {setting.get(key) for setting in settings} for key in every}
    keys = [key for key in every if len(values[key] - {None}) > 1]
    for key in every:
        distinguishes = key not in keys and len(values[key]) > 1
        if distinguishes and _count_distinct(settings, [*keys, key]) > _count_distinct(settings, keys):
            keys.append(key)
    return sorted(keys, key=lambda key: (_section_rank(key), every.index(key)))


def _count_distinct(rows: Sequence[Setting], keys: Sequence[str]) -> int:
    return len({tuple(row.get(key) for key in keys) for row in rows})


def _is_identity(key: str) -> bool:
    return key.partition(".")[0] in IDENTITY or key.rpartition(".")[2] in PRESETS


def _section_rank(key: str) -> int:
    section = key.partition(".")[0]
    return SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)


def _shared(settings: Sequence[Setting], keys: Sequence[str]) -> tuple[Setting, Setting]:
    """Return what all settings share apart from `keys`, and what those share that have it."""
    every = sorted(dict.fromkeys(key for setting in settings for key in setting), key=_section_rank)
    common: Setting = {}
    partial: Setting = {}
    for key in (key for key in every if key not in keys):
        values = {setting.get(key) for setting in settings}
        if len(same := values - {None}) == 1:
            (common if values == same else partial)[key] = next(iter(same))
    return common, partial


def _sorted_rows(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Sort numbers by size and words by first appearance, with missing values last."""
    columns = [list(dict.fromkeys(column)) for column in zip(*rows)]
    ranks = []
    for values in columns:
        numeric = all(value is None or finite(value) is not None for value in values)
        order = sorted(values, key=lambda value: (value is None, value or 0 if numeric else 0))
        ranks.append({value: rank for rank, value in enumerate(order)})
    return sorted(rows, key=lambda row: [rank[value] for rank, value in zip(ranks, row)])
