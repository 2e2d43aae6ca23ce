"""Lotka-Volterra: 256 initial values, forward only, float32.

The field is a few operations on small tensors, so this times the solvers themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from odenet_cli.bench import peers
from odenet_cli.bench.peers import OURS, diffrax, odenet
from odenet_cli.bench.problems import FunctionField, lotka_volterra
from odenet_cli.bench.table import power
from odenet_cli.bench.work import Counter, Work, function_field
from odenet_cli.bench.workload import Modes, Problem, SpeedWorkload
from odenet_cli.ode import Adaptive


@dataclass(frozen=True, kw_only=True)
class Workload(SpeedWorkload):
    """Solve `batch` initial values to t = `end`."""

    error_note = "Error: relative distance from a solve by dopri8 at 1e-11 in float64."

    batch: int = 256
    end: float = 10.0
    tolerance: float = 1e-5
    repeats: int = 15
    bound: float = 1e-2

    def tables(self, device: torch.device) -> Iterator[tuple[str, Modes, Problem]]:
        title = f"Lotka-Volterra, batch {self.batch}, t = 0 to {self.end:g}, dopri5 at {power(self.tolerance)}, forward"
        modes = [
            ("torchdiffeq", ["odeint"]),
            ("torchode", ["AutoDiffAdjoint", "AutoDiffAdjoint one instance", "AutoDiffAdjoint compiled"]),
            ("torchdyn", ["odeint"]),
            ("diffrax", [", JAX, compiled"]),
            (OURS, ["", *odenet.compiled("", loop=True)]),
        ]
        y0 = 0.5 + 1.5 * torch.rand(self.batch, 2, generator=torch.Generator().manual_seed(0))
        yield title, modes, (y0.to(device),)

    @torch.no_grad()
    def reference(self, problem: Problem) -> dict[str, Tensor]:
        solve = Adaptive(method="dopri8", rtol=1e-11, atol=1e-11)
        return {"y": solve(FunctionField(lotka_volterra), problem[0].double(), [0.0, self.end]).y}

    def work(self, library: str, mode: str, problem: Problem, counter: Counter | None = None) -> Work:
        start = diffrax.array(problem[0]) if library == "diffrax" else problem[0]
        field, make = function_field(lotka_volterra, library, counter), peers.library(library).solver
        solve = make(mode, field, [0.0, self.end], method="dopri5", rtol=self.tolerance, atol=self.tolerance)
        return Work(
            forward=torch.no_grad()(partial(solve, start)),
            outcome=lambda y: {"y": y if isinstance(y, Tensor) else diffrax.tensor(y)},
        )
