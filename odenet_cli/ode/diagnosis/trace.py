"""Trace a solve: its arguments, the lengths of its steps, where they were rejected, and how it ended."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.control import Norm
from odenet_cli.ode.errors import PrecisionWarning, SolveError
from odenet_cli.ode.field.reachable import Reachable, reachable
from odenet_cli.ode.outputs import AcceptedStep, steps
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.settings import OutputTimes
from odenet_cli.ode.solver import Adaptive, Solver
from odenet_cli.ode.state import Field, State, norms

WINDOW = 49  # steps whose states are kept, the last ones


class OverBudget(Exception):
    """Report that a trial solve takes more evaluations than it may."""


class TracedStep(NamedTuple):
    """Hold where an accepted step began, and how many attempts were rejected before it."""

    t: float
    h: float
    y: State
    rejected: int


@dataclass
class Trace:
    """Hold the trace of a solve.

    t, f_size        start of each accepted step, and the largest modulus of its first derivative
    window, retried  the last steps, and the last steps that were accepted only after a rejection
    largest          the largest modulus that each number of the state has had
    end              (time, state) after the last step; `outputs` is set if the solve reached its end
    error            why it failed; `refused` if before its first evaluation
    warned           the solver's warning about the resolution of the dtype
    """

    t: list[float] = field(default_factory=list)
    f_size: list[float] = field(default_factory=list)
    # Only the last steps, since a failing solve may take thousands.
    window: deque[TracedStep] = field(default_factory=lambda: deque(maxlen=WINDOW))
    retried: deque[TracedStep] = field(default_factory=lambda: deque(maxlen=64))
    largest: State = ()
    end: tuple[float, State] = (math.nan, ())
    outputs: State | None = None
    error: Exception | None = None
    refused: bool = False
    warned: str = ""
    nfe: int = 0
    rejected: int = 0

    @property
    def accepted(self) -> int:
        return len(self.t)

    @property
    def attempts(self) -> int:
        return self.accepted + self.rejected

    def add(self, accepted: AcceptedStep, rejected: int) -> None:
        """Record a step; `rejected` counts all attempts that the solve has rejected so far."""
        # Rejections since the last accepted step.
        new, self.rejected = rejected - self.rejected, rejected
        seen, y1 = TracedStep(accepted.t, accepted.h, accepted.y, new), accepted.step.y
        self.t.append(accepted.t)
        # For Adams and Rosenbrock methods k[0] is only close to f.
        self.f_size.append(norms([accepted.step.k[0]], [math.inf])[0])
        self.window.append(seen)
        if new:
            self.retried.append(seen)
        # The scale of a number's error is its largest size so far, since its size at the end may be 0.
        self.largest = tuple(map(torch.maximum, self.largest, (part.abs() for part in y1)))
        self.end = accepted.end, y1


@dataclass
class Case:
    """Hold one solve: the arguments of a solver's call, and the solver."""

    solver: Solver
    field: Field
    y0: Any
    ts: Any
    args: Sequence[Any] = ()

    @property
    def norm(self) -> Norm:
        """The norm by the solver's tolerance; by 1e-3 for fixed steps."""
        return Norm(getattr(self.solver, "rtol", 1e-3), getattr(self.solver, "atol", 1e-3))

    @property
    def times(self) -> list[float]:
        return OutputTimes.read(self.ts).values

    def reads(self) -> Reachable:
        """Return the values that the field can read."""
        return reachable([("field", self.field), ("args", self.args)])

    def weights(self) -> dict[str, Tensor]:
        """Return the floating-point tensors that the field reads, by their names."""
        named = self.reads().snapshot.named_tensors()
        return {name: x for name, x in named.items() if x.is_floating_point() and not x.is_inference()}

    @contextlib.contextmanager
    def under(self, cure: dict[str, Any], repair: Callable[[Case], Case] | None = None) -> Iterator[Case]:
        """Yield the same solve with a cure; weights that it changes are restored afterwards."""
        # A cure in float64 or a repair replaces the data of the weights, not the tensors, which the field reads.
        case, before = self, [(tensor, tensor.data) for tensor in self.weights().values()]
        try:
            case = repair(self) if repair else self
            if "dtype" in cure:
                case = case.in_double()
            if "ts" in cure:
                case = replace(case, ts=cure["ts"])
            settings = {key: value for key, value in cure.items() if key not in ("dtype", "ts", "field")}
            yield replace(case, solver=replace(case.solver, **settings))
        finally:
            for tensor, data in before:
                tensor.data = data

    def in_double(self) -> Case:
        """Return the same solve in float64, including the tensors that the field reads, which the caller restores."""
        for tensor in self.weights().values():
            tensor.data = tensor.data.double()
        y0 = self.y0.double() if isinstance(self.y0, Tensor) else tuple(part.double() for part in self.y0)
        return replace(self, y0=y0)

    def tighter(self) -> Case:
        """Return the same solve at a hundredth of the tolerance, or in four times the steps."""
        # Four times the steps: at order 2 a sixteenth of the error.
        if not isinstance(self.solver, Adaptive):
            return replace(self, solver=replace(self.solver, steps=4 * self.solver.steps))
        parts = [self.y0] if isinstance(self.y0, Tensor) else self.y0
        # A tolerance below the dtype's resolution would only measure rounding.
        least = 4 * max(torch.finfo(part.dtype).eps for part in parts)
        rtol, atol = self.solver.rtol, self.solver.atol
        finer: dict[str, Any] = {"rtol": max(rtol / 100, least) if rtol else 0.0, "atol": atol / 100}
        return replace(self, solver=replace(self.solver, **finer, max_steps=max(100_000, self.solver.max_steps)))


def observe(case: Case, budget: int | None = None) -> Trace:
    """Solve without gradients and return the trace; raise OverBudget after `budget` evaluations."""
    # Goes through the steps of an ordinary solve, without support by the solver.
    rhs, times, trace = RightHandSide(case.field, case.y0, case.args), OutputTimes.read(case.ts), Trace()
    # Uncompiled steps, which are the same as compiled ones and have all their stages.
    solver = replace(case.solver, compile=False, gradient="backprop")
    trace.largest, trace.end = tuple(part.abs() for part in rhs.y0), (times.values[0], rhs.y0)
    distinct, _, _ = times.merge()
    problem = Problem(rhs, distinct, None, solver, len(distinct) == 2)
    loop = problem.loop()
    states = [problem.y0]
    # Record the warning instead of showing it, since the solver is called many times here.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PrecisionWarning)
        try:
            solver.check_resolution(rhs, times.values)
            with rhs.torch_settings.for_solver():
                for accepted in steps(loop, problem, states):
                    # A trial must not exceed its budget.
                    if budget is not None and rhs.stats.nfe_forward > budget:
                        raise OverBudget
                    trace.add(accepted, loop.rejected)
            trace.outputs = states[-1]
        # Before the first evaluation the solver itself raised it, afterwards the field.
        except ValueError as error:
            if rhs.stats.nfe_forward:
                raise
            trace.error, trace.refused = error, True
        except SolveError as error:
            trace.error = error
    trace.warned = next((str(x.message) for x in caught if issubclass(x.category, PrecisionWarning)), "")
    trace.nfe, trace.rejected = rhs.stats.nfe_forward, loop.rejected
    return trace


def columns(state: State) -> list[Tensor]:
    """Return the largest modulus of each number over the samples: of the last dimension, of images of the channels."""
    # A column has its own unit: a state variable, a channel.
    kept = [0 if part.dim() < 2 else 1 if part.dim() == 4 else part.dim() - 1 for part in state]
    return [
        part.abs().cpu().double().amax(tuple(d for d in range(part.dim()) if d != keep))
        if part.dim() > 1
        else part.abs().cpu().double().reshape(-1)
        for part, keep in zip(state, kept)
    ]


def relative_error(trace: Trace, exact: Trace, by_column: bool = False) -> float:
    """Return the largest error at the end relative to the size that a tensor of the state had, or each column of it."""
    assert trace.outputs is not None
    assert exact.outputs is not None
    # In float64, where the difference of two float32 solutions is exact.
    difference = tuple(a.cpu().double() - b.cpu().double() for a, b in zip(trace.outputs, exact.outputs))
    if by_column:
        pairs = zip(columns(difference), columns(exact.largest))
        return max(float((d / size.clamp(min=1e-300))[size > 0].max()) for d, size in pairs if (size > 0).any())
    return max(float(d.abs().max() / max(float(size.max()), 1e-300)) for d, size in zip(difference, exact.largest))
