"""The reversible pair of McCallum & Foster, "Efficient, accurate and stable gradients for neural ODEs" (2024).

Beside the solution y runs a second one, z. With Ψ the increment of any Runge-Kutta step and λ the coupling,

    y₁ = λ y + (1 - λ) z + Ψ(h; t, z),      z₁ = z - Ψ(-h; t + h, y₁)

which is solved for (y, z) given (y₁, z₁): no step need be kept. A state here is (*z, *y), and the field reads z.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from odenet_cli.ode.control import Norm
from odenet_cli.ode.errors import NotReversible
from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop, error_ratio
from odenet_cli.ode.outputs import AcceptedStep
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State, VectorField, combine, norms
from odenet_cli.ode.step import Step, errors, rk_step
from odenet_cli.ode.tableau import Tableau

MAX_DRIFT = 300.0
"""So many tolerances may lie between y and z: a decay by exp(5), whose partner grows by 150, passes."""


def pair_step(
    tableau: Tableau,
    evaluate: VectorField,
    t: float,
    pair: State,
    h: float,
    f0: State,
    coupling: float,
    with_f1: bool,
) -> Step:
    """One step of the pair, given `opening`, the field at (t, z); `close` for an error estimate, where there is one."""
    z, y = halves(pair)
    forward_increment = rk_step(tableau, evaluate, t, z, h, f0, with_f1=with_f1)
    y1 = tuple(a + coupling * (b - a) for a, b in zip(z, y))
    y1 = combine(y1, h, tableau.solution_weights, forward_increment.k)
    backward_increment = rk_step(
        tableau, evaluate, t + h, y1, -h, evaluate(t + h, y1, tableau.used_stages[0]), with_f1=False
    )
    z1 = combine(z, h, tableau.solution_weights, backward_increment.k)
    return Step((*z1, *y1), [*forward_increment.k, *backward_increment.k])


def halves(pair: State) -> tuple[State, State]:
    """z and y."""
    return pair[: len(pair) // 2], pair[len(pair) // 2 :]


@dataclass(kw_only=True)
class PairLoop(AdaptiveLoop):
    """Adaptive steps of the pair. Each output time is a step's end, and y and z are watched."""

    coupling: float

    def spans(self, count: int) -> list[tuple[int, int]]:
        return [(j, j + 1) for j in range(count - 1)]

    def _attempt(self, t: float, y: State, h: float, f0: State) -> tuple[Step, float]:
        step = pair_step(self.tableau, self.f, t, y, h, f0, self.coupling, with_f1=True)
        with torch.no_grad():
            error_scale = self.norm.error_scale(
                halves(y)[0][: self.n_controlled], halves(step.y)[0][: self.n_controlled]
            )
            estimates = errors(self.tableau, h, step.k, self.n_controlled)
            *found, apart = self.norm.scaled_norms(estimates, error_scale, largest=drift(step.y, self.norm))
        if (ratio := error_ratio(*found)) <= 1.0:
            check_drift(apart)
        return step, ratio


@dataclass(kw_only=True)
class FixedPairLoop(FixedLoop):
    """Fixed steps of the pair. There is no tolerance to watch y and z by: they may lie as far apart as 1 + |y|."""

    coupling: float

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        pair = y
        for taken in super().run(segment, y):
            pair = taken.step.y
            yield taken
        apart = norms([drift(pair, Norm(1 / MAX_DRIFT, 1 / MAX_DRIFT))], [math.inf])[0] / MAX_DRIFT
        if not apart <= 1:
            raise NotReversible(
                f"the two solutions of gradient=reversible are {apart:.3g} (1 + |y|) apart: the field decays too fast "
                "to be run backward. Use gradient=replay, or try a smaller gradient.coupling."
            )

    def _take(self, t: float, y: State, h: float, f0: State) -> Step:
        return pair_step(self.tableau, self.f, t, y, h, f0, self.coupling, with_f1=False)


def drift(pair: State, norm: Norm) -> State:
    """y - z in tolerances around y."""
    z, y = halves(pair)
    return tuple((b - a) / size for a, b, size in zip(z, y, norm.error_scale(y, y)))


def check_drift(apart: float) -> None:
    """Refuse a pair that is too far apart: decay of y is growth of y - z, which is lost then."""
    if not apart <= MAX_DRIFT:
        raise NotReversible(
            f"the two solutions of gradient=reversible are {apart:.3g} tolerances apart (more than {MAX_DRIFT:g}): the "
            "field decays too fast to be run backward. Use gradient=replay, or try a smaller gradient.coupling; the "
            "tolerance is not the cause."
        )
