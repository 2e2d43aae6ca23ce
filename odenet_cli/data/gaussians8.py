"""Eight Gaussians on a circle; entropy by quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odenet_cli.data.common.densities import NoisyCurve, cos_sin
from odenet_cli.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Source(NoisyCurve):
    """Eight Gaussians of standard deviation `noise`, with centres on a circle of `radius`."""

    noise: float = 0.5 / math.sqrt(2)
    radius: float = 4 / math.sqrt(2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.radius <= 100:
            raise RequestError(f"data.radius={self.radius} is out of range: it must be above 0 and at most 100.")

    def curve(self, s: Tensor) -> Tensor:
        return self.radius * torch.stack(cos_sin(torch.floor(8 * s) / 8), 1)
