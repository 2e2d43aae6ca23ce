"""Latent ODE: the paths of 1,000 spirals at 100 times, their square error and its gradients.

The decoder's half of the paper's model (Chen et al. 2018, section 5): a latent state of four numbers a spiral flows
along a field of one hidden layer and is decoded at every time. Steps are longer than the gaps between the times.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odenet_cli.bench.measure import compare, ran
from odenet_cli.bench.peers import OURS, odenet, solver
from odenet_cli.bench.subject import Counter, Subject, Training, counted
from odenet_cli.bench.table import Table, power, speed_table
from odenet_cli.bench.workloads import Settings


class LatentField(nn.Module):
    """dz/dt of one hidden layer; the time plays no part."""

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(latent, hidden), nn.ELU(), nn.Linear(hidden, latent))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        slope: Tensor = self.layers(z)
        return slope


class Paths(nn.Module):
    """Latent states at t = 0, the field, and the decoder."""

    def __init__(self, spirals: int, latent: int, hidden: int) -> None:
        super().__init__()
        self.z0 = nn.Parameter(torch.randn(spirals, latent))
        self.field = LatentField(latent, hidden)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, 2))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`bound` is the relative distance of loss and gradient from the exact ones that is still an agreement."""

    spirals: int = 1000
    times: int = 100
    end: float = 5.0
    latent: int = 4
    hidden: int = 20
    tolerance: float = 1e-5
    repeats: int = 7
    bound: float = 1e-2

    def run(self, settings: Settings) -> list[Table]:
        torch.manual_seed(0)
        paths = Paths(self.spirals, self.latent, self.hidden).to(settings.device)
        target = spirals(self.spirals, self.times).to(settings.device)
        exact, repeats = self.exact(paths, target), settings.repeats or self.repeats
        tables = []
        for title, modes in self.contests().items():
            subjects = self.subjects(settings, modes, paths, target)
            rows, _ = compare(subjects, exact, self.bound, repeats, settings.device)
            notes = ["Error: the larger of the relative distances of loss and gradient from those at 1e-9 in float64."]
            tables.append(speed_table(f"{title}: {self.size}, loss and gradient", rows, notes))
        return tables

    def exact(self, paths: Paths, target: Tensor) -> dict[str, Tensor]:
        return ran(self.work(OURS, "replay", copy.deepcopy(paths).double(), target.double(), tolerance=1e-9))

    @property
    def size(self) -> str:
        return f"{self.spirals} × {self.times} times to t = {self.end:g}, dopri5 at {power(self.tolerance)}"

    def contests(self) -> dict[str, dict[str, list[str]]]:
        """Those that keep the graph of every step, and those that do not."""
        return {
            "Latent ODE, direct": {
                "torchdiffeq": ["odeint"],
                "torchode": ["AutoDiffAdjoint", "AutoDiffAdjoint one instance"],
                "torchdyn": ["autograd"],
                OURS: ["backprop", *odenet.compiled("backprop")],
            },
            "Latent ODE, memory-bounded": {
                "torchdiffeq": ["odeint_adjoint"],
                "torchode": ["JointBacksolveAdjoint"],
                "torchdyn": ["adjoint"],
                OURS: ["replay", "adjoint", *odenet.compiled("replay", "adjoint")],
            },
        }

    def subjects(self, settings: Settings, modes: dict[str, list[str]], paths: Paths, target: Tensor) -> list[Subject]:
        def subject(library: str, mode: str) -> Subject:
            return Subject(library=library, mode=mode, work=lambda m, c: self.work(library, m, paths, target, c))

        present = (*settings.peers, OURS)
        return [subject(library, mode) for library, found in modes.items() if library in present for mode in found]

    def work(
        self,
        library: str,
        mode: str,
        paths: Paths,
        target: Tensor,
        counter: Counter | None = None,
        tolerance: float | None = None,
    ) -> Training:
        tolerance = tolerance or self.tolerance
        paths = copy.deepcopy(paths)
        ts = torch.linspace(0.0, self.end, self.times).tolist()
        solve = solver(
            library, mode, counted(paths.field, counter), ts, method="dopri5", rtol=tolerance, atol=tolerance
        )

        def loss() -> Tensor:
            decoded: Tensor = paths.decoder(solve(paths.z0))
            return (decoded - target).square().mean()

        return Training(paths, loss)


def spirals(count: int, times: int) -> Tensor:
    """Spirals from the centre outwards, every second one clockwise, each turned by its own angle: (times, count, 2)."""
    turned = 2 * math.pi * torch.rand(count, generator=torch.Generator().manual_seed(0))
    sense = 1 - 2 * (torch.arange(count) % 2)
    grown = torch.linspace(0, 1, times)[:, None]
    angle = turned + sense * 3 * math.pi * grown
    return torch.stack(((0.2 + grown) * angle.cos(), (0.2 + grown) * angle.sin()), 2)
