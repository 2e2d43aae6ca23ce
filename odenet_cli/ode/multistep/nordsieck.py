"""Multistep formulas on a Nordsieck array z_k = h^k y^(k) / k!: what a step does to the array, as functions of tensors.

C. W. Gear, "Numerical Initial Value Problems in ODEs" (1971), chapter 9; Hairer, Nørsett & Wanner, III.6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode import interpolation
from odenet_cli.ode.state import State

Nordsieck = list[State]


class Formula(NamedTuple):
    """Hold the formula of order q on one grid; e is the correction of the predicted state.

    correct     l_0 … l_q: the array becomes z_k + l_k e
    error       the local error is `error` e
    lower       that of order q - 1 would be `lower` z_q
    higher      that of order q + 1 would be `higher` (e - what e was one step ago, carried over to this step)
    difference  e = `difference` h^(q+1) y^(q+1)
    """

    correct: tuple[float, ...]
    error: float
    lower: float
    higher: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class Multistep:
    """Hold a family of formulas of orders 1 to `max_order`, for the loop that chooses step and order.

    formula                  of order q, from the distances ξ_1 … ξ_{q+1} of the past points in units of the step
    order_change_polynomial  what, scaled, is added to the array's polynomial when the order changes, from the points
                             to be kept
    """

    max_order: int
    formula: Callable[[Sequence[Any]], Formula]
    order_change_polynomial: Callable[[Sequence[Any]], list[Any]]


def linear_combination(weights: Sequence[float], z: Sequence[State]) -> State:
    """Return Σ w_k z_k. High powers come first: they are small, and lose less to rounding."""
    parts = []
    # One tensor is made for each component, and the other terms are added in place.
    for column in zip(*z):
        total = column[-1] * weights[-1]
        for part, w in zip(column[-2::-1], weights[-2::-1]):
            total.add_(part, alpha=w)
        parts.append(total)
    return tuple(parts)


def predict(z: Nordsieck, eta: float, k: int) -> State:
    """Return z_k of the predicted array, one step of `eta` times the old length ahead (Pascal's triangle)."""
    # Taylor: h^k y^(k)(t + ηh) / k! = Σ C(n, k) η^(n-k) z_n; scaled by the new length ηh, that is η^k times as much.
    return linear_combination([comb(n, k) * eta**n for n in range(k, len(z))], z[k:])


def correction(correct: Sequence[float], h: float, predicted_hdy: State, dy: State) -> State:
    """Return e, which makes the corrected derivative that of the field: `predicted_hdy` + l_1 e = h f(t, y)."""
    # e = (h f(t, y) - predicted h y') / l_1
    # Two passes over memory for each component: predicted h y' times -1/l_1, and f added in place.
    inverse = 1.0 / correct[1]
    return tuple(torch.mul(old, -inverse).add_(new, alpha=h * inverse) for old, new in zip(predicted_hdy, dy))


def add(y: State, e: State) -> State:
    return tuple(part + change for part, change in zip(y, e))


def apply_correction(
    z: Nordsieck, eta: float, correct: Sequence[float], y: State, predicted_hdy: State, e: State
) -> Nordsieck:
    """Return the array after a step, given its corrected state and its predicted h y', which is used up."""
    # z_0 is the corrected state itself, so that the array and the state never differ by rounding.
    corrected = [y]
    for k, w in enumerate(correct[1:], start=1):
        # In place: `predict` has made the tensors, and nobody else holds them.
        # z_1 was predicted for the corrector already.
        predicted = predicted_hdy if k == 1 else predict(z, eta, k)
        corrected.append(tuple(part.add_(change, alpha=w) for part, change in zip(predicted, e)))
    return corrected


def change_order(z: Nordsieck, e: State, polynomial: Sequence[float], up: float | None) -> Nordsieck:
    """Return the array at the next order: up if `up` is the factor that makes the new highest z of e, which the last
    step added; else down. `polynomial` is the family's for the change."""
    # The polynomial vanishes in all that the lower of the two orders uses: a multiple of it makes or unmakes degree q.
    kept, top, sign = (z[:-1], z[-1], -1.0) if up is None else (z, tuple(part * up for part in e), 1.0)
    changed = [
        tuple(torch.add(part, change, alpha=sign * w) for part, change in zip(old, top)) if w else old
        for old, w in zip(kept, polynomial)
    ]
    return changed if up is None else [*changed, top]


def interpolate(z: Nordsieck, xs: Sequence[float] | Tensor) -> list[State]:
    """Return the array's polynomial at x steps from its point, for each x."""
    # Taylor's series about the array's point, whose coefficients it holds: Σ z_k x^k.
    powers = range(1, len(z))
    table = torch.stack([xs**k for k in powers], 1) if isinstance(xs, Tensor) else [[x**k for k in powers] for x in xs]
    return interpolation.linear_combinations(z[0], table, z[1:])
