"""A board of 4×4 squares with uniform points on every other one; the entropy is the logarithm of their area."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from odenet_cli.data.common.densities import Density

AREA = 8 * 2.0**2  # eight squares of side 2 on [-4, 4]²


class Source(Density):
    """The data set, without options."""

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        x, y = 4 * torch.rand(2, n, generator=generator, dtype=dtype, device=generator.device)
        column, row = torch.floor(x), torch.floor(y / 2)
        return 2 * torch.stack((x - 2, y / 2 + row + torch.remainder(column, 2) - 2), 1)

    def density(self, x: Tensor) -> Tensor:
        square = torch.floor(x / 2)
        inside = (x.abs() < 4).all(1) & (torch.remainder(square.sum(1), 2) == 0)
        return inside.to(x.dtype) / AREA

    @property
    def entropy(self) -> float:
        return math.log(AREA)
