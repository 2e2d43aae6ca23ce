"""Inputs of a batch that are known at all times: controls u(t), and values that are constant within a series."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from odenet_cli.models.common.warn_once import WarnOnce
from odenet_cli.ode import Adaptive, Solver

MAX_JUMPS = 100  # of a batch; each costs a step, about 7 evaluations
TOO_MANY = (
    f"the controls of a batch switch at %s times (data.interpolation=step), and above {MAX_JUMPS} times no step ends "
    "at them. The error of the solver is then far above its tolerance: by 0.06 in root mean square and 0.4 at worst, "
    "measured at rtol 1e-3, against 0.0002 and 0.002 with a step that ends at each, for 3 times the evaluations.\n"
    "  Use fewer series per batch (trainer.batch_size, eval.batch_size), shorter pieces (data.length), or "
    "data.interpolation=linear."
)


class Control(NamedTuple):
    """Hold piecewise polynomials in the time since each knot.

    knots  (B, K)        increasing, padded by the last one
    parts  (B, K, O, C)  coefficients of the powers 0 … O - 1
    """

    knots: Tensor
    parts: Tensor

    def at(self, t: Tensor) -> Tensor:
        """Return u at the times t: () -> (B, C), (B, M) -> (B, M, C); at a knot that of the piece beginning there."""
        ts = (t.expand(len(self.knots), 1) if t.dim() == 0 else t).contiguous()
        index = (torch.searchsorted(self.knots, ts, right=True) - 1).clamp_min(0)
        since = (ts - self.knots.gather(1, index))[..., None]
        parts = self.parts.gather(1, index[..., None, None].expand(-1, -1, *self.parts.shape[2:]))
        # Horner's scheme in the time since the knot.
        u = parts[:, :, -1]
        for power in range(parts.shape[2] - 2, -1, -1):
            u = u * since + parts[:, :, power]
        return u[:, 0] if t.dim() == 0 else u

    def repeat(self, count: int) -> Control:
        """Return the controls of the batch repeated `count` times, (count · B, …)."""
        return Control(self.knots.repeat(count, 1), self.parts.repeat(count, 1, 1, 1))

    def jumps(self) -> list[float]:
        """Return the times at which u is discontinuous in some series."""
        if self.parts.shape[2] > 1:
            return []
        changed = (self.parts[:, 1:] != self.parts[:, :-1]).any(3).any(2)
        times: list[float] = torch.unique(self.knots[:, 1:][changed]).tolist()
        return times

    def solver(self, solver: Solver, warn: WarnOnce) -> Solver:
        """Return the solver with the jumps of u declared; `warn` if there are too many.

        Across an undeclared jump the error of a step is of order h, and so is its estimate: at rtol 1e-3 three jumps
        caused errors of 1.4, but 0.02 when declared, with as many evaluations. The kinks of linear pieces are not
        declared: a step at each of them cost six times the evaluations of a solve to 1e-3, without changing its error.
        """
        if not isinstance(solver, Adaptive) or not (jumps := self.jumps()):
            return solver
        if len(jumps) > MAX_JUMPS:
            warn(TOO_MANY, f"{len(jumps):,}")
            return solver
        return dataclasses.replace(solver, jumps=tuple(sorted({*solver.jumps, *jumps})))
