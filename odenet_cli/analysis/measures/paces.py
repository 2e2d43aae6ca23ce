"""Measure a recurrent network's free run after the window at another pace; other networks have no `model.pace`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from odenet_cli.analysis.measures import Row, Rows, config_of
from odenet_cli.analysis.trained import trained
from odenet_cli.config.resolve import eval_batch
from odenet_cli.training.evaluate import evaluate


def measure(folder: Path, options: dict[str, Any], say: Callable[[str], None]) -> list[Row]:
    """Measure the errors on the test trajectories, one row for each of the paces in `options`."""
    config = config_of(folder)
    if "pace" not in config.model:
        return []
    rows = Rows(folder / "paces.jsonl")
    keys = [{"kind": "pace", "pace": pace} for pace in options["paces"]]
    for key in rows.missing(keys):
        at_pace = replace(config, model={**config.model, "pace": key["pace"]})
        net = trained(folder, at_pace, "best", eval_batch(config))
        scores = evaluate(net.model, net.loss_fn, net.data.test)
        rows.put(key, {name: value for name, value in scores.items() if name.startswith("rmse")})
    return rows.all(keys)
