"""What a key means, its type, range and default, and where its value comes from: odenet help solver.rtol"""

from __future__ import annotations

import re
from dataclasses import MISSING, is_dataclass
from typing import Any

from odenet_cli.config.check import describe_range
from odenet_cli.config.presets import conf_dir, groups, options, written
from odenet_cli.config.resolve import complete, eval_solver, gradient_solver
from odenet_cli.config.schema import Config, find_field, schema_keys
from odenet_cli.errors import RequestError
from odenet_cli.registry import describe_type, nearest

HELP = """usage: odenet help KEY [key=value ...]

What a key of `odenet train` means, its type, range, unit and default, and the value it would have behind these words.

  odenet help solver.rtol
  odenet help trainer.epochs data=digits
  odenet help optim                           every key of a section
"""


def main(argv: list[str]) -> int:
    """Print what is known of the key `argv[0]`, and its value for the words behind it."""
    if argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    key, words = argv[0].partition("=")[0], argv[1:]
    found = find_field(key)
    if found is not None and is_dataclass(section := found[0].default_factory):
        for name, meaning in schema_keys(section, f"{key}."):
            print(f"{name:<28} {meaning}")
        return 0

    from odenet_cli.request.compose import compose

    config = compose(words)
    meaning, rows = describe_key(key) if found is not None else _preset_option(key, config)
    print(f"{key}: {meaning}")
    value, source = value_and_source(key, words, config)
    rows["here"] = f"{_spell(value)}, from {source}"
    for name, text in rows.items():
        if text:
            print(f"  {name:<8} {text}")
    return 0


def describe_key(key: str) -> tuple[str, dict[str, str]]:
    """Return what a key of the schema means, and its type, choices, range, unit and default."""
    found = find_field(key)
    assert found is not None
    field, hint = found
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return field.metadata["help"], {
        "type": describe_type(hint),
        "one of": ", ".join(field.metadata["choices"]) or _presets(key),
        "range": describe_range(field.metadata),
        "unit": field.metadata["unit"],
        "default": _spell(default),
    }


def _presets(key: str) -> str:
    """Return the presets that a key names, where it names one."""
    group = {"gradient.method": "gradient", "optim.name": "optim"}.get(key, "solver" if key.endswith(".method") else "")
    return ", ".join(options(group)) if group else ""


def _preset_option(key: str, config: Config) -> tuple[str, dict[str, str]]:
    """Return what an option of the model or data set means, by the comment in its preset, and its default."""
    group, _, name = key.partition(".")
    if group not in ("model", "data"):
        known = [name for name, _ in schema_keys()]
        raise RequestError(
            f"{key} is not a key of the configuration.{nearest(key, known)}\n  A section: odenet help solver"
        )
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
    text = (conf_dir() / group / f"{preset}.yaml").read_text(encoding="utf-8")
    comment = re.search(rf"^ *{re.escape(name.rpartition('.')[2])}:.*?# *(.*)$", text, re.MULTILINE)
    meaning = comment[1] if comment else f"an option of {group}={preset}"
    return meaning, {"default": _spell(values.get(name))}


def value_and_source(key: str, words: list[str], config: Config) -> tuple[Any, str]:
    """Return the value that a key would have in `odenet train <words>`, and what sets it."""
    value = _select(config, key)
    chosen = dict(word.lstrip("+").partition("=")[::2] for word in words)
    if key in chosen:
        return value, "the command line"
    completed = complete(config, gpu=False)
    if value is None and (filled := _select(completed, key)) is not None:
        return filled, f"the recipe of data={config.data['name']} (on a CPU)"
    for section, solver in (("eval.solver.", eval_solver), ("gradient.solver.", gradient_solver)):
        name = key.removeprefix(section)
        if value is None and name != key and (implied := getattr(solver(completed), name)) is not None:
            method = _select(completed, f"{section}method") or config.solver.method
            preset = method != config.solver.method and name in written("solver", method)
            return implied, f"conf/solver/{method}.yaml" if preset else f"solver.{name}, as in training"
    if "experiment" in chosen and _stands_in(written("experiment", chosen["experiment"]), key):
        return value, f"conf/experiment/{chosen['experiment']}.yaml"
    group, _, name = key.partition(".")
    if group in groups():
        section = getattr(config, group)
        preset = section["name"] if isinstance(section, dict) else getattr(section, "method", None) or section.name
        if _stands_in(written(group, str(preset)), name):
            return value, f"conf/{group}/{preset}.yaml"
    return value, "the default"


def _stands_in(content: Any, key: str) -> bool:
    """Return whether a preset's content has a full key."""
    for word in key.split("."):
        if not isinstance(content, dict) or word not in content:
            return False
        content = content[word]
    return True


def _select(config: Config, key: str) -> Any:
    value: Any = config
    for word in key.split("."):
        value = value.get(word) if isinstance(value, dict) else getattr(value, word, None)
    return value


def _spell(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
