"""Continuous normalising flow (Chen et al. 2018, section 4): noise at t = 0 flows along a field to data at t = T.

    dz/dt = f(t, z),   d log p(z(t))/dt = -∇·f,   log p(x) = log N(z(0)) - ∫ ∇·f dt

Methods of every flow, also of your own class (`model=custom model.target=module:Class`):

    log_prob(x (B, *S), time=1.0) -> (B,)   log-density, at a fraction of the way from noise to data
    generate(noise (B, *S)) -> (x, log q)   map standard normal numbers to samples, with their log-density
    sample(n, generator=None) -> (n, *S)    samples
    flow(z (B, *S), times) -> (T, B, *S)    path from noise to data, at fractions of the way; optional, for figures
    to_noise(x (B, *S)) -> (B, *S)          the standard normal numbers of x; optional, for the round-trip error

`ContinuousFlow` has them for every field. Your own class may be only the field, called with (t, z (B, *S)), from which
a flow is made with divergence=exact or another (`+model.divergence=hutchinson`); or it passes on its field:

    class Mine(ContinuousFlow):
        def __init__(self, shape, solver, hidden: int):
            super().__init__(MyField(hidden), shape, solver, divergence="exact")
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.models.common import check_choice, check_counts
from odenet_cli.models.common.concat_squash import ConcatSquashField
from odenet_cli.models.common.flow import (
    DIVERGENCES,
    NOISES,
    AugmentedField,
    check_shape,
    check_variance,
    hutchinson_noise,
    log_normal,
)
from odenet_cli.models.common.own_field import check_no_options, own_field
from odenet_cli.ode import Adaptive, Solver

CONCATSQUASH, LAYERS = "concatsquash", 3

MAX_TRAINED, MAX_SCORED = 4, 64  # dimensions up to which the exact divergence is used, in training and in scoring


class ContinuousFlow(nn.Module):
    """Flow between noise and data along `field(t, z (B, *S)) -> (B, *S)`.

    horizon             T, the time of the data
    divergence          analytic: the field's own `with_divergence(t, z) -> (dz/dt, ∇·f (B,))`; exact: one
                        vector-Jacobian product per dimension; hutchinson: εᵀ(∂f/∂z)ε in training, with one ε per sample
                        and solve (Grathwohl et al. 2019), and the exact one in scoring, up to MAX_SCORED dimensions;
                        auto: analytic if the field has it, exact up to MAX_TRAINED dimensions, else hutchinson
    noise               distribution of ε: rademacher or gaussian
    divergence_in_norm  the tolerance applies to the log-density too; false: it is a quadrature outside the error norm,
                        and the draw of ε does not affect the steps
    base_variance       the noise at t = 0 is N(0, base_variance I)
    """

    def __init__(
        self,
        field: nn.Module,
        shape: tuple[int, ...],
        solver: Solver,
        *,
        horizon: float = 1.0,
        divergence: str = "exact",
        noise: str = "rademacher",
        divergence_in_norm: bool = True,
        base_variance: float = 1.0,
    ) -> None:
        super().__init__()
        _check(field, divergence, noise, horizon)
        check_variance(base_variance)
        self.field, self.solver, self.shape = field, solver, shape
        self.horizon, self.divergence, self.noise = float(horizon), divergence, noise
        if divergence == "auto":
            cheap = "exact" if math.prod(shape) <= MAX_TRAINED else "hutchinson"
            self.divergence = "analytic" if hasattr(field, "with_divergence") else cheap
        self.divergence_in_norm, self.base_variance = divergence_in_norm, base_variance

    def log_prob(self, x: Tensor, time: float = 1.0) -> Tensor:
        """Return log p(x) at a fraction `time` of the way, x (B, *S) -> (B,), by a solve back to the noise."""
        # From data back to noise: ∫ ∇·f from T to 0 is minus the integral of the formula above.
        z, change = self._solve(x, [time * self.horizon, 0.0])
        return log_normal(z, self.base_variance) + change

    def to_noise(self, x: Tensor) -> Tensor:
        """Return the standard normal numbers that `generate` maps to x (B, *S)."""
        check_shape(x, self.shape)
        z: Tensor = self.solver(self.field, x, [self.horizon, 0.0]).y
        return z / math.sqrt(self.base_variance)

    def generate(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Map standard normal `noise` (B, *S) to samples (B, *S) and their log-density (B,), by a solve forward."""
        z = noise * math.sqrt(self.base_variance)
        x, change = self._solve(z, [0.0, self.horizon])
        return x, log_normal(z, self.base_variance) - change

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, (n, *S)."""
        like = next(self.parameters())
        noise = torch.randn(n, *self.shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.solver(self.field, noise * math.sqrt(self.base_variance), [0.0, self.horizon]).y

    @torch.no_grad()
    def flow(self, z: Tensor, times: Sequence[float]) -> Tensor:
        """Return particles starting at noise `z` (B, *S), at increasing fractions of the way: (T, B, *S)."""
        check_shape(z, self.shape)
        ts = [0.0, *(time * self.horizon for time in times)]
        path: Tensor = self.solver(self.field, z, ts).y
        return path[None] if len(ts) == 2 else path[1:]

    def _solve(self, z: Tensor, ts: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Return z and ∫ ∇·f dt at the second time."""
        check_shape(z, self.shape)
        estimated = self.divergence == "hutchinson" and (self.training or math.prod(self.shape) > MAX_SCORED)
        # One draw for the whole solve, so that the field is smooth in time and its gradient that of one function.
        noise = hutchinson_noise(self.noise, z) if estimated else None
        field = AugmentedField(self.field, self.divergence, noise)
        # With the log-density outside the norm the steps are those of z alone.
        solver: Any = self.solver
        if not self.divergence_in_norm and isinstance(solver, Adaptive):
            solver = dataclasses.replace(solver, n_controlled=1)
        z, change = solver(field, (z, z.new_zeros(len(z))), ts).y
        return z, change


class PlanarField(nn.Module):
    """dz/dt = Σ_m g_m(t) u_m(t) tanh(w_m(t)·z + b_m(t)), gates g = σ(·), all weights from one network of t.

    z (B, D) -> (B, D); the sum over m is not divided by M, as in the paper's equation

    spread  standard deviation of the initial b and, in the plane, w. None, torch's initialisation, is small: the units
            are then nearly linear, and maximum likelihood stays long at the Gaussian closest to the data
    """

    def __init__(self, dim: int, units: int, hidden: int, spread: float | None) -> None:
        super().__init__()
        if spread is not None and not 0 < spread < math.inf:
            raise ValueError(f"model.spread={spread} must be above 0, or null for torch's own initialisation.")
        self.dim, self.units = dim, units
        self.of_time = nn.Sequential(
            nn.Linear(1, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, (2 * dim + 2) * units),
        )
        if spread is not None:
            with torch.no_grad():
                bias: Tensor = self.of_time[-1].bias  # type: ignore[assignment]
                bias[dim * units : (2 * dim + 1) * units].normal_(0, spread)
                # Gives w·z the same spread in any number of dimensions; otherwise all units saturate in many.
                bias[dim * units : 2 * dim * units].mul_(math.sqrt(2 / dim))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        u, w, b = self._weights(t)
        return self._combine(self._activations(z, w, b), u)

    def with_divergence(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return dz/dt, and ∇·f = Σ_m g_m u_m·w_m (1 - tanh²), (B,)."""
        u, w, b = self._weights(t)
        h, u_dot_w = self._activations(z, w, b), (u * w).sum(1)
        dh = 1 - h.square()
        # A compiler fuses the pointwise form into one pass; a matrix product of this shape would remain a call.
        divergence = (dh * u_dot_w).sum(1) if torch.compiler.is_compiling() else dh @ u_dot_w
        return self._combine(h, u), divergence

    def _weights(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return g·u (M, D), w (M, D), b (M,) at time t."""
        m, d = self.units, self.dim
        # One small network of t computes all weights, once per evaluation, since they are the same for every sample.
        u, w, b, g = self.of_time(t.reshape(1)).split([m * d, m * d, m, m])
        return u.view(m, d) * torch.sigmoid(g)[:, None], w.view(m, d), b

    def _activations(self, z: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """Return tanh(w_m·z + b_m), (B, M)."""
        if not torch.compiler.is_compiling():
            return torch.tanh(torch.addmm(b, z, w.T))
        # Unrolled over the few dimensions: a compiler fuses pointwise operations with tanh, but not a matrix product.
        total = b
        for i in range(self.dim):
            total = torch.addcmul(total, z[:, i : i + 1], w[:, i])
        return torch.tanh(total)

    def _combine(self, h: Tensor, u: Tensor) -> Tensor:
        """Return Σ_m h_m u_m, (B, D)."""
        if not torch.compiler.is_compiling():
            return h @ u
        return torch.stack([(h * u[:, i]).sum(1) for i in range(self.dim)], 1)


class CNF(ContinuousFlow):
    """The paper's flow: `units` M, and a network of time with two layers of `hidden` units.

    field       None: the paper's; concatsquash: FFJORD's field, `layers` hidden layers of `units`; else the user's own,
                constructed with `field_args`
    divergence  analytic: like auto if the field has no closed form
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        solver: Solver,
        *,
        units: int,
        hidden: int,
        spread: float | None,
        horizon: float,
        divergence: str,
        noise: str,
        divergence_in_norm: bool,
        base_variance: float,
        field: str | None = None,
        field_args: Any = None,
        layers: int | None = None,
    ) -> None:
        if len(shape) != 1:
            raise ValueError(
                f"model=cnf needs points, and the inputs of this data set are {shape}; use data=moons or u1."
            )
        check_counts(units=units, hidden=hidden)
        if layers is not None and field != CONCATSQUASH:
            raise ValueError(f"model.layers={layers} is an option of model.field={CONCATSQUASH}.")
        if field is None or field == CONCATSQUASH:
            check_no_options(field_args)
        made: nn.Module
        if field is None:
            made = PlanarField(shape[0], units, hidden, spread)
        elif field == CONCATSQUASH:
            made = ConcatSquashField(shape[0], units, LAYERS if layers is None else layers)
        else:
            made = own_field(field, field_args, shape)
        closed = divergence != "analytic" or hasattr(made, "with_divergence")
        super().__init__(
            made,
            shape,
            solver,
            horizon=horizon,
            divergence=divergence if closed else "auto",
            noise=noise,
            divergence_in_norm=divergence_in_norm,
            base_variance=base_variance,
        )


def _check(field: nn.Module, divergence: str, noise: str, horizon: float) -> None:
    check_choice("divergence", divergence, DIVERGENCES)
    check_choice("noise", noise, NOISES)
    if divergence == "analytic" and not hasattr(field, "with_divergence"):
        raise ValueError(
            f"model.divergence=analytic needs {type(field).__name__}.with_divergence(t, z) -> (dz/dt, divergence); "
            "use exact, or hutchinson in many dimensions."
        )
    if not 0 < horizon < math.inf:
        raise ValueError(f"model.horizon={horizon} must be a time above 0.")


MODEL = CNF
