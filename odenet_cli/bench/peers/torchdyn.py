"""torchdyn (Poli et al. 2021). A mode is `odeint`, the plain function, or the `sensitivity` of its NeuralODE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.bench.peers import Solve

NEEDS = ("torchdyn", "torchdyn.core", "torchdyn.numerics")
INSTALL = 'pip install -e ".[bench]"'
MODES = ("autograd", "adjoint")
METHODS = ("dopri5", "tsit5")
TRAIT = (
    "after a solve that runs down in time its adjoint goes back at -t, not at t: wrong for a field that depends on time"
)


class WithArgs(nn.Module):
    """A field as torchdyn calls it."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor, args: Any = None) -> Tensor:
        return self.field(t, x)


def solver(mode: str, field: Any, ts: Sequence[float], *, method: str, rtol: float, atol: float) -> Solve:
    from torchdyn.core import NeuralODE
    from torchdyn.numerics import odeint

    between = "4th" if len(ts) > 2 and method == "dopri5" else None
    if mode == "odeint":

        def flow(y0: Tensor, times: Tensor) -> Tensor:
            return odeint(field, y0, times, solver=method, rtol=rtol, atol=atol, interpolator=between)[1]

    else:
        flow = NeuralODE(
            WithArgs(field),
            solver=method,
            sensitivity=mode,
            rtol=rtol,
            atol=atol,
            rtol_adjoint=rtol,
            atol_adjoint=atol,
            interpolator=between,
            return_t_eval=False,
        )

    def solve(y0: Tensor) -> Tensor:
        y = flow(y0, torch.tensor(ts, dtype=y0.dtype, device=y0.device))
        if len(y) != len(ts):
            raise RuntimeError(f"{len(y)} states came back for {len(ts)} times")
        return y if len(ts) > 2 else y[1]

    return solve
