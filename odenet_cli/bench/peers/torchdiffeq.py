"""torchdiffeq (Chen 2018). A mode is the function: `odeint` keeps the graph, `odeint_adjoint` solves backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from odenet_cli.bench.peers import Solve

NEEDS = ("torchdiffeq",)
INSTALL = 'pip install -e ".[bench]"'
MODES = ("odeint", "odeint_adjoint")
METHODS = ("dopri5", "dopri8", "bosh3")
TRAIT = "steps beyond the last time, and interpolates the state there, by a polynomial of order 4 (dopri8: of order 8)"


def solver(mode: str, field: Any, ts: Sequence[float], *, method: str, rtol: float, atol: float) -> Solve:
    import torchdiffeq

    integrate = getattr(torchdiffeq, mode)

    def solve(y0: Any) -> Any:
        like = y0[0] if isinstance(y0, tuple) else y0
        times = torch.tensor(ts, dtype=like.dtype, device=like.device)
        y = integrate(field, y0, times, rtol=rtol, atol=atol, method=method)
        if len(ts) > 2:
            return y
        return tuple(part[1] for part in y) if isinstance(y, tuple) else y[1]

    return solve
