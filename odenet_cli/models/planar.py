"""Planar normalising flow (Rezende & Mohamed, "Variational inference with normalizing flows", 2015, section 4.1).

K layers f(z) = z + û tanh(w·z + b), û = u + (m(w·u) - w·u) w / |w|² with m(x) = -1 + log(1 + eˣ), so that w·û > -1 and
each layer is invertible (appendix A.1). A layer is cheap in one direction; the other requires the solution of a scalar
equation. So the direction depends on the task: for density matching the layers map noise to data, as in the paper; for
maximum likelihood, which evaluates `log_prob` of given points, they map **data to noise**, and samples are drawn by the
inverse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.models.common import check_choice, check_counts
from odenet_cli.models.common.flow import check_shape, check_variance, log_normal

DIRECTIONS = ("noise_to_data", "data_to_noise")
ROUNDS = 40  # iterations of the inverse: each one halves the bracket, and tries a Newton step in it


class Planar(nn.Module):
    """Compose K planar layers, with the methods of `ContinuousFlow`.

    layers         K; the layers' vectors are the rows of u and w (K, D), their biases b (K,)
    direction      what the layers map: noise_to_data, or data_to_noise
    base_variance  the noise is N(0, base_variance I)
    """

    def __init__(self, shape: tuple[int, ...], *, layers: int, direction: str, base_variance: float) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ValueError(
                f"model=planar needs points, and the inputs of this data set are {shape}; use data=moons or data=u1."
            )
        check_counts(layers=layers)
        check_choice("direction", direction, DIRECTIONS)
        check_variance(base_variance)
        self.shape, self.base_variance, self.to_data = shape, base_variance, direction == "noise_to_data"
        bound = 1 / math.sqrt(shape[0])
        self.u, self.w = (nn.Parameter(torch.empty(layers, *shape).uniform_(-bound, bound)) for _ in range(2))
        self.b = nn.Parameter(torch.zeros(layers))

    def log_prob(self, x: Tensor, time: float = 1.0) -> Tensor:
        """Return log p(x) after a fraction `time` of the layers on the way from noise, x (B, D) -> (B,)."""
        check_shape(x, self.shape)
        passed = self._passed(time)
        z, log_det = self.inverse(x, passed) if self.to_data else self.transform(x, passed)
        return log_normal(z, self.base_variance) + (-log_det if self.to_data else log_det)

    def to_noise(self, x: Tensor) -> Tensor:
        """Return the standard normal numbers that `generate` maps to x (B, D)."""
        z, _ = self.inverse(x) if self.to_data else self.transform(x)
        return z / math.sqrt(self.base_variance)

    def generate(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Map standard normal `noise` (B, D) to samples (B, D) and their log-density (B,)."""
        z = noise * math.sqrt(self.base_variance)
        x, log_det = self.transform(z) if self.to_data else self.inverse(z)
        return x, log_normal(z, self.base_variance) + (-log_det if self.to_data else log_det)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, (n, D)."""
        noise = torch.randn(n, *self.shape, generator=generator, dtype=self.u.dtype, device=self.u.device)
        return self.generate(noise)[0]

    @torch.no_grad()
    def flow(self, z: Tensor, times: Sequence[float]) -> Tensor:
        """Return particles starting at noise `z` (B, D), after increasing fractions of the layers: (T, B, D)."""
        states, before = [], range(0)
        for time in times:
            passed = self._passed(time)
            new = passed[len(before) :] if self.to_data else passed[: len(passed) - len(before)]
            z = (self.transform(z, new) if self.to_data else self.inverse(z, new))[0]
            states.append(z)
            before = passed
        return torch.stack(states)

    def transform(self, z: Tensor, layers: range | None = None) -> tuple[Tensor, Tensor]:
        """Map z (B, D) through `layers` (None: all of them); return it and log |det| (B,)."""
        u, w_dot_u = self._constrained()
        us, ws, bs = u.unbind(), self.w.unbind(), self.b.unbind()
        hs = []
        for k in self._all if layers is None else layers:
            hs.append(torch.tanh(torch.addmv(bs[k], z, ws[k])))
            z = torch.addr(z, hs[-1], us[k])
        return z, self._log_det(hs, w_dot_u, layers, z)

    def inverse(self, y: Tensor, layers: range | None = None) -> tuple[Tensor, Tensor]:
        """Return the z that `transform` maps to y, and log |det| of `transform` there.

        In each layer a = w·z solves a + (w·û) tanh(a + b) = w·y, whose left side is increasing; a lies within |w·û| of
        the right side.
        """
        u, w_dot_u = self._constrained()
        hs: list[Tensor] = []
        for k in reversed(self._all if layers is None else layers):
            right = y @ self.w[k]
            with torch.no_grad():
                a = _solve_layer(right, w_dot_u[k], self.b[k])
            # One more Newton step, under autograd, whose derivative is that of the solution.
            h = torch.tanh(a + self.b[k])
            derivative = 1 + w_dot_u[k] * (1 - h.square())
            a = a - (a + w_dot_u[k] * h - right) / derivative.detach().clamp(min=torch.finfo(y.dtype).eps ** 0.5)
            hs.append(torch.tanh(a + self.b[k]))
            y = torch.addr(y, hs[-1], u[k], alpha=-1)
        return y, self._log_det(hs[::-1], w_dot_u, layers, y)

    def _constrained(self) -> tuple[Tensor, Tensor]:
        """Return û (K, D), and w·û (K,) > -1."""
        # û moves u along w until w·û = m(w·u) > -1, where z + û tanh(w·z + b) is invertible (appendix A.1).
        w_dot_u = (self.w * self.u).sum(1)
        w_dot_u_hat = F.softplus(w_dot_u) - 1
        return self.u + ((w_dot_u_hat - w_dot_u) / self.w.square().sum(1))[:, None] * self.w, w_dot_u_hat

    @staticmethod
    def _log_det(hs: list[Tensor], w_dot_u: Tensor, layers: range | None, like: Tensor) -> Tensor:
        """Return Σ_k log |1 + (w·û)_k (1 - tanh²)|, in one pass over all layers."""
        if not hs:
            return torch.zeros_like(like[:, 0])
        # det (I + û h' wᵀ) = 1 + h' w·û, the matrix determinant lemma; above 0 since w·û > -1.
        w_dot_u = w_dot_u if layers is None else w_dot_u[layers.start : layers.stop]
        return torch.log1p(w_dot_u[:, None] * (1 - torch.stack(hs).square())).sum(0)

    @property
    def _all(self) -> range:
        return range(len(self.b))

    def _passed(self, time: float) -> range:
        """Return the layers between noise and a fraction of the way: the first ones, or the last if data_to_noise."""
        count = round(time * len(self.b))
        return range(count) if self.to_data else range(len(self.b) - count, len(self.b))


def _solve_layer(right: Tensor, c: Tensor, b: Tensor) -> Tensor:
    """Solve a + c tanh(a + b) = right for a, c = w·û, by Newton's method safeguarded by bisection."""
    # |tanh| ≤ 1 brackets the root. Newton's method alone would leave it if the slope 1 + c (1 - tanh²) is near 0.
    low, high = right - c.abs(), right + c.abs()
    for _ in range(ROUNDS):
        a = 0.5 * (low + high)
        for _ in range(2):
            h = torch.tanh(a + b)
            residual = a + c * h - right
            low, high = torch.where(residual < 0, a, low), torch.where(residual < 0, high, a)
            a = a - residual / (1 + c * (1 - h.square()))
            a = torch.where((a >= low) & (a <= high), a, 0.5 * (low + high))
    return a


MODEL = Planar
