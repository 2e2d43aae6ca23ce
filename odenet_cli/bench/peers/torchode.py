"""torchode (Lienen and Günnemann 2022), which chooses steps separately for every instance of a batch.

A mode is the class, `AutoDiffAdjoint` or `JointBacksolveAdjoint`, optionally followed by ` one instance`, for which the
whole state is a single instance with common steps, and by ` compiled`, for which `solve` is passed to torch.compile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.bench.peers import Solve

NEEDS = ("torchode",)
INSTALL = 'pip install -e ".[bench]"'
MODES = ("AutoDiffAdjoint one instance", "JointBacksolveAdjoint one instance")
METHODS = ("dopri5", "tsit5")
TRAIT = "lands on the last time; a batch, whose samples it would step one by one, is a single instance here"
ONE, COMPILED = " one instance", " compiled"


class FlatField(nn.Module):
    """Evaluate a field of states of `shape` on the same numbers arranged in rows."""

    def __init__(self, field: nn.Module, shape: torch.Size) -> None:
        super().__init__()
        self.field, self.shape = field, shape

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.field(t, y.reshape(self.shape)).reshape(y.shape)


def solver(mode: str, field: Any, ts: Sequence[float], *, method: str, rtol: float, atol: float) -> Solve:
    solves: dict[torch.Size, Any] = {}

    def solve(y0: Tensor) -> Tensor:
        import torchode

        if y0.shape not in solves:  # once per shape, as a user would
            solves[y0.shape] = _solve_function(mode, FlatField(field, y0.shape), method, rtol, atol)
        rows = y0.reshape(1, -1) if ONE in mode else y0.flatten(1)
        times = torch.tensor(ts, dtype=y0.dtype, device=y0.device).expand(len(rows), -1)
        t_eval = times if len(ts) > 2 else None
        problem = torchode.InitialValueProblem(rows, times[:, 0], times[:, -1], t_eval)
        ys: Tensor = solves[y0.shape](problem).ys.transpose(0, 1)
        return ys.reshape(-1, *y0.shape) if len(ts) > 2 else ys[0].reshape(y0.shape)

    return solve


def _solve_function(mode: str, field: nn.Module, method: str, rtol: float, atol: float) -> Any:
    import torchode

    term = torchode.ODETerm(field)
    joint = mode.startswith("JointBacksolveAdjoint")
    # The joint adjoint solves its own two terms, so the step method and the controller receive none.
    step = {"dopri5": torchode.Dopri5, "tsit5": torchode.Tsit5}[method](term=None if joint else term)
    control = torchode.IntegralController(atol=atol, rtol=rtol, term=None if joint else term)
    if joint:
        solve = torchode.JointBacksolveAdjoint(term, step, control).solve
    else:
        # By default the step size control is differentiated too, and the gradient of many steps grows without bound.
        solve = torchode.AutoDiffAdjoint(step, control, backprop_through_step_size_control=False).solve
    return torch.compile(solve) if COMPILED in mode else solve
