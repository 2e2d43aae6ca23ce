"""Compute the arrays of a flow's figures: densities, samples and particles on the way from noise to data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TIMES = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)  # fractions of the way, as in the paper's figure 5
GRID, CHUNK, LINE = 120, 7_200, 400
SAMPLES, PATHS, MOMENTS = 2_000, 500, 40

Frame = Sequence[tuple[float, float]]


@torch.no_grad()
def snapshots(model: Any, frame: Frame) -> dict[str, Tensor]:
    """Return densities and paths of a flow in the plane, on a grid of the `frame` ((x0, x1), (y0, y1)).

    times      (T,) fractions of the way from noise to data
    x, y       (G,) the grid
    density    (T, G, G), rows y
    particles  (T, N, 2) the same samples at those times
    paths      (S, P, 2) the first of them at many times
    """
    like = next(model.parameters())
    x, y = (torch.linspace(*ends, GRID, dtype=like.dtype, device=like.device) for ends in frame)
    moving = callable(getattr(model, "flow", None))
    times = TIMES if moving else TIMES[-1:]
    arrays: dict[str, Tensor] = {"x": x, "y": y, "times": torch.tensor(times)}
    if callable(getattr(model, "log_prob", None)):
        chunks = torch.split(grid_points(x, y).reshape(-1, 2), CHUNK)
        # A user's flow without `flow` need not support a fraction of the way.
        arguments = [(time,) for time in times] if moving else [()]
        log_densities = [torch.cat([model.log_prob(chunk, *time) for chunk in chunks]) for time in arguments]
        arrays["density"] = torch.stack(log_densities).exp().reshape(len(times), GRID, GRID)
    if moving:
        # The same start for all models of one base.
        noise = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        noise = noise.to(like) * math.sqrt(getattr(model, "base_variance", 1.0))
        moments = torch.linspace(0, 1, MOMENTS, dtype=torch.float64)[1:].tolist()
        arrays["particles"] = model.flow(noise, times)
        arrays["paths"] = torch.cat((noise[None, :PATHS], model.flow(noise[:PATHS], moments)))
    elif callable(getattr(model, "sample", None)):
        arrays["particles"] = model.sample(SAMPLES)[None]
    return arrays


@torch.no_grad()
def beside(model: Any, x: Tensor, units: Any) -> dict[str, Tensor]:
    """Return the arrays shown for points x (N, D), in the units of the data: `restored` and `log_scale` of `units`.

    points                (S, D) the first points
    samples               (S, D) of the flow, if it draws any
    line, line_density    (G,) in one dimension: positions, and the density there
    """
    like = next(model.parameters())
    arrays = {"points": units.restored(x[:SAMPLES])}
    if callable(getattr(model, "sample", None)):
        generator = torch.Generator(like.device).manual_seed(0)
        arrays["samples"] = units.restored(model.sample(SAMPLES, generator=generator))
    if x.shape[1] == 1:
        reach = 0.1 * float(x.max() - x.min())
        line = torch.linspace(float(x.min()) - reach, float(x.max()) + reach, LINE, dtype=like.dtype)
        density = (model.log_prob(line[:, None].to(like)).double().cpu() - units.log_scale).exp()
        arrays |= {"line": units.restored(line[:, None])[:, 0], "line_density": density}
    return arrays


def grid_points(x: Tensor, y: Tensor) -> Tensor:
    """Return the points of the grid, (G, G, 2), rows y."""
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


@torch.no_grad()
def round_trip(model: Any, x: Tensor) -> float | None:
    """Return the largest round-trip error from data to noise and back; None without `to_noise` and `generate`."""
    if not (hasattr(model, "to_noise") and hasattr(model, "generate")):
        return None
    x = x.to(next(model.parameters()))
    back, _ = model.generate(model.to_noise(x))
    return float((back - x).norm(dim=1).max())
