"""The inputs of a node: `cut` detaches them from their history for second derivatives; `without_hooks` silences hooks.

Autograd differentiates with respect to a tensor through everything computed from it. If y0, times or arguments of a
solve were computed from a tensor that its field reads too, that tensor's contribution through them would count twice:
in this node, and again when the gradient of y0 is propagated. Detached, each input gets only its own part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.state import vjp

Values = Sequence[Tensor | None]
Function = Callable[[Sequence[Tensor]], Values]


def cut(function: Function, inputs: Sequence[Tensor], read: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Return `function(inputs)` as a node that can be differentiated any number of times.

    inputs  differentiated as leaves, whatever they were computed from
    read    other tensors that `function` depends on
    """
    values: tuple[Tensor | None, ...] = _Cut.apply(function, len(inputs), *inputs, *read)
    return values


class _Cut(torch.autograd.Function):
    """A function of tensors as one node; its inputs are `(function, number of inputs, *inputs, *read)`."""

    @staticmethod
    def forward(ctx: Any, function: Function, count: int, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)  # a value without a cotangent needs no backward pass
        ctx.function, ctx.count = function, count
        ctx.save_for_backward(*tensors)
        ctx.graph = _with_graph(function, tensors[:count])
        # Detached: the node would otherwise keep itself alive through its outputs.
        return tuple(None if part is None else part.detach() for part in ctx.graph[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        function, count, tensors = ctx.function, ctx.count, ctx.saved_tensors
        # The graph starts at leaves for `inputs`, and keeps the history of `read`.
        inputs, read = tensors[:count], tensors[count:]
        incoming = [x for x in cotangents if x is not None]

        def products(
            leaves: Sequence[Tensor], values: Values, incoming: Sequence[Tensor], create_graph: bool
        ) -> Values:
            reached = [part for part, x in zip(values, cotangents) if x is not None]
            with without_hooks(read):
                # Retained, since it may include the history of `read`.
                return vjp(reached, incoming, (*leaves, *read), retain_graph=True, create_graph=create_graph)

        # create_graph=True: this backward pass is differentiated in turn, so it becomes a node as well.
        if torch.is_grad_enabled():

            def again(given: Sequence[Tensor]) -> Values:
                leaves = given[:count]
                return products(leaves, function(leaves), given[count:], True)

            return None, None, *cut(again, (*inputs, *incoming), read)
        # The graph of the forward pass is used once, and recorded again for further backward passes.
        (leaves, values), ctx.graph = ctx.graph or _with_graph(function, inputs), None
        return None, None, *products(leaves, values, incoming, False)


def _with_graph(function: Function, inputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Values]:
    """Return `inputs` as leaves, and the values of the function with their graph."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        return leaves, function(leaves)


@contextmanager
def without_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Suspend the tensors' hooks and `retain_grad`, which are meant for the whole gradient and run after this node.

    torch.autograd.grad would call them with each part of it. Autograd reads the dictionary of hooks when it calls them,
    so it can be emptied; a simultaneous backward pass through the same tensors in another thread would miss them.
    """
    silenced = [(hooks, dict(hooks)) for tensor in tensors if (hooks := tensor._backward_hooks)]
    retaining = [(tensor, tensor.grad) for tensor in tensors if tensor.retains_grad]
    for hooks, _ in silenced:
        hooks.clear()
    for tensor, _ in retaining:
        tensor.grad = None
    try:
        yield
    finally:
        for hooks, held in silenced:
            hooks.update(held)
        for tensor, retained in retaining:
            tensor.grad = retained
