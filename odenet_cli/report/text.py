"""Format values, keys and configs for readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from odenet_cli.config.saved import default_options
from odenet_cli.markdown import MISSING
from odenet_cli.report.compare import PRESETS
from odenet_cli.report.runs import flatten

DEFAULTS = dict(flatten(default_options({})))  # full key -> default, of every option of the schema


def config_value(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(config_value, value)) + "]"
    return compact(value) if isinstance(value, float) else str(value)


def compact(value: float) -> str:
    """Return 0.001, 1e-5, 1e9."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def group_label(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the legend's label of a group: its values; the keys are the legend's title."""
    return ", ".join(config_value(values[key]) for key in keys if values[key] is not None)


def keys_title(keys: Sequence[str], following: Sequence[str] = ()) -> str:
    """Return the title of an axis or a legend: the keys, and the keys that change with them."""
    more = f"{len(following)} more" if len(following) > 3 else ", ".join(following)
    return ", ".join(keys) + (f" (and {more})" if following else "")


def seed_range(values: Iterable[int]) -> str:
    """Return seeds as 0–9, or 0, 3, 7."""
    seeds = sorted(set(values))
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def seeds_text(values: Iterable[int]) -> str:
    """Return seed 0, or seeds 0–2."""
    seeds = set(values)
    return f"seed{'s' * (len(seeds) != 1)} {seed_range(seeds)}"


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def config_sentence(config: Mapping[str, Any]) -> str:
    """Return a config in one line: names first, values at their default left out."""
    titles: dict[str, str] = {}
    options: dict[str, list[str]] = {}
    for key, value in config.items():
        section, dot, rest = key.partition(".")
        if rest in PRESETS:
            titles[section] = f"{section} {config_value(value)}"
        elif value is None or DEFAULTS.get(key) == value:
            continue
        elif dot:
            options.setdefault(section, []).append(f"{rest} {config_value(value)}")
        else:
            titles[section] = f"{key} {config_value(value)}"
    order = dict.fromkeys(key.partition(".")[0] for key in config)
    parts = [(titles.get(name, name), options.get(name)) for name in order if name in titles or name in options]
    return " · ".join(f"{title} ({', '.join(values)})" if values else title for title, values in parts)
