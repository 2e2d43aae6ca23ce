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
from odenet_cli.ode.autograd.node import Gathered, plainly, point, taped
from odenet_cli.ode.autograd.times import Clock, confine
from odenet_cli.ode.compiled.loops import advance, on_gpu
from odenet_cli.ode.gradient import Cotangents, Gradients, MaybeTensor
from odenet_cli.ode.outputs import Place, Taken, thetas
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.state import State
from odenet_cli.ode.step import extended, rk_step


@dataclass(frozen=True)
class Replay:
    """Keep the states, and take the steps again backward."""

    keeps_outputs = False
    repeats = True

    def solve(self, problem: Problem) -> tuple[Tensor, ...]:
        return taped(self, problem)

    def forward(self, problem: Problem) -> tuple[list[State], list[Place], list[Tensor]]:
        places: list[Place] = []
        kept: list[Tensor] = []

        def keep(taken: Taken) -> None:
            places.append(problem.place(taken, taken.step.slopes))
            kept.extend(taken.y)

        return problem.integrate(problem.evaluate, keep), places, kept

    def backward(
        self, problem: Problem, tape: list[Place], kept: Sequence[Tensor], cotangents: Cotangents
    ) -> Gradients:
        if problem.outside and problem.solver.compile:  # a compiler does not follow a graph out of the field
            problem = replace(problem, solver=replace(problem.solver, compile=False))
        gathered, parts = Gathered(problem), len(problem.rhs.y0)
        a: list[MaybeTensor] = [None] * parts
        for n in reversed(range(len(tape))):
            place = tape[n]
            if place.lands is not None:
                gathered.arrive(a, cotangents, place.lands)
            arriving = [x for j, _ in place.inside for x in cotangents[j]]
            if any(x is not None for x in (*a, *arriving)):
                start = point(kept[n * parts : (n + 1) * parts])
                with torch.enable_grad():
                    end, inside = again(problem, place, start, gathered.clock)
                    a = gathered.pull([*end, *(part for state in inside for part in state)], [*a, *arriving], start)
                if problem.solver.compile and on_gpu(start):  # the next step's CUDA graph writes over this one's
                    a = [None if part is None else part.clone() for part in a]
        gathered.arrive(a, cotangents, 0)
        return gathered.gradients(a)

    def backward_again(self, problem: Problem, tape: list[Place], y0: State, cotangents: Cotangents) -> Gradients:
        problem = replace(problem, solver=replace(problem.solver, compile=False))  # compiled steps have one derivative

        def steps(y: State, clock: Clock | None) -> dict[int, State]:
            states = {}
            for place in tape:
                y, inside = again(problem, place, y, clock)
                states.update({j: state for (j, _), state in zip(place.inside, inside)})
                if place.lands is not None:
                    states[place.lands] = y
            return states

        return plainly(problem, y0, cotangents, steps)


def again(problem: Problem, place: Place, y: State, clock: Clock | None) -> tuple[State, list[State]]:
    """An accepted step taken again from `y`: the state at its end, and the outputs inside it."""
    tableau, t, h = problem.solver.tableau, place.t, place.h
    if problem.solver.compile and clock is None and not place.inside:
        return advance(tableau, problem.evaluate_again, place.segment, t, y, h, graphs=on_gpu(y)), []
    evaluate = confine(problem.repeat(place.draws), place.segment, clock)
    step = rk_step(tableau, evaluate, t, y, h, evaluate(t, y), close=bool(place.inside))
    if not place.inside:
        return step.y, []
    closing = [] if tableau.fsal else [evaluate(place.end, step.y)]
    k = extended(tableau, evaluate, t, y, h, [*step.slopes, *closing])
    return step.y, interpolation.inside(tableau, y, h, k, thetas(place, clock))


GRADIENT = Replay
