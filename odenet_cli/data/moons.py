"""Two moons, two half circles that reach into each other, as scikit-learn's `make_moons` has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.toy import Noisy, angles, halves


@dataclass(frozen=True, kw_only=True)
class Source(Noisy):
    """noise  standard deviation around the half circles of radius 1."""

    name: ClassVar = "moons"

    def curve(self, s: Tensor) -> Tensor:
        lower, along = halves(s)
        x, y = angles(along, 0.5)
        return torch.stack((torch.where(lower, 1 - x, x), torch.where(lower, 0.5 - y, y)), 1)
