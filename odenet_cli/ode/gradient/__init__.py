"""Gradients through a solve, one a file: the module's name is the gradient's name, `GRADIENT` its class.

A gradient solves a `Problem`, which knows how to evaluate and to integrate, and counts. Either autograd sees the solve
itself (`backprop`), or the solve is one node of its graph (`taped`): then `forward` solves and says what it keeps, and
`backward` turns the cotangents of the states at the output times into those of y0, of the times, and of the tensors
the field captured.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from odenet_cli import registry
from odenet_cli.ode.capture import capture, node_number
from odenet_cli.ode.clock import Clock
from odenet_cli.ode.loop import Integrator, Taken, outputs
from odenet_cli.ode.state import Counted, Evaluate, RightHandSide, State, Time
from odenet_cli.ode.stats import Stats

MaybeTensor = Tensor | None
Cotangents = Sequence[list[MaybeTensor]]


@dataclass
class Problem:
    """One solve: what is solved, how, and its cost.

    times     the output times as a tensor, where their gradient is wanted
    captured  tensors with gradients that the field reads; `retain` says that its graph reaches beyond them
    opening   the field at y0, where it is already known
    since     the number of autograd's next node when the solve began
    """

    rhs: RightHandSide
    ts: list[float]
    times: Tensor | None
    solver: Any
    stats: Stats
    captured: tuple[Tensor, ...] = ()
    retain: bool = False
    opening: State | None = None
    since: int = field(default_factory=node_number)

    def integrate(
        self, evaluate: Evaluate, keep: Callable[[Taken], None] | None = None, clock: Clock | None = None
    ) -> list[State]:
        """The states at the output times; `keep` sees the accepted steps."""
        dense = len(self.ts) > 2
        whole = not dense and keep is None and not torch.is_grad_enabled()
        loop: Integrator = self.solver.loop(evaluate, dense=dense, whole=whole)
        loop.opening, self.opening = self.opening, None
        try:
            return outputs(loop, self.ts, self.rhs.y0, keep, clock)
        finally:
            self.stats.accepted, self.stats.rejected = loop.accepted, loop.rejected

    @property
    def evaluate(self) -> Counted:
        """The field, counted as forward work."""
        return Counted(self.rhs, self._forward)

    @property
    def evaluate_marked(self) -> Counted:
        """The same; the backward pass counts its way through."""
        return Counted(self.rhs, self._forward, self.mark)

    @property
    def evaluate_again(self) -> Counted:
        """The field, counted as backward work; a pass through its graph counts its way."""
        return Counted(self.rhs, self._backward, self.mark)

    def _forward(self, evaluations: int) -> None:
        self.stats.nfe_forward += evaluations

    def _backward(self, evaluations: int) -> None:
        self.stats.nfe_backward += evaluations

    def mark(self, made: State, evaluations: int) -> State:
        """`made`, by so many evaluations: when a backward pass comes to it, they are counted as pulled back."""
        stats, passes = self.stats, [-1]

        def count(cotangent: Tensor) -> None:
            now = torch._C._current_graph_task_id()  # one backward pass; several cotangents of it may come here
            if now != passes[0]:
                passes[0] = now
                stats.vjps += evaluations

        own = []
        for k in made:
            if k.requires_grad:
                # What was there before the solve, a parameter say, is the caller's: the hook goes to an alias of it.
                if k.grad_fn is None or k.grad_fn._sequence_nr() < self.since:
                    k = k.view_as(k)
                k.register_hook(count)  # type: ignore[no-untyped-call]
            own.append(k)
        return tuple(own)

    def clock(self, times: Tensor | None) -> Clock | None:
        """What makes the steps move with `times`."""
        return None if times is None else Clock(self.ts, times.to(self.rhs.device, self.rhs.time_dtype))


def moving(evaluate: Counted, clock: Clock | None) -> Evaluate:
    """`evaluate` where t and h move with the output times."""
    if clock is None:
        return evaluate

    def moved(t: Time, y: State, weighty: bool = True) -> State:
        return clock.stretched(evaluate(clock.at(t), y, weighty))

    return moved


class Gradients(NamedTuple):
    """Cotangents of y0, of the output times, and of the captured tensors."""

    y0: Sequence[MaybeTensor]
    times: MaybeTensor
    captured: Sequence[MaybeTensor]


class Gradient(Protocol):
    """The contract of the modules in this package.

    solve      the states at the output times, stacked, with their gradient
    multistep  it can differentiate multistep methods too; one that does not say so is refused there
    """

    def solve(self, problem: Problem) -> tuple[Tensor, ...]: ...


class Taped(Gradient, Protocol):
    """A gradient whose solve is one node of the graph.

    keeps_outputs   backward wants the states at the output times
    forward         those states, the tape (anything without tensors), and the tensors to keep for the backward pass
    backward        is given back what was kept, in front of it the states if it `keeps_outputs`
    backward_again  the same gradient made by plain autograd, for second derivatives
    """

    keeps_outputs: bool

    def forward(self, problem: Problem) -> tuple[list[State], Any, list[Tensor]]: ...

    def backward(self, problem: Problem, tape: Any, kept: Sequence[Any], cotangents: Cotangents) -> Gradients: ...

    def backward_again(self, problem: Problem, tape: Any, y0: State, cotangents: Cotangents) -> Gradients: ...


def names() -> list[str]:
    """All gradients."""
    return registry.names(__name__)


def gradient(name: str, **options: Any) -> Gradient:
    """The gradient of that name with its options."""
    made: Gradient = _class(name)(**options)
    return made


def options(name: str) -> list[str]:
    """The options of the gradient of that name."""
    return [option.name for option in fields(_class(name))]


def _class(name: str) -> Any:
    registry.require("gradient.method", name, names())
    return importlib.import_module(f"{__name__}.{name}").GRADIENT


def taped(gradient: Taped, problem: Problem) -> tuple[Tensor, ...]:
    """Solve as one node of the autograd graph."""
    rhs = problem.rhs
    problem.stats.nfe_forward += 1
    problem.opening, problem.captured, problem.retain = capture(rhs, problem.ts[0], problem.times is not None)
    if problem.captured or problem.times is not None or any(part.requires_grad for part in rhs.y0):
        return cast(tuple[Tensor, ...], _Node.apply(gradient, problem, *rhs.y0, problem.times, *problem.captured))
    with torch.no_grad():
        return stacked(problem.integrate(problem.evaluate))


class _Node(torch.autograd.Function):
    """A solve, with parameters and captured tensors as inputs of their own.

    Inputs are `(gradient, problem, *y0, times or None, *captured)`; outputs are the components of the state, stacked
    over the output times where there are more than two.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Taped, problem: Problem, *inputs: MaybeTensor) -> tuple[Tensor, ...]:
        states, ctx.tape, kept = gradient.forward(problem)
        made = stacked(states)
        ctx.gradient, ctx.problem, ctx.given, ctx.parts = gradient, problem, len(inputs), len(made)
        # Autograd holds all tensors until the backward pass and then lets go of them; another reference would not.
        problem.rhs.y0 = ()
        ctx.save_for_backward(*inputs, *(made if gradient.keeps_outputs else ()), *kept)
        return made

    @staticmethod
    def backward(ctx: Any, *cotangents: MaybeTensor) -> tuple[Any, ...]:
        saved, problem, gradient = ctx.saved_tensors, ctx.problem, ctx.gradient
        y0, kept = saved[: ctx.parts], saved[ctx.given :]
        arriving = _unstacked(cotangents, len(problem.ts))
        problem.rhs.y0 = tuple(part.detach() for part in y0)
        if torch.is_grad_enabled():
            found = gradient.backward_again(problem, ctx.tape, y0, arriving)
        else:
            if gradient.keeps_outputs:
                later = _later(kept[: ctx.parts], len(problem.ts))
                kept = [problem.rhs.y0, *zip(*later), *kept[ctx.parts :]]
            found = gradient.backward(problem, ctx.tape, kept, arriving)
        problem.rhs.y0 = ()
        return None, None, *found.y0, found.times, *found.captured


class Gathered:
    """What a backward pass has gathered for the captured tensors and the output times.

    clock  makes steps move with the times, where their gradient is wanted
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.captured: list[MaybeTensor] = [None] * len(problem.captured)
        self.times: list[MaybeTensor] = [None]
        self.clock = problem.clock(None if problem.times is None else problem.times.detach())
        self._moving = () if self.clock is None else (self.clock.times.requires_grad_(),)

    def pull(self, made: Sequence[Tensor], cotangents: Sequence[MaybeTensor], point: State) -> list[MaybeTensor]:
        """From the cotangents of what was made at `point` to that of the point; gathers the others."""
        ends = [(part, x) for part, x in zip(made, cotangents) if x is not None and part.requires_grad]
        if not ends:
            return [None] * len(point)
        found = torch.autograd.grad(
            [part for part, _ in ends],
            (*point, *self._moving, *self.problem.captured),
            [x for _, x in ends],
            retain_graph=self.problem.retain,
            allow_unused=True,
        )
        accumulate(self.times, found[len(point) : len(point) + len(self._moving)])
        accumulate(self.captured, found[len(point) + len(self._moving) :])
        return list(found[: len(point)])

    def arrive(self, a: list[MaybeTensor], cotangents: Cotangents, j: int) -> None:
        """Add what came in for output j, and for others at the same time, to the cotangent `a` of the state there."""
        ts = self.problem.ts
        for i in range(j, len(ts)):
            if ts[i] != ts[j]:
                break
            accumulate(a, cotangents[i])

    def gradients(self, a: Sequence[MaybeTensor]) -> Gradients:
        """What was gathered, with the cotangent `a` of y0."""
        times, wanted = self.times[0], self.problem.times
        if wanted is not None:
            times = torch.zeros_like(wanted) if times is None else times.to(wanted)
        return Gradients(a, times, self.captured)


def point(y: Sequence[Tensor]) -> State:
    """`y` as leaves of a graph that begins here."""
    return tuple(part.detach().requires_grad_() for part in y)


def accumulate(total: list[MaybeTensor], terms: Sequence[MaybeTensor]) -> None:
    """total += terms, in place. What is first put in is copied, so that `total` owns all it holds."""
    for i, term in enumerate(terms):
        if term is not None:
            held = total[i]
            if held is None:
                total[i] = term.clone()
            else:
                held.add_(term)


def plainly(
    problem: Problem, y0: State, cotangents: Cotangents, again: Callable[[State, Clock | None], dict[int, State]]
) -> Gradients:
    """The gradient with a graph of its own, through `again(y0, clock)`, which makes the states at the output times anew
    under autograd (some of those that fall together may be left out). Memory grows with the number of evaluations."""
    with torch.enable_grad():
        leaves = tuple(part if part.requires_grad else part.detach().requires_grad_() for part in y0)
        times, ts = problem.times, problem.ts
        states = {0: leaves, **again(leaves, problem.clock(times))}
        for j in range(1, len(ts)):
            states.setdefault(j, states[j - 1])
        ends = [(part, x) for j, row in enumerate(cotangents) for part, x in zip(states[j], row) if x is not None]
        inputs = (*leaves, *(() if times is None else (times,)), *problem.captured)
        found = torch.autograd.grad(
            [part for part, _ in ends], inputs, [x for _, x in ends], create_graph=True, allow_unused=True
        )
    parts = len(leaves)
    return Gradients(
        found[:parts], None if times is None else found[parts], found[len(inputs) - len(problem.captured) :]
    )


def stacked(states: Sequence[State]) -> tuple[Tensor, ...]:
    """(*S) at the second of two times, (T, *S) for more."""
    if len(states) == 2:
        return tuple(part.clone() if part is first else part for part, first in zip(states[1], states[0]))
    return tuple(torch.stack(part) for part in zip(*states))


def _later(made: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """For each component its values at the output times after the first."""
    return [[part] if count == 2 else list(part[1:]) for part in made]


def _unstacked(cotangents: Sequence[MaybeTensor], count: int) -> list[list[MaybeTensor]]:
    """For each output time the cotangents of the components."""
    if count == 2:
        return [[None] * len(cotangents), list(cotangents)]
    parts = [[None] * count if part is None else part.unbind() for part in cotangents]
    return [list(row) for row in zip(*parts)]
