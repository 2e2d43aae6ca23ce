"""Dense output: the solution inside a step, as weights on the step's stages (Hairer II.6)."""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.state import State
from odenet_cli.ode.tableau import OneStepMethod


def weights(tableau: OneStepMethod, theta: Any) -> tuple[Any, ...]:
    """Return b_i(θ) for θ in [0, 1], a number or a tensor; a row beyond the stages belongs to f1."""
    rows = tableau.dense_floats
    # b_i(0) = 0, as the polynomial begins at y: no row has a constant.
    powers = [theta**p for p in range(1, len(rows[0]) + 1)]
    return tuple(sum(map(mul, row, powers)) for row in rows)


def interpolate(
    tableau: OneStepMethod, y: State, h: float, k: Sequence[State], thetas: Sequence[float] | Tensor
) -> list[State]:
    """Return y(t + θh) for each θ; a tensor (n,) passes its gradients on."""
    k = k[: len(tableau.dense_floats)]
    if isinstance(thetas, Tensor):
        return linear_combinations(y, h * torch.stack(weights(tableau, thetas), dim=1), k)
    return linear_combinations(y, [[h * w for w in weights(tableau, theta)] for theta in thetas], k)


def polynomial(tableau: OneStepMethod, y: State, h: float, k: Sequence[State]) -> list[State]:
    """Return the coefficients of 1, θ, θ², … in y(t + θh)."""
    # The same b_i(θ), sorted by powers: the coefficient of θ^p is h Σ_i b_ip k_i.
    table = [[h * c for c in column] for column in zip(*tableau.dense_floats)]
    zeros = tuple(map(torch.zeros_like, y))
    return [y, *linear_combinations(zeros, table, k[: len(tableau.dense_floats)])]


def linear_combinations(y: State, table: Sequence[Sequence[float]] | Tensor, terms: Sequence[State]) -> list[State]:
    """Return y + Σ w_j x_j for each row of weights in `table`; as a tensor (rows, terms) it passes its gradients on."""
    # Stages without weight at any θ, as four of DOP853's, are not stacked.
    used = [j for j in range(len(terms)) if isinstance(table, Tensor) or any(row[j] for row in table)]
    if not used:
        return [y] * len(table)
    # One matrix product over the stacked terms: a step may hold hundreds of outputs.
    parts: list[Sequence[Tensor]] = []
    for i, part in enumerate(y):
        # Weights are real also where the state is complex; a matrix is made in the real dtype and then cast.
        if isinstance(table, Tensor):
            matrix = table.to(part.real.dtype)
        else:
            matrix = torch.tensor([[row[j] for j in used] for row in table], dtype=part.real.dtype, device=part.device)
        # (outputs, terms) · (terms, *S) -> (outputs, *S)
        stacked = torch.stack([terms[j][i] for j in used])
        parts.append((part + torch.tensordot(matrix.to(part.dtype), stacked, 1)).unbind())
    return list(zip(*parts))
