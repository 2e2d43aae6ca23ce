"""A solve inside the transforms of torch.func and forward-mode AD: what goes through, and what is refused by name.

    torch.func.jacrev(lambda y0: solve(field, y0, ts).y)(y0)

`gradient=backprop` is made of PyTorch's operations, so that every transform goes through it. The other gradients make
the solve one node of autograd's graph, which has a backward pass only; a transform would lose derivatives without a
word, so it is refused. Steps chosen by a tolerance need their errors as numbers, which vmap hides.

What is asked of PyTorch here has no public name (`torch._C`), hence one file for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

P = ParamSpec("P")
T = TypeVar("T")


def in_plain_mode(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` so that it runs outside of torch.compile and of inference mode, whatever it is called in."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_dynamo_compiling():
            # The graph of what is compiled around it breaks here: a loop of attempts cannot be traced.
            disable: Any = torch.compiler.disable
            result: T = disable(function)(*args, **kwargs)
            return result
        if torch.is_inference_mode_enabled():
            # Its tensors have no version counters, which detect writes into the state, and no derivatives.
            with torch.inference_mode(False), torch.no_grad():
                return function(*args, **kwargs)
        return function(*args, **kwargs)

    return call


def in_forward_mode() -> bool:
    """Return whether a level of forward-mode AD is open, so that any tensor may carry a tangent."""
    # Whether a tensor carries a tangent shows on that tensor alone, and a field may close over any.
    return forward_ad._current_level >= 0


def in_function_transform() -> bool:
    """Return whether a transform of torch.func is open."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active


def check_transforms(what: str, way_out: str) -> None:
    """Raise NotImplementedError inside a transform of torch.func, a level of forward-mode AD, or torch.jit.trace.

    Nothing else is safe there: a tensor that the vector field closes over does not show that it is wrapped or dual.
    """
    # Refused wherever a transform is open, although some fields would pass: a wrong derivative would not show.
    if in_function_transform() or in_forward_mode() or torch._C._is_tracing():
        raise NotImplementedError(
            f"{what} does not go through the transforms of torch.func (grad, jacrev, jvp, vmap, ...), forward-mode AD "
            f"or torch.jit.trace, where derivatives would be lost; use {way_out}."
        )


def check_nested_forward_mode(error: RuntimeError) -> None:
    """Raise NotImplementedError if `error` is PyTorch's own for a sum in place under forward mode in forward mode."""
    # Of a field that is linear in y the tangents of tangents are zeros without memory, which no stage can be added to.
    if "ZeroTensors" in str(error):
        raise NotImplementedError(
            "a solve whose field is linear in y does not go through forward mode inside forward mode (jacfwd of "
            "jacfwd, jvp of jvp); use torch.func.hessian(f), which is jacfwd(jacrev(f))."
        ) from error


def to_numbers(values: Tensor) -> Any:
    """Return the numbers of `values` as a float or a list of them; raise NotImplementedError where vmap hides them."""
    try:
        return values.tolist()
    # vmap refuses to read numbers, which differ from sample to sample. Any other error is passed on.
    except RuntimeError as error:
        if not is_batched(values):
            raise
        raise NotImplementedError(
            "a solve needs its times as numbers, and an adaptive one its errors: torch.func.vmap hides them. "
            "A state may have any shape, so solve for the whole batch at once, with vmap in the vector field: "
            "solve(torch.func.vmap(field, (None, 0)), y0, ts); or use Fixed(..., gradient='backprop') and the same ts."
        ) from error


def is_finite(values: Tensor) -> bool:
    """Return whether all numbers are finite, those of every sample under vmap."""
    # Under vmap the tensor inside has all samples: of one that is not finite the whole solve is told.
    while torch._C._functorch.is_functorch_wrapped_tensor(values):
        values = torch._C._functorch.get_unwrapped(values)
    return bool(torch.isfinite(values).all())


def is_batched(values: Tensor) -> bool:
    """Return whether vmap, or `is_grads_batched` of torch.autograd.grad, hides a dimension of `values`."""
    # Transforms nest: a batch may lie below the levels of a grad or a jvp. "Legacy" is that of is_grads_batched.
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(values) and not functorch.is_batchedtensor(values):
        values = functorch.get_unwrapped(values)
    return functorch.is_batchedtensor(values) or functorch.is_legacy_batchedtensor(values)
