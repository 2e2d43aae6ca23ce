"""An epidemic with a latent time: susceptible, exposed, infected, recovered (Anderson & May 1991, chapter 6)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from odenet_cli.fields import parameters


class SEIR(nn.Module):
    """susceptible' = -beta S I / N, exposed' = beta S I / N - sigma E, infected' = sigma E - gamma I,
    recovered' = gamma I, with N = S + E + I + R
    """

    states = "susceptible", "exposed", "infected", "recovered"
    positive = "beta", "sigma", "gamma", "susceptible", "exposed", "infected"
    fixed = ("recovered",)
    initial: ClassVar = {"recovered": 0.0}

    def __init__(self) -> None:
        super().__init__()
        self.beta, self.sigma, self.gamma = parameters(0.4, 0.2, 0.1)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        susceptible, exposed, infected, _ = y.unbind(-1)
        infections = self.beta * susceptible * infected / y.sum(-1)
        onsets, recoveries = self.sigma * exposed, self.gamma * infected
        return torch.stack((-infections, infections - onsets, onsets - recoveries, recoveries), -1)


FIELD = SEIR
