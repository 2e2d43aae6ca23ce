"""Replay: the exact gradient of the solver's steps, from one state kept a step.

Backward, each accepted step is taken again, with its graph, and swept back over: evaluations backward are stages times
accepted steps, nothing rejected. Checkpointing of the steps (Gholami et al. 2019; Zhuang et al. 2020, "ACA").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from odenet_cli.ode.again import rerun
from odenet_cli.ode.gradient import Gradients, MaybeTensor, Problem
from odenet_cli.ode.loop import Taken
from odenet_cli.ode.reverse import Record, Sweep, linearise
from odenet_cli.ode.state import Evaluation, State
from odenet_cli.ode.step import extended, rk_step


@dataclass
class Kept:
    """The accepted steps, the states each began with and the last one ended in, and when they ended.

    `spent` once a backward pass has used the states up.
    """

    records: list[Record] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    spent: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        return [part for state in self.states for part in state]


@dataclass(frozen=True)
class Replay:
    """Keep the states, and take the steps again backward."""

    keeps_outputs = False

    def forward(self, problem: Problem) -> tuple[list[State], Kept]:
        kept = Kept()
        if problem.opening is not None:
            problem.opening = Evaluation(problem.opening.slope)

        def keep(taken: Taken) -> None:
            kept.records.append(Record.of(taken, []))
            kept.states.append(taken.y)
            kept.ends.append(taken.end)

        states = problem.integrate(problem.evaluate, keep)
        if kept.records and kept.records[-1].inside:  # its dense output needs the slope at the step's end
            kept.states.append(states[-1])
        return states, kept

    def backward(
        self, problem: Problem, tape: Kept, states: Sequence[State], cotangents: Sequence[list[MaybeTensor]]
    ) -> Gradients:
        again = Again(problem, tape.records, tape.states, tape.ends)
        tape.spent, tape.states = True, []
        return Sweep(problem, cotangents).run(tape.records, again)

    def backward_again(
        self, problem: Problem, tape: Kept, y0: State, cotangents: Sequence[list[MaybeTensor]], create_graph: bool
    ) -> Gradients:
        return rerun(problem, tape.records, y0, cotangents, create_graph)


@dataclass
class Again:
    """The steps of a tape, taken again with their graphs; their states go as the sweep passes them."""

    problem: Problem
    records: list[Record]
    states: list[State]
    ends: list[float]

    def step(self, n: int, closing: Evaluation | None) -> list[Evaluation]:
        del self.states[n + 1 :]
        record, y, tableau = self.records[n], self.states[n], self.problem.solver.tableau
        opening = self._evaluate(record.t, y)
        k = rk_step(tableau, self._evaluate, record.t, y, record.h, opening, close=False).slopes
        return k if closing is None else extended(tableau, self._evaluate, record.t, y, record.h, [*k, closing])

    def end(self, n: int) -> Evaluation:
        return self._evaluate(self.ends[n], self.states[n + 1])

    def _evaluate(self, t: float | Tensor, y: State, weighty: bool = True) -> Evaluation:
        self.problem.stats.nfe_backward += 1
        return linearise(self.problem, t, y)


GRADIENT = Replay
