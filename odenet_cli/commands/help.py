"""Explain a key: its meaning, type, range and default, and where its value comes from: odenet help solver.rtol"""

from __future__ import annotations

import copy
import functools
import re
from argparse import Namespace
from dataclasses import MISSING, is_dataclass
from typing import Any

from odenet_cli.cli import commands
from odenet_cli.commands import _common
from odenet_cli.config.check import check, describe_range
from odenet_cli.config.presets import offer_choices, options, texts, written
from odenet_cli.config.resolve import complete
from odenet_cli.config.schema import Config, find_field, schema_keys
from odenet_cli.errors import HasNoMeaning, RequestError
from odenet_cli.registry import describe_type, has_type, nearest
from odenet_cli.streams import hanging

PARSER = _common.Parser(
    __name__,
    """What a key of `odenet train` means, its type, range, unit and default, and its value behind these words.

  odenet help solver.rtol
  odenet help trainer.epochs data=digits
  odenet help optim                        every key of a section""",
)
PARSER.add_argument("key", metavar="KEY", help="a key, or a section")
PARSER.add_argument("words", metavar="key=value", nargs="*", default=[], help="as behind `odenet train`")


@PARSER.command
def main(request: Namespace) -> int:
    """Print the description of a key, and its value for the given overrides."""
    key, words = request.key.partition("=")[0].rstrip("."), request.words
    found = find_field(key)
    if found is not None and is_dataclass(section := found[0].default_factory):
        for name, meaning in schema_keys(section, f"{key}."):
            print(hanging(f"{name:<28} ", meaning))
        return 0

    from odenet_cli.request.compose import Composer, to_config
    from odenet_cli.request.origins import values_and_origins
    from odenet_cli.request.overrides import parse

    composer = Composer(parse(words))
    with composer.translate_errors():
        cfg = composer.compose(composer.overrides)
        config = to_config(cfg)
    if key in ("model", "data"):
        for name in (name for name in written(key, getattr(config, key)["name"]) if name != "name"):
            print(hanging(f"{key}.{name:<{27 - len(key)}} ", _preset_option(f"{key}.{name}", config)[0]))
        return 0
    values = values_and_origins(composer, composer.overrides, cfg, complete(config, gpu=False))
    meaning, rows = describe_key(key) if found is not None else _preset_option(key, config)
    print(hanging(f"{key}: ", meaning))
    if key in values:
        value, origin = values[key]
        here = f"{spell(value)} ({origin}{', on a CPU' * origin.startswith('recipe')})"
        rows["here"] = why_unused(key, config) or here
    for name, text in rows.items():
        if text:
            print(hanging(f"  {name:<8} ", text))
    return 0


def describe_key(key: str) -> tuple[str, dict[str, str]]:
    """Describe a key of the schema: its meaning, type, choices, range, unit and default."""
    found = find_field(key)
    assert found is not None
    field, hint = found
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return field.metadata["help"], {
        "type": describe_type(hint),
        "one of": ", ".join(field.metadata["choices"]) or _presets(key),
        "range": describe_range(field.metadata),
        "unit": field.metadata["unit"],
        "default": spell(default),
    }


def why_unused(key: str, config: Config) -> str:
    """Return why a key that is at its default has no meaning beside the others; empty where it has one.

    It is set to another value, and the rules of the configuration speak.
    """
    found = find_field(key)
    if found is None:
        return ""
    field, hint = found
    *sections, name = key.split(".")
    other = copy.deepcopy(config)
    section = functools.reduce(getattr, sections, other)
    values = [*field.metadata["choices"], not field.default, 0.5, 1, [0.5]]
    value = next((value for value in values if value != field.default and has_type(value, hint)), None)
    if value is None or getattr(section, name) != field.default:
        return ""
    setattr(section, name, value)
    try:
        check(other)
    except HasNoMeaning as error:
        return f"{key} {error.reason}." if key in error.given else ""
    except RequestError:  # it has one, and other values
        pass
    return ""


def _presets(key: str) -> str:
    """Return the presets that a key names, where it names one."""
    group = {"gradient.method": "gradient", "optim.name": "optim"}.get(key, "solver" if key.endswith(".method") else "")
    return ", ".join(options(group)) if group else ""


def _preset_option(key: str, config: Config) -> tuple[str, dict[str, str]]:
    """Describe an option of the model or data set by the comment in its preset, with its default."""
    group, _, name = key.partition(".")
    if group not in ("model", "data"):
        near = offer_choices(key) or nearest(key, [name for name, _ in schema_keys()])
        else_where = "" if near else "\n  All keys of a section: odenet help solver"
        else_where = f"\n  A command: odenet {key} --help" if key in commands() else else_where
        raise RequestError(f"{key} is not a key of the configuration.{near}{else_where}")
    preset = str(getattr(config, group)["name"])
    values = written(group, preset)
    if name.partition(".")[0] not in values:
        owners = [other for other in options(group) if name.partition(".")[0] in written(group, other)]
        if owners:
            raise RequestError(
                f"{key} is an option of {group}={'|'.join(owners)}: odenet help {key} {group}={owners[0]}"
            )
        listed = ", ".join(f"{group}.{option}" for option in values)
        raise RequestError(f"{key} is not an option.{nearest(name, values)}\n  {group}={preset} has: {listed}.")
    key_line = rf"^ *{re.escape(name.rpartition('.')[2])}:.*?# *(.*)$"
    comment = re.search(key_line, "\n".join(texts(group, preset)), re.MULTILINE)
    meaning = comment[1] if comment else f"an option of {group}={preset}"
    return meaning, {"default": spell(values.get(name))}


def spell(value: Any) -> str:
    """Return a value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
