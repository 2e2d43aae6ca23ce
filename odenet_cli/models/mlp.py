"""One hidden layer of ReLUs: the first row of table 1 (LeCun et al. 1998)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from odenet_cli.models.common import check_counts


class MLP(nn.Module):
    """Map x (B, *S) by one hidden layer of `hidden` units to logits, or values, (B, classes)."""

    def __init__(self, shape: tuple[int, ...], classes: int, *, hidden: int) -> None:
        super().__init__()
        check_counts(hidden=hidden)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


MODEL = MLP
