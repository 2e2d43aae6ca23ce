"""The latent ODE (Chen et al. 2018, section 5): z0 from the observations, dz/dt = f(z), observations from z(t).

All samples are solved at once, to all the times that any of them was observed at. Steps are longer than the gaps
between times, so more times are a matter of dense output and not of more evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from odenet_cli.models.common.latent import Latent
from odenet_cli.models.common.series import Forecast, common, divergence, features, perceptron, picked
from odenet_cli.ode import Solver


class LatentODE(Latent):
    """times (B, N), values (B, N, D), observed_mask (B, N), at (B, M) -> `Forecast`; as in `data.common.series`.

    sigma  standard deviation of the observations around the decoded path; None: learned
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
    ) -> None:
        inputs = features(shape, classes)
        super().__init__(
            inputs, solver, latent=latent, rnn=rnn, cell=cell, hidden=hidden, layers=layers, kl=kl, warmup=warmup
        )
        if sigma is not None and not 0 < sigma < math.inf:
            raise ValueError(f"model.sigma={sigma} must be above 0, or null: learned.")
        self.decoder = perceptron(latent, hidden, 1, inputs, nn.ReLU)
        log_sigma = torch.tensor(0.0 if sigma is None else math.log(sigma))
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=sigma is None)

    def forecast(self, times: Tensor, values: Tensor, observed_mask: Tensor, at: Tensor | None = None) -> Forecast:
        mean, log_spread = self.recognition(times, values, observed_mask)
        weight, z0 = self.weight(), self.draw(mean, log_spread)
        ts, places = common(times.where(observed_mask, 0), *([] if at is None else [at]))
        z, batch = self.flow(z0, ts), len(times)
        return Forecast(
            mean=self.decoder(picked(z[:batch], places[0])),
            spread=self.log_sigma.exp(),
            kl=divergence(mean, log_spread),
            weight=weight,
            path=None if at is None else self.decoder(picked(z[-batch:], places[1])),
        )

    def reconstruct(self, times: Tensor, values: Tensor, observed_mask: Tensor) -> Tensor:
        """The series at its own times, from the mean of q: (B, N, D)."""
        z0, _ = self.recognition(times, values, observed_mask)
        ts, places = common(times.where(observed_mask, 0))
        path: Tensor = self.decoder(picked(self.flow(z0, ts), places[0]))
        return path

    def extrapolate(self, times: Tensor, values: Tensor, observed_mask: Tensor, ts: Sequence[float]) -> Tensor:
        """The series at rising times `ts` that all share, inside the window or beyond: (B, T, D)."""
        z0, _ = self.recognition(times, values, observed_mask)
        path: Tensor = self.decoder(self.flow(z0, ts))
        return path

    def sample(self, count: int, ts: Sequence[float], generator: torch.Generator | None = None) -> Tensor:
        """Series drawn from the prior, at the rising times `ts`, without the noise of observation: (count, T, D)."""
        z0 = torch.randn(count, self.latent, generator=generator).to(self.log_sigma)
        path: Tensor = self.decoder(self.flow(z0, ts))
        return path


MODEL = LatentODE
