"""A board of 4×4 squares, the points uniform on every other one; the entropy is the logarithm of their area."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.toy import Toy


@dataclass(frozen=True, kw_only=True)
class Source(Toy):
    """It has no options: squares of side 2 on [-4, 4]²."""

    name: ClassVar = "checkerboard"

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        x, y = 4 * torch.rand(2, n, generator=generator, dtype=dtype, device=generator.device)
        column, row = torch.floor(x), torch.floor(y / 2)
        return 2 * torch.stack((x - 2, y / 2 + row + torch.remainder(column, 2) - 2), 1)

    def density(self, x: Tensor) -> Tensor:
        """p(x), x (N, 2) -> (N,)."""
        square = torch.floor(x / 2)
        on = (x.abs() < 4).all(1) & (torch.remainder(square.sum(1), 2) == 0)
        return on.to(x.dtype) / (8 * 2.0**2)

    @property
    def entropy(self) -> float:
        return math.log(8 * 2.0**2)
