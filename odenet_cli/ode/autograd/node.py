"""A solve as one node of the autograd graph: its forward and backward pass, and the sums that a backward pass makes.

First `capture` evaluates the field once with autograd on, to find the tensors that it depends on; these are further
inputs of the node. The forward pass runs with autograd off and keeps what the gradient method returns. The backward
pass gives this back to the gradient method together with the cotangents dL/dy of the outputs, and gets those of y0, of
the times, and of every tensor that the field depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from typing import Any, cast

import torch
from torch import Tensor

from odenet_cli.ode.autograd.inputs import cut, without_hooks
from odenet_cli.ode.autograd.times import TimeGradients
from odenet_cli.ode.errors import NotCompiled
from odenet_cli.ode.field.captured import Captured, LateTensors, capture
from odenet_cli.ode.field.random_state import refuse
from odenet_cli.ode.gradient import Cotangents, Gradients, MaybeTensor, NodeGradient
from odenet_cli.ode.outputs import integrate
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.state import State, vjp
from odenet_cli.ode.stats import collect_into
from odenet_cli.ode.tableau import Tableau
from odenet_cli.ode.transforms import check_transforms


def solve_as_node(gradient: NodeGradient, problem: Problem) -> tuple[Tensor, ...]:
    """Solve as one node of the autograd graph; the `solve` of every gradient but `backprop`."""
    check_transforms(f"gradient={type(gradient).__name__.lower()}", "gradient=backprop")
    rhs = problem.rhs
    # Evaluated at (t0, y0) to find the tensors that the field depends on; its value is f0 of the first step.
    start = problem.segments(0, len(problem.ts) - 1)[0].visible_time(problem.ts[0])
    captured = capture(rhs, start, problem.times is not None, problem.parameters)
    problem.f0 = captured.draws.begin(captured.f0, _repeats_evaluations(gradient, problem))
    problem.captured, problem.inputs = captured._replace(f0=()), captured.tensors
    inputs = (*rhs.y0, problem.times, *rhs.arguments.tensors, *problem.inputs)
    # Without a tensor that requires a gradient there is no node, and nothing is kept.
    if any(tensor is not None and tensor.requires_grad for tensor in inputs):
        return cast(tuple[Tensor, ...], SolveNode.apply(gradient, problem, captured.f0, *inputs))
    with torch.no_grad():
        return problem.stack(integrate(problem.loop(single_steps=False), problem))


def _repeats_evaluations(gradient: NodeGradient, problem: Problem) -> bool:
    """Return whether the backward pass repeats the forward evaluations in the recorded order."""
    explicit = isinstance(problem.solver.formulas, Tableau) and not problem.solver.compile
    return explicit and getattr(gradient, "repeats_steps", False)


class SolveNode(torch.autograd.Function):
    """The node.

    Its inputs are `(gradient, problem, f0, *y0, times or None, *tensors in args, *captured)`. Its outputs are the
    components of the state, as `Problem.stack` returns them.
    """

    @staticmethod
    def forward(
        ctx: Any, gradient: NodeGradient, problem: Problem, f0: State, *inputs: MaybeTensor
    ) -> tuple[Tensor, ...]:
        captured = cast(Captured, problem.captured)
        draws = captured.draws
        states, tape, kept = gradient.forward(problem)
        if source := draws.began_late():
            # The field started to draw random numbers during the solve: solve again, and record them.
            if not _repeats_evaluations(gradient, problem):
                refuse(type(gradient).__name__.lower(), getattr(gradient, "repeats_steps", False), source)
            problem.f0 = draws.begin_again(f0)
            states, tape, kept = gradient.forward(problem)
        y = problem.stack(states)
        # What the field has changed itself by now (a counter, a cache) may change in the backward pass too.
        captured.snapshot.accept_changes()
        ctx.gradient, ctx.problem, ctx.tape, ctx.parts = gradient, problem, tape, len(y)
        # y0 and args are saved below. Other references to them would keep autograd from freeing them after the backward
        # pass.
        problem.rhs.release()
        # Captured tensors with a graph. They are saved only so that autograd checks them for changes in place.
        held = [x for x in problem.inputs if x.grad_fn is not None]
        outputs = y if gradient.saves_outputs else ()
        given = inputs[: len(inputs) - len(problem.inputs)]  # y0, times, args
        groups = given, held, outputs, kept, draws.take_saved()
        ctx.counts = [len(group) for group in groups]
        ctx.save_for_backward(*chain.from_iterable(groups))
        return y

    @staticmethod
    def backward(ctx: Any, *cotangents: MaybeTensor) -> tuple[Any, ...]:
        gradient, problem, saved = ctx.gradient, ctx.problem, iter(ctx.saved_tensors)
        given, _, outputs, kept, draws = [tuple(islice(saved, count)) for count in ctx.counts]
        y0, args = given[: ctx.parts], given[ctx.parts + 1 :]  # between them lies `times`
        problem.captured.draws.put_saved(draws)
        rows = _by_output(problem, cotangents)
        # In a backward pass autograd is on only with create_graph=True.
        if torch.is_grad_enabled():
            result = _backward_with_graph(gradient, problem, ctx.tape, y0, args, rows)
        else:
            with _resumed(gradient, problem, y0, args) as resumed:
                if gradient.saves_outputs:
                    kept = (resumed.rhs.y0, *_by_output(problem, outputs)[1:], *kept)
                result = gradient.backward(resumed, ctx.tape, kept, rows)
        n_captured = len(problem.inputs)
        of_args = iter(result.inputs[n_captured:])
        args_gradients = [next(of_args) if x.requires_grad else None for x in args]
        return None, None, None, *result.y0, result.times, *args_gradients, *result.inputs[:n_captured]


@contextmanager
def _resumed(
    gradient: NodeGradient, problem: Problem, y0: State, args: State, connected: bool = False
) -> Iterator[Problem]:
    """Yield the problem for its backward pass, under the settings of the forward solve; raise FieldChanged if the field
    has changed."""
    name, captured = type(gradient).__name__.lower(), cast(Captured, problem.captured)
    # First of all, since a changed field would give a wrong gradient without an error.
    captured.snapshot.check(name)
    resumed = problem.resume(y0, args, connected)
    with (
        resumed.rhs.torch_settings.restored(resumed.rhs.device),
        captured.draws.restored_after(name),
        collect_into(resumed.tallies),
        without_hooks(resumed.inputs),
    ):
        yield resumed


def _backward_with_graph(
    gradient: NodeGradient, problem: Problem, tape: Any, y0: State, args: State, cotangents: Cotangents
) -> Gradients:
    """Return the gradients with a graph of their own, for `create_graph=True`."""
    # The backward pass is a function of y0, times, args and the cotangents. `cut` makes it a node that is detached from
    # the history of these, so that each gets only its own part of a second derivative.
    times = () if problem.times is None else (problem.times,)
    incoming = [x for row in cotangents for x in row if x is not None]
    inputs = [*y0, *times, *(x for x in args if x.requires_grad), *incoming]

    def function(leaves: Sequence[Tensor]) -> Sequence[MaybeTensor]:
        leaf = iter(leaves)
        y, time_leaves = tuple(next(leaf) for _ in y0), [next(leaf) for _ in times]
        given = tuple(next(leaf) if x.requires_grad else x for x in args)
        rows = [[None if x is None else next(leaf) for x in row] for row in cotangents]
        with _resumed(gradient, problem, y, given, connected=True) as resumed:
            resumed = replace(resumed, times=time_leaves[0] if time_leaves else None)
            result = gradient.double_backward(resumed, tape, y, rows)
        return (*result.y0, *([result.times] if times else []), *result.inputs)

    values = cut(function, inputs, problem.inputs)
    parts = len(y0)
    return Gradients(values[:parts], values[parts] if times else None, values[parts + len(times) :])


class VJPAccumulator:
    """Sum up the gradients of the problem's inputs and of its output times, step by step.

    time_gradients  makes steps depend on the output times; None: no gradients of times are wanted
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.inputs: list[MaybeTensor] = [None] * len(problem.inputs)
        self.times: list[MaybeTensor] = [None]
        self.time_gradients = problem.make_time_gradients(None if problem.times is None else problem.times.detach())
        # A leaf of this backward pass; the caller's own times get the sum once, as the node's gradient.
        self._time_leaves = () if self.time_gradients is None else (self.time_gradients.times.requires_grad_(),)
        self._late = LateTensors(problem.inputs)

    def vjp(self, values: Sequence[Tensor], cotangents: Sequence[MaybeTensor], leaves: State) -> list[MaybeTensor]:
        """Return the cotangents of `leaves`, given those of `values`, and add up those of the inputs and times."""
        # Inputs that this step does not use get None, such as a layer that is switched on later.
        inputs = (*leaves, *self._time_leaves, *self.problem.inputs)
        self._late.look(values, inputs)
        try:
            products = vjp(values, cotangents, inputs, retain_graph=self.problem.retain_graph)
        except RuntimeError as error:
            if self.problem.retain_graph or "through the graph a second time" not in str(error):
                raise
            raise NotCompiled(
                "the field keeps a tensor that it has computed (a cache), and its graph, from one evaluation to the "
                "next;\n  compiled steps free each graph. Compute it in every evaluation or outside of the field, or "
                "use compile=false."
            ) from error
        # In the order of `inputs` above: leaves, times, inputs of the problem.
        accumulate(self.times, products[len(leaves) : len(leaves) + len(self._time_leaves)])
        accumulate(self.inputs, products[len(leaves) + len(self._time_leaves) :])
        return list(products[: len(leaves)])

    def gradients(self, a: Sequence[MaybeTensor]) -> Gradients:
        """Return the sums, with the cotangent `a` of y0."""
        times, like = self.times[0], self.problem.times
        if like is not None:
            times = torch.zeros_like(like) if times is None else times.to(like)
        return Gradients(a, times, self.inputs)


def as_leaves(y: Sequence[Tensor]) -> State:
    """Return `y` as leaves of a new graph."""
    return tuple(part.detach().requires_grad_() for part in y)


def accumulate(total: list[MaybeTensor], terms: Sequence[MaybeTensor]) -> None:
    """Add `terms` to `total` in place; the first term is copied, since autograd may share or keep it."""
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
    solve_again: Callable[[State, TimeGradients | None], dict[int, State]],
) -> Gradients:
    """Return the gradients with a graph. Memory grows with the number of evaluations.

    solve_again  (y0, time_gradients) -> output index: state; takes the accepted steps again under autograd
    """
    with torch.enable_grad():
        # Views, since hooks of the caller's own tensors are meant for the whole gradient.
        leaves = tuple(part.view_as(part) if part.requires_grad else part.detach().requires_grad_() for part in y0)
        times = None if problem.times is None else problem.times.view_as(problem.times)
        states = {0: leaves, **solve_again(leaves, problem.make_time_gradients(times))}
        # One backward pass through all steps at once, with its own graph: memory as for backprop.
        values = [part for j in range(len(cotangents)) for part in states[j]]
        inputs = (*leaves, *(() if times is None else (times,)), *problem.inputs)
        products = vjp(values, [x for row in cotangents for x in row], inputs, create_graph=True)
    parts = len(leaves)
    of_inputs = products[len(inputs) - len(problem.inputs) :]
    return Gradients(products[:parts], None if times is None else products[parts], of_inputs)


def _by_output(problem: Problem, stacked: Sequence[MaybeTensor]) -> list[list[MaybeTensor]]:
    """Return the components by output time, from stacks by component; None where there is no cotangent, as for y0 if
    only the end was asked for. Autograd has filled in zeros for outputs that the loss does not use."""
    if problem.ends_only:
        return [[None] * len(stacked), list(stacked)]
    count = len(problem.ts)
    parts = [[None] * count if part is None else part.unbind() for part in stacked]
    return [list(row) for row in zip(*parts)]
