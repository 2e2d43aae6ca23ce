"""Five arms that rotate with the distance from the centre (Johnson et al. 2016); entropy by quadrature."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from odenet_cli.data.common.densities import Density

ARMS, RATE, ALONG, ACROSS, SCALE = 5, 0.25, 0.3, 0.1, 2.0
NEWTON = 60  # steps, some of them damped


class Source(Density):
    """The data set, without options."""

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        arm = torch.randint(ARMS, (n,), generator=generator, device=generator.device).to(dtype)
        normal = torch.randn(n, 2, dtype=dtype, generator=generator, device=generator.device)
        return to_arms(normal, arm)

    def density(self, x: Tensor) -> Tensor:
        """Return p(x), x (N, 2) -> (N,): the mean over arms of the density of the (u, v) that an arm rotates to x.

        Rotated back by 2πk/5 + r exp(u), x must have u as its first coordinate: an equation that Newton's method solves
        except for 1e-8 of the mass, where the rotation folds the plane. Its derivative, 1 - r exp(u) v, is also the
        Jacobian determinant of the rotation.
        """
        y = x.double() / SCALE
        radius, arms = y.norm(dim=1), torch.arange(ARMS, dtype=y.dtype, device=y.device)[:, None]
        angle = torch.atan2(y[:, 1], y[:, 0]) - 2 * math.pi * arms / ARMS

        def turn_back(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Return v, the residual of the equation for u, and its derivative."""
            rate = RATE * u.exp()
            v = radius * (angle - rate).sin()
            return v, u - radius * (angle - rate).cos(), 1 - rate * v

        u = radius.expand_as(angle)
        for _ in range(NEWTON):
            _, residual, derivative = turn_back(u)
            u = (u - residual / derivative.clamp(min=0.5)).clamp(1 - 8 * ALONG, 1 + 8 * ALONG)
        v, residual, derivative = turn_back(u)
        p = torch.exp(-0.5 * (((u - 1) / ALONG).square() + (v / ACROSS).square())) / derivative.abs()
        p = torch.where(residual.abs() < 1e-9, p, 0).mean(0) / (2 * math.pi * ALONG * ACROSS * SCALE**2)
        return p.to(x.dtype)

    @cached_property
    def entropy(self) -> float:
        """-E[log p(x)] by the trapezoidal rule over the normal numbers of one arm, since all arms are alike."""
        axis = 0.05 * torch.arange(-160, 161, dtype=torch.float64)
        normal = torch.cartesian_prod(axis, axis)
        weight = torch.exp(-0.5 * normal.square().sum(1))
        surprise = -self.density(to_arms(normal, torch.zeros(1))).log()
        return float((weight * surprise).sum() / weight.sum())


def to_arms(normal: Tensor, arm: Tensor) -> Tensor:
    """Map normal numbers (N, 2) to points (N, 2) on their arms (N,)."""
    x, y = 1 + ALONG * normal[:, 0], ACROSS * normal[:, 1]
    turn = 2 * math.pi * arm / ARMS + RATE * torch.exp(x)
    c, s = turn.cos(), turn.sin()
    return SCALE * torch.stack((c * x - s * y, s * x + c * y), 1)
