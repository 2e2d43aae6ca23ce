"""A solve as one node of the autograd graph, and what its backward pass is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from odenet_cli.ode.autograd.inputs import cut, without_hooks
from odenet_cli.ode.autograd.times import TimeGradients
from odenet_cli.ode.field.captured import capture
from odenet_cli.ode.field.random_state import Draws, refuse
from odenet_cli.ode.gradient import Cotangents, Gradients, MaybeTensor, NodeGradient
from odenet_cli.ode.problem import Problem, stacked
from odenet_cli.ode.state import State
from odenet_cli.ode.stats import collect_into
from odenet_cli.ode.transforms import check_transforms


def solve_as_node(gradient: NodeGradient, problem: Problem) -> tuple[Tensor, ...]:
    """Solve as one node of the autograd graph."""
    check_transforms(f"gradient={type(gradient).__name__.lower()}", "gradient=backprop")
    rhs = problem.rhs
    problem.stats.nfe_forward += 1
    start = problem.segments(0, len(problem.ts) - 1)[0].visible_time(problem.ts[0])
    found = capture(rhs, start, problem.times is not None, problem.parameters)
    f0, problem.captured, problem.shares_graph, problem.snapshot, problem.draws = found
    problem.f0 = problem.draws.begin(f0, _repeats(gradient, problem))
    inputs = (*rhs.y0, problem.times, *rhs.arguments.tensors, *problem.captured)
    if any(tensor is not None and tensor.requires_grad for tensor in inputs):
        return cast(tuple[Tensor, ...], _Node.apply(gradient, problem, *inputs))
    with torch.no_grad():
        return stacked(problem.integrate(problem.evaluate))


def _repeats(gradient: NodeGradient, problem: Problem) -> bool:
    """Whether the backward pass evaluates the field where the forward solve did, and in that order."""
    return getattr(gradient, "repeats_steps", False) and not problem.solver.compile


def _solve(gradient: NodeGradient, problem: Problem) -> tuple[list[State], Any, list[Tensor]]:
    """The forward solve; once more from the start, if the field has begun to draw random numbers on the way."""
    draws, f0 = cast(Draws, problem.draws), cast(State, problem.f0)
    made = gradient.forward(problem)
    source = draws.began_late()
    if not source:
        return made
    if not _repeats(gradient, problem):
        refuse(type(gradient).__name__.lower(), getattr(gradient, "repeats_steps", False), source)
    problem.f0 = draws.begin_again(f0)
    return gradient.forward(problem)


class _Node(torch.autograd.Function):
    """A solve, with parameters and captured tensors as inputs of their own.

    Inputs are `(gradient, problem, *y0, times or None, *tensors in args, *captured)`; outputs are the components of the
    state, stacked over the output times where there are more than two.
    """

    @staticmethod
    def forward(ctx: Any, gradient: NodeGradient, problem: Problem, *inputs: MaybeTensor) -> tuple[Tensor, ...]:
        states, ctx.tape, kept = _solve(gradient, problem)
        ctx.draws = problem.draws
        drawn = ctx.draws.take_saved()
        made = stacked(states)
        problem.snapshot.forgive()
        ctx.gradient, ctx.problem, ctx.parts = gradient, problem, len(made)
        # Autograd holds all tensors until the backward pass and then lets go of them; another reference would not.
        problem.rhs.release()
        # Of the captured ones the snapshot sees to it that they stay, leaves are anybody's.
        behind = [x for x in problem.captured if x.grad_fn is not None]
        ctx.args = len(inputs) - len(problem.captured)
        ctx.given = ctx.args + len(behind)
        outputs = made if gradient.saves_outputs else ()
        ctx.kept = ctx.given + len(outputs) + len(kept)
        ctx.save_for_backward(*inputs[: ctx.args], *behind, *outputs, *kept, *drawn)
        return made

    @staticmethod
    def backward(ctx: Any, *cotangents: MaybeTensor) -> tuple[Any, ...]:
        gradient, problem, parts = ctx.gradient, ctx.problem, ctx.parts
        saved = ctx.saved_tensors
        y0, args, kept = saved[:parts], saved[parts + 1 : ctx.args], saved[ctx.given : ctx.kept]
        ctx.draws.put_saved(saved[ctx.kept :])
        arriving = _unstacked(cotangents, len(problem.ts))
        if torch.is_grad_enabled():
            found = _again(gradient, problem, ctx.tape, y0, args, arriving)
        else:
            with _resumed(gradient, problem, y0, args) as problem:
                if gradient.saves_outputs:
                    later = _later(kept[:parts], len(problem.ts))
                    kept = [problem.rhs.y0, *zip(*later), *kept[parts:]]
                found = gradient.backward(problem, ctx.tape, kept, arriving)
        own = len(ctx.problem.captured)
        of_args = iter(found.captured[own:])
        given = [next(of_args) if x.requires_grad else None for x in args]
        return None, None, *found.y0, found.times, *given, *found.captured[:own]


@contextmanager
def _resumed(
    gradient: NodeGradient, problem: Problem, y0: State, args: State, connected: bool = False
) -> Iterator[Problem]:
    """The solve in its backward pass, if the field is what it was."""
    name, draws = type(gradient).__name__.lower(), cast(Draws, problem.draws)
    problem.snapshot.check(name)
    problem = problem.resumed(y0, args, connected)
    with (
        problem.rhs.torch_settings.restored(problem.rhs.device),
        draws.restored_after(name),
        collect_into(problem.tallies),
        without_hooks(problem.captured),
    ):
        yield problem


def _again(
    gradient: NodeGradient, problem: Problem, tape: Any, y0: State, args: State, cotangents: Cotangents
) -> Gradients:
    """The gradient, with a gradient of its own."""
    times = () if problem.times is None else (problem.times,)
    arriving = [x for row in cotangents for x in row if x is not None]
    inputs = [*y0, *times, *(x for x in args if x.requires_grad), *arriving]

    def make(leaves: Sequence[Tensor]) -> Sequence[MaybeTensor]:
        leaf = iter(leaves)
        y, at = tuple(next(leaf) for _ in y0), [next(leaf) for _ in times]
        given = tuple(next(leaf) if x.requires_grad else x for x in args)
        rows = [[None if x is None else next(leaf) for x in row] for row in cotangents]
        with _resumed(gradient, problem, y, given, connected=True) as resumed:
            found = gradient.double_backward(replace(resumed, times=at[0] if at else None), tape, y, rows)
        return (*found.y0, *([found.times] if times else []), *found.captured)

    found = cut(make, inputs, problem.captured)
    parts = len(y0)
    return Gradients(found[:parts], found[parts] if times else None, found[parts + len(times) :])


class VJPAccumulator:
    """What a backward pass has gathered for the captured tensors and the output times.

    time_gradients  makes steps move with the times, where their gradient is wanted
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.captured: list[MaybeTensor] = [None] * len(problem.captured)
        self.times: list[MaybeTensor] = [None]
        self.time_gradients = problem.time_gradients(None if problem.times is None else problem.times.detach())
        self._moving = () if self.time_gradients is None else (self.time_gradients.times.requires_grad_(),)

    def vjp(self, made: Sequence[Tensor], cotangents: Sequence[MaybeTensor], point: State) -> list[MaybeTensor]:
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

    def add_output_cotangents(self, a: list[MaybeTensor], cotangents: Cotangents, j: int) -> None:
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


def as_leaves(y: Sequence[Tensor]) -> State:
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


def double_backward(
    problem: Problem,
    y0: State,
    cotangents: Cotangents,
    again: Callable[[State, TimeGradients | None], dict[int, State]],
) -> Gradients:
    """The gradient with a graph of its own, through `again(y0, time_gradients)`, which makes the states at the output
    times anew under autograd (some of those that fall together may be left out). Memory grows with the number of
    evaluations."""
    with torch.enable_grad():
        # Aliases of the caller's tensors, whose hooks are for the whole gradient.
        leaves = tuple(part.view_as(part) if part.requires_grad else part.detach().requires_grad_() for part in y0)
        times, ts = None if problem.times is None else problem.times.view_as(problem.times), problem.ts
        states = {0: leaves, **again(leaves, problem.time_gradients(times))}
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


def _later(made: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """For each component its values at the output times after the first."""
    return [[part] if count == 2 else list(part[1:]) for part in made]


def _unstacked(cotangents: Sequence[MaybeTensor], count: int) -> list[list[MaybeTensor]]:
    """For each output time the cotangents of the components."""
    if count == 2:
        return [[None] * len(cotangents), list(cotangents)]
    parts = [[None] * count if part is None else part.unbind() for part in cotangents]
    return [list(row) for row in zip(*parts)]
