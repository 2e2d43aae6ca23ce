"""Two interleaved half circles, like scikit-learn's `make_moons`."""

from __future__ import annotations

import torch
from torch import Tensor

from odenet_cli.data.common.densities import NoisyCurve, cos_sin, halves


class Source(NoisyCurve):
    """Half circles of radius 1; `noise` is the standard deviation around them."""

    def curve(self, s: Tensor) -> Tensor:
        lower, along = halves(s)
        x, y = cos_sin(along, 0.5)
        return torch.stack((torch.where(lower, 1 - x, x), torch.where(lower, 0.5 - y, y)), 1)
