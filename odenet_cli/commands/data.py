"""Fetch or verify a data set: odenet data mnist [data.root=FOLDER]"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from odenet_cli.config.presets import headline, options, preset
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest, require

KEYS = ("data.root", "data.download")


def main(argv: list[str]) -> int:
    """Fetch what is missing, verify all of it, and print where it is."""
    if not argv or any(word in ("-h", "--help") for word in argv):
        print(usage())
        return 0 if argv else 2
    name = require("data", argv[0].removeprefix("data="), names())
    given = dict(_option(word) for word in argv[1:])
    known = preset("data", name)
    for key in given:
        if key not in known:
            raise RequestError(f"data.{key} is not an option of {name}, which needs no folder.")
    fetch = {"download": True} if "download" in known else {}

    from odenet_cli.data import prepare

    for line in _lines(prepare(name, {**fetch, **given})):
        print(line)
    return 0


def names() -> list[str]:
    """The data sets that can be fetched or verified."""
    return [name for name in options("data") if name != "auto"]


def usage() -> str:
    """What `odenet data --help` prints."""
    lines = ["usage: odenet data NAME [data.root=FOLDER] [data.download=true|auto|false]", ""]
    lines += ["Fetches a data set (data.download=true is the default here), or verifies the one that is there.", ""]
    return "\n".join([*lines, *(f"  {name:<8} {headline('data', name)}" for name in names())])


def _option(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or key not in KEYS:
        raise RequestError(f"{word} is not an option here.{nearest(key, KEYS)}\n  There are: {', '.join(KEYS)}.")
    if key == "data.root":
        return "root", os.path.expanduser(value)
    return "download", {"true": True, "false": False}.get(value.lower(), value)


def _lines(record: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield f"{indent}{key}"
            yield from _lines(value, indent + "  ")
        elif value is not None:
            yield f"{indent}{key:<10} {value}"
