"""What flows are made of: their base, the divergence of a field, and the field of a state with its log-density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DIVERGENCES = ("analytic", "exact", "hutchinson")
NOISES = ("rademacher", "gaussian")


def log_normal(z: Tensor, variance: float) -> Tensor:
    """log N(z; 0, variance I), z (B, *S) -> (B,)."""
    flat = z.flatten(1)
    log_density: Tensor = -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * math.log(2 * math.pi * variance))
    return log_density


def check_variance(variance: float) -> None:
    """Refuse a base that has none."""
    if not 0 < variance < math.inf:
        raise ValueError(f"model.base_variance={variance} must be a number above 0.")


@dataclass(frozen=True, eq=False)
class Joint:
    """The field of (z, ℓ) with dz/dt = f(t, z) and dℓ/dt = ∇·f, the instantaneous change of variables (theorem 1).

    state (z (B, *S), ℓ (B,)) -> their slopes; `noise` (B, *S) belongs to Hutchinson's estimate, and to one solve
    """

    field: nn.Module
    divergence: str
    noise: Tensor | None = None

    def __call__(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z = state[0]
        if self.divergence == "analytic":
            with_divergence: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = self.field.with_divergence  # type: ignore[assignment]
            return with_divergence(t, z)
        slope, pull = torch.func.vjp(lambda point: self.field(t, point), z)  # type: ignore[misc]
        if self.noise is not None:
            return slope, (pull(self.noise)[0] * self.noise).flatten(1).sum(1)
        return slope, trace(slope, pull)


def trace(slope: Tensor, pull: Callable[[Tensor], Any]) -> Tensor:
    """Σ_i ∂f_i/∂z_i of each sample, one vector-Jacobian product a dimension; (B,)."""
    count = slope[0].numel()
    total = torch.zeros_like(slope.flatten(1)[:, 0])
    for i in range(count):
        direction = torch.zeros_like(slope).flatten(1)
        direction[:, i] = 1.0
        (row,) = pull(direction.view_as(slope))
        total = total + row.flatten(1)[:, i]
    return total


def probe(kind: str, z: Tensor) -> Tensor:
    """Numbers with mean zero and covariance one, like z: Hutchinson's noise ε, E[εᵀ J ε] = tr J."""
    if kind == "gaussian":
        return torch.randn_like(z)
    return torch.randint_like(z, 2).mul_(2).sub_(1)
