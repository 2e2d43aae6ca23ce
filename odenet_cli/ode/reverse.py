"""The reverse sweep over recorded steps: the exact gradient of what the solver computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import mul

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from odenet_cli.ode import dense
from odenet_cli.ode.gradient import Gradients, MaybeTensor, Problem
from odenet_cli.ode.loop import Taken
from odenet_cli.ode.state import Evaluation, State, Time, combine, dot
from odenet_cli.ode.step import Cotangents, rk_step, rk_step_transposed


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
    slopes: list[Evaluation]

    @classmethod
    def of(cls, taken: Taken, slopes: list[Evaluation]) -> Record:
        return cls(taken.t, taken.h, taken.leg, taken.inside, taken.lands, slopes)


@dataclass
class Sweep:
    """Cotangents while they travel back through the steps."""

    problem: Problem
    arriving: Sequence[list[MaybeTensor]]
    captured: list[MaybeTensor] = field(init=False)
    times: list[Tensor | float] = field(init=False)

    def __post_init__(self) -> None:
        self.captured = [None] * len(self.problem.captured)
        self.times = [0.0] * len(self.problem.ts)
        self.tableau = self.problem.solver.tableau

    def run(self, records: Sequence[Record], stages: Callable[[int], list[Evaluation]]) -> Gradients:
        """`stages(n)` gives the linearised evaluations of step n; it is called once a step, from the last to the first.

        The slope that closes step n is the one that opens step n + 1, or stands behind the last step.
        """
        a = [torch.zeros_like(part) for part in self.problem.rhs.y0]
        beyond = self._on_closing(records[-1]) if records else []
        if any(x is not None for x in beyond):
            closing = stages(len(records))[0]
            time = self._pull(closing, beyond, into=a)
            self.times[records[-1].leg[1]] += time
        for n in reversed(range(len(records))):
            if (j := records[n].lands) is not None:
                self._arrive(a, j)
            carried = self._on_closing(records[n - 1]) if n else []
            a = self._step(records[n], stages(n), a, carried)
        self._arrive(a, 0)
        times = None
        if self.problem.times is not None:
            times = torch.stack([torch.as_tensor(x, device=self.problem.rhs.device) for x in self.times])
            times = times.to(self.problem.times)
        return Gradients(a, times, self.captured)

    def _arrive(self, a: list[Tensor], j: int) -> None:
        """Add what came in for output j, and for others at the same time."""
        ts = self.problem.ts
        for i in range(j, len(ts)):
            if ts[i] != ts[j]:
                break
            _add(a, self.arriving[i])

    def _step(self, record: Record, slopes: list[Evaluation], a: list[Tensor], carried: Cotangents) -> list[Tensor]:
        wanted, parts = self.problem.times is not None, len(a)
        pushed: list[Cotangents] = [[None] * parts for _ in range(self.tableau.stages + 1)]
        grad_t: Tensor | float = 0.0
        grad_h: Tensor | float = 0.0
        for j, theta in record.inside:
            weights = dense.weights(self.tableau, theta)
            for i, weight in enumerate(weights):
                _add(pushed[i], self.arriving[j], record.h * weight)
            if wanted:
                d_theta = _against(self.arriving[j], slopes, dense.slopes(self.tableau, theta))
                self.times[j] += d_theta
                grad_t = grad_t - d_theta
                grad_h = grad_h + _against(self.arriving[j], slopes, weights) - theta * d_theta

        def pull(i: int, cotangents: Cotangents) -> Cotangents:
            nonlocal grad_t, grad_h
            if i == 0 and carried:
                _add(cotangents, carried)
            point: Cotangents = [None] * parts
            time = self._pull(slopes[i], cotangents, into=point)
            grad_t = grad_t + time
            grad_h = grad_h + float(self.tableau.c[i]) * time
            return point

        known = slopes if wanted else None
        before, through = rk_step_transposed(self.tableau, record.h, a, pushed, pull, known)
        if all(x is None for x in pushed[0]) and any(x is not None for x in carried):
            _add(before, pull(0, [None] * parts))
        for j, _ in record.inside:
            _add(before, self.arriving[j])
        if wanted:
            self._spread(record, grad_t, grad_h + through)
        return before

    def _pull(self, evaluation: Evaluation, cotangents: Cotangents, into: Cotangents | list[Tensor]) -> Tensor | float:
        """One vector-Jacobian product for state, time and captured tensors together; returns the part of time."""
        graph: Graph = evaluation.graph
        ends = [(edge, x) for edge, x in zip(graph.edges, cotangents) if edge is not None and x is not None]
        if not ends:
            return 0.0
        self.problem.stats.vjps += 1
        time = () if graph.time is None else (graph.time,)
        found = torch.autograd.grad(
            [edge for edge, _ in ends],
            (*graph.point, *time, *self.problem.captured),
            [x for _, x in ends],
            retain_graph=self.problem.retain,
            allow_unused=True,
        )
        parts = len(graph.point)
        _add(into, found[:parts])
        _add(self.captured, found[parts + len(time) :])
        return 0.0 if not time or found[parts] is None else found[parts]

    def _on_closing(self, record: Record) -> Cotangents:
        """What the outputs inside a step put on the slope at its end."""
        push: Cotangents = [None] * len(self.problem.rhs.y0)
        for j, theta in record.inside:
            _add(push, self.arriving[j], record.h * dense.weights(self.tableau, theta)[-1])
        return push

    def _spread(self, record: Record, grad_t: Tensor | float, grad_h: Tensor | float) -> None:
        """Hand the gradients of a step's t and h to the two output times of which they are fixed fractions."""
        (i, j), ts = record.leg, self.problem.ts
        start, length = (record.t - ts[i]) / (ts[j] - ts[i]), record.h / (ts[j] - ts[i])
        self.times[i] += (1 - start) * grad_t - length * grad_h
        self.times[j] += start * grad_t + length * grad_h


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


def _add(total: list[MaybeTensor] | list[Tensor], terms: Sequence[MaybeTensor], alpha: float = 1.0) -> None:
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


def rerun(
    problem: Problem,
    records: Sequence[Record],
    y0: State,
    arriving: Sequence[list[MaybeTensor]],
    create_graph: bool,
) -> Gradients:
    """The same gradient by plain autograd through the accepted steps, made anew: for second derivatives, and for a
    second backward pass. Memory grows with the number of evaluations."""
    with torch.enable_grad():
        leaves = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in y0)
        times = problem.times
        states = _steps_again(problem, records, leaves, times)
        ends = [(part, x) for state, row in zip(states, arriving) for part, x in zip(state, row) if x is not None]
        inputs = (*leaves, *(() if times is None else (times,)), *problem.captured)
        found = torch.autograd.grad(
            [part for part, _ in ends],
            inputs,
            [x for _, x in ends],
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
        )
    parts = len(leaves)
    problem.stats.vjps += len(records) * (problem.solver.tableau.stages - problem.solver.tableau.fsal)
    return Gradients(
        found[:parts], None if times is None else found[parts], found[len(inputs) - len(problem.captured) :]
    )


def _steps_again(problem: Problem, records: Sequence[Record], y0: State, times: Tensor | None) -> list[State]:
    tableau, ts = problem.solver.tableau, problem.ts

    def evaluate(t: float | Tensor, y: State, weighty: bool = True) -> Evaluation:
        problem.stats.nfe_backward += 1
        return Evaluation(problem.rhs(t, y))

    states: dict[int, State] = {0: y0}
    y, opening = y0, None
    for n, record in enumerate(records):
        (i, j), t, h = record.leg, record.t, record.h
        t_: Time = t
        h_: Time = h
        if times is not None:
            span = times[j] - times[i]
            t_ = times[i] + (t - ts[i]) / (ts[j] - ts[i]) * span
            h_ = h / (ts[j] - ts[i]) * span
        closing = tableau.fsal and (bool(record.inside) or n + 1 < len(records))
        opening = opening or evaluate(t_, y)
        step = rk_step(tableau, evaluate, t_, y, h_, opening, close=closing)
        k = step.slopes
        opening = k[-1] if closing else None
        if record.inside and len(tableau.dense_rows) > len(k):
            opening = evaluate(t_ + h_, step.y)
            k = [*k, opening]
        for output, theta in record.inside:
            if times is None:
                row = dense.weights(tableau, theta)
                states[output] = combine(y, h, tuple(enumerate(row)), k)
            else:
                row = dense.weights(tableau, (times[output] - t_) / h_)
                parts = zip(*(k[i].slope for i in range(len(row))))
                states[output] = tuple(part + h_ * sum(map(mul, row, stack)) for part, stack in zip(y, parts))
        y = step.y
        if record.lands is not None:
            states[record.lands] = y
    for j in range(1, len(ts)):
        states.setdefault(j, states[j - 1])
    return [states[j] for j in range(len(ts))]
