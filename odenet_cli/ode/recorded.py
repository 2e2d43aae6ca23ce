"""Backpropagation through multistep steps, which lean on one another: autograd through the arithmetic of the loop.

The array's combinations are linear and keep no tensors; what is kept is the graphs of the accepted steps' evaluations.
Steps and orders are numbers to autograd, fixed fractions of the span between the first and the last output time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from odenet_cli.ode.again import plain_gradient
from odenet_cli.ode.gradient import Gradients, MaybeTensor, Problem
from odenet_cli.ode.loop import Taken
from odenet_cli.ode.multistep import Move, Nordsieck, at, change, corrected, inside, opened, plus, row, turned
from odenet_cli.ode.orders import Stride
from odenet_cli.ode.reverse import accumulate, pull
from odenet_cli.ode.state import Evaluation, State, Time

Edges = tuple[Any, ...]


@dataclass
class Clock:
    """Times that move with the first and the last output time, where their gradients are wanted; else plain numbers."""

    ts: Sequence[float]
    times: Tensor | None

    @classmethod
    def of(cls, problem: Problem, times: Tensor | None) -> Clock:
        rhs = problem.rhs
        return cls(problem.ts, None if times is None else times.to(rhs.device, rhs.time_dtype))

    def at(self, t: float) -> Time:
        if self.times is None:
            return t
        share = (t - self.ts[0]) / (self.ts[-1] - self.ts[0])
        return _valued(t, (1 - share) * self.times[0] + share * self.times[-1])

    def stretched(self, slope: State) -> State:
        """The slope that makes h f(t, y) of a number h what it is when h moves with the span."""
        if self.times is None:
            return slope
        span = self.times[-1] - self.times[0]
        return tuple(part * (span / span.detach()) for part in slope)

    def inside(self, z: Nordsieck, h: float, j: int, x: float) -> State:
        """Output j, which lies x steps of length h from the array's point."""
        if self.times is None:
            return inside(z, [x])[0]
        share = (self.times[j] - self.times[0]) / (self.times[-1] - self.times[0])
        return at(z, _valued(x, share * ((self.ts[-1] - self.ts[0]) / h)))


def _valued(value: float, moving: Tensor) -> Tensor:
    """`value`, with the gradients of `moving`."""
    return value + (moving - moving.detach())


@dataclass
class Placed:
    """What was done in a step, and the outputs in it."""

    move: Move
    inside: list[tuple[int, float]]


@dataclass
class Recorded:
    """The tape: for each output the edges into the graph, and the numbers by which the steps can be taken again.

    leaves, slope  y0 and its slope, where the graph begins; `opening` is that slope's own graph
    vjps           evaluations in the graph
    """

    leaves: State
    slope: State
    opening: Evaluation
    times: Tensor | None
    edges: list[Edges] = field(default_factory=list)
    steps: list[Placed] = field(default_factory=list)
    vjps: int = 0
    spent: bool = False
    tensors: tuple[Tensor, ...] = ()

    def backward(self, problem: Problem, cotangents: Sequence[list[MaybeTensor]]) -> Gradients:
        edges, self.edges = self.edges, []
        parts = len(self.leaves)
        a: list[Tensor] = [torch.zeros_like(part) for part in self.leaves]
        captured: list[MaybeTensor] = [None] * len(problem.captured)
        ends = []
        for state, xs in zip(edges, cotangents):
            if not state:  # an output at the beginning
                accumulate(a, xs)
            ends += [(edge, x) for edge, x in zip(state, xs) if x is not None]
        times = () if self.times is None else (self.times,)
        found: Sequence[MaybeTensor] = [None] * (2 * parts + len(times) + len(captured))
        if ends:
            problem.stats.vjps += self.vjps
            found = torch.autograd.grad(
                [edge for edge, _ in ends],
                (*self.leaves, *self.slope, *times, *problem.captured),
                [x for _, x in ends],
                retain_graph=problem.retain,
                allow_unused=True,
            )
        accumulate(a, found[:parts])
        accumulate(captured, found[2 * parts + len(times) :])
        opening, self.opening = self.opening, Evaluation(())
        time = pull(problem, opening, found[parts : 2 * parts], into=a, captured=captured)
        if self.times is None:
            return Gradients(a, None, captured)
        moved = found[2 * parts]
        moved = torch.zeros_like(self.times) if moved is None else moved.clone()
        moved[0] += torch.as_tensor(time).to(moved)
        return Gradients(a, moved, captured)

    def backward_again(
        self, problem: Problem, y0: State, cotangents: Sequence[list[MaybeTensor]], create_graph: bool
    ) -> Gradients:
        def again(y: State, times: Tensor | None) -> list[State]:
            return _again(problem, self.steps, y, times)

        problem.stats.vjps += self.vjps + 1
        return plain_gradient(problem, y0, cotangents, again, create_graph)


def recorded(problem: Problem) -> tuple[list[State], Recorded]:
    """Solve, with the graph of the accepted steps."""
    opening = cast(Evaluation, problem.opening)
    times = None if problem.times is None else problem.times.detach().requires_grad_()
    tape = Recorded(_leaves(problem.rhs.y0), _leaves(opening.slope), opening, times)
    later: dict[int, State] = {}

    def evaluate(t: Time, y: State, weighty: bool = True) -> Evaluation:
        slope = problem.evaluate(clock.at(cast(float, t)), y).slope
        return Evaluation(clock.stretched(slope), any(part.requires_grad for part in slope))

    def keep(taken: Taken) -> None:
        step = cast(Stride, taken)
        placed = [(j, theta - 1.0) for j, theta in step.inside]
        tape.steps.append(Placed(cast(Move, step.move), placed))
        tape.vjps += sum(evaluation.graph is True for evaluation in step.step.slopes)
        if times is not None:
            later.update({j: clock.inside(step.z, step.h, j, x) for j, x in placed})

    with torch.enable_grad():
        clock = Clock.of(problem, times)
        problem.opening = Evaluation(clock.stretched(tape.slope))
        states = problem.integrate(evaluate, keep, tape.leaves)
        states = [later.get(j, state) for j, state in enumerate(states)]
    tape.edges = [() if state is tape.leaves else tuple(map(get_gradient_edge, state)) for state in states]
    return [tuple(part.detach() for part in state) for state in states], tape


def _leaves(state: State) -> State:
    return tuple(part.detach().requires_grad_() for part in state)


def _again(problem: Problem, steps: Sequence[Placed], y0: State, times: Tensor | None) -> list[State]:
    """The states at the output times, by the recorded steps."""
    clock = Clock.of(problem, times)

    def evaluate(t: float, y: State) -> State:
        return clock.stretched(problem.evaluate_again(clock.at(t), y).slope)

    z: Nordsieck = [y0]
    e: State = ()
    scale, states = 1.0, {0: y0}
    for step in steps:
        t, h, fresh, turns, correct, corrections = step.move
        if fresh is not None:
            z, scale = opened(z[0], evaluate(fresh, z[0]), h), h
        for turn in turns:
            z = turned(z, e, turn)
        y, slope = row(z, h / scale, 0), row(z, h / scale, 1)
        point = y
        for _ in range(corrections):
            e = change(correct, h, slope, evaluate(t, point))
            point = plus(y, e)
        z, scale = corrected(z, h / scale, correct, point, slope, e), h
        states.update({j: clock.inside(z, h, j, x) for j, x in step.inside})
    states[problem.ts.index(problem.ts[-1])] = z[0]
    for j in range(1, len(problem.ts)):
        states.setdefault(j, states[j - 1])
    return [states[j] for j in range(len(problem.ts))]
