"""The field of FFJORD (Grathwohl et al., "FFJORD: free-form continuous dynamics", 2019, appendix B.1)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from odenet_cli.models.common import check_counts


class ConcatSquash(nn.Module):
    """Return (W z + b) σ(a t + c) + d t, (B, I) -> (B, O): the time gates and shifts a linear layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate, self.shift = nn.Linear(1, outputs), nn.Linear(1, outputs, bias=False)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        # Gate and shift depend only on the time, and are computed once for all samples.
        time = t.reshape(1)
        return self.linear(z) * torch.sigmoid(self.gate(time)) + self.shift(time)


class ConcatSquashField(nn.Module):
    """dz/dt by `layers` hidden layers of `units` tanh units, all of them concatsquash: z (B, D) -> (B, D)."""

    def __init__(self, dim: int, units: int, layers: int) -> None:
        super().__init__()
        check_counts(units=units, layers=layers)
        sizes = [dim, *[units] * layers, dim]
        self.layers = nn.ModuleList(ConcatSquash(*pair) for pair in pairwise(sizes))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            z = torch.tanh(layer(t, z))
        dz: Tensor = last(t, z)
        return dz
