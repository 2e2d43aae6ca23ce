"""Dense output: the solution inside a step, as weights on the step's slopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.state import Evaluation, State
from odenet_cli.ode.tableau import Tableau


def weights(tableau: Tableau, theta: Any) -> tuple[Any, ...]:
    """b_i(θ) for θ in [0, 1], a number or a tensor; a row beyond the stages belongs to the closing slope."""
    return tuple(sum(float(c) * theta**p for p, c in enumerate(row, start=1)) for row in tableau.dense_rows)


def slopes(tableau: Tableau, theta: float) -> tuple[float, ...]:
    """The derivatives b_i'(θ)."""
    return tuple(sum(p * float(c) * theta ** (p - 1) for p, c in enumerate(row, start=1)) for row in tableau.dense_rows)


def inside(tableau: Tableau, y: State, h: float, k: Sequence[Evaluation], thetas: Sequence[float]) -> list[State]:
    """y(t + θh) for each θ: one matrix product over the stacked slopes of the step."""
    table = [weights(tableau, theta) for theta in thetas]
    used = [i for i in range(len(k)) if any(row[i] for row in table)]
    return combined(y, [[h * row[j] for j in used] for row in table], [k[j].slope for j in used])


def combined(y: State, table: Sequence[Sequence[float]], terms: Sequence[State]) -> list[State]:
    """y + Σ w_j x_j for each row of weights in `table`: one matrix product over the stacked terms."""
    parts: list[Tensor] = []
    for part, column in zip(y, zip(*terms)):
        matrix = torch.tensor(table, dtype=part.real.dtype, device=part.device)
        parts.append(part + torch.tensordot(matrix.to(part.dtype), torch.stack(column), 1))
    return [tuple(part[n] for part in parts) for n in range(len(table))]
