"""Compute the paths of a trained series model for held-out spirals (figures 8 to 10 of Chen et al. 2018).

`path`    one of the first test trajectories: the points seen, the true path, the model's path over twice the window
`latent`  z(t) of a test trajectory inside the window, from the mean of q(z0 | x); latent ODE only
`varied`  a path decoded from z0 with one dimension changed; latent ODE only

The changed dimension covers the middle 95 % of the test trajectories' z0; the others stay at their means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odenet_cli.analysis.measures import Row, Rows, config_of, rounded
from odenet_cli.analysis.trained import trained
from odenet_cli.config.resolve import eval_solver
from odenet_cli.data.common.series import FURTHER, WINDOW, Series
from odenet_cli.tasks.series import rmse
from odenet_cli.training import build
from odenet_cli.training.evaluate import solved_by

KeyedRows = Iterator[tuple[dict[str, Any], Row]]  # (key, values)


def measure(folder: Path, options: dict[str, Any], say: Callable[[str], None]) -> list[Row]:
    """Measure as `options` say: shown and latent, trajectories; times per curve; varied, values per dimension."""
    rows, config = Rows(folder / "spiral_paths.jsonl"), config_of(folder)
    complete = {"kind": "whole", "options": options}
    if rows.get(complete) is None:
        net = trained(folder, config, "best", max(options["shown"], options["latent"]))
        model = net.model.eval()
        x = Series._make(next(iter(net.data.test.epoch(0))))
        with torch.no_grad(), solved_by(model, build.solver(eval_solver(config))):
            for key, values in compute_rows(model, x, options):
                rows.put({**key, "options": options}, values)
        rows.put(complete, {})  # marks the rows as complete
    own = [row for row in rows.rows if row["options"] == options and row["kind"] != "whole"]
    return list({(row["kind"], row.get("series"), row.get("dimension"), row.get("value")): row for row in own}.values())


def compute_rows(model: Any, x: Series, options: dict[str, Any]) -> KeyedRows:
    fractions = torch.linspace(0, 1, options["times"], device=x.values.device, dtype=x.target_times.dtype)
    fine = x.target_times.amax(1, keepdim=True) * fractions
    yield from paths(model, Series._make(row[: options["shown"]] for row in x), fine[: options["shown"]])
    if hasattr(model, "recognition"):
        mean, _ = model.recognition(x.times, x.values, x.observed_mask)
        ts = fine[0][1:]
        inside = ts <= x.target_times.where(x.scope == WINDOW, 0).max()
        yield from latents(model, mean[: options["latent"]], ts[inside], x.clean)
        yield from varied(model, mean, ts, options["varied"])


def paths(model: Any, x: Series, fine: Tensor) -> KeyedRows:
    """Yield the first test trajectories, with the model's path at the times `fine`, (B, T), and its errors."""
    path = model.forecast(x.times, x.values, x.observed_mask, fine).path
    at_targets = model.forecast(x.times, x.values, x.observed_mask, x.target_times).path
    for n in range(len(x.times)):
        series = Series._make(row[n] for row in x)
        errors = {
            f"rmse_{name}_clean": rmse(at_targets[n : n + 1], series.clean[None], mask[None]).item()
            for name, mask in (("window", series.scope == WINDOW), ("further", series.scope >= FURTHER))
        }
        curves = {
            "times": series.times[series.observed_mask],
            "values": series.values[series.observed_mask],
            "at": series.target_times,
            "clean": series.clean,
            "fine": fine[n],
            "path": path[n],
            "end": series.target_times[series.scope == WINDOW].max(),
        }
        listed = {name: rounded(curve) for name, curve in curves.items()}
        yield {"kind": "path", "series": n}, {**listed, "turns": turns(series.clean), **errors}


def latents(model: Any, z0: Tensor, ts: Tensor, clean: Tensor) -> KeyedRows:
    """Yield z(t) from each z0, (B, D), at every second of 0 and `ts`."""
    z = torch.cat((z0[:, None], model.flow(z0, ts.tolist())), 1)
    for n in range(len(z)):
        yield {"kind": "latent", "series": n}, {"z": rounded(z[n, ::2]), "turns": turns(clean[n])}


def varied(model: Any, mean: Tensor, ts: Tensor, count: int) -> KeyedRows:
    """Yield paths decoded from the mean of all z0, (B, D), with one dimension moved through `count` values."""
    quantiles = torch.tensor([0.025, 0.975], device=mean.device, dtype=mean.dtype)
    for dimension in range(mean.shape[1]):
        low, high = torch.quantile(mean[:, dimension], quantiles)
        z0 = mean.mean(0).repeat(count, 1)
        z0[:, dimension] = low + (high - low) * torch.linspace(0, 1, count, device=mean.device, dtype=mean.dtype)
        decoded = model.decoder(torch.cat((z0[:, None], model.flow(z0, ts.tolist())), 1))
        for value, path in zip(z0[:, dimension].tolist(), decoded):
            key = {"kind": "varied", "dimension": dimension + 1, "value": round(value, 4)}
            yield key, {"path": rounded(path), "turns": turns(path)}


def turns(path: Tensor) -> float:
    """Return the number of turns of the direction of a path, (T, 2); counter-clockwise is positive."""
    step = path.diff(dim=0)
    before, after = step[:-1], step[1:]
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return torch.atan2(cross, (before * after).sum(1)).sum().item() / (2 * torch.pi)
