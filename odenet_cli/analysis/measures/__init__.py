"""What an experiment measures on a trained network, one kind a module: `measure(folder, options, say) -> rows`.

Rows are kept in the run's folder as `<module>.jsonl`; those that are there already are not measured again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from odenet_cli.analysis.trained import check_file
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.files import append_json, without_nan

Row = dict[str, Any]


def config_of(folder: Path) -> Config:
    """The config of the run in `folder`; refused where it names a class of the user's own, which no file may."""
    config = load(folder)
    if config.model["name"] == "custom" or "target" in config.model:
        raise RequestError(
            f"{folder / 'config.yaml'} names code to run, model.target={config.model.get('target')}, and no file may.\n"
            "  Nothing is measured on a class of your own."
        )
    return config


class Rows:
    """The rows of one kind in the folder of a run, each found by its `key`."""

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # what stands after it was being written when the power went
        self.found: list[Row] = [json.loads(line) for line in whole.splitlines()]
        if path.exists() and whole != text:
            os.truncate(path, len(whole.encode()))

    def get(self, key: Mapping[str, Any]) -> Row | None:
        """The last row with this key, if there is one."""
        return next(
            (row for row in reversed(self.found) if all(row.get(name) == value for name, value in key.items())), None
        )

    def put(self, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Keep the values under this key."""
        row = without_nan({**key, **values})
        append_json(self.path, row)
        self.found.append(row)

    def missing(self, keys: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The keys without a row."""
        return [key for key in keys if self.get(key) is None]

    def all(self, keys: Iterable[Mapping[str, Any]]) -> list[Row]:
        """The rows with these keys, in their order."""
        return [row for key in keys if (row := self.get(key)) is not None]
