"""Planar normalising flow (Rezende & Mohamed, "Variational inference with normalizing flows", 2015, section 4.1).

K layers f(z) = z + û tanh(w·z + b), û = u + (m(w·u) - w·u) w / |w|² with m(x) = -1 + log(1 + eˣ), so that w·û > -1 and
each can be inverted (appendix A.1). A layer is cheap one way, and one equation in one unknown has to be solved for the
other. So the direction follows the task: for density matching the layers map noise to data, as in that paper; for
maximum likelihood, where `log_prob` of given points is wanted, they map **data to noise**, and samples are drawn by the
inverse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.models.common.flow import check_variance, log_normal

DIRECTIONS = ("noise_to_data", "data_to_noise")
ROUNDS = 40  # of the inverse: each one halves the bracket, and tries Newton's step in it


class Planar(nn.Module):
    """A chain of K planar layers; same methods as `ContinuousFlow`.

    layers         K; the layers' vectors are the rows of u and w (K, D), their biases b (K,)
    direction      what the layers map: noise_to_data, or data_to_noise
    base_variance  the noise is N(0, base_variance I)
    """

    def __init__(self, shape: tuple[int, ...], *, layers: int, direction: str, base_variance: float) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ValueError(f"model=planar is for points, and inputs here are {shape}; use data=moons or data=u1.")
        if layers < 1:
            raise ValueError(f"model.layers={layers} must be at least 1.")
        if direction not in DIRECTIONS:
            raise ValueError(f"model.direction={direction} is not known. There are: {', '.join(DIRECTIONS)}.")
        check_variance(base_variance)
        self.shape, self.base_variance, self.outward = shape, base_variance, direction == "noise_to_data"
        bound = 1 / math.sqrt(shape[0])
        self.u, self.w = (nn.Parameter(torch.empty(layers, *shape).uniform_(-bound, bound)) for _ in range(2))
        self.b = nn.Parameter(torch.zeros(layers))

    def log_prob(self, x: Tensor, time: float = 1.0) -> Tensor:
        """log p(x) once a fraction `time` of the layers has been passed on the way from noise, x (B, D) -> (B,)."""
        passed = self._passed(time)
        z, log_det = self.inverse(x, passed) if self.outward else self(x, passed)
        return log_normal(z, self.base_variance) + (-log_det if self.outward else log_det)

    def to_noise(self, x: Tensor) -> Tensor:
        """The standard normal numbers that `generate` makes into x (B, D)."""
        z, _ = self.inverse(x) if self.outward else self(x)
        noise: Tensor = z / math.sqrt(self.base_variance)
        return noise

    def generate(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal `noise` (B, D) -> samples (B, D) and their log-density (B,)."""
        z = noise * math.sqrt(self.base_variance)
        x, log_det = self(z) if self.outward else self.inverse(z)
        return x, log_normal(z, self.base_variance) + (-log_det if self.outward else log_det)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n samples, (n, D)."""
        noise = torch.randn(n, *self.shape, generator=generator, dtype=self.u.dtype, device=self.u.device)
        return self.generate(noise)[0]

    @torch.no_grad()
    def flow(self, z: Tensor, times: Sequence[float]) -> Tensor:
        """Particles that begin at noise `z` (B, D), after rising fractions of the layers: (T, B, D)."""
        states, before = [], range(0)
        for time in times:
            passed = self._passed(time)
            new = passed[len(before) :] if self.outward else passed[: len(passed) - len(before)]
            z = (self(z, new) if self.outward else self.inverse(z, new))[0]
            states.append(z)
            before = passed
        return torch.stack(states)

    def forward(self, z: Tensor, layers: range | None = None) -> tuple[Tensor, Tensor]:
        """z (B, D) through `layers`, null for all of them, and log |det| (B,)."""
        u, steep = self._constrained()
        us, ws, bs = u.unbind(), self.w.unbind(), self.b.unbind()
        hs = []
        for k in self._all if layers is None else layers:
            hs.append(torch.tanh(torch.addmv(bs[k], z, ws[k])))
            z = torch.addr(z, hs[-1], us[k])
        return z, self._log_det(hs, steep, layers, z)

    def inverse(self, y: Tensor, layers: range | None = None) -> tuple[Tensor, Tensor]:
        """The z that `forward` maps to y, and log |det| of `forward` there.

        In each layer a = w·z solves a + (w·û) tanh(a + b) = w·y, whose left side rises; it lies within |w·û| of the
        right side.
        """
        u, steep = self._constrained()
        hs: list[Tensor] = []
        for k in reversed(self._all if layers is None else layers):
            right = y @ self.w[k]
            with torch.no_grad():
                a = _solved(right, steep[k], self.b[k])
            # One more step of Newton's, under autograd: its derivative is that of the solution.
            h = torch.tanh(a + self.b[k])
            slope = 1 + steep[k] * (1 - h.square())
            a = a - (a + steep[k] * h - right) / slope.detach().clamp(min=torch.finfo(y.dtype).eps ** 0.5)
            hs.append(torch.tanh(a + self.b[k]))
            y = torch.addr(y, hs[-1], u[k], alpha=-1)
        return y, self._log_det(hs[::-1], steep, layers, y)

    def _constrained(self) -> tuple[Tensor, Tensor]:
        """û (K, D), and w·û (K,) > -1."""
        along = (self.w * self.u).sum(1)
        steep = F.softplus(along) - 1
        return self.u + ((steep - along) / self.w.square().sum(1))[:, None] * self.w, steep

    @staticmethod
    def _log_det(hs: list[Tensor], steep: Tensor, layers: range | None, like: Tensor) -> Tensor:
        """Σ_k log |1 + (w·û)_k (1 - tanh²)|, in one pass over all layers."""
        if not hs:
            return torch.zeros_like(like[:, 0])
        steep = steep if layers is None else steep[layers.start : layers.stop]
        return torch.log1p(steep[:, None] * (1 - torch.stack(hs).square())).sum(0)

    @property
    def _all(self) -> range:
        return range(len(self.b))

    def _passed(self, time: float) -> range:
        """The layers that noise has passed at a fraction of the way: the first ones, or, data to noise, the last."""
        count = round(time * len(self.b))
        return range(count) if self.outward else range(len(self.b) - count, len(self.b))


def _solved(right: Tensor, steep: Tensor, b: Tensor) -> Tensor:
    """The a of a + steep tanh(a + b) = right: Newton's method in a bracket that bisection halves."""
    low, high = right - steep.abs(), right + steep.abs()
    for _ in range(ROUNDS):
        a = 0.5 * (low + high)
        for _ in range(2):
            h = torch.tanh(a + b)
            off = a + steep * h - right
            low, high = torch.where(off < 0, a, low), torch.where(off < 0, high, a)
            a = a - off / (1 + steep * (1 - h.square()))
            a = torch.where((a >= low) & (a <= high), a, 0.5 * (low + high))
    return a


MODEL = Planar
