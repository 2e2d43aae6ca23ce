"""An oscillator whose damping changes its sign with the amplitude (van der Pol 1926)."""

import torch
from torch import Tensor, nn

from odenet_cli.fields import parameters


class VanDerPol(nn.Module):
    """x' = v, v' = mu (1 - x^2) v - omega^2 x"""

    states = "x", "v"
    positive = "mu", "omega"

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.omega = parameters(1.0, 1.0)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        x, v = y.unbind(-1)
        return torch.stack((v, self.mu * (1 - x.square()) * v - self.omega.square() * x), -1)


FIELD = VanDerPol
