"""Poisson process with a latent rate (Chen et al. 2018, section 5.2): log λ(t) is read off a latent ODE's path.

    log p(t_1 … t_N) = Σ log λ(z(t_i)) - ∫ λ(z(t)) dt

The integral is one more component of the same solve.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from odenet_cli.models.common.latent import LatentVAE
from odenet_cli.models.common.series import perceptron, series_features
from odenet_cli.ode import Solver
from odenet_cli.ode.own_times import solve_at


class Intensity(NamedTuple):
    """Hold the predictions of the model for a batch of sequences.

    log_rate  (B, M)  log λ at the events
    total     (B,)    ∫ λ over the whole time
    kl        (B,)    KL(q(z0) ‖ p(z0)), and its `weight` in the loss
    path      (B, G)  λ from the mean of q at the times of `grid`; None in training
    """

    log_rate: Tensor
    total: Tensor
    kl: Tensor
    weight: Tensor | float
    path: Tensor | None = None


class RateField(nn.Module):
    """d(z, Λ)/dt = (f(z), λ(z)), for the state ((B, L), (B,))."""

    def __init__(self, field: nn.Module, decoder: nn.Module, rate: float) -> None:
        super().__init__()
        self.inner, self.decoder, self.log_rate = field, decoder, math.log(rate)

    def log_intensity(self, z: Tensor) -> Tensor:
        """Return log λ, (…, L) -> (…)."""
        return self.decoder(z).squeeze(-1) + self.log_rate

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, _ = state
        return self.inner(t, z), self.log_intensity(z).exp()


class LatentPoisson(LatentVAE):
    """bins (B, N), counts (B, N, 1), times (B, M), event_mask (B, M), grid (B, G) -> `Intensity`; see `Events`.

    rate               the unit of λ, in events per unit of time: about the expected rate
    field, field_args  a user's own vector field, for z (B, latent), and its options
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
        field: str | None = None,
        field_args: Any = None,
    ) -> None:
        features = series_features(shape, classes, controlled=False)
        super().__init__(features, solver, latent, rnn, cell, hidden, layers, kl, warmup, field, field_args)
        if not 0 < rate < math.inf:
            raise ValueError(f"model.rate={rate} must be above 0: the expected number of events per time, roughly.")
        self.field = RateField(self.field, perceptron(latent, hidden, 1, 1, nn.Tanh), rate)

    def intensity(self, bins: Tensor, counts: Tensor, times: Tensor, event_mask: Tensor, grid: Tensor) -> Intensity:
        """Encode the counts, draw z0, solve for z and ∫ λ at all times at once, evaluate log λ."""
        z0, kl, weight = self.encode(bins, counts, torch.ones_like(bins, dtype=torch.bool))
        # The padding of `times` is evaluated at 0, and its log λ never enters the likelihood.
        start = (z0, torch.zeros_like(z0[:, 0]))
        own = torch.cat((times.where(event_mask, 0), grid[:, -1:]), 1)  # with the end, where Λ is the whole integral
        # Λ(t) = ∫ λ is the state's second component: its value at the end is the integral over the whole time.
        (z, total), *paths = solve_at(self.solver, self.field, start, [own] if self.training else [own, grid])
        return Intensity(
            log_rate=self.field.log_intensity(z[:, :-1]),
            total=total[:, -1],
            kl=kl,
            weight=weight,
            path=self.field.log_intensity(paths[0][0]).exp() if paths else None,
        )

    def draw(
        self,
        bins: Tensor,
        counts: Tensor,
        mask: Tensor,
        target_times: Tensor,
        count: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Draw λ at the target times (B, M), given the counts (B, N, 1): (count, B, M, 1)."""
        z0 = self.draw_starts(bins, counts, mask, count, generator)
        (z,) = solve_at(self.solver, self.field.inner, z0, [target_times.repeat(count, 1)])
        return self.field.log_intensity(z).exp().view(count, *target_times.shape, 1)


MODEL = LatentPoisson
