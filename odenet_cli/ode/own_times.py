"""Solve for all samples of a batch together, to different times for each sample.

If the samples share most of their times, these are the output times of the solve. Otherwise a step could contain
thousands of outputs, each for a single sample. But the dense output of a step is a polynomial, which as many states as
it has coefficients determine. So the solve is made twice: without gradients, to find the ends of its steps, and then
with these few output times inside each step, between which each sample is interpolated at its own times. The results
are those of the dense output, and have gradients with every gradient method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from odenet_cli.ode.rosenbrock.formulas import Rosenbrock
from odenet_cli.ode.scalars import widest
from odenet_cli.ode.solver import Adaptive, Solver
from odenet_cli.ode.state import Field
from odenet_cli.ode.tableau import Tableau

FEW = 1000  # up to so many distinct times, output times cost no more than interpolation


class Pieces(NamedTuple):
    """Hold the pieces on which a path is a polynomial, and the nodes at which it is evaluated.

    ends   of the pieces, rising, the first is 0
    nodes  rising from 0 to 1, as fractions of each piece
    """

    ends: list[float]
    nodes: list[float]

    @property
    def times(self) -> list[float]:
        """The times of the nodes of all pieces; neighbouring pieces share one."""
        inner = self.nodes[:-1]
        return [a + (b - a) * node for a, b in pairwise(self.ends) for node in inner] + [self.ends[-1]]


def solve_at(solver: Solver, field: Field, y0: Any, times: Sequence[Tensor], args: Sequence[Any] = ()) -> list[Any]:
    """Solve y' = field(t, y, *args), y(0) = y0, to different times at or after 0 for each sample.

    y0     (B, *S), or a tuple of such tensors
    times  tensors (B_i, N_i) for the first B_0 samples, the next B_1 samples, and so on; unsorted within a row

    Returns for each of them the states (B_i, N_i, *S). If samples share few times, a `Fixed` solver divides the whole
    time into as many equal intervals as a sample has times, and takes its steps in these.
    """
    distinct, index = torch.unique(torch.cat([part.flatten() for part in times]), return_inverse=True)
    if distinct[0] < 0:
        raise ValueError(f"a sample's time is {float(distinct[0]):.6g}, and the solve begins at 0.")
    most = max(part.shape[1] for part in times)
    # Shared times: ordinary output times, from which each sample takes its own.
    if len(distinct) <= max(FEW, most):
        own = [part.view_as(asked) for part, asked in zip(index.split([part.numel() for part in times]), times)]
        return _each(outputs(solver, field, y0, distinct.tolist(), args), own)
    end = float(distinct[-1])
    if not isinstance(solver, Adaptive):
        # Every step is an output; interpolation between them is of the method's order.
        formulas = cast("Tableau | Rosenbrock", solver.formulas)  # a multistep method takes no fixed steps
        degree = max(3, formulas.order)
        count = math.ceil(most * solver.steps / degree)
        pieces = Pieces([end * n / count for n in range(count + 1)], [i / degree for i in range(degree + 1)])
        return _interpolated(pieces, replace(solver, steps=1)(field, y0, pieces.times, args).y, times)
    # Output times do not change the steps of an adaptive solve, so the second solve takes the steps of the first one,
    # and inside each of them it is the polynomial through these outputs.
    path = solver.dense(field, y0, [0.0, end], args)
    # The nodes are the extrema of Chebyshev's polynomial: rounding errors are amplified by (2/π) log n, with
    # equidistant nodes by 2^n.
    nodes = [0.5 - 0.5 * math.cos(math.pi * i / path.degree) for i in range(path.degree + 1)]
    pieces = Pieces(path.ends, nodes)
    y = solver(field, y0, pieces.times, args).y if torch.is_grad_enabled() else path(pieces.times)
    return _interpolated(pieces, y, times)


def outputs(solver: Solver, field: Field, y0: Any, ts: Sequence[float], args: Sequence[Any] = ()) -> Any:
    """Return the states (T, B, *S) at the rising times `ts` at or after 0, where y is y0."""
    # 0 is not added twice: outputs at equal times are copies, which would be kept for the gradient too.
    if ts[0] == 0.0 and len(ts) > 2:
        return solver(field, y0, ts, args).y
    # Of two times a solver returns the second alone.
    y = solver(field, y0, [0.0, *ts], args).y
    parts = tuple(part[None] if len(ts) == 1 else part[1:] for part in (y if isinstance(y, tuple) else (y,)))
    return parts if isinstance(y, tuple) else parts[0]


def _interpolated(pieces: Pieces, y: Any, times: Sequence[Tensor]) -> list[Any]:
    """Return the states at each sample's times, given those (T, B, *S) at the times of the pieces."""
    device = times[0].device
    ends, nodes = (torch.tensor(part, dtype=widest(device), device=device) for part in pieces)
    first, weights = [], []
    for asked in times:
        t = asked.to(ends).contiguous()
        # Piece n from ends[n] to ends[n + 1], its share x of it, and x - x_j for each node.
        n = torch.searchsorted(ends[1:], t).clamp(max=len(ends) - 2)
        distance = ((t - ends[n]) / (ends[n + 1] - ends[n]))[..., None] - nodes
        first.append(n * (len(nodes) - 1))  # neighbouring pieces share a node
        # Lagrange's polynomials, each 1 at its own node and 0 at the others.
        others = [[j for j in range(len(nodes)) if j != i] for i in range(len(nodes))]
        weights.append([(distance[..., rest] / (nodes[i] - nodes[rest])).prod(-1) for i, rest in enumerate(others)])
    return _each(y, first, weights)


def _each(y: Any, index: Sequence[Tensor], weights: Sequence[Sequence[Tensor]] | None = None) -> list[Any]:
    """Return Σ w_i y[index + i] for each sample, (B_i, N_i, *S) by index (B_i, N_i); without weights y[index]."""
    if isinstance(y, tuple):
        return list(zip(*(_each(part, index, weights) for part in y)))
    # One gather for each node, so that no table of all nodes' states is made.
    rows, result = y.transpose(0, 1).reshape(y.shape[1], len(y), -1), []
    for n, own in enumerate(index):
        mine, rows = rows[: len(own)], rows[len(own) :]
        picked = [
            mine.gather(1, (own + i)[..., None].expand(-1, -1, mine.shape[2]))
            for i in range(1 if weights is None else len(weights[n]))
        ]
        if weights is not None:
            picked = [w[..., None].to(y.real.dtype) * state for w, state in zip(weights[n], picked)]
        result.append(sum(picked[1:], picked[0]).view(*own.shape, *y.shape[2:]))
    return result
