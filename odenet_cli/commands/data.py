"""Download or verify a data set: odenet data mnist [data.root=FOLDER]

Downloads a data set, or verifies the one on disk, and prints its folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from odenet_cli.commands import _common
from odenet_cli.config.presets import headline, options, preset
from odenet_cli.errors import RequestError
from odenet_cli.registry import require

NAMES = [name for name in options("data") if name != "auto"]
LONGEST = max(map(len, NAMES))
FETCH = {"true": True, "false": False, "auto": "auto"}
PARSER = _common.Parser(
    __name__, "\n".join([f"{__doc__}\n", *(f"  {name:<{LONGEST}}  {headline('data', name)}" for name in NAMES)])
)
PARSER.offers = lambda: NAMES
add = PARSER.add_argument
add("name", metavar="NAME")
add("--data.root", dest="root", metavar="FOLDER", type=_common.path, help="folder of the data set")
add(
    "--data.download",
    dest="download",
    metavar="|".join(FETCH),
    type=_common.one_of(*FETCH),
    help="default: true",
)


@PARSER.command
def main(request: Namespace) -> int:
    """Download missing files, verify all of them, and print their folder."""
    name = require("data", request.name.removeprefix("data="), NAMES)
    known = preset("data", name)
    given: dict[str, Any] = {"download": True} if "download" in known else {}
    for key in ("root", "download"):
        value = getattr(request, key)
        if value is not None and key not in known:
            raise RequestError(f"data.{key} is not an option of {name}, which is not stored in a folder.")
        if value is not None:
            given[key] = str(value) if key == "root" else FETCH[value]

    from odenet_cli.data import prepare

    for line in _lines(prepare(name, given)):
        print(line)
    return 0


def _lines(record: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield f"{indent}{key}"
            yield from _lines(value, indent + "  ")
        elif value is not None:
            yield f"{indent}{key:<10} {value}"
