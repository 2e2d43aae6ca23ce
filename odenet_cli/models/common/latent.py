"""Parts of models with a latent path: q(z0 | x), the field of dz/dt, and the weight of the KL divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.models.common.own_field import check_no_options, own_field
from odenet_cli.models.common.series import Recognition, check_counts, kl_to_standard_normal, perceptron
from odenet_cli.ode import Solver
from odenet_cli.ode.own_times import outputs


class LatentField(nn.Module):
    """dz/dt = f(z), (B, L) -> (B, L); it does not depend on t."""

    def __init__(self, latent: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = perceptron(latent, hidden, layers, latent, nn.ELU)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.layers(z)


def recognition_and_field(
    features: int,
    *,
    latent: int,
    rnn: int,
    cell: str,
    hidden: int,
    layers: int,
    masked: bool = False,
    own: str | None = None,
    own_args: Any = None,
) -> tuple[Recognition, nn.Module]:
    """Return q(z0 | x) by a recurrent network of `rnn` units, and the field of `layers` hidden layers.

    masked         values may be missing, and the network reads which are there
    own, own_args  a field of the user's own instead, and its options
    """
    check_counts(latent=latent, rnn=rnn, hidden=hidden, layers=layers)
    recognition = Recognition(features, rnn, latent, cell, masked)
    if own is not None:
        return recognition, own_field(own, own_args, (latent,))
    check_no_options(own_args)
    return recognition, LatentField(latent, hidden, layers)


class LatentVAE(nn.Module):
    """A variational autoencoder whose latent variable is the start of a path.

    kl  weight of KL(q ‖ p) in the loss; it rises from 0 over the first `warmup` steps of training
    """

    updates: Tensor
    field: nn.Module

    def __init__(self, recognition: Recognition, field: nn.Module, solver: Solver, kl: float, warmup: int) -> None:
        super().__init__()
        if not (0 <= kl < math.inf and warmup >= 0):
            raise ValueError(f"model.kl={kl} and model.warmup={warmup} must be 0 or more, and finite.")
        self.recognition, self.field, self.solver = recognition, field, solver
        self.kl, self.warmup = kl, warmup
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def encode(self, times: Tensor, values: Tensor, observed_mask: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """Return z0 drawn from q, (B, L), KL(q ‖ p), (B,), and its weight in the loss.

        Outside of training the best guess, the mean, follows the samples: (2B, L). The noise is then always the same,
        so that a score can be repeated.
        """
        mean, log_sd = self.recognition(times, values, observed_mask)
        weight: Tensor | float = self.kl
        if self.warmup and self.training:
            weight = self.kl * (self.updates / self.warmup).clamp(max=1)
        # On the CPU: checkpoints keep the state of its generator.
        generator = None if self.training else torch.Generator().manual_seed(0)
        z0 = mean + log_sd.exp() * torch.randn(mean.shape, generator=generator).to(mean)
        if self.training:
            self.updates += 1
        else:
            z0 = torch.cat((z0, mean))
        return z0, kl_to_standard_normal(mean, log_sd), weight

    def flow(self, z0: Tensor, ts: Sequence[float]) -> Tensor:
        """Return z at the rising times `ts` at or after 0, for all samples the same: (B, T, L)."""
        return outputs(self.solver, self.field, z0, ts).transpose(0, 1)
