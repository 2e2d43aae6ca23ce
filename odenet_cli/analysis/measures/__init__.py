"""Measurements of an experiment on a trained network, one kind per module: `measure(folder, options, say) -> rows`.

Rows are stored in the run's folder as `<module>.jsonl`, each with its key; those already there are not measured again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from odenet_cli.analysis.trained import check_file
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.files import append_json, without_nan

Row = dict[str, Any]


def config_of(folder: Path) -> Config:
    """Return the config of the run in `folder`; raise if it names a user's own class, since no file may name code."""
    config = load(folder)
    if own := config.named_code():
        named = ", ".join(f"{key}={target}" for key, target in own.items())
        raise RequestError(
            f"{folder / 'config.yaml'} names code to run, {named}, which is not allowed in a file.\n"
            "  Classes of your own cannot be measured."
        )
    return replace(config, device="cpu") if config.device == "mps" else config  # float64 is needed, which mps lacks


def rounded(values: Tensor) -> Any:
    """Return a tensor as numbers for a figure, rounded to four decimals."""
    return values.double().mul(1e4).round().div(1e4).tolist()


class Rows:
    """Hold the rows of one kind in the folder of a run, each found by its key, which is part of the row."""

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # an incomplete last line comes from an interrupted write
        self.rows: list[Row] = [json.loads(line) for line in whole.splitlines()]
        if whole != text:
            os.truncate(path, len(whole.encode()))

    def get(self, key: Mapping[str, Any]) -> Row | None:
        """Return the last row with this key, if there is one."""
        return next((row for row in reversed(self.rows) if all(row.get(k) == v for k, v in key.items())), None)

    def put(self, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        row = without_nan({**key, **values})
        append_json(self.path, row)
        self.rows.append(row)

    def missing(self, keys: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [key for key in keys if self.get(key) is None]

    def all(self, keys: Iterable[Mapping[str, Any]]) -> list[Row]:
        return [row for key in keys if (row := self.get(key)) is not None]
