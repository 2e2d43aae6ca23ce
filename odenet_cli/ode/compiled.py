"""The same steps, compiled by `torch.compile`: one call an attempt, from the opening slope to the norm of the error.

A unit is compiled once for a tableau, a field and shapes, and runs until one of them changes. The numbers of a step (t,
h, tolerances) come in as one tensor, so that they change nothing. Compilation takes seconds to a minute, and pays for
small fields, where the time goes into starting operations; on a CPU not for convolutions. For tiny ones the whole loop,
controller included, can be one unit (`WholeLoop`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.control import Controller, allowed
from odenet_cli.ode.errors import NotCompiled
from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop, Taken
from odenet_cli.ode.state import Counted, Evaluate, State, norms_of
from odenet_cli.ode.step import Step, errors, rk_step
from odenet_cli.ode.tableau import Tableau

Slices = tuple[tuple[int | None, int | None], ...]


@dataclass(kw_only=True)
class CompiledLoop(AdaptiveLoop):
    """An `AdaptiveLoop` whose attempts are compiled.

    dense        outputs may lie inside steps: keep all slopes of a step, not only its last
    unit, bounds the compiled attempt; rtol, and the atol of each group of the norm, which do not change during a run
    """

    evaluate: Counted
    dense: bool = True
    unit: Any = None
    bounds: Sequence[float] = ()

    def run(self, t: float, end: float, y: State) -> Iterator[Taken]:
        self._settle()
        return super().run(t, end, y)

    def _settle(self) -> None:
        self.bounds = [self.norm.rtol, *(self.norm.atol * factor for _, factor in self.norm.groups())]

    def _begin(self, t: float, y: State) -> State:
        slope: State = _slope(self.feeds)(self.evaluate.function, _tensor([t], y), y)
        self.evaluate.count(1)
        return slope if self.evaluate.mark is None else self.evaluate.mark(slope, 1)

    @torch.no_grad()
    def _hairer(self, order: int, t: float, span: float, y: State, opening: State) -> float:
        unit = _start(order, self.feeds, self.judged, self._groups())
        numbers = _tensor([t, span, *self.bounds], y)
        h: float = unit(self.evaluate.function, numbers, y, opening).item()
        self.evaluate.count(1)
        return h

    def _attempt(self, t: float, y: State, h: float, opening: State) -> tuple[Step, float]:
        if self.unit is None:
            self.unit = _attempt(self.tableau, self.feeds, self.judged, self._groups(), self.dense)
        y1, k, ratio = self.unit(self.evaluate.function, _tensor([t, h, *self.bounds], y), y, opening)
        made = self.tableau.stages - 1
        self.evaluate.count(made)
        if self.evaluate.mark is not None:
            marked = self.evaluate.mark((*y1, *(part for slope in k for part in slope)), made)
            y1, rest = marked[: len(y1)], marked[len(y1) :]
            k = [rest[n : n + len(y)] for n in range(0, len(rest), len(y))]
        return Step(y1, [opening, *k], k[-1] if self.tableau.fsal else None), ratio.item()

    def _groups(self) -> Slices:
        """The norm's groups of components."""
        return tuple((group.start, group.stop) for group, _ in self.norm.groups())


@dataclass(kw_only=True)
class WholeLoop(CompiledLoop):
    """All steps in one compiled loop, controller included; one host synchronisation a solve.

    It yields one step for all of them, so it is for solves in which nobody looks at single steps: no graph, no tape, no
    outputs inside. For FSAL pairs under the I controller.
    """

    def run(self, t: float, end: float, y: State) -> Iterator[Taken]:
        self._settle()
        for stop, behind in self._stretches(t, end, y):
            opening = self.opening or self._begin(t, y)
            wanted = max(self.h or self._first(self.tableau.embedded_order + 1, t, end, y, opening), self.min_step)
            floor = max(self.min_step, 4 * math.ulp(max(abs(t), abs(stop))))
            limit = self.max_steps - self.accepted - self.rejected
            numbers = [stop, self.min_step, self.max_step, floor, limit, *self.bounds]
            unit = _whole(self.tableau, self.feeds, self.judged, self._groups(), self.controller)
            made = unit(
                self.evaluate.function,
                _tensor(numbers, y),
                _tensor([t, wanted, self.controller.grow, 0, 0, 0], y),
                y,
                opening,
            )
            y1, self.opening, (now, self.h, _, accepted, rejected, blown) = made[0], made[1], made[2].tolist()
            self.accepted, self.rejected = self.accepted + int(accepted), self.rejected + int(rejected)
            self.blown = bool(blown)
            self.evaluate.count((self.tableau.stages - 1) * int(accepted + rejected))
            if now != t:
                yield Taken(t, now - t, now, y=y, step=Step(y1, [opening], self.opening))
            if now != stop:  # the loop has given up, and the guard says why
                yield from super().run(now, end, y1)
                return
            t, y = stop, y1
            if stop != end:
                t, self.opening = behind, None


@dataclass(kw_only=True)
class CompiledFixedLoop(FixedLoop):
    """A `FixedLoop` whose steps are compiled."""

    evaluate: Counted

    def _take(self, t: float, y: State, h: float, opening: State) -> Step:
        y1 = advance(self.tableau, self.evaluate, t, y, h, opening, self.feeds)
        return Step(y1, [opening])


def advance(
    tableau: Tableau, evaluate: Counted, t: float, y: State, h: float, opening: State, feeds: int | None = None
) -> State:
    """A step without an error estimate: the state at its end."""
    y1: State = _advance(tableau, feeds)(evaluate.function, _tensor([t, h], y), y, opening)
    made = tableau.stages - tableau.fsal - 1
    evaluate.count(made)
    return y1 if evaluate.mark is None or not made else evaluate.mark(y1, made)


def _tensor(numbers: Sequence[float], y: State) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=y[0].device)


@lru_cache
def _attempt(tableau: Tableau, feeds: int | None, judged: int | None, groups: Slices, dense: bool) -> Any:
    """(function, [t, h, rtol, *atol], y, opening) -> the state, the new slopes (or only the last), the error ratio."""
    prepare(tableau)

    def attempt(function: Evaluate, numbers: Tensor, y: State, opening: State) -> tuple[State, list[State], Tensor]:
        t, h, rtol, *atol = numbers.unbind()
        step = rk_step(tableau, function, t, y, h, opening, feeds=feeds)
        with torch.no_grad():
            ratio = _ratio(tableau, step, y, h, judged, groups, rtol, atol)
        return step.y, step.slopes[1:] if dense else step.slopes[-1:], ratio

    return _compiled(attempt)


def _ratio(
    tableau: Tableau, step: Step, y: State, h: Tensor, judged: int | None, groups: Slices, rtol: Tensor, atol: Any
) -> Tensor:
    """The error in units of the tolerance, as the plain loop has it, but on the device."""
    estimates = errors(tableau, h, step.slopes, judged)
    size, *others = _sizes(estimates, y[:judged], step.y[:judged], groups, rtol, atol)
    if not others:
        return size
    (coarse,) = others
    return torch.where(coarse == 0, size, size * size / torch.sqrt(size * size + 0.01 * coarse * coarse))


def _sizes(states: Sequence[State], y: State, y1: State, groups: Slices, rtol: Tensor, atol: Any) -> list[Tensor]:
    """`Norm.sizes` on the device."""
    slices = [slice(*ends) for ends in groups]
    bounds = [allowed(y[s], y1[s], rtol, a) for s, a in zip(slices, atol)]
    scaled = [[tuple(map(torch.div, state[s], bound)) for s, bound in zip(slices, bounds)] for state in states]
    return [torch.stack([_rms(group, rtol) for group in groups]).amax() for groups in scaled]


@lru_cache
def _slope(feeds: int | None) -> Any:
    """(function, [t], y) -> the field there."""

    def slope(function: Evaluate, numbers: Tensor, y: State) -> State:
        return function(numbers[0], y[:feeds])

    return _compiled(slope)


@lru_cache
def _start(order: int, feeds: int | None, judged: int | None, groups: Slices) -> Any:
    """(function, [t, span, rtol, *atol], y, opening) -> the length that `control.first_step` finds."""

    def start(function: Evaluate, numbers: Tensor, y: State, opening: State) -> Tensor:
        t, span, rtol, *atol = numbers.unbind()
        known, slope = y[:judged], opening[:judged]
        d0, d1 = _sizes([known, slope], known, known, groups, rtol, atol)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).minimum(span.abs())
        signed = torch.copysign(h0, span)
        probe = tuple(part + k * signed.to(part.real.dtype) for part, k in zip(known[:feeds], slope))
        moved = tuple(k1 - k for k1, k in zip(function(t + signed, probe, True), slope))
        d2 = _sizes([moved], known[: len(moved)], known[: len(moved)], groups, rtol, atol)[0] / h0
        steepest = torch.where(torch.isfinite(d2), torch.maximum(d1, d2), math.inf)
        h1 = torch.where(steepest <= 1e-15, (1e-3 * h0).clamp(min=1e-6), (0.01 / steepest) ** (1.0 / order))
        h1 = torch.where(h1 == 0, h0, h1)
        h = torch.minimum(torch.minimum(100.0 * h0, h1), span.abs())
        return torch.where(torch.isfinite(d0 + d1), h, math.nan)

    return _compiled(start)


def _rms(state: State, like: Tensor) -> Tensor:
    """Root mean square over all numbers, 0 for an empty state; a 0-d tensor like `like`."""
    squares = [norm.to(like.dtype).square() for norm in norms_of([state], [2.0])]
    count = sum(part.numel() for part in state)
    return torch.stack(squares).sum().div(count).sqrt() if squares else torch.zeros_like(like)


@lru_cache(maxsize=32)
def _whole(tableau: Tableau, feeds: int | None, judged: int | None, groups: Slices, controller: Controller) -> Any:
    """(function, [end, min_step, max_step, floor, limit, rtol, *atol], [t, h, grow, accepted, rejected, blown], y,
    opening) -> the state, its slope, and the six numbers at the end of the loop."""
    from torch._higher_order_ops.while_loop import while_loop

    prepare(tableau)
    order, safety, shrink, grow = controller.order, controller.safety, controller.shrink, controller.grow

    def loop(function: Evaluate, numbers: Tensor, state: Tensor, y: State, opening: State) -> Any:
        def going(state: Tensor, y: State, opening: State) -> Tensor:
            t, h, _, accepted, rejected, _ = (state[n] for n in range(6))
            end, floor, limit = numbers[0], numbers[3], numbers[4]
            able = h >= torch.minimum((end - t).abs(), floor)
            return (t != end) & able & (accepted + rejected < limit)

        def attempt(state: Tensor, y: State, opening: State) -> tuple[Tensor, State, State]:
            t, h, most, accepted, rejected, _ = (state[n] for n in range(6))
            end, low, high, rtol = numbers[0], numbers[1], numbers[2], numbers[5]
            atol = [numbers[6 + n] for n in range(len(groups))]
            left = end - t
            wanted = torch.minimum(h, high)
            last = wanted >= left.abs()
            signed = torch.where(last, left, torch.copysign(wanted, left))
            step = rk_step(tableau, function, t, y, signed, opening, feeds=feeds)
            ratio = _ratio(tableau, step, y, signed, judged, groups, rtol, atol)

            good = ratio <= 1.0
            factor = safety * torch.exp(-torch.log(ratio.clamp(min=1e-10)) / order)
            factor = torch.where(torch.isfinite(ratio), factor.clamp(shrink, grow), shrink)
            factor = torch.minimum(factor, most)
            cut = wanted > left.abs()
            grown = torch.maximum(torch.where(cut, wanted, wanted * factor), low)
            numbers_now = [
                torch.where(good, torch.where(last, end, t + signed), t),
                torch.where(good, grown, signed.abs() * factor),
                torch.where(good, grow, 1.0).double(),
                accepted + good,
                rejected + ~good,
                (~torch.isfinite(ratio)).double(),
            ]
            kept = tuple(torch.where(good, new, old) for new, old in zip(step.y, y))
            slope = tuple(torch.where(good, new, old) for new, old in zip(step.slopes[-1], opening))
            return torch.stack(numbers_now), kept, slope

        y, opening = tuple(part.clone() for part in y), tuple(part.clone() for part in opening)
        state, y, opening = while_loop(going, attempt, (state.clone(), y, opening))  # type: ignore[no-untyped-call]
        return y, opening, state

    return _compiled(loop, options={"cpp_wrapper": True})


@lru_cache
def _advance(tableau: Tableau, feeds: int | None) -> Any:
    """(function, [t, h], y, opening) -> the state."""
    prepare(tableau)

    def step(function: Evaluate, numbers: Tensor, y: State, opening: State) -> State:
        t, h = numbers.unbind()
        return rk_step(tableau, function, t, y, h, opening, close=False, feeds=feeds).y

    return _compiled(step)


def prepare(tableau: Tableau) -> None:
    """Derive now what a step uses of a tableau: a compiler does not see into what is derived when first asked for."""
    for name in ("plan", "keep", "doubt", "doubt_third", "weighty", "fsal"):
        getattr(tableau, name)


def _compiled(unit: Callable[..., Any], **options: Any) -> Any:
    """`unit` compiled as one graph; every field and shape has a compilation of its own."""
    import torch._dynamo.config as dynamo

    # The adjoint asks for vector-Jacobian products inside its step; and a field more is no sign of a mistake.
    dynamo.trace_autograd_ops = True
    dynamo.recompile_limit = max(dynamo.recompile_limit, 64)
    compiler: Any = torch.compile
    if "isolate_recompiles" in inspect.signature(compiler).parameters:
        options["isolate_recompiles"] = True
    made = compiler(unit, fullgraph=True, dynamic=False, **options)

    def call(*inputs: Any) -> Any:
        try:
            return made(*inputs)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise NotCompiled(
                f"the field cannot be compiled as one graph: {lines[0] if lines else type(error).__name__}\n"
                "  Use compile=false, or write the field in tensor operations alone."
            ) from error

    return call
