"""One solve, as gradients and dense solutions are given it: what is solved, by which solver, and from which inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.autograd.times import TimeGradients
from odenet_cli.ode.field.captured import Captured
from odenet_cli.ode.field.random_state import Draw, Draws
from odenet_cli.ode.outputs import AcceptedStep, Loop, StepRecord
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.scalars import widest
from odenet_cli.ode.segment import Segment, split_at_jumps
from odenet_cli.ode.state import State
from odenet_cli.ode.stats import Tallies, open_tallies


@dataclass
class Problem:
    """Hold one solve.

    rhs         the field and y0, its arguments and counters
    ts          the output times, each once
    times       the same as a tensor, where their gradient is wanted
    ends_only   two output times were given: the result is the state at the second one, not a stack
    parameters  tensors that the caller declares as inputs of the field
    captured    what a solve as one node of the graph knows about its field: tensors, random numbers, a snapshot
    solver      an `Adaptive` or a `Fixed`
    inputs      tensors that get gradients besides y0 and times: the captured ones and, in a backward pass (`resume`),
                after them those in args
    f0          the field at y0, if it is already known; `steps` hands it to the loop and sets it to None
    tallies     those open when the solve began; they also collect the solves of the backward pass
    """

    rhs: RightHandSide
    ts: list[float]
    times: Tensor | None
    solver: Any
    ends_only: bool = False
    parameters: tuple[Tensor, ...] = ()
    captured: Captured | None = None
    inputs: tuple[Tensor, ...] = ()
    f0: State | None = None
    tallies: Tallies = field(default_factory=open_tallies.get)

    @property
    def y0(self) -> State:
        """The initial state; a copy if the field has not been called yet, since its first call may write into it."""
        if self.f0 is not None:
            return self.rhs.y0
        under_autograd = torch.is_grad_enabled()
        return tuple(part if under_autograd and part.requires_grad else part.clone() for part in self.rhs.y0)

    @property
    def _draws(self) -> Draws | None:
        """The random numbers of the field, where they are noted to be drawn again."""
        return self.captured.draws if self.captured is not None and self.captured.draws.recording else None

    @property
    def vector_field(self) -> Any:
        """The field of the forward solve; its random numbers are noted where steps will be taken again."""
        # The right-hand side itself in almost every solve: a wrapper would cost a Python call per evaluation.
        return self._draws.record(self.rhs) if self._draws else self.rhs

    def repeated_field(self, draws: Sequence[Draw]) -> Any:
        """Return the field for evaluations that drew `draws` in the forward solve, if any."""
        return self._draws.replay(self.rhs, draws) if self._draws else self.rhs

    def record(self, accepted: AcceptedStep, values: Sequence[State]) -> StepRecord:
        """Return the record of a step, with the random numbers that the field drew for `values`, which must come in
        the order in which a backward pass evaluates them again."""
        return accepted.record(self._draws.save(values) if self._draws else ())

    def loop(
        self, time_gradients: TimeGradients | None = None, single_steps: bool = True, interpolated: bool = False
    ) -> Loop:
        """Return the forward solve, ready to run.

        single_steps  the caller needs every accepted step, to keep its state; autograd and interior outputs do anyway
        interpolated  every step will be interpolated, not only those with interior outputs
        """
        # Between two output times no output can lie inside a step, and no stage need be kept for one.
        interior = interpolated or len(self.ts) > 2
        loop: Loop = self.solver.loop(
            self.vector_field,
            n_controlled=getattr(self.solver, "n_controlled", None),  # fixed steps have no error to control
            interior_outputs=interior,
            single_steps=interior or single_steps or torch.is_grad_enabled(),
            time_gradients=time_gradients,
        )
        return loop

    def segments(self, i: int, j: int) -> list[Segment]:
        """Return the segments between two output times, given by their indices."""
        return split_at_jumps(self.ts, i, j, getattr(self.solver, "jumps", ()), self.rhs.time_dtype)

    def stack(self, states: Sequence[State]) -> tuple[Tensor, ...]:
        """Return the components of the states at the output times, (*S) at the second of two times, (T, *S) else."""
        # Of two times the first is y0, which the caller has.
        if not self.ends_only:
            return tuple(torch.stack(part) for part in zip(*states))
        # Where no time passes the end is y0's own tensor, and the caller is to get another.
        return tuple(part.clone() if part is first else part for part, first in zip(states[-1], states[0]))

    def resume(self, y0: State, args: State, connected: bool) -> Problem:
        """Return a copy of this solve for its backward pass, whose evaluations count as backward work.

        Its `inputs` are the captured tensors and, behind them, those in `args` that require a gradient: detached, or
        with `connected` as views, so that second derivatives reach what they were made from.
        """
        # A copy, since the same solve may go backward twice (retain_graph), each time with leaves of its own.
        rhs = copy.copy(self.rhs)
        rhs.y0, rhs.backward, rhs.counts_vjps = tuple(part.detach() for part in y0), True, True
        rhs.to_watch = 0  # the same field was checked in the forward solve
        # Only the right-hand side is copied: Stats stay one object, to which both passes add.
        leaves = rhs.call_with(args, connected)
        return replace(self, rhs=rhs, inputs=(*self.inputs, *(leaf for leaf in leaves if leaf.requires_grad)))

    @property
    def retain_graph(self) -> bool:
        """Whether autograd retains the graph of an evaluation after a pass through it.

        Always without compile: whether evaluations share a part of it, such as what a field caches at its first call,
        cannot be told. Compiled code must not retain it, as it reuses saved memory (torch's donated buffers); where a
        graph is known to be shared its callers do not compile.
        """
        return bool(self.captured and self.captured.shares_graph) or not self.solver.compile

    def make_time_gradients(self, times: Tensor | None) -> TimeGradients | None:
        """Return the `TimeGradients` of `times`, the problem's own or their leaves in a backward pass."""
        # In the widest dtype, though the field sees the time in its own: far from 0 a span of rounded times is another
        # one, and the share of it that a step is would have the gradient of that.
        return None if times is None else TimeGradients(times.to(self.rhs.device, widest(self.rhs.device)))
