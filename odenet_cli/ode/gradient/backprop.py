"""Backpropagation through the solver: the exact gradient of its steps (the paper's RK-Net).

The graphs of the accepted steps' evaluations are kept, O(L~) memory in the number of evaluations, and nothing is
evaluated again: `nfe_backward` is 0. A second derivative, or a second backward pass, runs the accepted steps again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from odenet_cli.ode.again import rerun
from odenet_cli.ode.gradient import Gradients, MaybeTensor, Problem
from odenet_cli.ode.loop import Taken
from odenet_cli.ode.multistep import Multistep
from odenet_cli.ode.recorded import Recorded, recorded
from odenet_cli.ode.reverse import Record, Sweep, linearise
from odenet_cli.ode.state import Evaluation, State
from odenet_cli.ode.tableau import Tableau


@dataclass
class Kept:
    """The accepted steps with their graphs. `spent` once a backward pass has consumed the graphs."""

    records: list[Record] = field(default_factory=list)
    spent: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        return [part for record in self.records for evaluation in record.slopes for part in evaluation.graph.point]


@dataclass(frozen=True)
class Backprop:
    """Keep the graphs of the accepted steps, and sweep back over them."""

    keeps_outputs = False
    multistep = True

    def forward(self, problem: Problem) -> tuple[list[State], Kept | Recorded]:
        if isinstance(problem.solver.formulas, Multistep):
            return recorded(problem)
        kept, slopes_wanted = Kept(), problem.times is not None

        def evaluate(t: float | Tensor, y: State, weighty: bool = True) -> Evaluation:
            problem.stats.nfe_forward += 1
            return linearise(problem, t, y)

        def keep(taken: Taken) -> None:
            count = problem.solver.tableau.stages - problem.solver.tableau.fsal
            slopes = taken.step.slopes if taken.inside else taken.step.slopes[:count]
            kept.records.append(Record.of(taken, slopes if slopes_wanted else [_bare(k) for k in slopes]))

        return problem.integrate(evaluate, keep), kept

    def backward(
        self, problem: Problem, tape: Kept | Recorded, states: Sequence[State], cotangents: Sequence[list[MaybeTensor]]
    ) -> Gradients:
        tape.spent = True
        if isinstance(tape, Recorded):
            return tape.backward(problem, cotangents)
        graphs = Graphs([record.slopes for record in tape.records], problem.solver.tableau)
        for record in tape.records:
            record.slopes = []
        return Sweep(problem, cotangents).run(tape.records, graphs)

    def backward_again(
        self,
        problem: Problem,
        tape: Kept | Recorded,
        y0: State,
        cotangents: Sequence[list[MaybeTensor]],
        create_graph: bool,
    ) -> Gradients:
        if isinstance(tape, Recorded):
            return tape.backward_again(problem, y0, cotangents, create_graph)
        return rerun(problem, tape.records, y0, cotangents, create_graph)


@dataclass
class Graphs:
    """The graphs that were kept, handed out once, so that a step's graphs go as soon as the sweep has passed it."""

    steps: list[list[Evaluation]]
    tableau: Tableau

    def step(self, n: int, closing: Evaluation | None) -> list[Evaluation]:
        return self.steps.pop()

    def end(self, n: int) -> Evaluation:
        return self.steps[-1][self.tableau.stages - self.tableau.fsal]


def _bare(evaluation: Evaluation) -> Evaluation:
    """Without the slope, which only the gradients of times need."""
    return Evaluation((), evaluation.graph)


GRADIENT = Backprop
