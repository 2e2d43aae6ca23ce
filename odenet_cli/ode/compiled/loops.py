"""Loops over compiled steps: one kernel call per attempt, from f0 to the error norm.

A kernel is compiled once for each tableau, field and shape. Compilation takes seconds to a minute. It pays for small
fields, where most time is spent launching operations, but not for convolutions on a CPU. For tiny fields the whole
loop, controller included, can be one kernel (`WholeLoop`). On a GPU kernels are recorded as CUDA graphs, except for
whole loops and where autograd keeps every step (`backprop`), since a CUDA graph has the memory for one step only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.compiled import kernels
from odenet_cli.ode.errors import NotCompiled
from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop, InitialStep, StepFunction
from odenet_cli.ode.outputs import AcceptedStep
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import CountedField, State
from odenet_cli.ode.step import Step
from odenet_cli.ode.tableau import Tableau


@dataclass(kw_only=True)
class CompiledLoop(AdaptiveLoop):
    """Take adaptive steps whose attempts are compiled. Kernels do not count: the loop does.

    interior_outputs  outputs may lie inside steps, so all stages of a step are kept, not only the last
    kernel            the compiled attempt
    bounds            constants of a segment: the first and last time that the field may see, rtol, and the atol of
                      each group of the norm
    """

    interior_outputs: bool = True
    kernel: Any = None
    bounds: Sequence[float] = ()

    def enter(self, segment: Segment) -> None:
        super().enter(segment)
        tolerances = [self.norm.rtol, *(self.norm.atol * factor for _, factor in self.norm.groups())]
        self.bounds = [segment.low, segment.high, *tolerances]

    def step_function(self) -> StepFunction:
        return self.attempt

    def derivative_at(self, t: float, y: State) -> State:
        kernel = kernels.derivative(self.n_dynamic, use_cuda_graph(y))
        try:
            f0: State = kernel(self.vector_field, _tensor([self.segment.visible_time(t)], y), y)
        except NotCompiled:
            # What the field itself raises, or is refused for, says more than that a compiler met it.
            self.f(t, y[: self.n_dynamic])
            raise
        self.vector_field.count(1)
        return _count_vjps(self.vector_field, f0, 1)

    def initial_step_function(self, order: int) -> InitialStep:
        return partial(self._initial_step, order)

    @torch.no_grad()
    def _initial_step(self, order: int, t: float, y: State, f0: State, span: float) -> float:
        kernel = kernels.initial_step(order, self.n_dynamic, self.n_controlled, self._groups(), use_cuda_graph(y))
        h: float = kernel(self.vector_field, _tensor([t, span, *self.bounds], y), y, f0).item()
        self.vector_field.count(1)
        # A NaN may come from the field, or from an overflowing sum of squares, which the host's norm avoids.
        return h if not math.isnan(h) else super().initial_step_function(order)(t, y, f0, span)

    def attempt(self, t: float, y: State, h: float, f0: State) -> Step:
        """Return a step with its error ratio."""
        # Once per solve, not per attempt.
        if self.kernel is None:
            self.kernel = kernels.attempt(
                self.tableau,
                self.n_dynamic,
                self.n_controlled,
                self._groups(),
                self.interior_outputs,
                use_cuda_graph(y),
            )
        y1, k, ratio = self.kernel(self.vector_field, _tensor([t, h, *self.bounds], y), y, f0)
        # f0 was given; all other stages were evaluated.
        evaluations = self.tableau.stages - 1
        self.vector_field.count(evaluations)
        # One hook for the step: a backward pass goes through all of its evaluations or none.
        flat = _count_vjps(self.vector_field, (*y1, *(part for stage in k for part in stage)), evaluations)
        # Split the flat tuple into the state and the list of stages again.
        y1, k = flat[: len(y1)], [flat[n : n + len(y)] for n in range(len(y1), len(flat), len(y))]
        return Step(y1, [f0, *k], k[-1] if self.tableau.fsal else None, ratio)

    def error_ratio(self, y: State, h: float, step: Step) -> float:
        # The only synchronisation of an attempt.
        ratio: float = step.error_ratio.item()
        return ratio

    def _groups(self) -> kernels.Slices:
        """Return the norm's groups of components."""
        return tuple((group.start, group.stop) for group, _ in self.norm.groups())


@dataclass(kw_only=True)
class WholeLoop(CompiledLoop):
    """Take all steps of a segment in one compiled loop, controller included.

    It yields a single step for all of them, so it is for solves without graph, tape or interior outputs. This step has
    only f0 and f1 as stages. For FSAL pairs with the I controller.
    """

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        self.enter(segment)
        t, end, order = segment.start, segment.end, self.tableau.embedded_order + 1
        f0 = self.f0 or self.derivative_at(t, y)
        h_next = self.checked_length(t, end, self.h or self._initial_step(order, t, y, f0, segment.span_end - t))
        # The limits of `fit_step`: the kernel stops at them, but cannot report why.
        floor = self.shortest(t, end)
        limit = self.max_steps - self.accepted - self.rejected
        numbers = [end, self.min_step, self.max_step, floor, limit, *self.bounds]
        kernel = kernels.whole_loop(self.tableau, self.n_dynamic, self.n_controlled, self._groups(), self.controller)
        state = _tensor([t, h_next, self.controller.max_factor, 0, 0, 0], y)
        y1, f1, state = kernel(self.vector_field, _tensor(numbers, y), state, y, f0)
        # All six numbers in one transfer.
        t1, self.h, _, accepted, rejected, nonfinite = state.tolist()
        self.accepted, self.rejected = self.accepted + int(accepted), self.rejected + int(rejected)
        self.f0, self.nonfinite = f1, bool(nonfinite)
        # A rejected attempt costs as much as an accepted one; f0 is known for both.
        self.vector_field.count((self.tableau.stages - 1) * int(accepted + rejected))
        # No step, if the loop stopped before the first one was accepted.
        if t1 != t:
            yield AcceptedStep(t, t1 - t, t1, segment, y=y, step=Step(y1, [f0], f1))
        if t1 != end:  # the loop stopped at a limit; `fit_step` raises the error
            yield from super().run(segment._replace(start=t1), y1)
        if segment.ends_at_jump:
            self.f0 = None


@dataclass(kw_only=True)
class CompiledFixedLoop(FixedLoop):
    """Take fixed steps that are compiled."""

    def step_function(self) -> StepFunction:
        return self.advance

    def advance(self, t: float, y: State, h: float, f0: State) -> Step:
        # Only the first stage is returned: outputs are ends of steps, and dense output uses uncompiled loops.
        y1 = advance(self.tableau, self.vector_field, self.segment, t, y, h, f0, self.n_dynamic, use_cuda_graph(y))
        return Step(y1, [f0])


def advance(
    tableau: Tableau,
    vector_field: CountedField,
    segment: Segment,
    t: float,
    y: State,
    h: float,
    f0: State | None = None,
    n_dynamic: int | None = None,
    cuda_graph: bool = False,
) -> State:
    """Return the state after a step without an error estimate.

    f0          the field at (t, y); None: to be evaluated
    cuda_graph  replayed as a CUDA graph: a backward pass through this step must be over before the next one
    """
    kernel, numbers = kernels.advance(tableau, n_dynamic, cuda_graph), _tensor([t, h, segment.low, segment.high], y)
    y1: State = kernel(vector_field, numbers, y, *([] if f0 is None else [f0]))
    # An FSAL step without f1 has one evaluation less than stages, and a given f0 saves another.
    evaluations = tableau.stages - tableau.fsal - (f0 is not None)
    vector_field.count(evaluations)
    return _count_vjps(vector_field, y1, evaluations) if evaluations else y1


def _count_vjps(vector_field: CountedField, outputs: State, evaluations: int) -> State:
    """Return the outputs of a kernel, through which backward passes count, and must not retain its graph."""
    return vector_field.count_vjps(outputs, evaluations, partial(kernels.check_retained, outputs[0].grad_fn))


def on_gpu(y: Sequence[Tensor]) -> bool:
    return y[0].is_cuda


def use_cuda_graph(y: State) -> bool:
    """Return whether steps from `y` are replayed as CUDA graphs: on a GPU, where no graph of autograd keeps them."""
    return on_gpu(y) and not torch.is_grad_enabled()


def _tensor(numbers: Sequence[float], y: State) -> Tensor:
    """Return `numbers` as a tensor on the device of `y`, without synchronisation."""
    # A copy from pinned memory is asynchronous; from other memory the host would wait for the device.
    if not on_gpu(y):
        return torch.tensor(numbers, dtype=torch.float64, device=y[0].device)
    return torch.tensor(numbers, dtype=torch.float64, device="cpu", pin_memory=True).to(y[0].device, non_blocking=True)
