"""Lotka-Volterra: 256 initial values, forward only, float32.

The field is a few operations on small tensors, so this times the solvers themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odenet_cli.bench.measure import compare
from odenet_cli.bench.peers import OURS, Solve, diffrax, odenet, solver
from odenet_cli.bench.problems import Plain, lotka_volterra
from odenet_cli.bench.subject import Counter, Subject, Work, counted
from odenet_cli.bench.table import Table, power, speed_table
from odenet_cli.bench.workloads import Settings
from odenet_cli.ode import Adaptive


class Forward(Work):
    """A solve without gradients."""

    def __init__(self, solve: Solve, y0: Any) -> None:
        self.solve, self.y0 = solve, y0

    @torch.no_grad()
    def forward(self) -> Any:
        return self.solve(self.y0)

    def outcome(self, made: Any) -> dict[str, Tensor]:
        return {"y": made if isinstance(made, Tensor) else diffrax.tensor(made)}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`bound` is the relative distance from the exact solution that is still an agreement."""

    batch: int = 256
    end: float = 10.0
    tolerance: float = 1e-5
    repeats: int = 15
    bound: float = 1e-2

    def run(self, settings: Settings) -> list[Table]:
        y0 = 0.5 + 1.5 * torch.rand(self.batch, 2, generator=torch.Generator().manual_seed(0))
        y0 = y0.to(settings.device)
        repeats = settings.repeats or self.repeats
        rows, _ = compare(self.subjects(settings, y0), self.exact(y0), self.bound, repeats, settings.device)
        title = f"Lotka-Volterra, batch {self.batch}, t = 0 to {self.end:g}, dopri5 at {power(self.tolerance)}, forward"
        return [speed_table(title, rows, ["Error: relative distance from a solve by dopri8 at 1e-11 in float64."])]

    @torch.no_grad()
    def exact(self, y0: Tensor) -> dict[str, Tensor]:
        solve = Adaptive(method="dopri8", rtol=1e-11, atol=1e-11)
        return {"y": solve(Plain(lotka_volterra(torch)), y0.double(), [0.0, self.end]).y}

    def subjects(self, settings: Settings, y0: Tensor) -> list[Subject]:
        modes = {
            "torchdiffeq": ["odeint"],
            "torchode": ["AutoDiffAdjoint", "AutoDiffAdjoint one instance", "AutoDiffAdjoint compiled"],
            "torchdyn": ["odeint"],
            "diffrax": [""],
            OURS: ["", *odenet.compiled("", loop=True)],
        }

        def subject(library: str, mode: str) -> Subject:
            work: Callable[..., Work] = self.jax if library == "diffrax" else self.torch
            note = "JAX, compiled" if library == "diffrax" else ""
            return Subject(library=library, mode=mode, work=lambda m, c: work(library, m, y0, c), note=note)

        present = (*settings.peers, OURS)
        return [subject(library, mode) for library, found in modes.items() if library in present for mode in found]

    def torch(self, library: str, mode: str, y0: Tensor, counter: Counter | None) -> Work:
        field = counted(Plain(lotka_volterra(torch)), counter)
        return Forward(solver(library, mode, field, [0.0, self.end], **self.precision), y0)

    def jax(self, library: str, mode: str, y0: Tensor, counter: Counter | None) -> Work:
        import jax

        field = lotka_volterra(jax.numpy)
        field = diffrax.observed(field, counter.add) if counter else field
        return Forward(solver(library, mode, field, [0.0, self.end], **self.precision), diffrax.array(y0))

    @property
    def precision(self) -> dict[str, Any]:
        return {"method": "dopri5", "rtol": self.tolerance, "atol": self.tolerance}
