"""The exact gradient of reversible steps, in O(1) memory (McCallum & Foster 2024; Zhuang et al. 2021, "MALI").

The forward solve differs from that of other gradients: it solves a pair (y, z) (`odenet_cli.ode.reversible_pair`), with
about twice the evaluations, and keeps the step sizes as floats and the final pair. The backward pass undoes each step
exactly and differentiates it on the way; at the end it checks once that it has come back to y0.
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
from odenet_cli.ode.outputs import StepRecord, steps
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.reversible_pair import check_restored, halves, pair_step
from odenet_cli.ode.settings import unwrap_scalars
from odenet_cli.ode.state import State, weighted_sum
from odenet_cli.ode.step import rk_step
from odenet_cli.ode.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Reversible:
    """Solve a pair that can be run backward exactly.

    coupling  λ in (0, 1); a smaller one is more stable forward, and less accurate backward; 1 would be no coupling
    """

    coupling: float = 0.999
    saves_outputs = False
    repeats_steps = True
    rounding = 100.0  # undoing the steps amplifies it
    solve = solve_as_node

    def __post_init__(self) -> None:
        unwrap_scalars(self)
        if not 0 < self.coupling < 1:
            raise ValueError(f"gradient.coupling={self.coupling} must lie between 0 and 1.")

    def forward(self, problem: Problem) -> tuple[list[State], list[StepRecord], list[Tensor]]:
        records: list[StepRecord] = []
        count = repeated_evaluations(problem)
        pairs, parts, solver = [(*problem.rhs.y0, *problem.rhs.y0)], len(problem.rhs.y0), problem.solver
        # The error that is controlled is that of z's step.
        controlled = getattr(solver, "n_controlled", None) or parts
        loop = solver.loop(problem.vector_field, n_dynamic=parts, n_controlled=controlled, coupling=self.coupling)
        for accepted in steps(loop, problem, pairs):
            k = accepted.step.k
            # The draws of what goes backward again: the stages from z, and those from y₁; not f1, which is the error's.
            records.append(problem.record(accepted, [*k[:count], *k[-count:]]))
        # Detached: an output that autograd knows would hold itself through what is kept for it.
        return [halves(pair)[1] for pair in pairs], records, [part.detach() for part in pairs[-1]]

    def backward(
        self, problem: Problem, tape: list[StepRecord], kept: Sequence[Tensor], cotangents: Cotangents
    ) -> Gradients:
        """Undo step by step: z = z₁ + Ψ(-h; y₁), y = (y₁ - (1 - λ) z - Ψ(h; z)) / λ, and the cotangents likewise."""
        vjps, coupling, count = VJPAccumulator(problem), self.coupling, repeated_evaluations(problem)
        z, y = halves(tuple(kept))
        bar_z: list[MaybeTensor] = [None] * len(z)  # dL/dz and dL/dy
        bar_y: list[MaybeTensor] = [None] * len(y)
        for record in reversed(tape):
            t, h, draws = record.t, record.h, record.draws
            if record.output_at_end is not None:
                incoming = cotangents[record.output_at_end]
                if vjps.time_gradients is not None and record.segment.j is None:
                    vjps.vjp(output_at_jump(problem, record, y, vjps.time_gradients), incoming, ())
                accumulate(bar_y, incoming)

            # The second half of the step first, as it was taken last: z₁ = z - Ψ(-h; y₁).
            # ȳ₁ += -(∂Ψ(-h; y₁)/∂y₁)ᵀ z̄₁ and z̄ = z̄₁
            leaves = as_leaves(y)
            backward = increment(problem, record, t + h, leaves, -h, vjps.time_gradients, draws[count:])
            accumulate(bar_y, vjps.vjp(backward, [None if x is None else -x for x in bar_z], leaves))
            z = tuple(a + b.detach() for a, b in zip(z, backward))

            # Then the first half: y₁ = λ y + (1 - λ) z + Ψ(h; z).
            # z̄ += (∂Ψ(h; z)/∂z)ᵀ ȳ₁ + (1 - λ) ȳ₁ and ȳ = λ ȳ₁
            leaves = as_leaves(z)
            forward = increment(problem, record, t, leaves, h, vjps.time_gradients, draws[:count])
            accumulate(bar_z, vjps.vjp(forward, bar_y, leaves))
            accumulate(bar_z, [None if x is None else (1 - coupling) * x for x in bar_y])
            bar_y = [None if x is None else coupling * x for x in bar_y]
            # Each division by λ < 1 makes rounding errors grow on the way back, the price of stability forward.
            y = tuple((a - (1 - coupling) * b - c.detach()) / coupling for a, b, c in zip(y, z, forward))
        check_restored(y, problem.rhs.y0, halves(tuple(kept))[1], problem.solver)
        accumulate(bar_y, bar_z)  # the pair began as (y0, y0)
        accumulate(bar_y, cotangents[0])
        return vjps.gradients(bar_y)

    def double_backward(self, problem: Problem, tape: list[StepRecord], y0: State, cotangents: Cotangents) -> Gradients:
        def solve_again(y: State, time_gradients: TimeGradients | None) -> dict[int, State]:
            outputs, pair = {}, (*y, *y)
            for record in tape:
                f = restrict_to_segment(problem.repeated_field(record.draws), record.segment, time_gradients)
                f0 = f(record.t, halves(pair)[0])
                pair = pair_step(problem.solver.tableau, f, self.coupling, record.t, pair, record.h, f0).y
                if (j := record.output_at_end) is not None:
                    outputs[j] = halves(pair)[1]
                    if time_gradients is not None and record.segment.j is None:
                        outputs[j] = output_at_jump(problem, record, outputs[j], time_gradients)
            return outputs

        return double_backward(problem, y0, cotangents, solve_again)


def repeated_evaluations(problem: Problem) -> int:
    """Return how many evaluations of a Runge-Kutta step are made again: not the one at its end (FSAL)."""
    tableau: Tableau = problem.solver.tableau
    return tableau.stages - tableau.fsal


@torch.enable_grad()
def output_at_jump(problem: Problem, record: StepRecord, y: State, time_gradients: TimeGradients) -> State:
    """Return an output at a step's end on a jump, with the gradient of its time, which the step's end does not have."""
    # y + f · (t_j - t_j): the value stays, and dy/dt_j is f on this side of the jump.
    time = time_gradients.times[record.output_at_end]
    dy = problem.rhs(record.segment.visible_time(record.end), y)
    return tuple(part + k * (time - time.detach()).to(part.real.dtype) for part, k in zip(y, dy))


@torch.enable_grad()
def increment(
    problem: Problem,
    record: StepRecord,
    t: float,
    y: State,
    h: float,
    time_gradients: TimeGradients | None,
    draws: Sequence[Draw],
) -> State:
    """Return Ψ(h; t, y), the increment of a Runge-Kutta step, with its graph."""
    tableau = problem.solver.tableau
    f = restrict_to_segment(problem.repeated_field(draws), record.segment, time_gradients)
    # y1 of the step is y + Ψ: taking y off again would lose the digits of a small Ψ.
    k = rk_step(tableau, f, t, y, h, f(t, y), with_f1=False).k
    weights = tableau.solution_weights
    return tuple(weighted_sum(h, weights, [k[j][i] for j, _ in weights]) for i in range(len(y)))


GRADIENT = Reversible
