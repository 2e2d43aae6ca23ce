"""The inputs of a node: `cut` off what they were made from, for second derivatives; `without_hooks` in every pass back.

Autograd differentiates with respect to a tensor through everything that was made from it. A solve whose y0, times or
arguments were made from a tensor that its field reads too would count that tensor's share twice: here, and again when
the gradient of y0 goes on. Cut off, each input has its own share.
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
    """Return `function(inputs)`, which reads the tensors `read` besides; with derivatives of any order."""
    values: tuple[Tensor | None, ...] = _Cut.apply(function, len(inputs), *inputs, *read)
    return values


class _Cut(torch.autograd.Function):
    """A function of tensors as one node; its inputs are `(function, number of inputs, *inputs, *read)`."""

    @staticmethod
    def forward(ctx: Any, function: Function, count: int, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)  # a cotangent of None stays None: its value needs no pass
        ctx.function, ctx.count = function, count
        ctx.save_for_backward(*tensors)
        ctx.graph = _with_graph(function, tensors[:count])
        # Detached: an output that autograd knows would hold itself.
        return tuple(None if part is None else part.detach() for part in ctx.graph[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        function, count, tensors = ctx.function, ctx.count, ctx.saved_tensors
        # With respect to `inputs` the graph begins at leaves; with respect to what is `read` it goes on as it is.
        inputs, read = tensors[:count], tensors[count:]
        incoming = [x for x in cotangents if x is not None]

        def products(
            leaves: Sequence[Tensor], values: Values, incoming: Sequence[Tensor], create_graph: bool
        ) -> Values:
            reached = [part for part, x in zip(values, cotangents) if x is not None]
            with without_hooks(read):
                # The graph is retained, since it may go on behind what is read.
                return vjp(reached, incoming, (*leaves, *read), retain_graph=True, create_graph=create_graph)

        # create_graph=True: this backward pass is itself a function to be differentiated, and so again a node.
        if torch.is_grad_enabled():

            def again(given: Sequence[Tensor]) -> Values:
                leaves = given[:count]
                return products(leaves, function(leaves), given[count:], True)

            return None, None, *cut(again, (*inputs, *incoming), read)
        # The graph of the forward pass serves once, and is recorded anew for further backward passes.
        (leaves, values), ctx.graph = ctx.graph or _with_graph(function, inputs), None
        return None, None, *products(leaves, values, incoming, False)


def _with_graph(function: Function, inputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Values]:
    """Return leaves made of `inputs`, and the function's values with the graph that begins at them."""
    with torch.enable_grad():
        # Leaves: differentiation ends here, whatever the inputs were made from.
        leaves = [x.detach().requires_grad_() for x in inputs]
        return leaves, function(leaves)


@contextmanager
def without_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Keep the tensors' hooks and `retain_grad` silent: they are for the whole gradient, which comes after this node.

    torch.autograd.grad shows them each part of it, too. Autograd reads the dictionary of hooks when it calls them, so
    that it can be emptied; a backward pass of another thread through the same tensors would not find them meanwhile.
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
