"""Hooks of tensors are for their whole gradient, not for the parts that a backward pass gathers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor


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
