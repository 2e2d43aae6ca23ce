"""Two concentric circles, like scikit-learn's `make_circles`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from odenet_cli.data.common.checks import check_range
from odenet_cli.data.common.densities import NoisyCurve, cos_sin, halves


@dataclass(frozen=True, kw_only=True)
class Source(NoisyCurve):
    """Circles of radius 1 and `factor`, half of the points on each; `noise` is the standard deviation around them."""

    factor: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("factor", self.factor, 0, 1)

    def curve(self, s: Tensor) -> Tensor:
        inner, along = halves(s)
        radius = torch.where(inner, self.factor, 1.0)
        return torch.stack(cos_sin(along), 1) * radius[:, None].to(s.dtype)
