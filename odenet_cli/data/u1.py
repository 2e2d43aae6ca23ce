"""Energy U1 of Rezende & Mohamed (2015): two half moons on a ring."""

from __future__ import annotations

import torch
from torch import Tensor

from odenet_cli.data.common.energies import Energy, half_square


class Source(Energy):
    """U(z) = ½ ((|z| - 2)/0.4)² - log(exp(-½ ((z_1 - 2)/0.6)²) + exp(-½ ((z_1 + 2)/0.6)²))."""

    normalizer = 6.5372

    def energy(self, z: Tensor) -> Tensor:
        x, radius = z[:, 0], torch.linalg.vector_norm(z, dim=1)
        moons = torch.logaddexp(-half_square((x - 2) / 0.6), -half_square((x + 2) / 0.6))
        return half_square((radius - 2) / 0.4) - moons
