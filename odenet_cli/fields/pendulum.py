"""A damped pendulum of any amplitude; angles in radians."""

import torch
from torch import Tensor, nn

from odenet_cli.fields import parameters


class Pendulum(nn.Module):
    """angle' = velocity, velocity' = -omega^2 sin(angle) - damping velocity"""

    states = "angle", "velocity"
    positive = "omega", "damping"

    def __init__(self) -> None:
        super().__init__()
        self.omega, self.damping = parameters(1.0, 0.1)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        angle, velocity = y.unbind(-1)
        return torch.stack((velocity, -self.omega.square() * angle.sin() - self.damping * velocity), -1)


FIELD = Pendulum
