"""The latent ODE (Chen et al. 2018, section 5): z0 from the observations, dz/dt = f(z), observations from z(t).

With controls, dz/dt = f(z, u(t)) and observations depend on z(t) and u(t); the data set interpolates u between rows.

All samples are solved together, each with its own output times. Steps are longer than the gaps between times, so more
times need more dense output, but no more function evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.models.common.control import Control
from odenet_cli.models.common.latent import LatentVAE
from odenet_cli.models.common.series import (
    Forecast,
    count_controls,
    has_missing,
    perceptron,
    series_features,
    stratified_normal,
)
from odenet_cli.ode import Solver
from odenet_cli.ode.own_times import solve_at


class LatentODE(LatentVAE):
    """times (B, N), values (B, N, D), observed_mask (B, N), target_times (B, M), control -> `Forecast`; see `Series`.

    sigma              standard deviation of the observations around the decoded path; None: learned
    field, field_args  a user's own vector field, for z (B, latent), and its options
    """

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
        sigma: float | None,
        kl: float,
        warmup: int,
        field: str | None = None,
        field_args: Any = None,
    ) -> None:
        features, controls = series_features(shape, classes), count_controls(shape)
        shared = features, solver, latent, rnn, cell, hidden, layers, kl, warmup, field, field_args
        super().__init__(*shared, masked=has_missing(shape), controls=controls)
        if sigma is not None and not 0 < sigma < math.inf:
            raise ValueError(f"model.sigma={sigma} must be above 0, or null to learn it.")
        self.decoder = perceptron(latent + controls, hidden, 1, features, nn.ReLU)
        log_sigma = torch.tensor(0.0 if sigma is None else math.log(sigma))
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=sigma is None)

    def forecast(
        self,
        times: Tensor,
        values: Tensor,
        observed_mask: Tensor,
        target_times: Tensor | None = None,
        control: tuple[Tensor, Tensor] | None = None,
    ) -> Forecast:
        """Encode the observations, draw z0, solve to all times at once, decode."""
        u = control and Control(*control)
        z0, kl, weight = self.encode(times, values, observed_mask, u)
        targets = [] if target_times is None else [target_times]
        solver, args = self.solving(u, len(z0))
        # One solve gives both observations and targets. Padding is evaluated at 0, which costs nothing.
        z, *paths = solve_at(solver, self.field, z0, [times.where(observed_mask, 0), *targets], args)
        return Forecast(
            mean=self.decode(z, times, u),
            spread=self.log_sigma.exp(),
            kl=kl,
            weight=weight,
            path=None if target_times is None else self.decode(paths[0], target_times, u),
        )

    def draw(
        self,
        times: Tensor,
        values: Tensor,
        observed_mask: Tensor,
        target_times: Tensor,
        count: int,
        generator: torch.Generator,
        control: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Draw future observations at the target times (B, M), given the observations: (count, B, M, D)."""
        u = control and Control(*control)
        z0 = self.draw_starts(times, values, observed_mask, count, generator, u)
        solver, args = self.solving(u, len(z0))
        asked = target_times.repeat(count, 1)
        (z,) = solve_at(solver, self.field, z0, [asked], args)
        path = self.decode(z, asked, *args).view(count, *target_times.shape, -1)
        return path + self.log_sigma.exp() * stratified_normal(path, generator)

    def sample(
        self,
        count: int,
        ts: Sequence[float],
        generator: torch.Generator | None = None,
        control: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Draw series from the prior at the increasing times `ts`, without observation noise: (count, T, D).

        control  that of one series, or of `count` series
        """
        z0 = torch.randn(count, self.latent, generator=generator).to(self.log_sigma)
        u = control and Control(*control)
        times = torch.tensor(ts, dtype=z0.dtype, device=z0.device).expand(count, -1)
        return self.decode(self.flow(z0, ts, u), times, u and u.repeat(count // len(u.knots)))

    def decode(self, z: Tensor, times: Tensor, control: Control | None = None) -> Tensor:
        """Return the noise-free observations of the states z (B, T, L) at the times (B, T): (B, T, D)."""
        return self.decoder(z if control is None else torch.cat((z, control.at(times)), 2))


MODEL = LatentODE
