"""What a trained model of series makes of held-out spirals (figures 8 to 10 of Chen et al. 2018).

`path`    one of the first test trajectories: what was seen, the truth, the model's path over twice the window
`latent`  z(t) of a test trajectory inside the window, from the mean of q(z0 | x); of a latent ODE only
`varied`  a path decoded from a z0 of which one dimension was changed; of a latent ODE only

What is varied goes through the middle 95 % of the test trajectories' z0 in that dimension; the others stay at the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odenet_cli.analysis.measures import Row, Rows, config_of
from odenet_cli.analysis.trained import trained
from odenet_cli.config.resolve import eval_solver
from odenet_cli.data.common.series import FURTHER, WINDOW, Series
from odenet_cli.tasks.series import rmse
from odenet_cli.training import build
from odenet_cli.training.evaluate import solved_by

Found = Iterator[tuple[dict[str, Any], Row]]  # (key, values)


def measure(folder: Path, options: dict[str, Any], say: Callable[[str], None]) -> list[Row]:
    """`options`: shown and latent, how many trajectories; times of a line; varied, how many values of a dimension."""
    rows, config = Rows(folder / "spiral_paths.jsonl"), config_of(folder)
    if rows.get({"kind": "whole", "options": options}) is None:
        net = trained(folder, config, "best", max(options["shown"], options["latent"]))
        model = net.model.eval()
        x = Series._make(next(iter(net.data.test.epoch(0))))
        with torch.no_grad(), solved_by(model, build.solver(eval_solver(config))):
            for key, values in found(model, x, options):
                rows.put({**key, "options": options}, values)
        rows.put({"kind": "whole", "options": options}, {})  # nothing was cut off
    mine = [row for row in rows.found if row["options"] == options]
    latest = {(row["kind"], row.get("series"), row.get("dimension"), row.get("value")): row for row in mine}
    return [row for row in latest.values() if row["kind"] != "whole"]


def found(model: Any, x: Series, options: dict[str, Any]) -> Found:
    fine = x.target_times.amax(1, keepdim=True) * torch.linspace(
        0, 1, options["times"], device=x.target_times.device, dtype=x.target_times.dtype
    )
    yield from paths(model, Series._make(row[: options["shown"]] for row in x), fine[: options["shown"]])
    if hasattr(model, "recognition"):
        mean, _ = model.recognition(x.times, x.values, x.observed_mask)
        ts = fine[0][1:]
        inside = ts <= x.target_times.where(x.scope == WINDOW, 0).max()
        yield from latents(model, mean[: options["latent"]], ts[inside], x.clean)
        yield from varied(model, mean, ts, options["varied"])


def paths(model: Any, x: Series, fine: Tensor) -> Found:
    """The first test trajectories."""
    path = model.forecast(x.times, x.values, x.observed_mask, fine).path
    scored = model.forecast(x.times, x.values, x.observed_mask, x.target_times).path
    for n in range(len(x.times)):
        one = Series._make(row[n] for row in x)
        errors = {}
        for name, where in (("window", one.scope == WINDOW), ("further", one.scope >= FURTHER)):
            errors[f"rmse_{name}_clean"] = rmse(scored[n : n + 1], one.clean[None], where[None]).item()
        values = {
            "times": one.times[one.observed_mask],
            "values": one.values[one.observed_mask],
            "at": one.target_times,
            "clean": one.clean,
        }
        values |= {"fine": fine[n], "path": path[n], "end": one.target_times[one.scope == WINDOW].max()}
        listed = {name: rounded(value) for name, value in values.items()}
        yield {"kind": "path", "series": n}, {**listed, "turns": turns(one.clean), **errors}


def latents(model: Any, z0: Tensor, ts: Tensor, clean: Tensor) -> Found:
    z = torch.cat((z0[:, None], model.flow(z0, ts.tolist())), 1)
    for n in range(len(z)):
        yield {"kind": "latent", "series": n}, {"z": rounded(z[n, ::2]), "turns": turns(clean[n])}


def varied(model: Any, mean: Tensor, ts: Tensor, count: int) -> Found:
    shares = torch.tensor([0.025, 0.975], device=mean.device, dtype=mean.dtype)
    for dimension in range(mean.shape[1]):
        low, high = torch.quantile(mean[:, dimension], shares)
        z0 = mean.mean(0).repeat(count, 1)
        z0[:, dimension] = low + (high - low) * torch.linspace(0, 1, count, device=mean.device, dtype=mean.dtype)
        path = model.decoder(torch.cat((z0[:, None], model.flow(z0, ts.tolist())), 1))
        for value, one in zip(z0[:, dimension].tolist(), path):
            key = {"kind": "varied", "dimension": dimension + 1, "value": round(value, 4)}
            yield key, {"path": rounded(one), "turns": turns(one)}


def turns(path: Tensor) -> float:
    """How many times the direction of (T, 2) goes round, counter-clockwise counted as positive."""
    step = path.diff(dim=0)
    before, after = step[:-1], step[1:]
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return torch.atan2(cross, (before * after).sum(1)).sum().item() / (2 * torch.pi)


def rounded(value: Tensor) -> Any:
    """As numbers, for a figure."""
    found: Any = value.double().mul(1e4).round().div(1e4).tolist()
    return found
