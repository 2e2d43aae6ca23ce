"""The exact gradient of reversible steps, in O(1) memory (McCallum & Foster 2024; Zhuang et al. 2021, "MALI").

The forward solve is another one: that of a pair (y, z), see `odenet_cli.ode.pair`, about twice the evaluations. Kept
are the step sizes, as floats, and the final pair; backward, each step is undone and swept back over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.again import fraction, plain_gradient
from odenet_cli.ode.gradient import Gradients, MaybeTensor, Problem
from odenet_cli.ode.loop import Taken, outputs
from odenet_cli.ode.pair import halves, pair_step
from odenet_cli.ode.reverse import Record, Sweep, accumulate, linearise
from odenet_cli.ode.state import Evaluation, State, combine
from odenet_cli.ode.step import Cotangents, rk_step, rk_step_transposed


@dataclass
class Kept:
    """When the steps were taken, and the pair they ended in."""

    records: list[Record] = field(default_factory=list)
    pair: State = ()

    @property
    def tensors(self) -> list[Tensor]:
        return list(self.pair)


@dataclass(frozen=True, kw_only=True)
class Reversible:
    """Solve a pair that can be run backward exactly.

    coupling  λ in (0, 1): 1 would couple nothing; the smaller, the more stable forward and the less exact backward
    """

    coupling: float = 0.999
    keeps_outputs = False

    def __post_init__(self) -> None:
        if not 0 < self.coupling < 1:
            raise ValueError(f"gradient.coupling={self.coupling} must lie between 0 and 1.")

    def forward(self, problem: Problem) -> tuple[list[State], Kept]:
        kept, y0 = Kept(pair=(*problem.rhs.y0, *problem.rhs.y0)), problem.rhs.y0
        loop = problem.solver.pair_loop(problem.evaluate, self.coupling, len(y0))
        loop.opening = None if problem.opening is None else Evaluation(problem.opening.slope)
        problem.opening = None

        def keep(taken: Taken) -> None:
            kept.records.append(Record.of(taken, []))
            # Detached: an output that autograd knows would hold itself through this tape.
            kept.pair = tuple(part.detach() for part in taken.step.y)

        try:
            states = outputs(loop, problem.ts, kept.pair, keep)
        finally:
            problem.stats.accepted, problem.stats.rejected = loop.accepted, loop.rejected
        return [halves(pair)[1] for pair in states], kept

    def backward(
        self, problem: Problem, tape: Kept, states: Sequence[State], cotangents: Sequence[list[MaybeTensor]]
    ) -> Gradients:
        return _Undo(self, problem, tape, cotangents).run()

    def backward_again(
        self, problem: Problem, tape: Kept, y0: State, cotangents: Sequence[list[MaybeTensor]], create_graph: bool
    ) -> Gradients:
        def again(y: State, times: Tensor | None) -> list[State]:
            return self._again(problem, tape.records, y, times)

        problem.stats.vjps += 2 * len(tape.records) * (problem.solver.tableau.stages - problem.solver.tableau.fsal)
        return plain_gradient(problem, y0, cotangents, again, create_graph)

    def _again(self, problem: Problem, records: Sequence[Record], y0: State, times: Tensor | None) -> list[State]:
        """The states at the output times, by plain autograd."""
        tableau, states, pair = problem.solver.tableau, {0: y0}, (*y0, *y0)
        for record in records:
            t, h = fraction(problem, record, times)
            opening = problem.evaluate_again(t, halves(pair)[0])
            pair = pair_step(tableau, problem.evaluate_again, t, pair, h, opening, self.coupling, close=False).y
            if record.lands is not None:
                states[record.lands] = halves(pair)[1]
        for j in range(1, len(problem.ts)):
            states.setdefault(j, states[j - 1])
        return [states[j] for j in range(len(problem.ts))]


class _Undo:
    """The steps undone, from the last to the first, with their transpose on the way."""

    def __init__(
        self, options: Reversible, problem: Problem, tape: Kept, arriving: Sequence[list[MaybeTensor]]
    ) -> None:
        self.problem, self.records, self.coupling = problem, tape.records, options.coupling
        self.tableau, self.sweep = problem.solver.tableau, Sweep(problem, arriving)
        self.z, self.y = halves(tape.pair)
        self.bar_z = [torch.zeros_like(part) for part in self.z]
        self.bar_y = [torch.zeros_like(part) for part in self.y]

    def run(self) -> Gradients:
        for record in reversed(self.records):
            if record.lands is not None:
                self.sweep.arrive(self.bar_y, record.lands)
            self._step(record)
        accumulate(self.bar_y, self.bar_z)
        self.sweep.arrive(self.bar_y, 0)
        return self.sweep.gradients(self.bar_y)

    def _step(self, record: Record) -> None:
        """z = z₁ + Ψ(-h; y₁), y = (y₁ - (1 - λ) z - Ψ(h; z)) / λ, and the cotangents the same way."""
        t, h, keep, coupling = record.t, record.h, self.tableau.keep, self.coupling
        back = self._stages(t + h, self.y, -h)
        z = combine(self.z, -h, keep, back)
        there = self._stages(t, z, h)
        y = tuple((a - (1 - coupling) * b) / coupling for a, b in zip(combine(self.y, -h, keep, there), z))

        # z₁ = z - Ψ(-h; y₁): the transpose of the step y₁ ↦ y₁ + Ψ is that of Ψ and the identity.
        minus = [-part for part in self.bar_z]
        through, times_back = self._transposed(-h, minus, back)
        self.bar_y = [a + b - c for a, b, c in zip(self.bar_y, through, minus)]
        # y₁ = λ y + (1 - λ) z + Ψ(h; z)
        through, times_there = self._transposed(h, self.bar_y, there)
        self.bar_z = [a + b - coupling * c for a, b, c in zip(self.bar_z, through, self.bar_y)]
        self.bar_y = [coupling * part for part in self.bar_y]
        self.z, self.y = z, y
        if self.problem.times is not None:
            # The way back starts at t + h and its step is -h.
            self.sweep.spread(record, times_there[0] + times_back[0], times_there[1] + times_back[0] - times_back[1])

    def _stages(self, t: float, y: State, h: float) -> list[Evaluation]:
        return rk_step(self.tableau, self._evaluate, t, y, h, self._evaluate(t, y), close=False).slopes

    def _transposed(self, h: float, a: list[Tensor], k: list[Evaluation]) -> tuple[list[Tensor], tuple[Any, Any]]:
        """The transpose of y ↦ y + Ψ(h; t, y), and the derivatives by t and by h."""
        by_t: Any = 0.0
        by_h: Any = 0.0

        def pull(i: int, cotangents: Cotangents) -> Cotangents:
            nonlocal by_t, by_h
            point: Cotangents = [None] * len(a)
            time = self.sweep.pull(k[i], cotangents, into=point)
            by_t, by_h = by_t + time, by_h + float(self.tableau.c[i]) * time
            return point

        pushed: list[Cotangents] = [[None] * len(a) for _ in range(self.tableau.stages)]
        known = k if self.problem.times is not None else None
        through, by_weights = rk_step_transposed(self.tableau, h, a, pushed, pull, known)
        return through, (by_t, by_h + by_weights)

    def _evaluate(self, t: float | Tensor, y: State, weighty: bool = True) -> Evaluation:
        self.problem.stats.nfe_backward += 1
        return linearise(self.problem, t, y)


GRADIENT = Reversible
