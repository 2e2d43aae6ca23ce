"""Energy U3 of Rezende & Mohamed (2015): a sine wave that splits."""

from __future__ import annotations

import torch
from torch import Tensor

from odenet_cli.data.common.energies import Energy, half_square, wave


class Source(Energy):
    """U(z) = -log(exp(-½ ((z_2 - w1)/0.35)²) + exp(-½ ((z_2 - w1 + w2)/0.35)²)), w2 = 3 exp(-½ ((z_1 - 1)/0.6)²)."""

    normalizer = 14.4769

    def energy(self, z: Tensor) -> Tensor:
        y, w2 = z[:, 1] - wave(z), 3 * torch.exp(-half_square((z[:, 0] - 1) / 0.6))
        return -torch.logaddexp(-half_square(y / 0.35), -half_square((y + w2) / 0.35))
