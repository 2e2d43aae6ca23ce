"""Change a model in place temporarily, without a copy: `in_dtype`, `frozen`, `without_hooks`, `repeatable`.

In a copy, references held by the model's code itself, such as a closure over a module, would still point to the
original. An `Objective` is a loss together with its model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from odenet_cli.ode import Solver
from odenet_cli.ode.field.random_state import Generator, as_generator
from odenet_cli.tasks import Loss
from odenet_cli.training import generators
from odenet_cli.training.evaluate import converted, solved_by

COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}


class Objective(NamedTuple):
    """Hold the loss of a model on one batch."""

    model: nn.Module
    loss_fn: Loss
    batch: Any

    def __call__(self, solver: Solver | None) -> Tensor:
        """Return the loss as solved by `solver`, with the same random numbers at each call."""
        with solved_by(self.model, solver), repeatable(self.model):
            return self.loss_fn(self.model, self.batch)[0]

    @contextlib.contextmanager
    def in_dtype(self, dtype: torch.dtype) -> Iterator[Objective]:
        """Convert the model to `dtype` temporarily, and yield its loss on the batch in this dtype."""
        with in_dtype(self.model, dtype):
            yield self._replace(batch=converted(self.batch, dtype))


@contextlib.contextmanager
def in_dtype(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Convert the parameters and buffers of `model`, and tensors among the attributes of its modules, to `dtype`."""

    def convert(tensor: Tensor) -> Tensor:
        return tensor.to(COMPLEX[dtype] if tensor.is_complex() else dtype)

    parameters = {parameter: parameter.data for parameter in model.parameters()}
    dtypes = {parameter.dtype for parameter in parameters}
    holders = [holder for module in model.modules() for holder in (module._buffers, vars(module))]
    tensors = [(h, name, x) for h in holders for name, x in h.items() if isinstance(x, Tensor) and x.dtype in dtypes]
    try:
        for parameter, data in parameters.items():
            parameter.data = convert(data)
        for holder, name, tensor in tensors:
            holder[name] = convert(tensor)
        yield
    finally:
        for parameter, data in parameters.items():
            parameter.data = data
        for holder, name, tensor in tensors:
            holder[name] = tensor


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_()


@contextlib.contextmanager
def without_hooks(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Disable the hooks of parameters, which may change their gradients."""
    hooked = [(parameter, parameter._backward_hooks) for parameter in parameters if parameter._backward_hooks]
    try:
        for parameter, _ in hooked:
            parameter._backward_hooks = None
        yield
    finally:
        for parameter, hooks in hooked:
            parameter._backward_hooks = hooks


@contextlib.contextmanager
def repeatable(model: nn.Module) -> Iterator[None]:
    """Start with the same random numbers at each entry; restore the generators, the model's own among them, its
    parameters and buffers, and the attributes of its modules."""
    where = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    random_state = generators.state(where)
    modules = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    held = [(generator, generator.get_state()) for generator in held_generators(model)]
    weights = [(weight.data, weight.data.clone()) for weight in model.parameters()]
    with torch.random.fork_rng():
        try:
            torch.manual_seed(0)
            generators.seed(0)
            yield
        finally:
            generators.restore(random_state, where)
            for generator, state in held:
                generator.set_state(state)
            for module, attributes, own_buffers in modules:
                vars(module).clear()
                vars(module).update(attributes)
                module._buffers.update(own_buffers)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            for weight, value in weights:  # through `.data`, so that autograd sees no write
                if not torch.equal(weight, value):
                    weight.copy_(value)


def held_generators(model: nn.Module) -> list[Generator]:
    """Return the random generators among the attributes of the model's modules."""
    values = [value for module in model.modules() for value in vars(module).values()]
    return [generator for value in values if (generator := as_generator(value)) is not None]
