"""Parts of models with a latent path: q(z0 | x), the field of dz/dt, and the weight of the KL divergence."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.models.common import check_counts
from odenet_cli.models.common.control import Control
from odenet_cli.models.common.own_field import check_no_options, own_field
from odenet_cli.models.common.series import Recognition, kl_to_standard_normal, perceptron
from odenet_cli.models.common.warn_once import WarnOnce
from odenet_cli.ode import Solver
from odenet_cli.ode.own_times import outputs


class LatentField(nn.Module):
    """dz/dt = f(z), (B, L) -> (B, L), which does not depend on t; with `controls` f(z, u(t))."""

    def __init__(self, latent: int, hidden: int, layers: int, controls: int = 0) -> None:
        super().__init__()
        self.layers = perceptron(latent + controls, hidden, layers, latent, nn.ELU)

    def forward(self, t: Tensor, z: Tensor, control: Control | None = None) -> Tensor:
        return self.layers(z if control is None else torch.cat((z, control.at(t)), 1))


class Controlled(nn.Module):
    """Call a user's own field with the controls at t: f(t, z, u), u (B, C)."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own

    def forward(self, t: Tensor, z: Tensor, control: Control) -> Tensor:
        return self.own(t, z, control.at(t))


class LatentVAE(nn.Module):
    """A variational autoencoder whose latent variable is the start of a path; a subclass adds its decoder.

    latent          dimension of z
    rnn, cell       number and kind of the units of the recurrent network of q(z0 | x)
    hidden, layers  units and layers of the field
    kl              weight of KL(q ‖ p) in the loss; it rises from 0 over the first `warmup` steps of training
    field           a user's own vector field for z (B, latent), constructed with `field_args`; None: a `LatentField`
    masked          values may be missing, and the network reads which are known
    controls        number of controls, read by network and field
    """

    updates: Tensor
    field: nn.Module
    noise_left: Tensor | None = None  # (N, L), of the N remaining samples to be scored, in `noise_by_sample`

    def __init__(
        self,
        features: int,
        solver: Solver,
        latent: int,
        rnn: int,
        cell: str,
        hidden: int,
        layers: int,
        kl: float,
        warmup: int,
        field: str | None,
        field_args: Any,
        masked: bool = False,
        controls: int = 0,
    ) -> None:
        super().__init__()
        check_counts(latent=latent, rnn=rnn, hidden=hidden, layers=layers)
        if not (0 <= kl < math.inf and warmup >= 0):
            raise ValueError(f"model.kl={kl} and model.warmup={warmup} must be 0 or more, and finite.")
        self.recognition = Recognition(features, rnn, latent, cell, masked, controls)
        if field is None:
            check_no_options(field_args)
            self.field = LatentField(latent, hidden, layers, controls)
        else:
            own = own_field(field, field_args, (latent,), controls)
            self.field = Controlled(own) if controls else own
        self.solver, self.latent, self.kl, self.warmup = solver, latent, kl, warmup
        self.warn = WarnOnce()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def encode(
        self, times: Tensor, values: Tensor, observed_mask: Tensor, control: Control | None = None
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Return z0 drawn from q, (B, L), KL(q ‖ p), (B,), and its weight in the loss.

        Outside of training the means of q follow the samples: (2B, L). The noise is then always the same, so that
        scores are reproducible for any batch size (`noise_by_sample`).
        """
        mean, log_sd = self.recognition(times, values, observed_mask, control)
        weight: Tensor | float = self.kl
        if self.warmup and self.training:
            weight = self.kl * (self.updates / self.warmup).clamp(max=1)
        # On the CPU, since checkpoints store the state of its generator.
        noise = torch.randn(mean.shape) if self.training else self._scoring_noise(len(mean))
        z0 = mean + log_sd.exp() * noise.to(mean)
        if self.training:
            self.updates += 1
        else:
            z0 = torch.cat((z0, mean))
        return z0, kl_to_standard_normal(mean, log_sd), weight

    def _scoring_noise(self, size: int) -> Tensor:
        """Return the noise (size, L) of the next samples to be scored."""
        if self.noise_left is None:
            return self._fixed_noise(size)
        noise, self.noise_left = self.noise_left[:size], self.noise_left[size:]
        return noise

    def _fixed_noise(self, size: int) -> Tensor:
        return torch.randn(size, self.latent, generator=torch.Generator().manual_seed(0))

    def draw_starts(
        self,
        times: Tensor,
        values: Tensor,
        observed_mask: Tensor,
        count: int,
        generator: torch.Generator,
        control: Control | None = None,
    ) -> Tensor:
        """Draw z0 from q `count` times for each sample, (count · B, L)."""
        mean, log_sd = self.recognition(times, values, observed_mask, control)
        z0: Tensor = mean + log_sd.exp() * torch.randn(count, *mean.shape, generator=generator).to(mean)
        return z0.flatten(0, 1)

    def flow(self, z0: Tensor, ts: Sequence[float], control: Control | None = None) -> Tensor:
        """Return z at increasing times `ts` ≥ 0, the same for all samples: (B, T, L)."""
        solver, args = self.solving(control, len(z0))
        return outputs(solver, self.field, z0, ts, args).transpose(0, 1)

    def solving(self, control: Control | None, size: int) -> tuple[Solver, tuple[Control, ...]]:
        """Return the solver and the field's arguments for `size` states: the batch of `control`, possibly repeated."""
        if control is None:
            return self.solver, ()
        # The samples are followed by their means (`encode`) or by more draws, each time in the order of the batch.
        known = control.repeat(size // len(control.knots))
        return known.solver(self.solver, self.warn), (known,)


@contextlib.contextmanager
def noise_by_sample(model: nn.Module, split: Any) -> Iterator[None]:
    """Give each scored sample of `split` its own noise, independent of the batch size."""
    latent = [module for module in model.modules() if isinstance(module, LatentVAE)]
    for module in latent:
        module.noise_left = module._fixed_noise(split.size)
    try:
        yield
    finally:
        for module in latent:
            module.noise_left = None
