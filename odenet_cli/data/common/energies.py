"""The four energies of Rezende & Mohamed, "Variational inference with normalizing flows" (2015), table 1, in a box.

U2, U3 and U4 have ridges without end and cannot be normalised on R². So all four stand within a wall,

    p(z) = exp(-U(z) - C(z)) / Z,      C(z) = ½ Σ_i (max(|z_i| - 4, 0) / 0.1)²,

which is part of the loss and of every number that is reported. No flow can score below the floor -log Z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from odenet_cli.data.common.generated import generated, record
from odenet_cli.data.common.images import BatchSpec, Data

EDGE, SOFT = 4.0, 0.1


def u1(z: Tensor) -> Tensor:
    x, radius = z[:, 0], torch.linalg.vector_norm(z, dim=1)
    return _half_square((radius - 2) / 0.4) - torch.logaddexp(
        -_half_square((x - 2) / 0.6), -_half_square((x + 2) / 0.6)
    )


def u2(z: Tensor) -> Tensor:
    return _half_square((z[:, 1] - _wave(z)) / 0.4)


def u3(z: Tensor) -> Tensor:
    y, dip = z[:, 1] - _wave(z), 3 * torch.exp(-_half_square((z[:, 0] - 1) / 0.6))
    return -torch.logaddexp(-_half_square(y / 0.35), -_half_square((y + dip) / 0.35))


def u4(z: Tensor) -> Tensor:
    y, step = z[:, 1] - _wave(z), 3 * torch.sigmoid((z[:, 0] - 1) / 0.3)
    return -torch.logaddexp(-_half_square(y / 0.4), -_half_square((y + step) / 0.35))


def wall(z: Tensor) -> Tensor:
    """C(z), (B, 2) -> (B,)."""
    return _half_square(F.relu(z.abs() - EDGE) / SOFT).sum(1)


def _wave(z: Tensor) -> Tensor:
    return torch.sin(0.5 * math.pi * z[:, 0])


def _half_square(x: Tensor) -> Tensor:
    return 0.5 * x.square()


@dataclass(frozen=True)
class Target:
    """What a flow is to sample from.

    energy  U, (B, 2) -> (B,)
    z       the constant Z within the wall, from the paper's sheet and recomputed by a test
    """

    energy: Callable[[Tensor], Tensor]
    z: float
    edge: ClassVar = EDGE

    @property
    def floor(self) -> float:
        """The smallest E[log q + U + C] there is, reached by q = p."""
        return -math.log(self.z)

    def __call__(self, x: Tensor) -> Tensor:
        """U + C, (B, 2) -> (B,)."""
        return self.energy(x) + wall(x)


TARGETS = {"u1": Target(u1, 6.5372), "u2": Target(u2, 8.2725), "u3": Target(u3, 14.4769), "u4": Target(u4, 15.2518)}


@dataclass(frozen=True, kw_only=True)
class Energy:
    """A `Source` whose batches are `(noise (B, 2), target)`: standard normal numbers, and a `Target`."""

    shape: ClassVar = (2,)
    classes: ClassVar = 0
    task: ClassVar = "density"
    name: ClassVar[str]

    def prepare(self) -> dict[str, Any]:
        return record(self.name)

    def load(self, spec: BatchSpec) -> Data:
        return generated(self.name, self.task, _normal, TARGETS[self.name], spec)


def _normal(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(n, 2, generator=generator, dtype=dtype, device=generator.device)
