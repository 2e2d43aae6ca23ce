"""Five arms that turn with the distance from the middle (Johnson et al. 2016); its entropy has no closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from odenet_cli.data._toy import Toy

ARMS, RATE, ALONG, ACROSS, SCALE = 5, 0.25, 0.3, 0.1, 2.0


@dataclass(frozen=True, kw_only=True)
class Source(Toy):
    """It has no options."""

    name: ClassVar = "pinwheel"

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        place = {"generator": generator, "device": generator.device}
        arm = torch.randint(ARMS, (n,), **place).to(dtype)  # type: ignore[call-overload]
        normal = torch.randn(n, 2, dtype=dtype, **place)  # type: ignore[call-overload]
        x, y = 1 + ALONG * normal[:, 0], ACROSS * normal[:, 1]
        turn = 2 * math.pi * arm / ARMS + RATE * torch.exp(x)
        c, s = turn.cos(), turn.sin()
        return SCALE * torch.stack((c * x - s * y, s * x + c * y), 1)
