"""States: tuples of tensors, each in its own shape, and the arithmetic of a step on them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from odenet_cli.ode.scalars import Host, Scalar, widest
from odenet_cli.ode.tableau import Weights

State = tuple[Tensor, ...]
Time = float | Tensor
Field = Callable[..., Any]  # as users write it: called with a 0-d tensor t, their kind of state, and args
_ENGINE: Any = torch.autograd.Variable._execution_engine


class VectorField(Protocol):
    """The right-hand side f(t, y) as a step calls it.

    used  False: this stage enters neither the solution nor an error estimate, so its quadratures may be left out
    """

    def __call__(self, t: Time, y: State, used: bool = True) -> State: ...


class CountedField(VectorField, Protocol):
    """A vector field that counts its evaluations, except inside a compiled kernel: there the caller counts."""

    def count(self, evaluations: int) -> None:
        """Add evaluations that a kernel has made."""
        ...

    def count_vjps(self, values: State, evaluations: int, check: Callable[[], None] | None = None) -> State:
        """Return `values`, computed by so many evaluations; a backward pass through them counts as many products, and
        calls `check`."""
        ...


def combine(y: State, h: Time, weights: Weights, k: Sequence[State]) -> State:
    """Return y + h Σ w_j k_j: one in-place operation per stage; one expression for a compiler, where h is a tensor."""
    return tuple(_combine(part, h, weights, [k[j][i] for j, _ in weights]) for i, part in enumerate(y))


def _combine(y: Tensor, h: Time, weights: Weights, k: list[Tensor]) -> Tensor:
    if not weights:
        return y
    if isinstance(h, Tensor):
        return y + weighted_sum(h, weights, k)
    # In place: h·w is one float, so each stage costs one pass over memory and no temporary.
    total = torch.add(y, k[0], alpha=h * weights[0][1])
    for (_, w), stage in zip(weights[1:], k[1:]):
        total.add_(stage, alpha=h * w)
    return total


def weighted_sum(h: Time, weights: Weights, k: Sequence[Tensor]) -> Tensor:
    """Return h Σ w_j k_j for one component; `k` holds only the stages that have a weight."""
    if isinstance(h, Tensor):
        # In a kernel h is a 0-d float64 tensor, which would promote a 0-d state of float32.
        terms = [stage * (h * w).to(stage.real.dtype) for (_, w), stage in zip(weights, k)]
        return functools.reduce(torch.add, terms)
    total = k[0] * (h * weights[0][1])
    for (_, w), stage in zip(weights[1:], k[1:]):
        total.add_(stage, alpha=h * w)
    return total


def rms(state: State) -> float:
    """Return the root mean square over all numbers of a state; 0 for an empty one. Synchronises once."""
    result: float = norms([state], [2.0])[0]
    # Squares below the smallest normal number lose digits: in float32, those of numbers below 1e-19.
    summed_in = [torch.promote_types(part.dtype, torch.float32) for part in state]
    smallest = max((torch.finfo(dtype).tiny for dtype in summed_in), default=0.0)
    return result if not result * result < smallest else _rescaled_rms(state)


def norms(states: Sequence[State], orders: Sequence[float], scalars: Any = Host) -> list[Scalar]:
    """Return the root mean square (order 2) or largest modulus (inf) of each state; read from the device at once."""
    # One kernel for each tensor, and one synchronisation for all of them.
    pairs = zip(states, orders)
    tensors = [torch.linalg.vector_norm(x, order) for state, order in pairs for x in state if x.numel()]
    values = iter(scalars.read(tensors) if tensors else ())
    result = []
    for state, order in zip(states, orders):
        # Empty components (a batch of 0) have no norm.
        parts = [next(values) for x in state if x.numel()]
        if not parts:
            result.append(scalars.zero(next((x for any_state in states for x in any_state), None)))
        elif order == math.inf:
            result.append(functools.reduce(scalars.maximum, parts))
        else:
            # Over all numbers of all tensors, so a large tensor weighs more than a small one.
            size = scalars.sqrt(sum(x * x for x in parts) / sum(x.numel() for x in state))
            # Squares overflow from 1.8e19 on in float32. A kernel cannot check this; `CompiledLoop` does.
            result.append(_rescaled_rms(state) if isinstance(size, float) and size == math.inf else size)
    return result


def _rescaled_rms(state: State) -> float:
    """Return m √(Σ (x/m)² / n) with m the largest modulus, so that no square leaves the dtype (Blue, ACM TOMS 4, 1978).

    Synchronises twice; for sizes at which the plain sum of squares over- or underflows.
    """
    largest: float = norms([state], [math.inf])[0]
    if not 0.0 < largest < math.inf:
        return largest
    wide = [part.abs().to(widest(part.device)) for part in state]
    # The reciprocal of a subnormal number would be infinite.
    divisor = max(largest, *(torch.finfo(part.dtype).tiny for part in wide))
    mean: float = norms([tuple(part / divisor for part in wide)], [2.0])[0]
    return divisor * mean


def vjp(
    values: Sequence[Tensor | None],
    cotangents: Iterable[Tensor | None],
    inputs: Sequence[Tensor],
    retain_graph: bool = False,
    create_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return Σ x_iᵀ ∂values_i/∂inputs by one pass through the graph, as `torch.autograd.grad` does.

    A value or a cotangent that is None is ignored; the gradient of an input that no value depends on is None.
    """
    pairs = [(k, x) for k, x in zip(values, cotangents) if k is not None and x is not None and k.requires_grad]
    # Autograd would raise an error without a graph.
    if not pairs:
        return (None,) * len(inputs)
    outputs, arriving = zip(*pairs)
    if torch.compiler.is_compiling():
        options = {"retain_graph": retain_graph, "create_graph": create_graph}
        return torch.autograd.grad(outputs, inputs, arriving, allow_unused=True, **options)
    # `torch.autograd.grad` compares the shapes, which are known here, in Python: 50 us a product of the 150 of a small
    # field, and at its first call it imports sympy for that, 0.4 s of every start.
    products: tuple[Tensor | None, ...] = _ENGINE.run_backward(
        outputs, arriving, retain_graph or create_graph, create_graph, tuple(inputs), True, accumulate_grad=False
    )
    return products


def differs(tensor: Tensor, contents: Tensor) -> bool:
    """Return whether any number of `tensor` differs from `contents`; NaN counts as unchanged."""
    # One pass where nothing differs; a NaN differs from itself.
    return not torch.equal(tensor, contents) and bool(((tensor != contents) & (tensor == tensor)).any())


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the real inner product, which pairs a cotangent with a tangent; complex numbers count as two reals."""
    # Re(x̄ y): autograd's convention for complex numbers. A lazy conjugate has no real view, and is resolved first.
    if x.is_complex():
        x, y = torch.view_as_real(x.resolve_conj()), torch.view_as_real(y.resolve_conj())
    return torch.sum(x * y)
