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
from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop, combined
from odenet_cli.ode.outputs import Taken
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import Evaluate, State, combine, sizes
from odenet_cli.ode.step import Step, errors, rk_step
from odenet_cli.ode.tableau import Tableau

APART = 300.0
"""So many tolerances may lie between y and z: a decay by exp(5), whose partner grows by 150, passes."""


def pair_step(
    tableau: Tableau,
    evaluate: Evaluate,
    t: float,
    pair: State,
    h: float,
    opening: State,
    coupling: float,
    close: bool,
) -> Step:
    """One step of the pair, given `opening`, the field at (t, z); `close` for an error estimate, where there is one."""
    z, y = halves(pair)
    there = rk_step(tableau, evaluate, t, z, h, opening, close=close)
    y1 = tuple(a + coupling * (b - a) for a, b in zip(z, y))
    y1 = combine(y1, h, tableau.keep, there.slopes)
    back = rk_step(tableau, evaluate, t + h, y1, -h, evaluate(t + h, y1, tableau.weighty[0]), close=False)
    z1 = combine(z, h, tableau.keep, back.slopes)
    return Step((*z1, *y1), [*there.slopes, *back.slopes])


def halves(pair: State) -> tuple[State, State]:
    """z and y."""
    return pair[: len(pair) // 2], pair[len(pair) // 2 :]


@dataclass(kw_only=True)
class PairLoop(AdaptiveLoop):
    """Adaptive steps of the pair. Each output time is a step's end, and y and z are watched."""

    coupling: float

    def legs(self, count: int) -> list[tuple[int, int]]:
        return [(j, j + 1) for j in range(count - 1)]

    def _attempt(self, t: float, y: State, h: float, opening: State) -> tuple[Step, float]:
        step = pair_step(self.tableau, self.f, t, y, h, opening, self.coupling, close=True)
        with torch.no_grad():
            allowed = self.norm.tolerances(halves(y)[0][: self.judged], halves(step.y)[0][: self.judged])
            estimates = errors(self.tableau, h, step.slopes, self.judged)
            *found, apart = self.norm.sizes(estimates, allowed, largest=gaps(step.y, self.norm))
        if (ratio := combined(*found)) <= 1.0:
            watch(apart)
        return step, ratio


@dataclass(kw_only=True)
class FixedPairLoop(FixedLoop):
    """Fixed steps of the pair. There is no tolerance to watch y and z by: they may lie as far apart as 1 + |y|."""

    coupling: float

    def run(self, segment: Segment, y: State) -> Iterator[Taken]:
        pair = y
        for taken in super().run(segment, y):
            pair = taken.step.y
            yield taken
        apart = sizes([gaps(pair, Norm(1 / APART, 1 / APART))], [math.inf])[0] / APART
        if not apart <= 1:
            raise NotReversible(
                f"the two solutions of gradient=reversible are {apart:.3g} (1 + |y|) apart: the field decays too fast "
                "to be run backward. Use gradient=replay, or try a smaller gradient.coupling."
            )

    def _take(self, t: float, y: State, h: float, opening: State) -> Step:
        return pair_step(self.tableau, self.f, t, y, h, opening, self.coupling, close=False)


def gaps(pair: State, norm: Norm) -> State:
    """y - z in tolerances around y."""
    z, y = halves(pair)
    return tuple((b - a) / size for a, b, size in zip(z, y, norm.tolerances(y, y)))


def watch(apart: float) -> None:
    """Refuse a pair that is too far apart: decay of y is growth of y - z, which is lost then."""
    if not apart <= APART:
        raise NotReversible(
            f"the two solutions of gradient=reversible are {apart:.3g} tolerances apart (more than {APART:g}): the "
            "field decays too fast to be run backward. Use gradient=replay, or try a smaller gradient.coupling; the "
            "tolerance is not the cause."
        )
