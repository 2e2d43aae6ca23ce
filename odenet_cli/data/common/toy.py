"""Points in the plane to fit a density to, drawn by samplers of our own; entropies where they can be computed.

A data set is the distribution of its points: `draw` makes them, `entropy` is that of their density, in nat, or
None, and `density(x)` that density, where it has a closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.generated import generated, record
from odenet_cli.data.common.images import BatchSpec, Data
from odenet_cli.errors import RequestError

NODES = 1024  # on a curve, at least
APART = 0.25  # of neighbouring nodes, in units of the noise, at most
STEP, TILE, REACH = 1 / 3, 72, 9  # of the quadrature: units of the noise, steps, units of the noise


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A `Source` whose batches are `(x (B, 2), distribution)`; the source is the distribution of its points.

    A data set gives its `draw`, and `entropy` or, if it is a curve with Gaussian noise, the `curve`.
    """

    shape: ClassVar = (2,)
    classes: ClassVar = 0
    task: ClassVar = "likelihood"
    name: ClassVar[str]

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """n points, (n, 2), made on the generator's device."""
        raise NotImplementedError

    @property
    def entropy(self) -> float | None:
        """-E[log p(x)], in nat."""
        return None

    def prepare(self) -> dict[str, Any]:
        return record(self.name)

    def load(self, spec: BatchSpec) -> Data:
        return generated(self.name, self.task, self.draw, self, spec)


@dataclass(frozen=True, kw_only=True)
class Noisy(Toy):
    """Gaussian noise of standard deviation `noise` around points of a curve, all parts of it alike.

    curve  the curve at fractions of its length, s (N,) in [0, 1) -> (N, 2)
    """

    noise: float = 0.06

    def __post_init__(self) -> None:
        if not 1e-3 <= self.noise <= 10:
            raise RequestError(f"data.noise={self.noise} is out of range; it may be 0.001 to 10.")

    def curve(self, s: Tensor) -> Tensor:
        raise NotImplementedError

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        s = torch.rand(n, generator=generator, dtype=dtype, device=generator.device)
        noise = torch.randn(n, 2, generator=generator, dtype=dtype, device=generator.device)
        return self.curve(s) + self.noise * noise

    def density(self, x: Tensor) -> Tensor:
        """p(x), x (N, 2) -> (N,): the mean over nodes of the curve of the Gaussian around each."""
        nodes, scale = self._nodes().to(x), 2 * self.noise**2
        some = torch.split(x, max(1, NODES**2 // len(nodes)))
        apart = [torch.cdist(part, nodes, compute_mode="donot_use_mm_for_euclid_dist") for part in some]
        parts = [torch.exp(-distance.square() / scale).mean(1) for distance in apart]
        return torch.cat(parts) / (math.pi * scale)

    def _nodes(self) -> Tensor:
        """Points of the curve at the middles of equal parts of its length, near each other beside the noise."""
        speed = float((self.curve(_middles(NODES) + 1e-6) - self.curve(_middles(NODES))).norm(dim=1).max()) / 1e-6
        return self.curve(_middles(NODES * max(1, math.ceil(speed / (APART * self.noise * NODES)))))

    @cached_property
    def entropy(self) -> float:
        """By the trapezoidal rule, which is exact to many digits for functions as smooth as this, on nodes of the curve
        and a grid of the plane that are both fine beside the noise; tile by tile, those that lie near the curve."""
        nodes, step = self._nodes() / self.noise, STEP
        side, total = TILE * step, 0.0
        around = torch.cartesian_prod(*[torch.arange(-1, 2)] * 2)
        tiles = (torch.floor(nodes / side).long()[:, None] + around).reshape(-1, 2)
        for low in (tiles.unique(dim=0) * side).unbind():  # type: ignore[no-untyped-call]
            near = nodes[((nodes > low - REACH) & (nodes < low + side + REACH)).all(1)]
            # exp(-|x - c|² / 2) is a product of one factor for each axis, so the sum over nodes is one matrix product.
            grid = low + step * torch.arange(TILE, dtype=torch.float64)[:, None]
            across, up = (torch.exp(-0.5 * (grid[:, i, None] - near[:, i]).square()) for i in range(2))
            p = across @ up.T / (len(nodes) * 2 * math.pi)
            total -= float(torch.xlogy(p, p).sum()) * step**2
        return total + 2 * math.log(self.noise)


def _middles(count: int) -> Tensor:
    """The middles of so many equal parts of [0, 1)."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def angles(s: Tensor, turns: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine at fractions of so many turns."""
    turn = 2 * math.pi * turns * s
    return turn.cos(), turn.sin()


def halves(s: Tensor) -> tuple[Tensor, Tensor]:
    """Which half of [0, 1) a fraction is in, and where in that half, in [0, 1)."""
    second = s >= 0.5
    return second, 2 * s - second.to(s.dtype)
