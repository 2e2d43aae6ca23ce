"""Output times: a solve runs over segments, yields the steps it accepted, and its outputs are placed in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from odenet_cli.ode.autograd.times import TimeGradients
from odenet_cli.ode.field.random_state import Draw
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State, Time
from odenet_cli.ode.step import Step


@dataclass
class StepRecord:
    """Where an accepted step was.

    t, h     where it began, how long it was; `end` is t + h, exactly the segment's end in the last step
    segment  it belongs to; t and h are constant fractions of that
    inside   (j, θ): output j lies at t + θh, by dense output
    lands    the first output at `end`, if there is one
    draws    what the field drew at the stages, where it draws random numbers
    """

    t: float
    h: float
    end: float
    segment: Segment
    interior_outputs: list[tuple[int, float]] = field(default_factory=list)
    output_at_end: int | None = None
    draws: Sequence[Draw] = ()


@dataclass(kw_only=True)
class AcceptedStep(StepRecord):
    """An accepted step: from the state `y` at `t` to `step.y` at `end`."""

    y: State
    step: Step

    def place(self) -> StepRecord:
        """Without the tensors."""
        return StepRecord(self.t, self.h, self.end, self.segment, self.interior_outputs, self.output_at_end)


class Integrator(Protocol):
    """A solve in progress; step size and error history carry over from one `run` to the next."""

    f0: State | None
    accepted: int
    rejected: int

    def spans(self, count: int) -> list[tuple[int, int]]:
        """The runs by which `count` output times are reached, as pairs of their indices."""
        ...

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        """Solve over a segment, either way in time, yielding every accepted step."""
        ...

    def interpolate(self, taken: AcceptedStep, thetas: Sequence[Time]) -> list[State]:
        """The states at t + θh inside a step that was just taken."""
        ...

    def polynomial(self, taken: AcceptedStep) -> tuple[float, list[State]]:
        """A time s and coefficients c_p: the step's dense output is Σ c_p ((t - s) / h)^p."""
        ...


def outputs(
    integrator: Integrator,
    ts: Sequence[float],
    y0: State,
    segments: Callable[[int, int], list[Segment]],
    on_step: Callable[[AcceptedStep], None] | None = None,
    time_gradients: TimeGradients | None = None,
) -> list[State]:
    """Return the states at `ts`, the first of which is `y0`; `on_step` sees every accepted step once its outputs are
    placed. `segments` are those between two output times, given by their indices."""
    states: list[State] = [y0]
    for i, j in integrator.spans(len(ts)):
        y = states[i]
        while len(states) <= j and ts[len(states)] == ts[i]:
            states.append(y)
        for segment in segments(i, j):
            for taken in integrator.run(segment, y):
                y = taken.step.y
                _place(integrator, taken, ts, ts[j], states, time_gradients)
                if on_step is not None:
                    on_step(taken)
    return states


def _place(
    integrator: Integrator,
    taken: AcceptedStep,
    ts: Sequence[float],
    end: float,
    states: list[State],
    time_gradients: TimeGradients | None,
) -> None:
    """Append the outputs that lie in (t, end] of a step: by dense output, and those at the run's end as they are.

    One that happens to lie at another step's end is inside all the same: its time can move, the step's end does not.
    """
    way = math.copysign(1.0, taken.h)
    while ts[j := len(states) + len(taken.interior_outputs)] != end and way * ts[j] <= way * taken.end:
        taken.interior_outputs.append((j, (ts[j] - taken.t) / taken.h))
    if taken.interior_outputs:
        states += integrator.interpolate(taken, thetas(taken, time_gradients))
    if len(states) < len(ts) and ts[len(states)] == taken.end == end:
        taken.output_at_end = len(states)
        while len(states) < len(ts) and ts[len(states)] == end:
            states.append(taken.step.y)


def thetas(place: StepRecord, time_gradients: TimeGradients | None) -> list[Time]:
    """Where in a step its outputs lie; tensors where their times have gradients."""
    return [
        theta if time_gradients is None else time_gradients.theta(place.segment, j, theta, place.h)
        for j, theta in place.interior_outputs
    ]
