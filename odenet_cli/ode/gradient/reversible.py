"""The exact gradient of reversible steps, in O(1) memory (McCallum & Foster 2024; Zhuang et al. 2021, "MALI").

The forward solve is another one: that of a pair (y, z), see `odenet_cli.ode.reversible_pair`, about twice the
evaluations. Kept are the step sizes, as floats, and the final pair; backward, each step is undone and swept back over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odenet_cli.ode.autograd.node import VJPAccumulator, accumulate, as_leaves, double_backward, solve_as_node
from odenet_cli.ode.autograd.times import TimeGradients, restrict_to_segment
from odenet_cli.ode.field.random_state import Draw
from odenet_cli.ode.gradient import Cotangents, Gradients, MaybeTensor
from odenet_cli.ode.outputs import AcceptedStep, StepRecord, outputs
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.reversible_pair import halves, pair_step
from odenet_cli.ode.settings import unwrap_scalars
from odenet_cli.ode.state import State, weigh
from odenet_cli.ode.step import rk_step
from odenet_cli.ode.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Reversible:
    """Solve a pair that can be run backward exactly.

    coupling  λ in (0, 1): 1 would couple nothing; the smaller, the more stable forward and the less exact backward
    """

    coupling: float = 0.999
    saves_outputs = False
    repeats_steps = True

    def __post_init__(self) -> None:
        unwrap_scalars(self)
        if not 0 < self.coupling < 1:
            raise ValueError(f"gradient.coupling={self.coupling} must lie between 0 and 1.")

    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        return solve_as_node(self, problem)

    def forward(self, problem: Problem) -> tuple[list[State], list[StepRecord], list[Tensor]]:
        places: list[StepRecord] = []
        count = repeated(problem)
        pair = (*problem.rhs.y0, *problem.rhs.y0)
        loop = problem.solver.pair_loop(problem.evaluate, self.coupling, len(problem.rhs.y0))
        loop.f0, problem.f0 = problem.f0, None

        def on_step(taken: AcceptedStep) -> None:
            nonlocal pair
            k = taken.step.k
            places.append(problem.place(taken, [*k[:count], *k[-count:]]))
            pair = taken.step.y

        try:
            states = outputs(loop, problem.ts, pair, problem.segments, on_step)
        finally:
            problem.stats.accepted, problem.stats.rejected = loop.accepted, loop.rejected
        # Detached: an output that autograd knows would hold itself through what is kept for it.
        return [halves(state)[1] for state in states], places, [part.detach() for part in pair]

    def backward(
        self, problem: Problem, tape: list[StepRecord], kept: Sequence[Tensor], cotangents: Cotangents
    ) -> Gradients:
        """z = z₁ + Ψ(-h; y₁), y = (y₁ - (1 - λ) z - Ψ(h; z)) / λ, step by step, and the cotangents the same way."""
        gathered, mine, count = VJPAccumulator(problem), self.coupling, repeated(problem)
        z, y = halves(tuple(kept))
        bar_z: list[MaybeTensor] = [None] * len(z)
        bar_y: list[MaybeTensor] = [None] * len(y)
        for place in reversed(tape):
            if place.output_at_end is not None:
                came: list[MaybeTensor] = [None] * len(y)
                gathered.add_output_cotangents(came, cotangents, place.output_at_end)
                if gathered.time_gradients is not None and place.segment.j is None:
                    gathered.vjp(at_jump(problem, place, y, gathered.time_gradients), came, ())
                accumulate(bar_y, came)

            # z₁ = z - Ψ(-h; y₁)
            start = as_leaves(y)
            backward_increment = increment(
                problem, place, place.t + place.h, start, -place.h, gathered.time_gradients, place.draws[count:]
            )
            accumulate(bar_y, gathered.vjp(backward_increment, [None if x is None else -x for x in bar_z], start))
            z = tuple(a + b.detach() for a, b in zip(z, backward_increment))

            # y₁ = λ y + (1 - λ) z + Ψ(h; z)
            start = as_leaves(z)
            forward_increment = increment(
                problem, place, place.t, start, place.h, gathered.time_gradients, place.draws[:count]
            )
            accumulate(bar_z, gathered.vjp(forward_increment, bar_y, start))
            accumulate(bar_z, [None if x is None else (1 - mine) * x for x in bar_y])
            bar_y = [None if x is None else mine * x for x in bar_y]
            y = tuple((a - (1 - mine) * b - c.detach()) / mine for a, b, c in zip(y, z, forward_increment))
        accumulate(bar_y, bar_z)
        gathered.add_output_cotangents(bar_y, cotangents, 0)
        return gathered.gradients(bar_y)

    def double_backward(self, problem: Problem, tape: list[StepRecord], y0: State, cotangents: Cotangents) -> Gradients:
        def steps(y: State, time_gradients: TimeGradients | None) -> dict[int, State]:
            states, pair = {}, (*y, *y)
            for place in tape:
                evaluate = restrict_to_segment(problem.repeat(place.draws), place.segment, time_gradients)
                f0 = evaluate(place.t, halves(pair)[0])
                tableau, t, h = problem.solver.tableau, place.t, place.h
                pair = pair_step(tableau, evaluate, t, pair, h, f0, self.coupling, with_f1=False).y
                if place.output_at_end is not None:
                    states[place.output_at_end] = halves(pair)[1]
                    if time_gradients is not None and place.segment.j is None:
                        states[place.output_at_end] = at_jump(
                            problem, place, states[place.output_at_end], time_gradients
                        )
            return states

        return double_backward(problem, y0, cotangents, steps)


def repeated(problem: Problem) -> int:
    """Return the number of evaluations of a Runge-Kutta step that are made again: not the one at its end (FSAL)."""
    tableau: Tableau = problem.solver.tableau
    return tableau.stages - tableau.fsal


@torch.enable_grad()
def at_jump(problem: Problem, place: StepRecord, y: State, time_gradients: TimeGradients) -> State:
    """Return the output at a step's end that lies on a jump: it moves by itself, though the step's end stands still."""
    time = time_gradients.times[place.output_at_end]
    slope = problem.evaluate_again(place.segment.visible_time(place.end), y)
    return tuple(part + k * (time - time.detach()).to(part.real.dtype) for part, k in zip(y, slope))


@torch.enable_grad()
def increment(
    problem: Problem,
    place: StepRecord,
    t: float,
    y: State,
    h: float,
    time_gradients: TimeGradients | None,
    draws: Sequence[Draw],
) -> State:
    """Ψ(h; t, y), the increment of a Runge-Kutta step, with its graph."""
    tableau = problem.solver.tableau
    evaluate = restrict_to_segment(problem.repeat(draws), place.segment, time_gradients)
    k = rk_step(tableau, evaluate, t, y, h, evaluate(t, y), with_f1=False).k
    return tuple(
        weigh(h, tableau.solution_weights, [k[j][i] for j, _ in tableau.solution_weights]) for i in range(len(y))
    )


GRADIENT = Reversible
