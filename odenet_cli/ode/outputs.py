"""A whole solve, from its first to its last output time: run a loop, and collect the states at the output times.

An output lies either *at the end* of a step that was made to end there, or in the *interior* of a step, and is then
interpolated. Adaptive loops run over all output times and interpolate; fixed and reversible loops run from each output
time to the next.
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


# No tensors: a list of records costs a few numbers per step, whatever the size of the state.
@dataclass
class StepRecord:
    """Hold what a backward pass needs to take an accepted step again.

    t, h              start and signed length; `end` is t + h, and for the last step exactly the segment's end
    segment           the segment of the step, of which t and h are constant fractions
    interior_outputs  (j, θ): output j lies at t + θh
    output_at_end     index of the output at `end`, if there is one
    draws             the random numbers that the field drew at the stages, if any
    """

    t: float
    h: float
    end: float
    segment: Segment
    interior_outputs: list[tuple[int, float]] = field(default_factory=list)
    output_at_end: int | None = None
    draws: Sequence[Draw] = ()

    def thetas(self, time_gradients: TimeGradients | None) -> Sequence[float] | Tensor:
        """Return θ of the interior outputs; as a tensor (n,) if the output times have gradients."""
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
        """Return the step without its tensors."""
        return StepRecord(self.t, self.h, self.end, self.segment, self.interior_outputs, self.output_at_end, draws)


class Loop(Protocol):
    """The contract of the loops over steps. Step size and error history carry over from one `run` to the next.

    f0  derivative at the start of the next step; None: not evaluated yet
    """

    f0: State | None
    accepted: int
    rejected: int
    time_gradients: TimeGradients | None

    def spans(self, count: int) -> list[tuple[int, int]]:
        """Return the spans that cover `count` output times, as pairs of indices; `run` solves a span segment by
        segment."""
        ...

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        """Solve over a segment, either way in time, yielding every accepted step."""
        ...

    def interpolate(self, accepted: AcceptedStep, thetas: Sequence[float] | Tensor) -> list[State]:
        """Return the states at t + θh inside the last accepted step, for each θ."""
        ...

    def polynomial(self, accepted: AcceptedStep) -> tuple[float, list[State]]:
        """Return a time s and the coefficients c_p of the step's dense output Σ c_p ((t - s) / h)^p."""
        # Runge-Kutta methods expand about the step's start, Adams methods about its end.
        ...


def integrate(loop: Loop, problem: Problem) -> list[State]:
    """Return the states at all output times of `problem`, y0 first."""
    states = [problem.y0]
    for _ in steps(loop, problem, states):
        pass
    return states


def steps(loop: Loop, problem: Problem, states: list[State]) -> Iterator[AcceptedStep]:
    """Solve `problem`, yielding every accepted step after its outputs were appended to `states`; raise NotFinite if the
    last state is not finite.

    states  the initial state; those at the other output times are appended
    """
    ts = problem.ts
    # Moved, not copied: the node keeps the problem until its backward pass, and would keep f0 in memory.
    loop.f0, problem.f0 = problem.f0, None
    try:
        for i, j in loop.spans(len(ts)):
            # An adaptive loop has a single span, which starts at y0; spans of fixed and reversible steps start where
            # the previous one ended.
            y = states[i]
            for segment in problem.segments(i, j):
                for accepted in loop.run(segment, y):
                    y = accepted.step.y
                    # If only the end is wanted, most steps have no output.
                    if accepted.end == ts[j] or len(states) < j:
                        _place_outputs(loop, accepted, ts, j, states)
                    yield accepted
    finally:
        # Also where the solve fails: a caller that catches the error still reads what it cost.
        problem.rhs.stats.accepted, problem.rhs.stats.rejected = loop.accepted, loop.rejected
    # Checked once per solve, since the error ratio misses them: |y| = inf has an infinite tolerance, and uncontrolled
    # components have none.
    with torch.no_grad():
        (largest,) = norms([states[-1]], [math.inf]) if hasattr(problem.solver, "rtol") else (0.0,)
    if not math.isfinite(largest):
        raise NotFinite(
            f"the state is NaN or infinite at t = {ts[-1]:.6g}. Look for a field that grows without bound, or use a "
            "wider dtype."
        )


def _place_outputs(loop: Loop, accepted: AcceptedStep, ts: Sequence[float], last: int, states: list[State]) -> None:
    """Append to `states` the outputs in a step; `last` is the index of the output at the end of the span."""
    # An output that happens to lie at the end of a step is interpolated too, unless the span ends there: its time may
    # have a gradient, which the step's end, a constant fraction of the segment, does not.
    direction, j = math.copysign(1.0, accepted.h), len(states)
    while j < last and direction * ts[j] <= direction * accepted.end:
        # θ in (0, 1]; `direction` is -1 for a solve that runs backward in time.
        accepted.interior_outputs.append((j, (ts[j] - accepted.t) / accepted.h))
        j += 1
    # All of a step's outputs at once, as one matrix product.
    if accepted.interior_outputs:
        states += loop.interpolate(accepted, accepted.thetas(loop.time_gradients))
    if accepted.end == ts[last]:
        accepted.output_at_end = last
        states.append(accepted.step.y)
