"""Poisson process with a latent rate (Chen et al. 2018, section 5.2): log λ(t) is read off a latent ODE's path.

    log p(t_1 … t_N) = Σ log λ(z(t_i)) - ∫ λ(z(t)) dt

The integral is one more component of the solve that makes the path.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from odenet_cli.models.common.latent import Latent
from odenet_cli.models.common.series import common, divergence, features, perceptron, picked
from odenet_cli.ode import Solver


class Intensity(NamedTuple):
    """What the model says of a batch of sequences.

    log_rate  (B, M)  log λ at the events
    total     (B,)    ∫ λ over the whole time
    kl        (B,)    KL(q(z0) ‖ p(z0)), and the `weight` that the loss counts it with
    path      (B, G)  the best guess of λ at the times of `grid`; None in training
    """

    log_rate: Tensor
    total: Tensor
    kl: Tensor
    weight: Tensor | float
    path: Tensor | None = None


class RateField(nn.Module):
    """d(z, Λ)/dt = (f(z), λ(z)), of a state ((B, L), (B,))."""

    def __init__(self, field: nn.Module, decoder: nn.Module, rate: float) -> None:
        super().__init__()
        self.inner, self.decoder, self.log_rate = field, decoder, math.log(rate)

    def log(self, z: Tensor) -> Tensor:
        """log λ, (…, L) -> (…)."""
        log_rate: Tensor = self.decoder(z).squeeze(-1) + self.log_rate
        return log_rate

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, _ = state
        return self.inner(t, z), self.log(z).exp()


class LatentPoisson(Latent):
    """bins (B, N), counts (B, N, 1), times (B, M), event_mask (B, M), grid (B, G) -> `Intensity`; layouts as in
    `odenet_cli.data.common.events`.

    rate  the unit of λ, in events per time: about what is expected
    """

    field: RateField

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        solver: Solver,
        *,
        latent: int,
        rnn: int,
        cell: str,
        hidden: int,
        layers: int,
        rate: float,
        kl: float,
        warmup: int,
    ) -> None:
        inputs = features(shape, classes)
        super().__init__(
            inputs, solver, latent=latent, rnn=rnn, cell=cell, hidden=hidden, layers=layers, kl=kl, warmup=warmup
        )
        if not 0 < rate < math.inf:
            raise ValueError(f"model.rate={rate} must be above 0: events per time, about as many as are expected.")
        self.field = RateField(self.field, perceptron(latent, hidden, 1, 1, nn.Tanh), rate)

    def intensity(self, bins: Tensor, counts: Tensor, times: Tensor, event_mask: Tensor, grid: Tensor) -> Intensity:
        mean, log_spread = self.recognition(bins, counts, torch.ones_like(bins, dtype=torch.bool))
        weight, z0 = self.weight(), self.draw(mean, log_spread)
        asked = grid[:, -1:] if self.training else grid
        ts, places = common(times.where(event_mask, 0), asked)
        z, total = self.integral(z0, ts)
        batch = len(bins)
        return Intensity(
            log_rate=self.field.log(picked(z[:batch], places[0])),
            total=total[:batch, -1],
            kl=divergence(mean, log_spread),
            weight=weight,
            path=None if self.training else self.field.log(picked(z[batch:], places[1])).exp(),
        )

    def integral(self, z0: Tensor, ts: list[float]) -> tuple[Tensor, Tensor]:
        """z (B, T, L) and Λ = ∫ λ from 0 (B, T) at the rising times `ts` after 0."""
        z, total = self.solver(self.field, (z0, torch.zeros_like(z0[:, 0])), [0.0, *ts]).y
        if len(ts) == 1:
            return z[:, None], total[:, None]
        return z[1:].transpose(0, 1), total[1:].transpose(0, 1)


MODEL = LatentPoisson
