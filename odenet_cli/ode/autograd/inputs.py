"""A function of tensors, cut off from what they were made from.

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

Made = Sequence[Tensor | None]
Make = Callable[[Sequence[Tensor]], Made]


def cut(make: Make, inputs: Sequence[Tensor], read: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Return `make(inputs)`, which reads the tensors `read` besides; with derivatives of any order."""
    made: tuple[Tensor | None, ...] = _Cut.apply(make, len(inputs), *inputs, *read)
    return made


class _Cut(torch.autograd.Function):
    """The inputs are `(make, number of inputs, *inputs, *read)`."""

    @staticmethod
    def forward(ctx: Any, make: Make, count: int, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.make, ctx.count = make, count
        ctx.save_for_backward(*tensors)
        ctx.graph = _begin(make, tensors[:count])
        # Detached: an output that autograd knows would hold itself.
        return tuple(None if part is None else part.detach() for part in ctx.graph[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        make, count, tensors = ctx.make, ctx.count, ctx.saved_tensors
        inputs, read = tensors[:count], tensors[count:]
        arriving = [x for x in cotangents if x is not None]

        def pull(leaves: Sequence[Tensor], made: Made, arriving: Sequence[Tensor], more: bool) -> Made:
            wanted = [part for part, x in zip(made, cotangents) if x is not None]
            ends = [(part, x) for part, x in zip(wanted, arriving) if part is not None and part.requires_grad]
            if not ends:
                return [None] * (len(leaves) + len(read))
            with without_hooks(read):
                return torch.autograd.grad(
                    [part for part, _ in ends],
                    (*leaves, *read),
                    [x for _, x in ends],
                    retain_graph=True,  # it may go on behind what is read
                    create_graph=more,
                    allow_unused=True,
                )

        if torch.is_grad_enabled():

            def again(given: Sequence[Tensor]) -> Made:
                leaves = given[:count]
                return pull(leaves, make(leaves), given[count:], True)

            return None, None, *cut(again, (*inputs, *arriving), read)
        # The graph is there for the first time, and made again for others.
        (leaves, made), ctx.graph = ctx.graph or _begin(make, inputs), None
        return None, None, *pull(leaves, made, arriving, False)


def _begin(make: Make, inputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Made]:
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        return leaves, make(leaves)


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
