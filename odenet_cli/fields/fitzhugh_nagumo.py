"""A neuron that fires: voltage and recovery (FitzHugh 1961; Nagumo, Arimoto & Yoshizawa 1962)."""

import torch
from torch import Tensor, nn

from odenet_cli.fields import parameters


class FitzHughNagumo(nn.Module):
    """voltage' = voltage - voltage^3 / 3 - recovery + current, recovery' = (voltage + a - b recovery) / tau"""

    states = "voltage", "recovery"
    positive = ("tau",)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.tau, self.current = parameters(0.7, 0.8, 12.5, 0.5)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        voltage, recovery = y.unbind(-1)
        fast = voltage - voltage**3 / 3 - recovery + self.current
        return torch.stack((fast, (voltage + self.a - self.b * recovery) / self.tau), -1)


FIELD = FitzHughNagumo
