"""A solve from its first to its last output time: the loop's accepted steps, and the outputs placed in them.

An output is either *at the end* of a step that was made to end there, or *interior*, and then found by interpolation.
Adaptive loops run over all output times and interpolate; fixed and reversible ones run from each to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from odenet_cli.ode.autograd.times import TimeGradients
from odenet_cli.ode.errors import NotFinite
from odenet_cli.ode.field.random_state import Draw
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State, norms
from odenet_cli.ode.step import Step

if TYPE_CHECKING:
    from odenet_cli.ode.problem import Problem


# Without tensors: a tape of records costs a few numbers a step, whatever the state's size.
@dataclass
class StepRecord:
    """Hold where an accepted step was: what a backward pass needs to take it again.

    t, h              where it began, and its signed length; `end` is t + h, exactly the segment's end in the last step
    segment           it belongs to; t and h are constant fractions of that
    interior_outputs  (j, θ): output j lies at t + θh
    output_at_end     the output at `end`, if there is one
    draws             what the field drew at the stages, where it draws random numbers
    """

    t: float
    h: float
    end: float
    segment: Segment
    interior_outputs: list[tuple[int, float]] = field(default_factory=list)
    output_at_end: int | None = None
    draws: Sequence[Draw] = ()

    def thetas(self, time_gradients: TimeGradients | None) -> Sequence[float] | Tensor:
        """Return where in the step its interior outputs lie; as a tensor where their times have gradients."""
        thetas = [theta for _, theta in self.interior_outputs]
        if time_gradients is None or not thetas:
            return thetas
        return time_gradients.thetas(self.segment, self.interior_outputs[0][0], thetas, self.h)


@dataclass(kw_only=True)
class AcceptedStep(StepRecord):
    """Hold an accepted step with its tensors: from the state `y` at `t` to `step.y` at `end`."""

    y: State
    step: Step

    def record(self, draws: Sequence[Draw] = ()) -> StepRecord:
        """Return it without the tensors."""
        return StepRecord(self.t, self.h, self.end, self.segment, self.interior_outputs, self.output_at_end, draws)


class Loop(Protocol):
    """The contract of the loops over steps. Step size and error history carry over from one `run` to the next.

    f0  derivative with which the next step begins; None: to be evaluated
    """

    f0: State | None
    accepted: int
    rejected: int
    time_gradients: TimeGradients | None

    def spans(self, count: int) -> list[tuple[int, int]]:
        """Return the spans over which `count` output times are reached, as pairs of their indices; a span is solved
        segment by segment, one `run` each."""
        ...

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        """Solve over a segment, either way in time, yielding every accepted step."""
        ...

    def interpolate(self, accepted: AcceptedStep, thetas: Sequence[float] | Tensor) -> list[State]:
        """Return the states at t + θh inside the step that was accepted last."""
        ...

    def polynomial(self, accepted: AcceptedStep) -> tuple[float, list[State]]:
        """Return a time s and coefficients c_p: the step's dense output is Σ c_p ((t - s) / h)^p."""
        # Runge-Kutta methods expand about the step's start, Adams methods about its end.
        ...


def integrate(loop: Loop, problem: Problem) -> list[State]:
    """Return the states at the output times of `problem`, the first of which is its y0."""
    states = [problem.y0]
    for _ in steps(loop, problem, states):
        pass
    return states


def steps(loop: Loop, problem: Problem, states: list[State]) -> Iterator[AcceptedStep]:
    """Solve to the output times of `problem`, yielding every accepted step once its outputs are placed; raise NotFinite
    if the last state is not finite.

    states  holds the state to begin with, and is given those at the other output times
    """
    ts = problem.ts
    # f0 is handed to the loop once. A node keeps the problem until its backward pass, and would keep f0 in memory.
    loop.f0, problem.f0 = problem.f0, None
    try:
        for i, j in loop.spans(len(ts)):
            # `states[j]` is the state at output j: a span of fixed or reversible steps begins where the last one ended,
            # an adaptive loop has one span, from y0 on.
            y = states[i]
            for segment in problem.segments(i, j):
                for accepted in loop.run(segment, y):
                    y = accepted.step.y
                    # Where only the end is asked for, most steps have no output.
                    if accepted.end == ts[j] or len(states) < j:
                        _place_outputs(loop, accepted, ts, j, states)
                    yield accepted
    finally:
        # Also where the solve fails: a caller that catches the error still reads what it cost.
        problem.rhs.stats.accepted, problem.rhs.stats.rejected = loop.accepted, loop.rejected
    # Once a solve: an infinite number has an infinite tolerance, and those that are not controlled have none.
    with torch.no_grad():
        (largest,) = norms([states[-1]], [math.inf]) if hasattr(problem.solver, "rtol") else (0.0,)
    if not math.isfinite(largest):
        raise NotFinite(
            f"the state is NaN or infinite at t = {ts[-1]:.6g}. Look for a field that grows without bound, or use a "
            "wider dtype."
        )


def _place_outputs(loop: Loop, accepted: AcceptedStep, ts: Sequence[float], last: int, states: list[State]) -> None:
    """Append to `states` the outputs that lie in a step, `last` being that at which the span ends."""
    # An output that happens to lie at the end of a step is interpolated all the same, unless the span ends there: its
    # time can have a gradient, and the step's end is a constant fraction of the segment.
    direction, j = math.copysign(1.0, accepted.h), len(states)
    while j < last and direction * ts[j] <= direction * accepted.end:
        # θ in (0, 1]; `direction` makes the comparison hold for a solve that runs backwards too.
        accepted.interior_outputs.append((j, (ts[j] - accepted.t) / accepted.h))
        j += 1
    # All of a step's outputs at once, as one matrix product.
    if accepted.interior_outputs:
        states += loop.interpolate(accepted, accepted.thetas(loop.time_gradients))
    if accepted.end == ts[last]:
        accepted.output_at_end = last
        states.append(accepted.step.y)
