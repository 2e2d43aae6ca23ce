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
from odenet_cli.ode.outputs import Taken
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import Counted, State
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
    unit: Any = None
    bounds: Sequence[float] = ()

    def _enter(self, segment: Segment) -> None:
        super()._enter(segment)
        tolerances = [self.norm.rtol, *(self.norm.atol * factor for _, factor in self.norm.groups())]
        self.bounds = [segment.low, segment.high, *tolerances]

    def _begin(self, t: float, y: State) -> State:
        unit, numbers = kernels.slope(self.feeds, recorded(y)), _tensor([self.segment.seen(t)], y)
        slope: State = unit(self.evaluate.function, numbers, y)
        self.evaluate.count(1)
        return slope if self.evaluate.mark is None else self.evaluate.mark(slope, 1)

    @torch.no_grad()
    def _hairer(self, order: int, t: float, span: float, y: State, opening: State) -> float:
        unit = kernels.start(order, self.feeds, self.judged, self._groups(), recorded(y))
        numbers = _tensor([t, span, *self.bounds], y)
        h: float = unit(self.evaluate.function, numbers, y, opening).item()
        self.evaluate.count(1)
        return h

    def _attempt(self, t: float, y: State, h: float, opening: State) -> tuple[Step, float]:
        if self.unit is None:
            groups, graphs = self._groups(), recorded(y)
            self.unit = kernels.attempt(self.tableau, self.feeds, self.judged, groups, self.dense, graphs)
        y1, k, ratio = self.unit(self.evaluate.function, _tensor([t, h, *self.bounds], y), y, opening)
        made = self.tableau.stages - 1
        self.evaluate.count(made)
        if self.evaluate.mark is not None:
            marked = self.evaluate.mark((*y1, *(part for slope in k for part in slope)), made)
            y1, rest = marked[: len(y1)], marked[len(y1) :]
            k = [rest[n : n + len(y)] for n in range(0, len(rest), len(y))]
        return Step(y1, [opening, *k], k[-1] if self.tableau.fsal else None), ratio.item()

    def _groups(self) -> kernels.Slices:
        """The norm's groups of components."""
        return tuple((group.start, group.stop) for group, _ in self.norm.groups())


@dataclass(kw_only=True)
class WholeLoop(CompiledLoop):
    """All steps in one compiled loop, controller included; one call a solve. The host asks whether to go on.

    It yields one step for all of them, so it is for solves in which nobody looks at single steps: no graph, no tape, no
    outputs inside. For FSAL pairs under the I controller.
    """

    def run(self, segment: Segment, y: State) -> Iterator[Taken]:
        self._enter(segment)
        t, end, order = segment.start, segment.end, self.tableau.embedded_order + 1
        opening = self.opening or self._begin(t, y)
        wanted = max(self.h or self._first(order, t, y, opening), self.min_step)
        floor = max(self.min_step, 4 * math.ulp(max(abs(t), abs(end))))
        limit = self.max_steps - self.accepted - self.rejected
        numbers = [end, self.min_step, self.max_step, floor, limit, *self.bounds]
        unit = kernels.whole(self.tableau, self.feeds, self.judged, self._groups(), self.controller)
        state = _tensor([t, wanted, self.controller.grow, 0, 0, 0], y)
        y1, last, made = unit(self.evaluate.function, _tensor(numbers, y), state, y, opening)
        now, self.h, _, accepted, rejected, blown = made.tolist()
        self.accepted, self.rejected = self.accepted + int(accepted), self.rejected + int(rejected)
        self.opening, self.blown = last, bool(blown)
        self.evaluate.count((self.tableau.stages - 1) * int(accepted + rejected))
        if now != t:
            yield Taken(t, now - t, now, segment, y=y, step=Step(y1, [opening], last))
        if now != end:  # the loop has given up, and the guard says why
            yield from super().run(segment._replace(start=now), y1)
        if segment.before_jump:
            self.opening = None


@dataclass(kw_only=True)
class CompiledFixedLoop(FixedLoop):
    """A `FixedLoop` whose steps are compiled."""

    def _take(self, t: float, y: State, h: float, opening: State) -> Step:
        y1 = advance(self.tableau, self.evaluate, self.segment, t, y, h, opening, self.feeds, recorded(y))
        return Step(y1, [opening])


def advance(
    tableau: Tableau,
    evaluate: Counted,
    segment: Segment,
    t: float,
    y: State,
    h: float,
    opening: State | None = None,
    feeds: int | None = None,
    graphs: bool = False,
) -> State:
    """A step without an error estimate: the state at its end.

    opening  the field at (t, y); None: to be evaluated
    graphs   replayed as a CUDA graph: a backward pass through this step must be over before the next one
    """
    unit, numbers = kernels.advance(tableau, feeds, graphs), _tensor([t, h, segment.low, segment.high], y)
    y1: State = unit(evaluate.function, numbers, y, *([] if opening is None else [opening]))
    made = tableau.stages - tableau.fsal - (opening is not None)
    evaluate.count(made)
    return y1 if evaluate.mark is None or not made else evaluate.mark(y1, made)


def on_gpu(y: Sequence[Tensor]) -> bool:
    return y[0].is_cuda


def recorded(y: State) -> bool:
    """Whether steps from `y` are replayed as CUDA graphs: on a GPU, where no graph of autograd keeps them all."""
    return on_gpu(y) and not torch.is_grad_enabled()


def _tensor(numbers: Sequence[float], y: State) -> Tensor:
    """On the device of `y`, without waiting for it."""
    if not on_gpu(y):
        return torch.tensor(numbers, dtype=torch.float64, device=y[0].device)
    return torch.tensor(numbers, dtype=torch.float64, device="cpu", pin_memory=True).to(y[0].device, non_blocking=True)
