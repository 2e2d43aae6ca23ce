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
from odenet_cli.ode.segment import Segment, split_at_jumps
from odenet_cli.ode.state import State
from odenet_cli.ode.stats import Tallies, open_tallies


@dataclass
class Problem:
    """Hold one solve.

    rhs         the field and y0, its arguments and counters
    ts          the output times, each once
    times       the same as a tensor, where their gradient is wanted
    ends_only   the state at the second of two times is asked for, not the states at all times
    parameters  tensors that the field depends on, as the caller says
    captured    what a solve that is one node of the graph knows of its field: tensors, random numbers, a snapshot
    inputs      the tensors whose gradients its backward pass gathers beside those of y0 and times
    f0          the field at y0, where it is already known
    tallies     that were open when the solve began: what a backward pass solves is theirs
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
    tallies: Tallies = field(default_factory=open_tallies)

    @property
    def y0(self) -> State:
        """The state to begin with: a copy where the field has not been called yet, since it may write into it."""
        if self.f0 is not None:
            return self.rhs.y0
        recorded = torch.is_grad_enabled()
        return tuple(part if recorded and part.requires_grad else part.clone() for part in self.rhs.y0)

    @property
    def _draws(self) -> Draws | None:
        """The random numbers of the field, where they are noted to be drawn again."""
        return self.captured.draws if self.captured is not None and self.captured.draws.recording else None

    @property
    def vector_field(self) -> Any:
        """The field of the forward solve; its random numbers are noted where steps will be taken again."""
        return self._draws.record(self.rhs) if self._draws else self.rhs

    def repeated_field(self, draws: Sequence[Draw]) -> Any:
        """Return the field for evaluations that drew `draws` in the forward solve, if any."""
        return self._draws.replay(self.rhs, draws) if self._draws else self.rhs

    def record(self, accepted: AcceptedStep, values: Sequence[State]) -> StepRecord:
        """Return where a step was and what it drew: `values` of the field, in the order of their repetition."""
        return accepted.record(self._draws.save(values) if self._draws else ())

    def loop(
        self, time_gradients: TimeGradients | None = None, single_steps: bool = True, interpolated: bool = False
    ) -> Loop:
        """Return the forward solve, ready to run.

        single_steps  somebody looks at them: a graph of autograd, or one who keeps their states
        interpolated  somebody wants their dense output, beside that of interior output times
        """
        interior = interpolated or len(self.ts) > 2
        loop: Loop = self.solver.loop(
            self.vector_field,
            n_controlled=getattr(self.solver, "n_controlled", None),
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
        if not self.ends_only:
            return tuple(torch.stack(part) for part in zip(*states))
        return tuple(part.clone() if part is first else part for part, first in zip(states[-1], states[0]))

    def resume(self, y0: State, args: State, connected: bool) -> Problem:
        """Return this solve in its backward pass: evaluations count as backward work, and the tensors in `args` are
        inputs too, behind the others, as leaves of graphs that begin there, or `connected` to what they were made from.
        """
        rhs = copy.copy(self.rhs)
        rhs.y0, rhs.backward, rhs.counts_vjps = tuple(part.detach() for part in y0), True, True
        leaves = rhs.call_with(args, connected)
        return replace(self, rhs=rhs, inputs=(*self.inputs, *(leaf for leaf in leaves if leaf.requires_grad)))

    @property
    def retain_graph(self) -> bool:
        """Whether the graph of an evaluation is kept after a pass through it. A part of it may be shared with the next
        one: what a field keeps from its first call. Compiled steps can do without, and must."""
        return bool(self.captured and self.captured.shares_graph) or not self.solver.compile

    def time_gradients(self, times: Tensor | None) -> TimeGradients | None:
        """Return what makes the steps move with `times`."""
        return None if times is None else TimeGradients(times.to(self.rhs.device, self.rhs.time_dtype))
