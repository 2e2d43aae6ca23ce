"""The reversible pair of McCallum & Foster, "Efficient, accurate and stable gradients for neural ODEs" (2024).

A second solution z is computed beside y. With Ψ the increment of any Runge-Kutta step and λ the coupling,

    y₁ = λ y + (1 - λ) z + Ψ(h; t, z),      z₁ = z - Ψ(-h; t + h, y₁)

which can be solved for (y, z) given (y₁, z₁), so no step needs to be kept. The state of the pair is (*z, *y), and f is
evaluated at z and at y₁.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from odenet_cli.ode.control import Norm
from odenet_cli.ode.errors import NotReversible
from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop, StepFunction
from odenet_cli.ode.outputs import AcceptedStep
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State, VectorField, combine, norms
from odenet_cli.ode.step import Step, error_estimates, rk_step
from odenet_cli.ode.tableau import Tableau

MAX_DRIFT = 300.0
"""Largest difference of y and z in tolerances: a decay by exp(5), where y - z grows by 150, is still allowed."""
FIXED = Norm(1 / MAX_DRIFT, 1 / MAX_DRIFT)
"""Fixed steps have no tolerance: the drift may reach 1 + |y|."""


def pair_step(
    tableau: Tableau,
    f: VectorField,
    coupling: float,
    t: float,
    pair: State,
    h: float,
    f0: State,
    *,
    with_f1: bool = False,
) -> Step:
    """Advance the pair from `t` to `t + h`, given `f0 = f(t, z)`; `with_f1` for an error estimate, if there is one."""
    z, y = halves(pair)
    forward = rk_step(tableau, f, t, z, h, f0, with_f1=with_f1)
    # λ y + (1 - λ) z, written so that it is z exactly where y = z, as at the start.
    y1 = tuple(a + coupling * (b - a) for a, b in zip(z, y))
    y1 = combine(y1, h, tableau.solution_weights, forward.k)
    # A first stage may have no weight, as the midpoint rule's: f is then needed for z, but not for quadratures.
    f1 = f(t + h, y1, tableau.used_stages[0])
    # The step from y₁ runs backward over the same interval. z₁ - z depends only on y₁, and y₁ - λy only on z, so that
    # each half can be inverted exactly when the other one is known.
    backward = rk_step(tableau, f, t + h, y1, -h, f1, with_f1=False)
    z1 = combine(z, h, tableau.solution_weights, backward.k)
    return Step((*z1, *y1), [*forward.k, *backward.k])


def halves(pair: State) -> tuple[State, State]:
    """Return z and y."""
    # One tuple, so that loops, norms and outputs treat a pair like any state.
    return pair[: len(pair) // 2], pair[len(pair) // 2 :]


@dataclass(kw_only=True)
class PairLoop(AdaptiveLoop):
    """Take adaptive steps of the pair. Each output time is a step's end, and the drift of y from z is checked."""

    coupling: float

    def spans(self, count: int) -> list[tuple[int, int]]:
        # A pair has no dense output.
        return [(j, j + 1) for j in range(count - 1)]

    def step_function(self) -> StepFunction:
        return partial(pair_step, self.tableau, self.f, self.coupling, with_f1=True)

    @torch.no_grad()
    def error_ratio(self, y: State, h: float, step: Step) -> float:
        # The error estimate is that of z's step, the first stages of k; y is held to z by their drift.
        scale = self.norm.error_scale(halves(y)[0][: self.n_controlled], halves(step.y)[0][: self.n_controlled])
        estimates = error_estimates(self.tableau, h, step.k, self.n_controlled)
        *errors, largest = self.norm.scaled_norms(estimates, scale, largest=drift(step.y, self.norm))
        ratio: float = self.norm.combine(*errors)
        if ratio <= 1.0:
            check_drift(largest)
        return ratio


@dataclass(kw_only=True)
class FixedPairLoop(FixedLoop):
    """Take fixed steps of the pair."""

    coupling: float

    def step_function(self) -> StepFunction:
        return partial(pair_step, self.tableau, self.f, self.coupling)

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        pair = y
        for accepted in super().run(segment, y):
            pair = accepted.step.y
            yield accepted
        # One look at the device a segment, as for finiteness.
        (largest,) = norms([drift(pair, FIXED)], [math.inf])
        if not largest <= MAX_DRIFT:
            raise NotReversible(
                f"the two solutions of gradient=reversible are {largest / MAX_DRIFT:.3g} (1 + |y|) apart: the field "
                "decays too fast to be run backward. Use gradient=replay, or try a smaller gradient.coupling."
            )


def drift(pair: State, norm: Norm) -> State:
    """Return y - z in tolerances around y."""
    # The maximum, not the mean, since a single component without valid digits ruins the backward pass.
    z, y = halves(pair)
    return tuple((b - a) / scale for a, b, scale in zip(z, y, norm.error_scale(y, y)))


def check_drift(largest: float) -> None:
    """Raise NotReversible if the pair is too far apart: decay of y is growth of y - z, whose digits are lost then."""
    if not largest <= MAX_DRIFT:
        raise NotReversible(
            f"the two solutions of gradient=reversible are {largest:.3g} tolerances apart (more than {MAX_DRIFT:g}): "
            "the field decays too fast to be run backward. Use gradient=replay, or try a smaller gradient.coupling; "
            "the tolerance is not the cause."
        )


def check_restored(y: State, y0: State, y1: State, solver: Any) -> None:
    """Raise NotReversible if the steps that were undone, from `y1` on, led to `y` and not back to `y0`."""
    # Rounding grows on the way back, by 1/λ a step and where the solution decays. What it has come to shows at the end,
    # in tolerances of each tensor's largest number: one that begins at 0 has the rounding of those it is mixed with.
    norm, count = Norm(solver.rtol, solver.atol) if hasattr(solver, "rtol") else FIXED, len(y)
    parts = [*(a - b for a, b in zip(y, y0)), *y0, *y1]
    values = norms([(part,) for part in parts], [math.inf] * len(parts))
    for part, away, *sizes in zip(y0, values[:count], values[count : 2 * count], values[2 * count :]):
        size = max(sizes)
        if not away <= MAX_DRIFT * (norm.atol + max(norm.rtol, RESOLUTION[part.dtype]) * size):
            raise NotReversible(
                f"gradient=reversible did not return to y0: with all steps undone it is {away:.3g} away, with numbers "
                f"up to {size:.3g}, so the gradient is wrong. Rounding errors grow by 1 / gradient.coupling per step "
                "on the way back: raise it, use dtype=float64, or gradient=replay."
            )
