"""Continuous normalising flow in two dimensions: negative log-likelihood and its gradients.

The field of Chen et al. (2018, section 4) with its trace in closed form, the same module for every subject. Its weights
at time t come from a small network of t, so all samples share one time: torchode solves the batch as one instance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.bench.peers import OURS, Solve, odenet
from odenet_cli.bench.table import power
from odenet_cli.bench.workload import GradientWorkload, Modes, Problem
from odenet_cli.models.cnf import PlanarField

OUR_GRADIENTS = ("adjoint", "replay", "backprop")
TUPLES = (OURS, "torchdiffeq")  # libraries for tuples of tensors; the others get z and log p concatenated


class PlanarFlow(nn.Module):
    """The field of `model=cnf` and d log p/dt = -∇·f, for the state (z (B, 2), log p (B, 1))."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.field = PlanarField(2, units, hidden=32, spread=2.0)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        dz, divergence = self.field.with_divergence(t.reshape(-1)[:1], state[0])
        return dz, -divergence[:, None]


class SideBySide(nn.Module):
    """The same flow for a single tensor (B, 3)."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        return torch.cat(self.flow(t, (state[:, :2], state[:, 2:])), 1)


@dataclass(frozen=True, kw_only=True)
class Workload(GradientWorkload):
    """Train a flow of `units` hidden units on a batch of two moons."""

    units: int = 64
    batch: int = 512
    tolerance: float = 1e-5
    repeats: int = 9
    bound: float = 1e-2

    def tables(self, device: torch.device) -> Iterator[tuple[str, Modes, Problem]]:
        torch.manual_seed(0)
        flow = PlanarFlow(self.units).to(device)
        sizes = f"{self.units} hidden units, batch {self.batch}, dopri5 at {power(self.tolerance)}"
        modes = [
            ("torchdiffeq", ["odeint_adjoint", "odeint"]),
            ("torchode", ["AutoDiffAdjoint one instance", "JointBacksolveAdjoint"]),
            ("torchdyn", ["adjoint", "autograd"]),
            (OURS, [*OUR_GRADIENTS, *odenet.compiled(*OUR_GRADIENTS)]),
        ]
        yield f"CNF, {sizes}, loss and gradient", modes, (flow, moons(self.batch).to(device))

    def field(self, module: Any, library: str, mode: str) -> nn.Module:
        return module if library in TUPLES else SideBySide(module)

    def loss(self, module: Any, solve: Solve, library: str, *tensors: Tensor) -> Tensor:
        (x,) = tensors
        start = (x, x.new_zeros(len(x), 1))
        z, change = solve(start) if library in TUPLES else solve(torch.cat(start, 1)).split([2, 1], 1)
        log_likelihood: Tensor = -0.5 * z.square().sum(1) - math.log(2 * math.pi) - change[:, 0]
        return -log_likelihood.mean()


def moons(count: int) -> Tensor:
    """Draw two half circles with noise, (count, 2)."""
    generator = torch.Generator().manual_seed(0)
    angle = math.pi * torch.rand(count, generator=generator)
    upper = torch.arange(count) % 2 == 0
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack((x, y), 1) + 0.1 * torch.randn(count, 2, generator=generator)
