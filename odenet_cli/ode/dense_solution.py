"""The solution as a function of time: the dense output of every step, kept as a polynomial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.outputs import steps
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.scalars import widest
from odenet_cli.ode.settings import as_times
from odenet_cli.ode.state import State


class DenseSolution:
    """Evaluate a solution between the first and the last time of its solve; made by `Adaptive.dense` or `Fixed.dense`.

    >>> path = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6).dense(lambda t, y: -y, torch.ones(3), [0.0, 1.0])
    >>> path(0.3)                          # (3,)
    >>> path(torch.linspace(0, 1, 50))     # (50, 3)

    A time outside raises `ValueError`, except by rounding. A path has no gradients with respect to the field or y0,
    only with respect to the time at which it is evaluated; for others, give this time to the solver as an output time.

    ends    the ends of the steps, ts[0] first, in the order of the solve
    degree  the highest degree of their polynomials
    stats   the cost of the solve
    """

    def __init__(self, problem: Problem, resolution: float) -> None:
        # Nothing of the right-hand side, which would keep the field in memory, and out of pickles those that cannot go.
        self.stats, self._single = problem.rhs.stats, problem.rhs.single
        loop = problem.loop(interpolated=True)
        self.ends = [problem.ts[0]]
        pieces: list[tuple[float, float, list[State]]] = []
        # A loop can interpolate only its last step, so the polynomial is computed at once.
        for accepted in steps(loop, problem, [problem.y0]):
            self.ends.append(accepted.end)
            pieces.append((accepted.h, *loop.polynomial(accepted)))
        if not pieces:  # no time passes
            self.ends, pieces = self.ends * 2, [(1.0, problem.ts[0], [problem.rhs.y0])]
        # Both the times of the solve and those of an evaluation may have been rounded.
        self._resolution, device = resolution, problem.rhs.device
        h, origin, polynomials = zip(*pieces)
        # Stacked over all steps, so that any number of times needs one search and one Horner scheme.
        dtype = widest(device)
        self._h = torch.tensor(h, dtype=dtype, device=device)
        self._origin = torch.tensor(origin, dtype=dtype, device=device)
        self._direction = math.copysign(1.0, h[0])
        self._stops = self._direction * torch.tensor(self.ends[1:], dtype=dtype, device=device)
        self._coefficients = [_rows(polynomials, i) for i in range(len(problem.rhs.y0))]
        self.degree = len(self._coefficients[0]) - 1

    def __call__(self, t: float | Sequence[float] | Tensor) -> Any:
        """Return the state at t: (*S) for a number, (*t.shape, *S) for a tensor of times of any shape."""
        # Times given in float32 may lie outside by rounding, and then mean the end.
        asked, resolution = as_times(t)
        times = asked.to(self._h)
        low, high = sorted((self.ends[0], self.ends[-1]))
        within = times.detach().clamp(low, high)
        slack = 2 * max(resolution, self._resolution) * max(abs(low), abs(high))
        outside = ~((times.detach() - within).abs() <= slack)
        if bool(outside.any()):
            bad = times.detach()[outside][0].item()
            raise ValueError(f"t = {bad:.6g} is not between {low:.6g} and {high:.6g}, where this path was solved.")
        times = times + (within - times.detach())  # the value of the end, the gradient of the time asked for
        # With the sign of the direction the stops are rising for a solve backward in time too.
        n = torch.searchsorted(self._stops, self._direction * within).clamp_(max=len(self._stops) - 1)
        x = (times - self._origin[n]) / self._h[n]
        parts = tuple(_horner(rows, n, x) for rows in self._coefficients)
        return parts[0] if self._single else parts


def _rows(polynomials: Sequence[Sequence[State]], i: int) -> list[Tensor]:
    """Return the coefficients of each power in component `i`, stacked over the steps; zero above a step's degree."""
    # The degree of an Adams step is its order, which varies.
    count = max(map(len, polynomials))
    nothing = torch.zeros_like(polynomials[0][0][i])
    return [torch.stack([p[power][i] if power < len(p) else nothing for p in polynomials]) for power in range(count)]


def _horner(rows: Sequence[Tensor], n: Tensor, x: Tensor) -> Tensor:
    """Return Σ c_p[n] x^p, for each x the polynomial of its step n."""
    shaped = x.to(rows[0].real.dtype).reshape((*x.shape, *[1] * (rows[0].dim() - 1)))
    total = rows[-1][n]
    for row in rows[-2::-1]:
        total = row[n] + shaped * total
    return total
