"""Inspect the vector fields of a network at the start of their solves, by two evaluations per solve.

These show the precision in which a field computes, and whether it is a function of (t, y) at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odenet_cli.ode import Solver
from odenet_cli.ode.field.random_state import Generator
from odenet_cli.ode.field.torch_settings import Dtypes
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.state import State
from odenet_cli.training import generators
from odenet_cli.training.exact_gradient.model_contexts import Objective, held_generators
from odenet_cli.training.exact_gradient.step_replay import SolvedBy


@dataclass(frozen=True)
class Look:
    """Hold the properties of a field at the start (t, y) of its solve.

    coarse    the dtypes below the state's in which it computed
    repeated  relative difference of a second evaluation at the same point, with the random generators in the same state
    random    it drew from one of these generators
    times     the output times have a gradient
    outputs   number of output times, with the start
    """

    t: float
    y: State
    value: State
    coarse: frozenset[torch.dtype]
    repeated: float
    random: bool
    times: bool
    outputs: int


def at_start(look: Callable[[Problem, float], None]) -> SolvedBy:
    """Stand in for a gradient method: call `look` at the start of each solve, with y0 as its solution."""

    def solve(problem: Problem) -> tuple[Tensor, ...]:
        look(problem, problem.segments(0, len(problem.ts) - 1)[0].visible_time(problem.ts[0]))
        return problem.stack([problem.rhs.y0] * len(problem.ts))

    return SolvedBy(solve)


def look(objective: Objective, solver: Solver, at: list[Look] | None = None) -> list[Look]:
    """Inspect the fields at the start of the solves of a loss, or `at` given points."""
    looks, held, points = list[Look](), held_generators(objective.model), iter(at or ())

    def note(problem: Problem, t: float) -> None:
        looks.append(_look(problem, t, held, next(points, None)))

    objective(replace(solver, gradient=at_start(note)))
    return looks


def _look(problem: Problem, t: float, held: list[Generator], point: Look | None) -> Look:
    """Inspect the field at the start t of its solve, or at another point.

    held  the network's own random generators
    """
    rhs = problem.rhs
    t = point.t if point else t
    y = tuple(a.to(b.dtype) for a, b in zip(point.y, rhs.y0)) if point else problem.y0
    before, place = generators.state(rhs.device), generators.fingerprint(rhs.device)
    own = [generator.get_state() for generator in held]
    dtypes = Dtypes()
    with dtypes:
        first = rhs(t, y)
    random, after = generators.fingerprint(rhs.device) != place, generators.state(rhs.device)
    generators.restore(before, rhs.device)
    for generator, state in zip(held, own):
        generator.set_state(state)
    second = rhs(t, tuple(part.clone() for part in y))
    generators.restore(after, rhs.device)
    bits = min(torch.finfo(part.dtype).bits // (2 if part.is_complex() else 1) for part in y)
    coarse = frozenset(dtype for dtype in dtypes.seen if torch.finfo(dtype).bits < bits)
    start, value = (tuple(part.detach().clone() for part in state) for state in (y, first))
    return Look(t, start, value, coarse, distance(second, first), random, problem.times is not None, len(problem.ts))


def distance(a: State, b: State) -> float:
    """Return ‖a - b‖ / ‖b‖ over all components; 0 where both are zero."""
    size = sum(float(part.detach().abs().double().square().sum()) for part in b)
    off = sum(float((x.detach() - y.detach()).abs().double().square().sum()) for x, y in zip(a, b))
    return (off / size) ** 0.5 if size else float(off > 0)
