"""An epidemic in a closed population: susceptible, infected, recovered (Kermack & McKendrick 1927)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from odenet_cli.fields import parameters


class SIR(nn.Module):
    """susceptible' = -beta S I / N, infected' = beta S I / N - gamma I, recovered' = gamma I, with N = S + I + R"""

    states = "susceptible", "infected", "recovered"
    positive = "beta", "gamma", "susceptible", "infected"
    fixed = ("recovered",)
    initial: ClassVar = {"recovered": 0.0}

    def __init__(self) -> None:
        super().__init__()
        self.beta, self.gamma = parameters(0.4, 0.1)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        susceptible, infected, _ = y.unbind(-1)
        infections = self.beta * susceptible * infected / y.sum(-1)
        recoveries = self.gamma * infected
        return torch.stack((-infections, infections - recoveries, recoveries), -1)


FIELD = SIR
