"""A model that is borrowed: in another dtype, without gradients, or repeatable; afterwards it is as it was.

Nothing is copied: what a module's code refers to by itself, a closure say, is what it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from odenet_cli.training import generators

COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


@contextlib.contextmanager
def in_dtype(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Convert the parameters and buffers of `model`, and the tensors that its modules hold beside, to `dtype`."""
    own = {parameter.dtype for parameter in model.parameters()}
    parameters = {parameter: parameter.data for parameter in model.parameters()}
    holders = [held for module in model.modules() for held in (module._buffers, vars(module))]
    tensors = [
        (held, name, x) for held in holders for name, x in held.items() if isinstance(x, Tensor) and x.dtype in own
    ]
    try:
        for parameter, data in parameters.items():
            parameter.data = _converted(data, dtype)
        for held, name, tensor in tensors:
            held[name] = _converted(tensor, dtype)
        yield
    finally:
        for parameter, data in parameters.items():
            parameter.data = data
        for held, name, tensor in tensors:
            held[name] = tensor


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(COMPLEX[dtype] if tensor.is_complex() else dtype)


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Have no parameter ask for a gradient."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_()


@contextlib.contextmanager
def repeatable(model: nn.Module) -> Iterator[None]:
    """Begin with the same random numbers whenever this is entered, and leave generators and model as they were: its
    buffers, and whatever its modules hold beside them."""
    where = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    drawn = generators.packed(generators.states(where))
    held = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng():
        try:
            torch.manual_seed(0)
            generators.seed(0)
            yield
        finally:
            generators.restore(drawn, where)
            for module, attributes, buffers in held:
                vars(module).clear()
                vars(module).update(attributes)
                module._buffers.update(buffers)
            with torch.no_grad():
                for buffer, value in values:
                    buffer.copy_(value)
