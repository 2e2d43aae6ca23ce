"""What flows are made of: their base, the divergence of a field, and the field of a state with its log-density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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
        slope, pull = products(lambda point: self.field(t, point), z)
        if slope.shape != z.shape:
            return slope, z.new_zeros(len(z))  # the solver refuses it, by both shapes
        if self.noise is not None:
            return slope, (pull(self.noise) * self.noise).flatten(1).sum(1)
        return slope, trace(slope, pull)


def products(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """f(z), and v -> vᵀ ∂f/∂z at z; both can be differentiated where gradients are on.

    Compiled it is ∂f/∂z v, whose diagonal is the same: a graph takes no gradient inside, and torch.func.vjp no hooks on
    saved tensors, such as those of a meter of memory around it.
    """
    if torch.compiler.is_compiling():
        return f(z), lambda v: torch.func.jvp(f, (z,), (v,))[1]
    twice = torch.is_grad_enabled()
    with torch.enable_grad():
        point = z if z.requires_grad else z.detach().requires_grad_()
        value = f(point)

    def pulled(v: Tensor) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(z)
        (row,) = torch.autograd.grad(value, point, v, retain_graph=True, create_graph=twice, materialize_grads=True)
        return row

    return value if twice else value.detach(), pulled


def trace(slope: Tensor, pull: Callable[[Tensor], Tensor]) -> Tensor:
    """Σ_i ∂f_i/∂z_i of each sample, one vector-Jacobian product a dimension; (B,)."""
    count = slope[0].numel()
    total = torch.zeros_like(slope.flatten(1)[:, 0])
    for i in range(count):
        direction = torch.zeros_like(slope).flatten(1)
        direction[:, i] = 1.0
        total = total + pull(direction.view_as(slope)).flatten(1)[:, i]
    return total


def probe(kind: str, z: Tensor) -> Tensor:
    """Numbers with mean zero and covariance one, like z: Hutchinson's noise ε, E[εᵀ J ε] = tr J.

    Both kinds are the same in every precision.
    """
    if kind == "gaussian":
        return torch.randn_like(z, dtype=torch.float64).to(z)
    return torch.randint_like(z, 2).mul_(2).sub_(1)
