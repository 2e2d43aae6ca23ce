"""Continuous normalising flow in two dimensions: negative log-likelihood and its gradients.

The field of Chen et al. (2018, section 4) with its trace in closed form, the same module for every subject. Its weights
at time t come from a small network of t, so all samples share one time: torchode solves the batch as one instance.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.bench.measure import compare, ran
from odenet_cli.bench.peers import OURS, odenet, solver
from odenet_cli.bench.subject import Counter, Subject, Training, counted
from odenet_cli.bench.table import Table, power, speed_table
from odenet_cli.bench.workloads import Settings
from odenet_cli.models.cnf import PlanarField

OUR_GRADIENTS = ("adjoint", "replay", "backprop")
TUPLES = (OURS, "torchdiffeq")  # who solves tuples of tensors; the others get z and log p side by side


class PlanarFlow(nn.Module):
    """The field of `model=cnf` and d log p/dt = -∇·f, for the state (z (B, 2), log p (B, 1))."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.field = PlanarField(2, units, hidden=32, spread=2.0)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        slope, divergence = self.field.with_divergence(t.reshape(-1)[:1], state[0])
        return slope, -divergence[:, None]


class SideBySide(nn.Module):
    """The same flow for one tensor (B, 3)."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        return torch.cat(self.flow(t, (state[:, :2], state[:, 2:])), 1)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`bound` is the relative distance of loss and gradient from the exact ones that is still an agreement."""

    units: int = 64
    batch: int = 512
    tolerance: float = 1e-5
    repeats: int = 9
    bound: float = 1e-2

    def run(self, settings: Settings) -> list[Table]:
        torch.manual_seed(0)
        flow = PlanarFlow(self.units).to(settings.device)
        x = moons(self.batch).to(settings.device)
        repeats = settings.repeats or self.repeats
        rows, _ = compare(self.subjects(settings, flow, x), self.exact(flow, x), self.bound, repeats, settings.device)
        title = (
            f"CNF, {self.units} hidden units, batch {self.batch}, dopri5 at {power(self.tolerance)}, loss and gradient"
        )
        notes = ["Error: the larger of the relative distances of loss and gradient from those at 1e-9 in float64."]
        return [speed_table(title, rows, notes)]

    def exact(self, flow: PlanarFlow, x: Tensor) -> dict[str, Tensor]:
        return ran(self.work(OURS, "replay", copy.deepcopy(flow).double(), x.double(), tolerance=1e-9))

    def subjects(self, settings: Settings, flow: PlanarFlow, x: Tensor) -> list[Subject]:
        modes = {
            "torchdiffeq": ["odeint_adjoint", "odeint"],
            "torchode": ["AutoDiffAdjoint one instance", "JointBacksolveAdjoint"],
            "torchdyn": ["adjoint", "autograd"],
            OURS: [*OUR_GRADIENTS, *odenet.compiled(*OUR_GRADIENTS)],
        }

        def subject(library: str, mode: str) -> Subject:
            return Subject(library=library, mode=mode, work=lambda m, c: self.work(library, m, flow, x, c))

        present = (*settings.peers, OURS)
        return [subject(library, mode) for library, found in modes.items() if library in present for mode in found]

    def work(
        self,
        library: str,
        mode: str,
        flow: PlanarFlow,
        x: Tensor,
        counter: Counter | None = None,
        tolerance: float | None = None,
    ) -> Training:
        tolerance = tolerance or self.tolerance
        flow = copy.deepcopy(flow)
        zero = x.new_zeros(len(x), 1)
        start: Any = (x, zero) if library in TUPLES else torch.cat((x, zero), 1)
        field = counted(flow if library in TUPLES else SideBySide(flow), counter)
        solve = solver(library, mode, field, [0.0, 1.0], method="dopri5", rtol=tolerance, atol=tolerance)

        def loss() -> Tensor:
            end = solve(start)
            z, change = end if library in TUPLES else (end[:, :2], end[:, 2:])
            likelihood: Tensor = -0.5 * z.square().sum(1) - math.log(2 * math.pi) - change[:, 0]
            return -likelihood.mean()

        return Training(flow, loss)


def moons(count: int) -> Tensor:
    """Two half circles with noise, (count, 2)."""
    generator = torch.Generator().manual_seed(0)
    angle = math.pi * torch.rand(count, generator=generator)
    upper = torch.arange(count) % 2 == 0
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack((x, y), 1) + 0.1 * torch.randn(count, 2, generator=generator)
