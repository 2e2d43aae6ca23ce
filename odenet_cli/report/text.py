"""Values, keys and configs as a reader wants them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from odenet_cli.config.schema import Config, EvalConfig, GradientConfig, OptimConfig, SolverConfig, TrainerConfig
from odenet_cli.report.runs import flat

NONE = "–"
SECTIONS = {"solver": SolverConfig, "gradient": GradientConfig, "optim": OptimConfig}
SECTIONS |= {"trainer": TrainerConfig, "eval": EvalConfig}
DEFAULTS = {f.name: f.default for f in fields(Config)} | dict(
    flat({name: asdict(schema()) for name, schema in SECTIONS.items()})
)
HEADS = ("name", "method")  # what a section of the config is called by


def word(value: Any) -> str:
    """A value of a config."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(word, value)) + "]"
    return plain(value) if isinstance(value, float) else str(value)


def plain(value: float) -> str:
    """0.001, 1e-5, 1e9."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def label(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """What a legend calls a group: its values, the keys being the legend's title."""
    return ", ".join(word(values[key]) for key in keys if values[key] is not None)


def title(keys: Sequence[str], followers: Sequence[str] = ()) -> str:
    """What an axis or a legend is headed by: the keys, and what changes with them."""
    more = f"{len(followers)} more" if len(followers) > 3 else ", ".join(followers)
    return ", ".join(keys) + (f" (and {more})" if followers else "")


def digits(value: float | None) -> str:
    """Three digits; all of them in front of the point."""
    if value is None:
        return NONE
    after = next((after for bound, after in ((100, 0), (10, 1), (1, 2)) if abs(value) >= bound), 3)
    return f"{value:.{after}f}"


def count(value: float | None) -> str:
    """A mean of counts."""
    return NONE if value is None else f"{value:.1f}".removesuffix(".0")


def series(values: Iterable[int]) -> str:
    """Seeds: 0–9, or 0, 3, 7."""
    found = sorted(set(values))
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"{found[0]}–{found[-1]}"
    return ", ".join(map(str, found))


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence lists them: a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def bullets(lines: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def sentence(config: Mapping[str, Any]) -> str:
    """A config in one line: names first, what stands at its default left out."""
    titles: dict[str, str] = {}
    options: dict[str, list[str]] = {}
    for key, value in config.items():
        section, dot, rest = key.partition(".")
        if rest in HEADS:
            titles[section] = f"{section} {word(value)}"
        elif value is None or DEFAULTS.get(key) == value:
            continue
        elif dot:
            options.setdefault(section, []).append(f"{rest} {word(value)}")
        else:
            titles[section] = f"{key} {word(value)}"
    order = dict.fromkeys(key.partition(".")[0] for key in config)
    parts = [(titles.get(name, name), options.get(name)) for name in order if name in titles or name in options]
    return " · ".join(f"{title} ({', '.join(said)})" if said else title for title, said in parts)
