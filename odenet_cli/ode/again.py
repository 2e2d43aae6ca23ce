"""The accepted steps taken again under plain autograd: for second derivatives, and for a second backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import mul

import torch
from torch import Tensor

from odenet_cli.ode import dense
from odenet_cli.ode.gradient import Gradients, MaybeTensor, Problem
from odenet_cli.ode.reverse import Record
from odenet_cli.ode.state import State, Time, combine
from odenet_cli.ode.step import extended, rk_step


def rerun(
    problem: Problem, records: Sequence[Record], y0: State, arriving: Sequence[list[MaybeTensor]], create_graph: bool
) -> Gradients:
    """The same gradient by plain autograd through the accepted Runge-Kutta steps, made anew."""

    def again(y: State, times: Tensor | None) -> list[State]:
        return _steps_again(problem, records, y, times)

    problem.stats.vjps += len(records) * (problem.solver.tableau.stages - problem.solver.tableau.fsal)
    return plain_gradient(problem, y0, arriving, again, create_graph)


def plain_gradient(
    problem: Problem,
    y0: State,
    arriving: Sequence[list[MaybeTensor]],
    again: Callable[[State, Tensor | None], list[State]],
    create_graph: bool,
) -> Gradients:
    """The gradient through `again(y0, times)`, which makes the states at the output times anew under autograd: for
    second derivatives, and for a second backward pass. Memory grows with the number of evaluations."""
    with torch.enable_grad():
        leaves = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in y0)
        times = problem.times
        states = again(leaves, times)
        ends = [(part, x) for state, row in zip(states, arriving) for part, x in zip(state, row) if x is not None]
        inputs = (*leaves, *(() if times is None else (times,)), *problem.captured)
        found = torch.autograd.grad(
            [part for part, _ in ends],
            inputs,
            [x for _, x in ends],
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
        )
    parts = len(leaves)
    captured = found[len(inputs) - len(problem.captured) :]
    return Gradients(found[:parts], None if times is None else found[parts], captured)


def fraction(problem: Problem, record: Record, times: Tensor | None) -> tuple[Time, Time]:
    """A step's t and h, as fixed fractions of the output times where their gradient is wanted."""
    if times is None:
        return record.t, record.h
    (i, j), ts = record.leg, problem.ts
    span = times[j] - times[i]
    return times[i] + (record.t - ts[i]) / (ts[j] - ts[i]) * span, record.h / (ts[j] - ts[i]) * span


def _steps_again(problem: Problem, records: Sequence[Record], y0: State, times: Tensor | None) -> list[State]:
    tableau, ts, evaluate = problem.solver.tableau, problem.ts, problem.evaluate_again
    states: dict[int, State] = {0: y0}
    y, opening = y0, None
    for n, record in enumerate(records):
        t, h = fraction(problem, record, times)
        onward = n + 1 < len(records) and not record.breaks
        closing = tableau.fsal and (bool(record.inside) or onward)
        opening = opening or evaluate(t, y)
        step = rk_step(tableau, evaluate, t, y, h, opening, close=closing)
        k = step.slopes
        opening = k[-1] if closing else None
        if record.inside:
            opening = opening or evaluate(t + h, step.y)
            k = extended(tableau, evaluate, t, y, h, [*k[: tableau.stages - tableau.fsal], opening])
        for output, theta in record.inside:
            if times is None:
                row = dense.weights(tableau, theta)
                states[output] = combine(y, h, tuple(enumerate(row)), k)
            else:
                row = dense.weights(tableau, (times[output] - t) / h)
                parts = zip(*(k[i].slope for i in range(len(row))))
                states[output] = tuple(part + h * sum(map(mul, row, stack)) for part, stack in zip(y, parts))
        y, opening = step.y, opening if onward else None
        if record.lands is not None:
            states[record.lands] = y
    for j in range(1, len(ts)):
        states.setdefault(j, states[j - 1])
    return [states[j] for j in range(len(ts))]
