"""The steps that a solve has taken, taken again in another precision under plain autograd.

Both classes stand in the place of a gradient: `Noted` in a forward pass that notes where the steps were, `Retraced` in
one that chooses none and takes those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from odenet_cli.ode import Solver
from odenet_cli.ode.clock import confine
from odenet_cli.ode.gradient.replay import Replay, again
from odenet_cli.ode.gradient.reversible import Reversible
from odenet_cli.ode.outputs import Place
from odenet_cli.ode.pair import halves, pair_step
from odenet_cli.ode.problem import Problem, stacked
from odenet_cli.ode.state import State


@dataclass(frozen=True)
class Noted:
    """A forward pass as `of` makes it.

    places  for each solve, in their order, its accepted steps
    """

    of: Any
    places: list[list[Place]] = field(default_factory=list)

    @torch.no_grad()
    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        own = self.of if isinstance(self.of, Reversible) else Replay()
        states, places, _ = own.forward(problem)
        self.places.append(places)
        return stacked(states)


@dataclass(frozen=True)
class Retraced:
    """The steps at `places`, one list a solve; those of a pair of solutions where they are `of` a reversible gradient.

    Autograd sees them all, and keeps one state a step.
    """

    of: Any
    places: Iterator[list[Place]]

    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        states, paired = {0: problem.rhs.y0}, isinstance(self.of, Reversible)
        state = (*problem.rhs.y0, *problem.rhs.y0) if paired else problem.rhs.y0
        for place in next(self.places):
            step = self._of_pair if paired else again
            state, inside = checkpoint(step, problem, place, state, None, use_reentrant=False)
            states.update({j: made for (j, _), made in zip(place.inside, inside)})
            if place.lands is not None:
                states[place.lands] = halves(state)[1] if paired else state
        for j in range(1, len(problem.ts)):
            states.setdefault(j, states[j - 1])
        return stacked([states[j] for j in range(len(problem.ts))])

    def _of_pair(self, problem: Problem, place: Place, pair: State, clock: None) -> tuple[State, list[State]]:
        tableau, evaluate, t = problem.solver.tableau, confine(problem.evaluate, place.segment), place.t
        opening = evaluate(t, halves(pair)[0])
        return pair_step(tableau, evaluate, t, pair, place.h, opening, self.of.coupling, close=False).y, []


def noting(solver: Solver) -> Solver:
    """`solver`, its gradient one that notes the steps."""
    return replace(solver, gradient=Noted(solver.differentiate))


def retracing(noted: Solver) -> Solver:
    """A solver that takes the steps that `noted` has noted."""
    notes: Any = noted.gradient
    return replace(noted, gradient=Retraced(notes.of, iter(notes.places)))
