"""Complete a configuration that an older version saved: an option that is new since takes its default.

A new option's default is what the program did before there was one; so an old run means what it meant.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from odenet_cli.config.presets import written
from odenet_cli.errors import RequestError

SECTIONS = ("solver", "gradient", "model", "data", "optim", "trainer", "eval")  # in every version
_said: set[tuple[str, ...]] = set()


def complete(content: dict[str, Any], schema: type[Any], path: Path) -> dict[str, Any]:
    """Return `content`, read from `path`, with the options it lacks; which ones is said once, on stderr.

    Raises `RequestError` where a whole section is missing: that is no older version, but half of a file.
    """
    for section in SECTIONS:
        if not isinstance(content.get(section), dict):
            raise RequestError(f"{path} is damaged: there is no section `{section}` in it.\n{remedy(path)}")
    whole = with_defaults(content, defaults(content, schema))
    report(path, missing(content, whole))
    return whole


def remedy(path: Path) -> str:
    """Return what to do about a saved configuration that cannot be used."""
    return (
        f"  Put back what the run wrote there; what it was asked stands in {path.parent / '.hydra' / 'overrides.yaml'}."
    )


def defaults(content: Mapping[str, Any], schema: type[Any]) -> dict[str, Any]:
    """Return the defaults of every option of the schema, and of the model and the data set that `content` names."""
    known = of_schema(schema)
    for group in ("model", "data"):
        name = (content.get(group) or {}).get("name")
        known[group] = options(group, name) if isinstance(name, str) else {}
    return known


def options(group: str, name: str) -> dict[str, Any]:
    """Return the options of a model or a data set as its preset has them; `recipe` is no option."""
    preset = written(group, name)
    return {key: value for key, value in preset.items() if key not in ("name", "target", "recipe")}


def of_schema(schema: type[Any]) -> dict[str, Any]:
    """Return the defaults of a dataclass, nested as it is; what is computed by an interpolation has none."""
    known: dict[str, Any] = {}
    for field in fields(schema):
        value = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(value):
            known[field.name] = of_schema(type(value))
        elif field.name not in ("name", "resume", "reproduce"):
            known[field.name] = value
    return known


def with_defaults(content: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content`, and from `known` what it has nothing of."""
    whole = dict(content)
    for key, value in known.items():
        if key not in whole:
            whole[key] = value
        elif isinstance(value, Mapping) and isinstance(whole[key], Mapping):
            whole[key] = with_defaults(whole[key], value)
    return whole


def missing(content: Mapping[str, Any], whole: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return full key -> value for what `whole` has and `content` lacks."""
    found: dict[str, Any] = {}
    for key, value in whole.items():
        if isinstance(value, Mapping) and isinstance(content.get(key, {}), Mapping):
            found |= missing(content.get(key, {}), value, f"{prefix}{key}.")
        elif key not in content:
            found[f"{prefix}{key}"] = value
    return found


def report(path: Path, new: Mapping[str, Any]) -> None:
    """Say on stderr which options are taken as their defaults; of many runs that lack the same, the first one says it.

    An option that is null says nothing yet, so nothing is said of it.
    """
    told = {key: value for key, value in new.items() if value is not None}
    if told and tuple(told) not in _said:
        _said.add(tuple(told))
        listed = ", ".join(f"{key}={value}" for key, value in told.items())
        print(f"warning: {path} is of an older version without {listed}; so it is taken.", file=sys.stderr)
