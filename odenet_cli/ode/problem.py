"""One solve, as gradients and paths are given it: what is solved, how, and what it costs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.autograd.times import TimeGradients
from odenet_cli.ode.field.random_state import Draw, Draws
from odenet_cli.ode.field.snapshot import Snapshot
from odenet_cli.ode.outputs import AcceptedStep, Integrator, StepRecord, outputs
from odenet_cli.ode.segment import Segment, split_at_jumps
from odenet_cli.ode.state import CountedField, RightHandSide, State
from odenet_cli.ode.stats import Stats, Tallies, open_tallies


@dataclass
class Problem:
    """One solve: what is solved, how, and its cost.

    times       the output times as a tensor, where their gradient is wanted
    parameters  tensors that the field depends on, as the caller says
    captured    those that it depends on, as was found, each once; `shares_graph` says that evaluations go back through
                a graph behind them
    snapshot    what the field holds
    opening     the field at y0, where it is already known
    draws       its random numbers, where a backward pass will evaluate it again
    tallies     that were open when the solve began
    """

    rhs: RightHandSide
    ts: list[float]
    times: Tensor | None
    solver: Any
    stats: Stats
    parameters: tuple[Tensor, ...] = ()
    captured: tuple[Tensor, ...] = ()
    shares_graph: bool = False
    snapshot: Snapshot = field(default_factory=Snapshot)
    f0: State | None = None
    draws: Draws | None = None
    tallies: Tallies = field(default_factory=open_tallies)

    def integrate(
        self,
        evaluate: CountedField,
        on_step: Callable[[AcceptedStep], None] | None = None,
        time_gradients: TimeGradients | None = None,
    ) -> list[State]:
        """The states at the output times; `on_step` sees the accepted steps."""
        dense = len(self.ts) > 2
        whole = not dense and on_step is None and not torch.is_grad_enabled()
        n_controlled = getattr(self.solver, "n_controlled", None)
        loop: Integrator = self.solver.loop(
            evaluate, n_controlled=n_controlled, dense=dense, whole=whole, time_gradients=time_gradients
        )
        y0, loop.f0, self.f0 = self.rhs.y0, self.f0, None
        if loop.f0 is None:
            # The field will see y0: the caller's tensor must not notice what it does to it.
            kept = torch.is_grad_enabled()
            y0 = tuple(part if kept and part.requires_grad else part.clone() for part in y0)
        try:
            return outputs(loop, self.ts, y0, self.segments, on_step, time_gradients)
        finally:
            self.stats.accepted, self.stats.rejected = loop.accepted, loop.rejected

    def segments(self, i: int, j: int) -> list[Segment]:
        """The segments between two output times, given by their indices."""
        return split_at_jumps(self.ts, i, j, getattr(self.solver, "jumps", ()), self.rhs.time_dtype)

    @property
    def evaluate(self) -> CountedField:
        """The field, counted as forward work."""
        draws = self.draws
        return CountedField(self.rhs if draws is None or not draws.recording else draws.record(self.rhs), self._forward)

    @property
    def evaluate_marked(self) -> CountedField:
        """The same; the backward pass counts its way through."""
        return CountedField(self.rhs, self._forward, self.count_vjps)

    @property
    def evaluate_again(self) -> CountedField:
        """The field, counted as backward work; a pass through its graph counts its way."""
        return CountedField(self.rhs, self._backward, self.count_vjps)

    def repeat(self, draws: Sequence[Draw]) -> CountedField:
        """The same, for evaluations that drew `draws`, if any."""
        if self.draws is None or not self.draws.recording:
            return self.evaluate_again
        return CountedField(self.draws.replay(self.rhs, draws), self._backward, self.count_vjps)

    def place(self, taken: AcceptedStep, values: Sequence[State]) -> StepRecord:
        """Where a step was, and what it drew: `values` of the field, in the order in which they are evaluated again."""
        place = taken.place()
        if self.draws is not None and self.draws.recording:
            place.draws = self.draws.save(values)
        return place

    def _forward(self, evaluations: int) -> None:
        self.stats.nfe_forward += evaluations

    def _backward(self, evaluations: int) -> None:
        self.stats.nfe_backward += evaluations

    def count_vjps(self, made: State, evaluations: int) -> State:
        """`made`, by so many evaluations: when a backward pass comes to it, they are counted as pulled back."""
        stats, passes = self.stats, [-1]

        def count(cotangent: Tensor) -> None:
            now = torch._C._current_graph_task_id()  # one backward pass; several cotangents of it may come here
            if now != passes[0]:
                passes[0] = now
                stats.vjps += evaluations

        own = []
        for k in made:
            if k.requires_grad:
                k = k.view_as(k)  # a field may return what is the caller's, a parameter say; the hook is ours
                k.register_hook(count)  # type: ignore[no-untyped-call]
            own.append(k)
        return tuple(own)

    def resumed(self, y0: State, args: State, connected: bool) -> Problem:
        """This solve in its backward pass: the tensors in `args` are captured too, behind the others, as leaves of
        graphs that begin there, or `connected` to what they were made from."""
        rhs = copy.copy(self.rhs)
        rhs.y0 = tuple(part.detach() for part in y0)
        leaves = rhs.call_with(args, connected)
        return replace(self, rhs=rhs, captured=(*self.captured, *(leaf for leaf in leaves if leaf.requires_grad)))

    @property
    def retain(self) -> bool:
        """Whether the graph of an evaluation is kept after a pass through it. A part of it may be shared with the next
        one: what a field keeps from its first call. Compiled steps can do without, and must."""
        return self.shares_graph or not self.solver.compile

    def time_gradients(self, times: Tensor | None) -> TimeGradients | None:
        """What makes the steps move with `times`."""
        return None if times is None else TimeGradients(times.to(self.rhs.device, self.rhs.time_dtype))


def stacked(states: Sequence[State]) -> tuple[Tensor, ...]:
    """(*S) at the second of two times, (T, *S) for more."""
    if len(states) == 2:
        return tuple(part.clone() if part is first else part for part, first in zip(states[1], states[0]))
    return tuple(torch.stack(part) for part in zip(*states))
