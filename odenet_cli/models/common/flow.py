"""Parts of flows: the base density, the divergence of a field, and the field of a state with its log-density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odenet_cli.ode.scalars import widest

DIVERGENCES = ("analytic", "exact", "hutchinson", "auto")
NOISES = ("rademacher", "gaussian")


def log_normal(z: Tensor, variance: float) -> Tensor:
    """Return log N(z; 0, variance I), z (B, *S) -> (B,)."""
    flat = z.flatten(1)
    return -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * math.log(2 * math.pi * variance))


def check_shape(x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError for a batch x whose samples have another shape: layers may take it, and compute nonsense."""
    if x.shape[1:] != tuple(shape):
        raise ValueError(f"x has shape {tuple(x.shape)}; this network takes ({', '.join(map(str, ('B', *shape)))}).")


def check_variance(variance: float) -> None:
    """Raise ValueError unless the base variance is positive and finite."""
    if not 0 < variance < math.inf:
        raise ValueError(f"model.base_variance={variance} must be a number above 0.")


@dataclass(frozen=True, eq=False)
class AugmentedField:
    """Evaluate dz/dt = f(t, z) and dℓ/dt = ∇·f, the instantaneous change of variables (theorem 1).

    state (z (B, *S), ℓ (B,)) -> their derivatives; `noise` (B, *S) is that of Hutchinson's estimate, for one solve
    """

    field: nn.Module
    divergence: str
    noise: Tensor | None = None

    def __call__(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z = state[0]
        if self.divergence == "analytic":
            with_divergence: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = self.field.with_divergence  # type: ignore[assignment]
            return with_divergence(t, z)
        dz, vjp = value_and_vjp(lambda point: self.field(t, point), z)
        if dz.shape != z.shape:
            return dz, z.new_zeros(len(z))  # the solver rejects it, naming both shapes
        if self.noise is not None:  # otherwise the exact trace, also of a flow trained with Hutchinson's estimate
            return dz, (vjp(self.noise) * self.noise).flatten(1).sum(1)
        return dz, exact_divergence(dz, vjp)


def value_and_vjp(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return f(z) and v -> vᵀ ∂f/∂z; both can be differentiated if gradients are enabled.

    When compiled, return ∂f/∂z v instead, with the same diagonal: a compiled graph cannot call autograd, and
    torch.func.vjp does not support hooks on saved tensors, such as those of the memory meter.
    """
    if torch.compiler.is_compiling():
        return f(z), lambda v: torch.func.jvp(f, (z,), (v,))[1]
    # In training the divergence is differentiated, which needs the graph of the product.
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        point = z if z.requires_grad else z.detach().requires_grad_()
        value = f(point)

    def vjp(v: Tensor) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(z)
        (product,) = torch.autograd.grad(
            value, point, v, retain_graph=True, create_graph=create_graph, materialize_grads=True
        )
        return product

    return value if create_graph else value.detach(), vjp


def exact_divergence(dz: Tensor, vjp: Callable[[Tensor], Tensor]) -> Tensor:
    """Return Σ_i ∂f_i/∂z_i of each sample, (B,), by one vector-Jacobian product per dimension."""
    total = torch.zeros_like(dz.flatten(1)[:, 0])
    # Only entry i of e_iᵀ J is needed: D products for D numbers, hence Hutchinson's estimate in many dimensions.
    for i in range(dz[0].numel()):
        unit = torch.zeros_like(dz).flatten(1)
        unit[:, i] = 1.0
        total = total + vjp(unit.view_as(dz)).flatten(1)[:, i]
    return total


def hutchinson_noise(kind: str, z: Tensor) -> Tensor:
    """Draw ε like z with mean 0 and covariance I, so that E[εᵀ J ε] = tr J; the same numbers in every precision."""
    # Both have covariance I; with random signs the diagonal of J does not contribute to the variance of εᵀJε.
    if kind == "gaussian":
        return torch.randn_like(z, dtype=widest(z.device)).to(z)
    return torch.randint_like(z, 2).mul_(2).sub_(1)
