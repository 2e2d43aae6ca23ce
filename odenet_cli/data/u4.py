"""Energy U4 of Rezende & Mohamed (2015): a sine wave that forks."""

from __future__ import annotations

import torch
from torch import Tensor

from odenet_cli.data.common.energies import Energy, half_square, wave


class Source(Energy):
    """U(z) = -log(exp(-½ ((z_2 - w1)/0.4)²) + exp(-½ ((z_2 - w1 + w3)/0.35)²)), w3 = 3 σ((z_1 - 1)/0.3)."""

    normalizer = 15.2518

    def energy(self, z: Tensor) -> Tensor:
        y, w3 = z[:, 1] - wave(z), 3 * torch.sigmoid((z[:, 0] - 1) / 0.3)
        return -torch.logaddexp(-half_square(y / 0.4), -half_square((y + w3) / 0.35))
