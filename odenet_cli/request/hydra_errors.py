"""Translate Hydra's and OmegaConf's errors into a few plain lines: key, value, what is allowed, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odenet_cli.config.check import leaves
from odenet_cli.config.presets import groups, options
from odenet_cli.config.schema import key_of, schema_keys
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest, offer

PARSER_WORDS = "LexerNoViable|Error parsing|mismatched|missing|extraneous|no viable|token recognition"
KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "a word"}


@contextmanager
def translate_hydra_errors(overrides: list[str], keys: Callable[[], list[str]] = list) -> Iterator[None]:
    """Turn Hydra's errors about `overrides` into a `RequestError`; `keys` lists the keys to suggest."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise RequestError(explain(error, overrides, keys)) from error
    except RecursionError as error:
        raise RequestError("the configuration contains a reference that leads back to itself.") from error


def known_keys(cfg: Any) -> list[str]:
    """Return every key of a composed configuration, sections included, and the groups."""
    listed = groups()
    for key, _ in leaves(OmegaConf.to_container(cfg, resolve=False)):
        words = key.split(".")
        if words[0] != "hydra":
            listed += [".".join(words[:n]) for n in range(1, len(words) + 1)]
    return list(dict.fromkeys(listed))


def explain(error: Exception, overrides: list[str], keys: Callable[[], list[str]] = list) -> str:
    """Return the message for one of Hydra's exceptions."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error)
    if isinstance(error, OverrideParseException):
        return _unparsed(error.override, str(error))
    text = str(error)

    if "Ambiguous value for argument" in text or "requires --multirun" in text:
        override = _first(r"'(.*)'", text)
        return f"{override} has several values; add -m to train with each of them. A list is written key=[a,b]."
    if match := re.search(r"Could not override '([^']+)'\. No match in the defaults list", text):
        key = match[1]
        if key in groups():
            principal = "method" if key in ("solver", "gradient") else "name"
            return (
                f"{_override_of(key, overrides)} chooses a preset, but it is not in the defaults of this "
                "configuration, so it would be ignored.\n"
                f"  Change single keys instead: {key}.{principal}=…"
            )
        return _unknown(key, keys())
    if match := re.search(r"Could not override '([^']+)'|config group '([^']+)' does not exist", text):
        return _unknown(match[1] or match[2], keys())
    if match := re.search(r"Multiple values for (\S+?)\.", text):
        return f"{match[1]} is given more than once; give {match[1]}=… only once."
    if "Config group override must be a string or a list" in text:
        empty = [o for o in overrides if o.partition("=")[0] in groups() and o.partition("=")[2] in ("", "null")]
        return f"{', '.join(empty) or 'an override'} has no value; leave it out, or name a preset."

    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _omegaconf(cause, text, overrides, keys)
    return _short(text)


def _missing(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    known = list(error.options or (options(group) if group in groups() else []))
    if not group:
        return f"the configuration {name}.yaml was not found. --config-name config also needs --config-dir RUN."
    if not known:
        return f"{group}={name} is not known, and there are no presets in {group} yet."
    return f"{group}={name} is not known.{nearest(name, known)}\n  Available: {', '.join(sorted(known))}."


def _unparsed(override: str, text: str) -> str:
    reason = text.split("\n")[0]
    reason = "it does not follow Hydra's grammar" if re.match(PARSER_WORDS, reason) else reason
    key, _, value = override.partition("=")
    text = value if re.fullmatch(r"[^'\"$`\\!,]+", value) else "value"
    example = f"\"{key}=['one (1)','another']\"" if value.startswith("[") else f"\"{key}='{text}'\""
    return (
        f"{override} cannot be read: {reason.split('See https')[0].strip()}.\n"
        f"  Put quotes around a value with spaces, commas, brackets or =: {example}."
    )


def _omegaconf(cause: OmegaConfBaseException, text: str, overrides: list[str], keys: Callable[[], list[str]]) -> str:
    key = str(cause.full_key or "")
    override = _first(r"Error merging override (.*)", text) or _override_of(key, overrides)
    message = str(cause.msg or cause).split("\n")[0]
    if match := re.search(r"Value '(.*)' of type '\S+' (?:could not be converted to|is not a valid) (\w+)", message):
        return f"{key}={match[1]} is not {KINDS.get(match[2], match[2])}."
    if match := re.search(r"Value '(.*)' is not a valid bool", message):
        return f"{key}={match[1]} is not {KINDS['Boolean']}."
    if "is not optional" in message.lower() or "non-optional" in message.lower():
        return f"{key}=null is not allowed: it needs a value."
    if "is not a ListConfig" in message:
        return f"{override} is not a list; write a list with brackets: {key}=[{override.partition('=')[2]}]."
    if message.startswith("Missing mandatory value"):
        example = f"{key}=package.module:Class, a class of your own" if key.endswith(".target") else f"{key}=…"
        return f"{key} is missing: {example}."
    if re.search(r"not in '\w+'|not in struct", message):
        return _unknown(key, keys())
    if message.startswith("Invalid type assigned"):
        return (
            f"{override} is not allowed: {key} is a section; set its keys instead, {key}.….{nearest(key + '.', keys())}"
        )
    if match := re.search(r"Interpolation key '([^']+)' not found", message):
        return f"{override or key} refers to {match[1]}, which does not exist.{nearest(match[1], keys())}"
    return f"{override or key}: {message}" if (override or key) else _short(message)


def _unknown(key: str, known: list[str]) -> str:
    section, _, name = key.rpartition(".")
    if section == "model.field_args":
        return f"{key} is not a key of the configuration.\n  To add an option of your own field, write a plus: +{key}=…"
    if section in ("model", "data") and f"{section}.target" in known:
        return f"{key} is not a key of the configuration.\n  To add an option of your own class, write a plus: +{key}=…"
    # A key's meaning begins with what others call it: `learning_rate` is `optim.lr`.
    meanings = {re.split("[;,:]", text)[0].replace(" ", "_"): full for full, text in reversed([*schema_keys()])}
    keys = known if ".recipe." in key else [other for other in known if ".recipe." not in other]
    near = offer([meanings[name]]) if name in meanings else nearest(key, keys)
    beside = sorted(k for k in known if k.rpartition(".")[0] == section) if section else []
    if not beside and not near:
        beside = sorted(k for k in known if "." not in k)
    listing = f"\n  Available: {', '.join(beside)}." if beside else ""
    return f"{key} is not a key of the configuration.{near}{listing}"


def _override_of(key: str, overrides: list[str]) -> str:
    """Return the override that set `key`, else the key alone."""
    matching = [override for override in overrides if key_of(override) == key]
    return matching[-1] if matching else key


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def _short(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "https://" not in line]
    return "\n  ".join(lines[:6])
