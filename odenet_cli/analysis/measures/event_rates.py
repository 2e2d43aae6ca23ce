"""Compare the rate inferred by a trained model from held-out events with the true one (figure 7 of Chen et al. 2018).

`sequence`  a test sequence: its events, the errors of the rate and of a constant rate, the gap to the true likelihood
`rate`      one of the first sequences in full: events, the true rate and the inferred one on a grid
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from odenet_cli.analysis.measures import Row, Rows, config_of, rounded
from odenet_cli.analysis.trained import trained
from odenet_cli.config.resolve import eval_batch, eval_solver
from odenet_cli.data.common.events import Events
from odenet_cli.models.common.latent import noise_by_sample
from odenet_cli.tasks.events import negative_log_likelihood, rate_error
from odenet_cli.training import build
from odenet_cli.training.evaluate import solved_by


def measure(folder: Path, options: dict[str, Any], say: Callable[[str], None]) -> list[Row]:
    """Measure as `options` say: shown, the number of sequences stored in full."""
    rows, config = Rows(folder / "event_rates.jsonl"), config_of(folder)
    shown, complete = options["shown"], {"kind": "whole", **options}
    if rows.get(complete) is None:
        net, count = trained(folder, config, "best", eval_batch(config)), 0
        scored = solved_by(net.model.eval(), build.solver(eval_solver(config)))
        with torch.no_grad(), scored, noise_by_sample(net.model, net.data.test):
            for batch in net.data.test.epoch(0):
                for sequence, (values, rate) in enumerate(infer(net.model, Events._make(batch)), count):
                    rows.put({"kind": "sequence", "sequence": sequence}, values)
                    if sequence < shown:
                        rows.put({"kind": "rate", "sequence": sequence}, rate)
                    count = sequence + 1
        rows.put(complete, {"sequences": count})  # marks the rows as complete
    count = (rows.get(complete) or {})["sequences"]
    sequences = rows.all({"kind": "sequence", "sequence": n} for n in range(count))
    return sequences + rows.all({"kind": "rate", "sequence": n} for n in range(min(count, shown)))


def infer(model: Any, x: Events) -> list[tuple[Row, Row]]:
    """Return the errors and the rates of each sequence of a batch."""
    inferred = model.intensity(x.bins, x.counts, x.times, x.event_mask, x.grid)
    events, total = x.event_mask.sum(1), torch.trapezoid(x.rate, x.grid)
    constant = (events / (x.grid[:, -1] - x.grid[:, 0]))[:, None].expand_as(x.rate)
    size = len(x.times)
    # The likelihood is that of a draw from q, as in the loss; the rate is decoded from the mean of q.
    nll = negative_log_likelihood(inferred.log_rate[:size], inferred.total[:size], x.event_mask)
    true_nll = negative_log_likelihood(x.log_rate, total, x.event_mask)
    columns = {
        "events": events,
        "expected": total,
        "rate_error": rate_error(inferred.path, x),
        "rate_error_constant": rate_error(constant, x),
        "gap": (nll - true_nll) / events.clamp_min(1),
    }
    results = []
    for n in range(size):
        curves = {"times": x.times[n][x.event_mask[n]], "grid": x.grid[n], "rate": x.rate[n], "path": inferred.path[n]}
        values = {name: round(column[n].item(), 6) for name, column in columns.items()}
        results.append((values, {name: rounded(curve) for name, curve in curves.items()}))
    return results
