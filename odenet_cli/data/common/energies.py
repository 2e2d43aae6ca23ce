"""The four energies of Rezende & Mohamed, "Variational inference with normalizing flows" (2015), table 1, in a box.

U2, U3 and U4 have infinite ridges and cannot be normalised on R². So all four are enclosed by a wall,

    p(z) = exp(-U(z) - C(z)) / Z,      C(z) = ½ Σ_i (max(|z_i| - 4, 0) / 0.1)²,

which is part of the loss and of every reported number. The lower bound of the loss is -log Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from odenet_cli.data.common.plane import PlaneSource

WALL_WIDTH = 0.1


@dataclass(frozen=True, kw_only=True)
class Energy(PlaneSource):
    """A target density known up to its constant; batches are `(noise (B, 2), target)`, with standard normal noise.

    normalizer  the constant Z with the wall, which a test recomputes by quadrature
    edge        start of the wall
    """

    task: ClassVar = "density"
    normalizer: ClassVar[float]
    edge: ClassVar = 4.0

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        return torch.randn(n, 2, generator=generator, dtype=dtype, device=generator.device)

    def energy(self, z: Tensor) -> Tensor:
        """Return U(z), z (B, 2) -> (B,)."""
        raise NotImplementedError

    def __call__(self, z: Tensor) -> Tensor:
        """Return U + C, z (B, 2) -> (B,)."""
        return self.energy(z) + half_square(F.relu(z.abs() - self.edge) / WALL_WIDTH).sum(1)

    @property
    def floor(self) -> float:
        """The minimum of E[log q + U + C], attained by q = p."""
        return -math.log(self.normalizer)


def wave(z: Tensor) -> Tensor:
    """Return w1(z) = sin(2π z_1 / 4), z (B, 2) -> (B,)."""
    return torch.sin(0.5 * math.pi * z[:, 0])


def half_square(x: Tensor) -> Tensor:
    """Return ½ x²."""
    return 0.5 * x.square()
