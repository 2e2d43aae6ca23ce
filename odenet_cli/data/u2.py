"""Energy U2 of Rezende & Mohamed (2015): a sine wave."""

from __future__ import annotations

from torch import Tensor

from odenet_cli.data.common.energies import Energy, half_square, wave


class Source(Energy):
    """U(z) = ½ ((z_2 - w1)/0.4)², w1 = sin(2π z_1 / 4)."""

    normalizer = 8.2725

    def energy(self, z: Tensor) -> Tensor:
        return half_square((z[:, 1] - wave(z)) / 0.4)
