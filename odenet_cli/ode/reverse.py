"""The reverse sweep over recorded steps: the exact gradient of what the solver computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from odenet_cli.ode import dense
from odenet_cli.ode.gradient import Gradients, MaybeTensor, Problem
from odenet_cli.ode.loop import Taken
from odenet_cli.ode.state import Evaluation, State, Time, dot
from odenet_cli.ode.step import Cotangents, rk_step_transposed


@dataclass
class Graph:
    """The autograd graph of one evaluation, from the leaves `point` and `time` to the edges of its slope."""

    point: State
    time: Tensor | None
    edges: list[GradientEdge | None]


def linearise(problem: Problem, t: Time, y: State) -> Evaluation:
    """Evaluate the field and keep its graph."""
    rhs = problem.rhs
    with torch.enable_grad():
        point = tuple(part.detach().requires_grad_() for part in y)
        time = torch.full((), float(t), dtype=rhs.time_dtype, device=rhs.device)
        leaf = time.requires_grad_() if problem.times is not None else None
        slope = rhs(time, point)
    edges = [get_gradient_edge(k) if k.requires_grad else None for k in slope]
    return Evaluation(tuple(k.detach() for k in slope), Graph(point, leaf, edges))


@dataclass
class Record:
    """A step as the sweep needs it: where it was, its evaluations, and the outputs that came from it."""

    t: float
    h: float
    leg: tuple[int, int]
    inside: list[tuple[int, float]]
    lands: int | None
    breaks: bool
    slopes: list[Evaluation]

    @classmethod
    def of(cls, taken: Taken, slopes: list[Evaluation]) -> Record:
        return cls(taken.t, taken.h, taken.leg, taken.inside, taken.lands, taken.breaks, slopes)


@dataclass
class FromOutputs:
    """What the outputs inside a step put on its slopes, on the slope at its end, on its state, on its t and h."""

    pushed: list[Cotangents]
    closing: Cotangents
    y: Cotangents
    t: Tensor | float = 0.0
    h: Tensor | float = 0.0


class Stages(Protocol):
    """The linearised evaluations of the recorded steps, asked for once each, from the last step to the first."""

    def step(self, n: int, closing: Evaluation | None) -> list[Evaluation]:
        """Those of step n. Where outputs lie inside the step, `closing` and the extra stages of dense output follow."""
        ...

    def end(self, n: int) -> Evaluation:
        """The slope at the end of step n, where it opens no other step; asked for before that step."""
        ...


@dataclass
class Sweep:
    """Cotangents while they travel back through the steps.

    The slope that closes a step is the one that opens the next, so that an output inside a step acts on both steps.
    """

    problem: Problem
    arriving: Sequence[list[MaybeTensor]]
    captured: list[MaybeTensor] = field(init=False)
    times: list[Tensor | float] = field(init=False)

    def __post_init__(self) -> None:
        self.captured = [None] * len(self.problem.captured)
        self.times = [0.0] * len(self.problem.ts)
        self.tableau = self.problem.solver.tableau
        self.count = self.tableau.stages - self.tableau.fsal

    def run(self, records: Sequence[Record], stages: Stages) -> Gradients:
        """From the cotangents that arrive at the outputs to those of y0, of the times, and of what is captured."""
        a = [torch.zeros_like(part) for part in self.problem.rhs.y0]
        slopes: list[Evaluation] | None = None
        ahead: FromOutputs | None = None
        for n in reversed(range(len(records))):
            if slopes is None and records[n].inside:
                end = stages.end(n)
                slopes = stages.step(n, end)
                ahead = self._outputs(records[n], slopes)
                time = self.pull(end, ahead.closing, into=a)
                ahead.t, ahead.h = ahead.t + time, ahead.h + time
            slopes = slopes or stages.step(n, None)
            if (j := records[n].lands) is not None:
                self.arrive(a, j)
            earlier: list[Evaluation] | None = None
            before: FromOutputs | None = None
            if n and records[n - 1].inside and not records[n - 1].breaks:
                earlier = stages.step(n - 1, slopes[0])
                before = self._outputs(records[n - 1], earlier)
            a = self._step(records[n], slopes, a, ahead, before)
            slopes, ahead = earlier, before

        self.arrive(a, 0)
        return self.gradients(a)

    def gradients(self, a: list[Tensor]) -> Gradients:
        """What was gathered, with the cotangent `a` of y0."""
        times = None
        if self.problem.times is not None:
            times = torch.stack([torch.as_tensor(x, device=self.problem.rhs.device) for x in self.times])
            times = times.to(self.problem.times)
        return Gradients(a, times, self.captured)

    def arrive(self, a: list[Tensor], j: int) -> None:
        """Add what came in for output j, and for others at the same time."""
        ts = self.problem.ts
        for i in range(j, len(ts)):
            if ts[i] != ts[j]:
                break
            accumulate(a, self.arriving[i])

    def _step(
        self,
        record: Record,
        slopes: list[Evaluation],
        a: list[Tensor],
        own: FromOutputs | None,
        before: FromOutputs | None,
    ) -> list[Tensor]:
        """One step back; `own` are its outputs, `before` those of the step before, which act on its opening slope."""
        wanted, parts = self.problem.times is not None, len(a)
        pushed: list[Cotangents] = own.pushed if own else [[None] * parts for _ in range(self.count)]
        carried: Cotangents = before.closing if before else [None] * parts
        grad_t: Tensor | float = own.t if own else 0.0
        grad_h: Tensor | float = own.h if own else 0.0

        def pull(i: int, cotangents: Cotangents) -> Cotangents:
            nonlocal grad_t, grad_h
            if i == 0:
                accumulate(cotangents, carried)
            point: Cotangents = [None] * parts
            time = self.pull(slopes[i], cotangents, into=point)
            grad_t = grad_t + time
            grad_h = grad_h + float(self.tableau.c[i]) * time
            return point

        y, through = rk_step_transposed(self.tableau, record.h, a, pushed, pull, slopes if wanted else None)
        if all(x is None for x in pushed[0]):  # the step did not pull its opening slope, but the outputs before may
            accumulate(y, pull(0, [None] * parts))
        if own:
            accumulate(y, own.y)
        if wanted:
            self.spread(record, grad_t, grad_h + through)
        return y

    def _outputs(self, record: Record, k: list[Evaluation]) -> FromOutputs:
        """The transpose of the dense output of one step, its extra stages included."""
        wanted, parts, extra = self.problem.times is not None, len(self.arriving[0]), self.tableau.extra_plan
        pushed: list[Cotangents] = [[None] * parts for _ in range(self.count + 1 + len(extra))]
        found = FromOutputs(pushed, pushed[self.count], [None] * parts)
        for j, theta in record.inside:
            weights = dense.weights(self.tableau, theta)
            accumulate(found.y, self.arriving[j])
            for i, weight in enumerate(weights):
                accumulate(pushed[i], self.arriving[j], record.h * weight)
            if wanted:
                along = _against(self.arriving[j], k, dense.slopes(self.tableau, theta))
                self.times[j] += along
                found.t = found.t - along
                found.h = found.h + _against(self.arriving[j], k, weights) - theta * along

        for i in reversed(range(self.count + 1, len(pushed))):
            c, row = extra[i - self.count - 1]
            point: Cotangents = [None] * parts
            time = self.pull(k[i], pushed[i], into=point)
            found.t, found.h = found.t + time, found.h + c * time
            accumulate(found.y, point)
            for j, weight in row:
                accumulate(pushed[j], point, record.h * weight)
            if wanted:
                found.h = found.h + _against(point, [k[j] for j, _ in row], [weight for _, weight in row])
        return found

    def pull(self, evaluation: Evaluation, cotangents: Cotangents, into: Cotangents | list[Tensor]) -> Tensor | float:
        return pull(self.problem, evaluation, cotangents, into, self.captured)

    def spread(self, record: Record, grad_t: Tensor | float, grad_h: Tensor | float) -> None:
        """Hand the gradients of a step's t and h to the two output times of which they are fixed fractions."""
        (i, j), ts = record.leg, self.problem.ts
        start, length = (record.t - ts[i]) / (ts[j] - ts[i]), record.h / (ts[j] - ts[i])
        self.times[i] += (1 - start) * grad_t - length * grad_h
        self.times[j] += start * grad_t + length * grad_h


def pull(
    problem: Problem,
    evaluation: Evaluation,
    cotangents: Sequence[MaybeTensor],
    into: list[MaybeTensor] | list[Tensor],
    captured: list[MaybeTensor],
) -> Tensor | float:
    """One vector-Jacobian product for state, time and captured tensors together; returns the part of time."""
    graph: Graph = evaluation.graph
    ends = [(edge, x) for edge, x in zip(graph.edges, cotangents) if edge is not None and x is not None]
    if not ends:
        return 0.0
    problem.stats.vjps += 1
    time = () if graph.time is None else (graph.time,)
    found = torch.autograd.grad(
        [edge for edge, _ in ends],
        (*graph.point, *time, *problem.captured),
        [x for _, x in ends],
        retain_graph=problem.retain,
        allow_unused=True,
    )
    parts = len(graph.point)
    accumulate(into, found[:parts])
    accumulate(captured, found[parts + len(time) :])
    return 0.0 if not time or found[parts] is None else found[parts]


def _against(
    cotangents: Sequence[MaybeTensor], slopes: Sequence[Evaluation], weights: Sequence[float]
) -> Tensor | float:
    """⟨cotangent, Σ w_i k_i⟩ over the slopes of a step."""
    total: Tensor | float = 0.0
    for weight, evaluation in zip(weights, slopes):
        if weight:
            for x, k in zip(cotangents, evaluation.slope):
                total = total if x is None else total + weight * dot(x, k)
    return total


def accumulate(total: list[MaybeTensor] | list[Tensor], terms: Sequence[MaybeTensor], alpha: float = 1.0) -> None:
    """total += alpha terms, in place. What is first put in is copied, so that `total` owns all it holds."""
    if not alpha:
        return
    for i, term in enumerate(terms):
        if term is not None:
            held = total[i]
            if held is None:
                total[i] = term * alpha
            else:
                held.add_(term, alpha=alpha)
