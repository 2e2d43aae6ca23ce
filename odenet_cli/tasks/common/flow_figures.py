"""What the figures of a flow are drawn from: densities, samples and particles on the way from noise to data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

TIMES = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)  # fractions of the way, as in the paper's figure 5
GRID, CHUNK = 120, 7_200
SAMPLES, PATHS, MOMENTS = 2_000, 500, 40

Frame = Sequence[tuple[float, float]]


@torch.no_grad()
def snapshots(model: Any, frame: Frame) -> dict[str, Tensor]:
    """Of a flow in the plane, on a grid of the `frame` ((x0, x1), (y0, y1)).

    times      (T,) fractions of the way from noise to data
    x, y       (G,) the grid
    density    (T, G, G), rows y
    particles  (T, N, 2) the same samples at those times
    paths      (S, P, 2) the first of them at many times
    """
    like = next(model.parameters())
    x, y = (torch.linspace(*ends, GRID, dtype=like.dtype, device=like.device) for ends in frame)
    at = points(x, y).reshape(-1, 2)
    moving = callable(getattr(model, "flow", None))
    times = TIMES if moving else TIMES[-1:]
    made: dict[str, Tensor] = {"x": x, "y": y, "times": torch.tensor(times)}
    if callable(getattr(model, "log_prob", None)):
        asked = [(time,) for time in times] if moving else [()]
        densities = [
            torch.cat([model.log_prob(at[n : n + CHUNK], *time) for n in range(0, len(at), CHUNK)]).exp()
            for time in asked
        ]
        made["density"] = torch.stack(densities).reshape(len(times), GRID, GRID)
    if moving:
        noise = _noise(model, SAMPLES)
        moments = torch.linspace(0, 1, MOMENTS, dtype=torch.float64)[1:].tolist()
        made["particles"] = model.flow(noise, times)
        made["paths"] = torch.cat((noise[None, :PATHS], model.flow(noise[:PATHS], moments)))
    elif callable(getattr(model, "sample", None)):
        made["particles"] = model.sample(SAMPLES)[None]
    return made


def points(x: Tensor, y: Tensor) -> Tensor:
    """The grid's points, (G, G, 2), rows y."""
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows), -1)


@torch.no_grad()
def round_trip(model: nn.Module, x: Tensor) -> float | None:
    """The largest distance at which data come back from noise; None for a model without `to_noise` and `generate`."""
    if not (hasattr(model, "to_noise") and hasattr(model, "generate")):
        return None
    x = x.to(next(model.parameters()))
    back, _ = model.generate(model.to_noise(x))  # type: ignore[operator]
    return float((back - x).norm(dim=1).max())


def _noise(model: Any, n: int) -> Tensor:
    """Where `n` particles begin: the same for all models of one base."""
    like = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64).to(like)
    spread = math.sqrt(getattr(model, "base_variance", 1.0))
    return noise * spread
