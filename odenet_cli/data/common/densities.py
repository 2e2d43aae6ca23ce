"""Densities in the plane, to be learnt from samples, and their entropies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.checks import check_range
from odenet_cli.data.common.plane import PlaneSource

MIN_NODES = 1024  # on a curve
MAX_NODE_GAP = 0.25  # between neighbouring nodes, in units of the noise
# The grid of the quadrature: its step and the reach of a node's Gaussian, in units of the noise; steps per tile.
STEP, REACH, TILE = 1 / 3, 9, 72


@dataclass(frozen=True, kw_only=True)
class Density(PlaneSource):
    """A distribution whose samples are the data: `draw`, and `density` and `entropy` in closed form if they exist."""

    task: ClassVar = "likelihood"

    def density(self, x: Tensor) -> Tensor:
        """Return p(x), x (N, 2) -> (N,)."""
        raise NotImplementedError

    @property
    def entropy(self) -> float | None:
        """-E[log p(x)], in nat."""
        return None


@dataclass(frozen=True, kw_only=True)
class NoisyCurve(Density):
    """Gaussian noise of standard deviation `noise` around the points of a curve, uniform along it."""

    noise: float = 0.06

    def __post_init__(self) -> None:
        check_range("noise", self.noise, 0.001, 10)

    def curve(self, s: Tensor) -> Tensor:
        """Return the points at fractions s of the curve's length, s (N,) in [0, 1) -> (N, 2)."""
        raise NotImplementedError

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        s = torch.rand(n, generator=generator, dtype=dtype, device=generator.device)
        noise = torch.randn(n, 2, generator=generator, dtype=dtype, device=generator.device)
        return self.curve(s) + self.noise * noise

    def density(self, x: Tensor) -> Tensor:
        """Return p(x), x (N, 2) -> (N,): the mean of Gaussians around the nodes of the curve."""
        nodes, scale = self._nodes().to(x), 2 * self.noise**2
        chunks = torch.split(x, max(1, MIN_NODES**2 // len(nodes)))
        distances = [torch.cdist(chunk, nodes, compute_mode="donot_use_mm_for_euclid_dist") for chunk in chunks]
        return torch.cat([torch.exp(-distance.square() / scale).mean(1) for distance in distances]) / (math.pi * scale)

    def _nodes(self) -> Tensor:
        """Return the curve's points at the midpoints of equal parts that are short compared with the noise."""
        s = _midpoints(MIN_NODES)
        speed = float((self.curve(s + 1e-6) - self.curve(s)).norm(dim=1).max()) / 1e-6
        finer = max(1, math.ceil(speed / (MAX_NODE_GAP * self.noise * MIN_NODES)))
        return self.curve(_midpoints(MIN_NODES * finer))

    @cached_property
    def entropy(self) -> float:
        """-E[log p(x)] by the trapezoidal rule, which is accurate to many digits for so smooth a function.

        The nodes of the curve and the grid of the plane are fine compared with the noise; only tiles near the curve
        contribute.
        """
        nodes, side, total = self._nodes() / self.noise, TILE * STEP, 0.0
        neighbours = torch.cartesian_prod(*[torch.arange(-1, 2)] * 2)
        tiles = (torch.floor(nodes / side).long()[:, None] + neighbours).reshape(-1, 2)
        for low in (tiles.unique(dim=0) * side).unbind():  # type: ignore[no-untyped-call]
            near = nodes[((nodes > low - REACH) & (nodes < low + side + REACH)).all(1)]
            # exp(-|x - c|² / 2) is a product of one factor per axis, so the sum over nodes is one matrix product.
            grid = low + STEP * torch.arange(TILE, dtype=torch.float64)[:, None]
            across, up = (torch.exp(-0.5 * (grid[:, i, None] - near[:, i]).square()) for i in range(2))
            p = across @ up.T / (len(nodes) * 2 * math.pi)
            total -= float(torch.xlogy(p, p).sum()) * STEP**2
        return total + 2 * math.log(self.noise)


def _midpoints(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def cos_sin(s: Tensor, turns: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return cosine and sine at fractions s of `turns` turns."""
    angle = 2 * math.pi * turns * s
    return angle.cos(), angle.sin()


def halves(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return in which half of [0, 1) each s lies (True: the second), and its fraction of that half."""
    second = s >= 0.5
    return second, 2 * s - second.to(s.dtype)
