"""What models with a latent path share: q(z0 | x), the field of dz/dt, and the weight of the divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from odenet_cli.models.common.series import Recognition, at_least_one, perceptron
from odenet_cli.ode import Solver


class LatentField(nn.Module):
    """dz/dt, (B, L) -> (B, L): the time plays no part."""

    def __init__(self, latent: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = perceptron(latent, hidden, layers, latent, nn.ELU)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        slope: Tensor = self.layers(z)
        return slope


class Latent(nn.Module):
    """A variational autoencoder whose latent variable is the start of a path.

    latent   numbers in z
    rnn      units of the recognition network, `cell` its kind
    hidden   units of a hidden layer of the field; it has `layers` of them
    kl       what KL(q ‖ p) counts for in the loss; it rises from 0 over the first `warmup` steps of training
    """

    updates: Tensor
    field: nn.Module

    def __init__(
        self,
        features: int,
        solver: Solver,
        *,
        latent: int,
        rnn: int,
        cell: str,
        hidden: int,
        layers: int,
        kl: float,
        warmup: int,
    ) -> None:
        super().__init__()
        at_least_one(latent=latent, rnn=rnn, hidden=hidden, layers=layers)
        if not (0 <= kl < math.inf and warmup >= 0):
            raise ValueError(f"model.kl={kl} and model.warmup={warmup} must be 0 or more, and finite.")
        self.recognition = Recognition(features, rnn, latent, cell)
        self.field, self.solver = LatentField(latent, hidden, layers), solver
        self.latent, self.kl, self.warmup = latent, kl, warmup
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def weight(self) -> Tensor | float:
        """Of the divergence, at this step of training."""
        if not (self.warmup and self.training):
            return self.kl
        return self.kl * (self.updates / self.warmup).clamp(max=1)

    def draw(self, mean: Tensor, log_spread: Tensor) -> Tensor:
        """z0 ~ q and, behind the samples outside of training, the mean, the best guess: (B, L), then (2B, L).

        Outside of training the noise is always the same, so that a score can be repeated.
        """
        # From a generator on the CPU, whose state checkpoints keep.
        generator = None if self.training else torch.Generator().manual_seed(0)
        z0 = mean + log_spread.exp() * torch.randn(mean.shape, generator=generator).to(mean)
        if not self.training:
            return torch.cat((z0, mean))
        self.updates += 1
        return z0

    def flow(self, z0: Tensor, ts: Sequence[float]) -> Tensor:
        """z at the rising times `ts` after 0: (B, T, L)."""
        states: Tensor = self.solver(self.field, z0, [0.0, *ts]).y
        return states[:, None] if len(ts) == 1 else states[1:].transpose(0, 1)
