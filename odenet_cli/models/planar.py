"""Planar normalising flow (Rezende & Mohamed, "Variational inference with normalizing flows", 2015, section 4.1).

K layers f(z) = z + û tanh(w·z + b). A layer is cheap one way, and one equation in one unknown has to be solved for the
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

from odenet_cli.models._flow import check_variance, log_normal

DIRECTIONS = ("noise_to_data", "data_to_noise")
ROUNDS = 40  # of the inverse: each one halves the bracket, and tries Newton's step in it


class PlanarLayer(nn.Module):
    """z (B, D) -> z + û tanh(w·z + b) (B, D), and log |det| (B,).

    û = u + (m(w·u) - w·u) w / |w|², m(x) = -1 + log(1 + eˣ), so that w·û > -1 and the map is invertible (appendix A.1).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.u, self.w, self.b = (nn.Parameter(torch.empty(size)) for size in ((dim,), (dim,), ()))
        bound = 1 / math.sqrt(dim)
        for parameter in (self.u, self.w):
            nn.init.uniform_(parameter, -bound, bound)
        nn.init.zeros_(self.b)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        u, steep = self._constrained()
        h = torch.tanh(z @ self.w + self.b)
        return z + u * h[:, None], self._log_det(h, steep)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The z that `forward` maps to y, and log |det| of `forward` there.

        a = w·z solves a + (w·û) tanh(a + b) = w·y, whose left side rises; it lies within |w·û| of the right side.
        """
        u, steep = self._constrained()
        right = y @ self.w
        with torch.no_grad():
            a = self._solved(right, steep)
        # One more step of Newton's, under autograd: its derivative is that of the solution.
        h = torch.tanh(a + self.b)
        slope = 1 + steep * (1 - h.square())
        a = a - (a + steep * h - right) / slope.detach().clamp(min=torch.finfo(y.dtype).eps ** 0.5)
        h = torch.tanh(a + self.b)
        return y - u * h[:, None], self._log_det(h, steep)

    def _constrained(self) -> tuple[Tensor, Tensor]:
        """û, and w·û > -1."""
        along = self.w @ self.u
        steep = F.softplus(along) - 1
        return self.u + (steep - along) * self.w / self.w.square().sum(), steep

    @staticmethod
    def _log_det(h: Tensor, steep: Tensor) -> Tensor:
        return torch.log1p(steep * (1 - h.square()))

    def _solved(self, right: Tensor, steep: Tensor) -> Tensor:
        """Newton's method in a bracket that bisection halves."""
        low, high = right - steep.abs(), right + steep.abs()
        for _ in range(ROUNDS):
            a = 0.5 * (low + high)
            for _ in range(2):
                h = torch.tanh(a + self.b)
                off = a + steep * h - right
                low, high = torch.where(off < 0, a, low), torch.where(off < 0, high, a)
                a = a - off / (1 + steep * (1 - h.square()))
                a = torch.where((a >= low) & (a <= high), a, 0.5 * (low + high))
        return a


class Planar(nn.Module):
    """A chain of `layers` planar layers; same methods as `ContinuousFlow`.

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
        self.layers = nn.ModuleList(PlanarLayer(shape[0]) for _ in range(layers))

    def log_prob(self, x: Tensor, time: float = 1.0) -> Tensor:
        """log p(x) once a fraction `time` of the layers has been passed on the way from noise, x (B, D) -> (B,)."""
        z, change = self._inward(x, time)
        return log_normal(z, self.base_variance) + change

    def to_noise(self, x: Tensor) -> Tensor:
        """The standard normal numbers that `generate` makes into x (B, D)."""
        return self._inward(x, 1.0)[0] / math.sqrt(self.base_variance)

    def generate(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal `noise` (B, D) -> samples (B, D) and their log-density (B,)."""
        z = noise * math.sqrt(self.base_variance)
        log_density = log_normal(z, self.base_variance)
        for layer in self._passed(1.0):
            z, log_det = layer(z) if self.outward else layer.inverse(z)
            log_density = log_density - log_det if self.outward else log_density + log_det
        return z, log_density

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n samples, (n, D)."""
        like = next(self.parameters())
        noise = torch.randn(n, *self.shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.generate(noise)[0]

    @torch.no_grad()
    def flow(self, z: Tensor, times: Sequence[float]) -> Tensor:
        """Particles that begin at noise `z` (B, D), after rising fractions of the layers: (T, B, D)."""
        states = [z]
        for layer in self._passed(1.0):
            states.append((layer(states[-1]) if self.outward else layer.inverse(states[-1]))[0])
        return torch.stack([states[len(self._passed(time))] for time in times])

    def _inward(self, x: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """The noise of x, and log |det ∂noise/∂x|."""
        change = x.new_zeros(len(x))
        for layer in self._passed(time)[::-1]:
            x, log_det = layer.inverse(x) if self.outward else layer(x)
            change = change - log_det if self.outward else change + log_det
        return x, change

    def _passed(self, time: float) -> list[PlanarLayer]:
        """The layers that noise has passed at a fraction of the way, in that order."""
        ordered: list[PlanarLayer] = list(self.layers)  # type: ignore[arg-type]
        return ordered[: round(time * len(ordered))] if self.outward else ordered[::-1][: round(time * len(ordered))]


MODEL = Planar
