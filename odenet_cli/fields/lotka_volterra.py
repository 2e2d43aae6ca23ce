"""Lotka & Volterra: prey grows and is eaten, predators grow by eating and die (Volterra 1926)."""

import torch
from torch import Tensor, nn

from odenet_cli.fields import parameters


class LotkaVolterra(nn.Module):
    """prey' = alpha prey - beta prey predator, predator' = delta prey predator - gamma predator"""

    states = "prey", "predator"
    positive = "alpha", "beta", "delta", "gamma", "prey", "predator"

    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.beta, self.delta, self.gamma = parameters(1.0, 0.1, 0.1, 1.0)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        prey, predator = y.unbind(-1)
        eaten = prey * predator
        return torch.stack((self.alpha * prey - self.beta * eaten, self.delta * eaten - self.gamma * predator), -1)


FIELD = LotkaVolterra
