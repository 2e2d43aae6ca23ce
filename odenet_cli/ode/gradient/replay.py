"""Replay: the exact gradient of the solver's steps, from one state kept per step.

The backward pass takes each accepted step again under autograd, and frees its graph at once. This costs the method's
stages (one less with FSAL) for each accepted step, and the extra stages of the dense output for steps with interior
outputs; rejected steps cost nothing. Also known as checkpointing of the steps (Gholami et al. 2019; Zhuang et al. 2020,
"ACA").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odenet_cli.ode import interpolation
from odenet_cli.ode.autograd.node import VJPAccumulator, accumulate, as_leaves, double_backward, solve_as_node
from odenet_cli.ode.autograd.times import TimeGradients, restrict_to_segment
from odenet_cli.ode.compiled.loops import advance, on_gpu
from odenet_cli.ode.gradient import Cotangents, Gradients, MaybeTensor
from odenet_cli.ode.outputs import StepRecord, steps
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.rosenbrock.formulas import Rosenbrock
from odenet_cli.ode.rosenbrock.step import take_step as rosenbrock_step
from odenet_cli.ode.state import State
from odenet_cli.ode.step import interpolation_stages, rk_step
from odenet_cli.ode.tableau import Tableau


@dataclass(frozen=True)
class Replay:
    """Keep the state at the start of every accepted step, and take the steps again in the backward pass."""

    saves_outputs = False
    repeats_steps = True
    supports = (Tableau, Rosenbrock)
    exact = True
    rounding = 1.0
    kept_per_step = 1
    solve = solve_as_node

    def forward(self, problem: Problem) -> tuple[list[State], list[StepRecord], list[Tensor]]:
        records: list[StepRecord] = []
        kept: list[Tensor] = []
        states = [problem.y0]
        for accepted in steps(problem.loop(), problem, states):
            records.append(problem.record(accepted, accepted.step.k))
            # The state at the start of step n is kept[n * parts : (n + 1) * parts].
            kept.extend(accepted.y)
        return states, records, kept

    def backward(
        self, problem: Problem, tape: list[StepRecord], kept: Sequence[Tensor], cotangents: Cotangents
    ) -> Gradients:
        captured = problem.captured
        if captured is not None and captured.shares_graph:  # no graph may lead out of a compiled field
            problem = _uncompiled(problem)
        vjps, parts = VJPAccumulator(problem), len(problem.rhs.y0)
        a: list[MaybeTensor] = [None] * parts  # dL/dy at the end of a step, then at its start
        for n in reversed(range(len(tape))):
            record = tape[n]
            if record.output_at_end is not None:
                accumulate(a, cotangents[record.output_at_end])
            # Interior outputs are functions of the step's start too, through the dense output.
            interior = [x for j, _ in record.interior_outputs for x in cotangents[j]]
            start = as_leaves(kept[n * parts : (n + 1) * parts])
            with torch.enable_grad():
                # One step's graph at a time, so that memory does not grow with the number of steps.
                end, states = take_again(problem, record, start, vjps.time_gradients)
                values = [*end, *(part for state in states for part in state)]
                a = vjps.vjp(values, [*a, *interior], start)
            if problem.solver.compile and on_gpu(start):  # the next step's CUDA graph writes over this one's
                a = [None if part is None else part.clone() for part in a]
        # The output at ts[0] is y0 itself, and lies in no step.
        accumulate(a, cotangents[0])
        return vjps.gradients(a)

    def double_backward(self, problem: Problem, tape: list[StepRecord], y0: State, cotangents: Cotangents) -> Gradients:
        problem = _uncompiled(problem)  # compiled steps have one derivative

        def solve_again(y: State, time_gradients: TimeGradients | None) -> dict[int, State]:
            outputs = {}
            for record in tape:
                y, states = take_again(problem, record, y, time_gradients)
                outputs.update({j: state for (j, _), state in zip(record.interior_outputs, states)})
                if record.output_at_end is not None:
                    outputs[record.output_at_end] = y
            return outputs

        return double_backward(problem, y0, cotangents, solve_again)


def take_again(
    problem: Problem, record: StepRecord, y: State, time_gradients: TimeGradients | None
) -> tuple[State, list[State]]:
    """Return the state at the end of an accepted step taken again from `y`, and the outputs inside it."""
    t, h, formulas = record.t, record.h, problem.solver.formulas
    # The same function as in the forward loop, with the same numbers; a compiled step by the kernel without error norm.
    if isinstance(formulas, Rosenbrock):
        step = rosenbrock_step(formulas, problem.rhs, record.segment, time_gradients, t, y, h)
        return step.y, interpolation.interpolate(formulas, y, h, step.k, record.thetas(time_gradients))
    tableau = problem.solver.tableau
    if problem.solver.compile and time_gradients is None and not record.interior_outputs:
        return advance(tableau, problem.rhs, record.segment, t, y, h, cuda_graph=on_gpu(y)), []
    f = restrict_to_segment(problem.repeated_field(record.draws), record.segment, time_gradients)
    # f0 is evaluated again, though with FSAL the previous step had it: the graph must begin at this step's start.
    step = rk_step(tableau, f, t, y, h, f(t, y), with_f1=bool(record.interior_outputs))
    if not record.interior_outputs:
        return step.y, []
    f1 = [f(record.end, step.y)] if tableau.interpolates_f1 else []
    k = interpolation_stages(tableau, f, t, y, h, [*step.k, *f1])
    return step.y, interpolation.interpolate(tableau, y, h, k, record.thetas(time_gradients))


def _uncompiled(problem: Problem) -> Problem:
    return replace(problem, solver=replace(problem.solver, compile=False)) if problem.solver.compile else problem


GRADIENT = Replay
