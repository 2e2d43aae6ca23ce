"""Latent ODE: the paths of 1,000 spirals at 100 times, their square error and its gradients.

The decoder of the paper's model (Chen et al. 2018, section 5): for each spiral a latent state of four numbers flows
along a field with one hidden layer, and is decoded at every time. Steps are longer than the gaps between the times.
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
from odenet_cli.models.common.latent import LatentField
from odenet_cli.models.common.series import perceptron


class Paths(nn.Module):
    """Latent states at t = 0, the field, and the decoder."""

    def __init__(self, spirals: int, latent: int, hidden: int) -> None:
        super().__init__()
        self.z0 = nn.Parameter(torch.randn(spirals, latent))
        self.field = LatentField(latent, hidden, layers=1)
        self.decoder = perceptron(latent, hidden, 1, 2, nn.ReLU)


@dataclass(frozen=True, kw_only=True)
class Workload(GradientWorkload):
    """Fit the paths of `spirals` to their points at `times` times up to t = `end`."""

    spirals: int = 1000
    times: int = 100
    end: float = 5.0
    latent: int = 4
    hidden: int = 20
    tolerance: float = 1e-5
    repeats: int = 7
    bound: float = 1e-2

    @property
    def ts(self) -> list[float]:
        return torch.linspace(0.0, self.end, self.times).tolist()

    def tables(self, device: torch.device) -> Iterator[tuple[str, Modes, Problem]]:
        """Yield a table of modes that keep the graph of every step, then one of those that do not."""
        torch.manual_seed(0)
        paths = Paths(self.spirals, self.latent, self.hidden).to(device)
        problem = paths, spirals(self.spirals, self.times).to(device)
        size = f"{self.spirals} × {self.times} times to t = {self.end:g}, dopri5 at {power(self.tolerance)}"
        direct = [
            ("torchdiffeq", ["odeint"]),
            ("torchode", ["AutoDiffAdjoint", "AutoDiffAdjoint one instance"]),
            ("torchdyn", ["autograd"]),
            (OURS, ["backprop", *odenet.compiled("backprop")]),
        ]
        yield f"Latent ODE, direct: {size}, loss and gradient", direct, problem
        bounded = [
            ("torchdiffeq", ["odeint_adjoint"]),
            ("torchode", ["JointBacksolveAdjoint"]),
            ("torchdyn", ["adjoint"]),
            (OURS, ["replay", "adjoint", *odenet.compiled("replay", "adjoint")]),
        ]
        yield f"Latent ODE, memory-bounded: {size}, loss and gradient", bounded, problem

    def field(self, module: Any, library: str, mode: str) -> nn.Module:
        return module.field

    def loss(self, module: Any, solve: Solve, library: str, *tensors: Tensor) -> Tensor:
        (target,) = tensors
        decoded: Tensor = module.decoder(solve(module.z0))
        return (decoded - target).square().mean()


def spirals(count: int, times: int) -> Tensor:
    """Draw outward spirals, alternately clockwise, each rotated by its own angle: (T, N, 2)."""
    turned = 2 * math.pi * torch.rand(count, generator=torch.Generator().manual_seed(0))
    sense = 1 - 2 * (torch.arange(count) % 2)
    radius = torch.linspace(0, 1, times)[:, None]
    angle = turned + sense * 3 * math.pi * radius
    return torch.stack(((0.2 + radius) * angle.cos(), (0.2 + radius) * angle.sin()), 2)
