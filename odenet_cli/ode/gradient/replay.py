"""Replay: the exact gradient of the solver's steps, from one state kept a step.

Backward, each accepted step is taken again under autograd, and its graph consumed at once: evaluations backward are
stages times accepted steps, nothing rejected. Checkpointing of the steps (Gholami et al. 2019; Zhuang et al. 2020,
"ACA").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odenet_cli.ode import interpolation
from odenet_cli.ode.autograd.node import VJPAccumulator, as_leaves, double_backward, solve_as_node
from odenet_cli.ode.autograd.times import TimeGradients, restrict_to_segment
from odenet_cli.ode.compiled.loops import advance, on_gpu
from odenet_cli.ode.gradient import Cotangents, Gradients, MaybeTensor
from odenet_cli.ode.outputs import AcceptedStep, StepRecord, thetas
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.state import State
from odenet_cli.ode.step import interpolation_stages, rk_step


@dataclass(frozen=True)
class Replay:
    """Keep the states, and take the steps again backward."""

    saves_outputs = False
    repeats_steps = True

    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        return solve_as_node(self, problem)

    def forward(self, problem: Problem) -> tuple[list[State], list[StepRecord], list[Tensor]]:
        places: list[StepRecord] = []
        kept: list[Tensor] = []

        def on_step(taken: AcceptedStep) -> None:
            places.append(problem.place(taken, taken.step.k))
            kept.extend(taken.y)

        return problem.integrate(problem.evaluate, on_step), places, kept

    def backward(
        self, problem: Problem, tape: list[StepRecord], kept: Sequence[Tensor], cotangents: Cotangents
    ) -> Gradients:
        if problem.shares_graph and problem.solver.compile:  # a compiler does not follow a graph out of the field
            problem = replace(problem, solver=replace(problem.solver, compile=False))
        gathered, parts = VJPAccumulator(problem), len(problem.rhs.y0)
        a: list[MaybeTensor] = [None] * parts
        for n in reversed(range(len(tape))):
            place = tape[n]
            if place.output_at_end is not None:
                gathered.add_output_cotangents(a, cotangents, place.output_at_end)
            arriving = [x for j, _ in place.interior_outputs for x in cotangents[j]]
            if any(x is not None for x in (*a, *arriving)):
                start = as_leaves(kept[n * parts : (n + 1) * parts])
                with torch.enable_grad():
                    end, inside = again(problem, place, start, gathered.time_gradients)
                    a = gathered.vjp([*end, *(part for state in inside for part in state)], [*a, *arriving], start)
                if problem.solver.compile and on_gpu(start):  # the next step's CUDA graph writes over this one's
                    a = [None if part is None else part.clone() for part in a]
        gathered.add_output_cotangents(a, cotangents, 0)
        return gathered.gradients(a)

    def double_backward(self, problem: Problem, tape: list[StepRecord], y0: State, cotangents: Cotangents) -> Gradients:
        problem = replace(problem, solver=replace(problem.solver, compile=False))  # compiled steps have one derivative

        def steps(y: State, time_gradients: TimeGradients | None) -> dict[int, State]:
            states = {}
            for place in tape:
                y, inside = again(problem, place, y, time_gradients)
                states.update({j: state for (j, _), state in zip(place.interior_outputs, inside)})
                if place.output_at_end is not None:
                    states[place.output_at_end] = y
            return states

        return double_backward(problem, y0, cotangents, steps)


def again(
    problem: Problem, place: StepRecord, y: State, time_gradients: TimeGradients | None
) -> tuple[State, list[State]]:
    """An accepted step taken again from `y`: the state at its end, and the outputs inside it."""
    tableau, t, h = problem.solver.tableau, place.t, place.h
    if problem.solver.compile and time_gradients is None and not place.interior_outputs:
        return advance(tableau, problem.evaluate_again, place.segment, t, y, h, cuda_graph=on_gpu(y)), []
    evaluate = restrict_to_segment(problem.repeat(place.draws), place.segment, time_gradients)
    step = rk_step(tableau, evaluate, t, y, h, evaluate(t, y), with_f1=bool(place.interior_outputs))
    if not place.interior_outputs:
        return step.y, []
    f1 = [] if tableau.fsal else [evaluate(place.end, step.y)]
    k = interpolation_stages(tableau, evaluate, t, y, h, [*step.k, *f1])
    return step.y, interpolation.interpolate(tableau, y, h, k, thetas(place, time_gradients))


GRADIENT = Replay
