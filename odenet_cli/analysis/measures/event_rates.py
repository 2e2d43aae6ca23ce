"""The rate that a trained model infers from held-out events, beside the true one (figure 7 of Chen et al. 2018).

`sequence`  a test sequence: its events, the error of the rate and of a constant one, the gap to the true likelihood
`rate`      one of the first of them, whole: events, the true rate and the inferred one on a grid
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odenet_cli.analysis.measures import Row, Rows, config_of
from odenet_cli.analysis.trained import eval_batch, trained
from odenet_cli.config.resolve import eval_solver
from odenet_cli.data.common.events import Events
from odenet_cli.tasks.events import negative_log_likelihood
from odenet_cli.training import build
from odenet_cli.training.evaluate import solved_by


def measure(folder: Path, options: dict[str, Any], say: Callable[[str], None]) -> list[Row]:
    """`options`: shown, how many sequences are kept whole."""
    rows, config = Rows(folder / "event_rates.jsonl"), config_of(folder)
    whole = {"kind": "whole", **options}
    if rows.get(whole) is None:
        net, place = trained(folder, config, "best", eval_batch(config)), 0
        with torch.no_grad(), solved_by(net.model.eval(), build.solver(eval_solver(config))):
            for batch in net.data.test.epoch(0):
                place = _noted(rows, net.model, Events._make(batch), place, options["shown"])
        rows.put(whole, {"sequences": place})  # nothing was cut off
    count = (rows.get(whole) or {})["sequences"]
    keys = [{"kind": "sequence", "sequence": n} for n in range(count)]
    return rows.all(keys) + rows.all([{"kind": "rate", "sequence": n} for n in range(min(count, options["shown"]))])


def _noted(rows: Rows, model: Any, x: Events, place: int, shown: int) -> int:
    """The rows of a batch that begins at test sequence `place`; returns where the next one begins."""
    made = model.intensity(x.bins, x.counts, x.times, x.event_mask, x.grid)
    events, total = x.event_mask.sum(1), torch.trapezoid(x.rate, x.grid)
    constant = (events / (x.grid[:, -1] - x.grid[:, 0]))[:, None].expand_as(x.rate)
    batch = len(x.times)
    # The likelihood of a draw from q, as in the loss; the rate is the best guess.
    nll = negative_log_likelihood(made.log_rate[:batch], made.total[:batch], x.event_mask)
    truth = negative_log_likelihood(x.log_rate, total, x.event_mask)
    columns = {
        "events": events,
        "expected": total,
        "rate_error": off(made.path, x),
        "rate_error_constant": off(constant, x),
        "gap": (nll - truth) / events.clamp_min(1),
    }
    for n in range(batch):
        values = {name: round(column[n].item(), 6) for name, column in columns.items()}
        rows.put({"kind": "sequence", "sequence": place + n}, values)
        if place + n < shown:
            lines = {"times": x.times[n][x.event_mask[n]], "grid": x.grid[n], "rate": x.rate[n], "path": made.path[n]}
            kept = {name: line.double().mul(1e4).round().div(1e4).tolist() for name, line in lines.items()}
            rows.put({"kind": "rate", "sequence": place + n}, kept)
    return place + batch


def off(path: Tensor, x: Events) -> Tensor:
    """∫|λ̂ - λ| / ∫λ."""
    return torch.trapezoid((path - x.rate).abs(), x.grid) / torch.trapezoid(x.rate, x.grid)
