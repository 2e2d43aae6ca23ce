"""The same steps, compiled by `torch.compile`: one call an attempt, from the opening slope to the norm of the error.

A unit is compiled once for a tableau, a field and shapes, and runs until one of them changes. The numbers of a step (t,
h, tolerances) come in as one tensor, so that they change nothing. Compilation takes seconds to a minute, and pays for
small fields, where the time goes into starting operations; on a CPU not for convolutions. For tiny ones the whole loop,
controller included, can be one unit (`WholeLoop`). On a GPU units are recorded as CUDA graphs, except where autograd
holds on to every step (`backprop`), since a graph has the memory for one, and except whole loops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.compiled import kernels
from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop
from odenet_cli.ode.outputs import AcceptedStep
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import CountedField, State
from odenet_cli.ode.step import Step
from odenet_cli.ode.tableau import Tableau


@dataclass(kw_only=True)
class CompiledLoop(AdaptiveLoop):
    """An `AdaptiveLoop` whose attempts are compiled.

    dense        outputs may lie inside steps: keep all slopes of a step, not only its last
    unit, bounds the compiled attempt; the times that the field may see, rtol, and the atol of each group of the norm,
                 which do not change within a segment
    """

    dense: bool = True
    kernel: Any = None
    bounds: Sequence[float] = ()

    def _enter(self, segment: Segment) -> None:
        super()._enter(segment)
        tolerances = [self.norm.rtol, *(self.norm.atol * factor for _, factor in self.norm.groups())]
        self.bounds = [segment.low, segment.high, *tolerances]

    def _begin(self, t: float, y: State) -> State:
        kernel, numbers = kernels.slope(self.n_dynamic, use_cuda_graph(y)), _tensor([self.segment.visible_time(t)], y)
        slope: State = kernel(self.evaluate.function, numbers, y)
        self.evaluate.count(1)
        return slope if self.evaluate.count_vjps is None else self.evaluate.count_vjps(slope, 1)

    @torch.no_grad()
    def _initial_step(self, order: int, t: float, span: float, y: State, f0: State) -> float:
        kernel = kernels.initial_step(order, self.n_dynamic, self.n_controlled, self._groups(), use_cuda_graph(y))
        numbers = _tensor([t, span, *self.bounds], y)
        h: float = kernel(self.evaluate.function, numbers, y, f0).item()
        self.evaluate.count(1)
        return h

    def _attempt(self, t: float, y: State, h: float, f0: State) -> tuple[Step, float]:
        if self.kernel is None:
            groups, cuda_graph = self._groups(), use_cuda_graph(y)
            self.kernel = kernels.attempt(
                self.tableau, self.n_dynamic, self.n_controlled, groups, self.dense, cuda_graph
            )
        y1, k, ratio = self.kernel(self.evaluate.function, _tensor([t, h, *self.bounds], y), y, f0)
        made = self.tableau.stages - 1
        self.evaluate.count(made)
        if self.evaluate.count_vjps is not None:
            marked = self.evaluate.count_vjps((*y1, *(part for slope in k for part in slope)), made)
            y1, rest = marked[: len(y1)], marked[len(y1) :]
            k = [rest[n : n + len(y)] for n in range(0, len(rest), len(y))]
        return Step(y1, [f0, *k], k[-1] if self.tableau.fsal else None), ratio.item()

    def _groups(self) -> kernels.Slices:
        """The norm's groups of components."""
        return tuple((group.start, group.stop) for group, _ in self.norm.groups())


@dataclass(kw_only=True)
class WholeLoop(CompiledLoop):
    """All steps in one compiled loop, controller included; one call a solve. The host asks whether to go on.

    It yields one step for all of them, so it is for solves in which nobody looks at single steps: no graph, no tape, no
    outputs inside. For FSAL pairs under the I controller.
    """

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        self._enter(segment)
        t, end, order = segment.start, segment.end, self.tableau.embedded_order + 1
        f0 = self.f0 or self._begin(t, y)
        h_next = max(self.h or self._first_step_size(order, t, y, f0), self.min_step)
        floor = max(self.min_step, 4 * math.ulp(max(abs(t), abs(end))))
        limit = self.max_steps - self.accepted - self.rejected
        numbers = [end, self.min_step, self.max_step, floor, limit, *self.bounds]
        kernel = kernels.whole_loop(self.tableau, self.n_dynamic, self.n_controlled, self._groups(), self.controller)
        state = _tensor([t, h_next, self.controller.grow, 0, 0, 0], y)
        y1, last, made = kernel(self.evaluate.function, _tensor(numbers, y), state, y, f0)
        now, self.h, _, accepted, rejected, nonfinite = made.tolist()
        self.accepted, self.rejected = self.accepted + int(accepted), self.rejected + int(rejected)
        self.f0, self.nonfinite = last, bool(nonfinite)
        self.evaluate.count((self.tableau.stages - 1) * int(accepted + rejected))
        if now != t:
            yield AcceptedStep(t, now - t, now, segment, y=y, step=Step(y1, [f0], last))
        if now != end:  # the loop has given up, and the guard says why
            yield from super().run(segment._replace(start=now), y1)
        if segment.ends_at_jump:
            self.f0 = None


@dataclass(kw_only=True)
class CompiledFixedLoop(FixedLoop):
    """A `FixedLoop` whose steps are compiled."""

    def _take(self, t: float, y: State, h: float, f0: State) -> Step:
        y1 = advance(self.tableau, self.evaluate, self.segment, t, y, h, f0, self.n_dynamic, use_cuda_graph(y))
        return Step(y1, [f0])


def advance(
    tableau: Tableau,
    evaluate: CountedField,
    segment: Segment,
    t: float,
    y: State,
    h: float,
    f0: State | None = None,
    n_dynamic: int | None = None,
    cuda_graph: bool = False,
) -> State:
    """A step without an error estimate: the state at its end.

    opening  the field at (t, y); None: to be evaluated
    graphs   replayed as a CUDA graph: a backward pass through this step must be over before the next one
    """
    kernel, numbers = kernels.advance(tableau, n_dynamic, cuda_graph), _tensor([t, h, segment.low, segment.high], y)
    y1: State = kernel(evaluate.function, numbers, y, *([] if f0 is None else [f0]))
    made = tableau.stages - tableau.fsal - (f0 is not None)
    evaluate.count(made)
    return y1 if evaluate.count_vjps is None or not made else evaluate.count_vjps(y1, made)


def on_gpu(y: Sequence[Tensor]) -> bool:
    return y[0].is_cuda


def use_cuda_graph(y: State) -> bool:
    """Whether steps from `y` are replayed as CUDA graphs: on a GPU, where no graph of autograd keeps them all."""
    return on_gpu(y) and not torch.is_grad_enabled()


def _tensor(numbers: Sequence[float], y: State) -> Tensor:
    """On the device of `y`, without waiting for it."""
    if not on_gpu(y):
        return torch.tensor(numbers, dtype=torch.float64, device=y[0].device)
    return torch.tensor(numbers, dtype=torch.float64, device="cpu", pin_memory=True).to(y[0].device, non_blocking=True)
