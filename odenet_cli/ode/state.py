"""States as tuples of tensors, each in its own shape, and the field as a function of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from odenet_cli.ode.surroundings import Surroundings
from odenet_cli.ode.tableau import Weights
from odenet_cli.ode.transforms import read

State = tuple[Tensor, ...]
Field = Callable[[Tensor, Any], Any]


Time = float | Tensor


class Evaluate(Protocol):
    """The field as solvers call it. A slope that is not `weighty` enters no solution and no error estimate."""

    def __call__(self, t: Time, y: State, weighty: bool = True) -> State: ...


@dataclass(frozen=True)
class Counted:
    """An `Evaluate` that counts, made of parts that compiled steps can use on their own.

    function  the slope, as tensors of tensors: nothing is counted in it
    count     is told of so many evaluations
    mark      sees what that many evaluations have made under autograd, and hands it on
    """

    function: Evaluate
    count: Callable[[int], None]
    mark: Callable[[State, int], State] | None = None

    def __call__(self, t: Time, y: State, weighty: bool = True) -> State:
        slope = self.function(t, y, weighty)
        self.count(1)
        return slope if self.mark is None else self.mark(slope, 1)


class RightHandSide:
    """The user's field, called with a tensor time and its own kind of state, and held to its shapes.

    y0  a tensor of any shape, or a tuple of them; floating point or complex
    """

    def __init__(self, field: Field, y0: Tensor | Sequence[Tensor]) -> None:
        self.field = field
        self.single = isinstance(y0, Tensor)
        self.y0: State = tuple(y0) if isinstance(y0, Sequence) else (y0,)
        for part in self.y0:
            if not isinstance(part, Tensor) or not (part.is_floating_point() or part.is_complex()):
                kind = part.dtype if isinstance(part, Tensor) else type(part).__name__
                raise TypeError(f"y0 must be a floating-point or complex tensor, or a tuple of them; got {kind}.")
        if not self.y0 or len({part.device for part in self.y0}) > 1:
            raise ValueError("y0 must hold at least one tensor, and all of them on one device.")
        # The field may ask what it is shown for a gradient; the caller's tensor must not notice. One that was made in
        # inference mode would be refused: autograd does not save it.
        fresh = [part.clone() if part.is_inference() and torch.is_grad_enabled() else part for part in self.y0]
        self.y0 = tuple(part if part.requires_grad else part.view_as(part) for part in fresh)
        self.device = self.y0[0].device
        self.surroundings = Surroundings.now(self.device)
        self.time_dtype = max((part.real.dtype for part in self.y0), key=lambda dtype: torch.finfo(dtype).bits)

    def __call__(self, t: Time, y: State, weighty: bool = True) -> State:
        if not isinstance(t, Tensor):
            t = torch.full((), t, dtype=self.time_dtype, device=self.device)
        elif t.dtype != self.time_dtype:
            t = t.to(self.time_dtype)
        state = y[0] if self.single else y
        if self.surroundings.autocast:
            with self.surroundings.for_field():
                value = self.field(t, state)
        else:
            value = self.field(t, state)
        slope: State = (value,) if self.single else tuple(value)
        if len(slope) != len(y):
            raise ValueError(f"the field returned {len(slope)} tensors for a state of {len(y)}.")
        for k, part in zip(slope, y):
            if not (isinstance(k, Tensor) and k.dtype is part.dtype and k.shape == part.shape):
                raise ValueError(_unfit(k, part))
        return slope

    def restore(self, parts: Sequence[Tensor]) -> Any:
        """The state in the user's form: a tensor, or a tuple."""
        return parts[0] if self.single else tuple(parts)


def _unfit(slope: Any, part: Tensor) -> str:
    got = f"{tuple(slope.shape)} {slope.dtype}" if isinstance(slope, Tensor) else type(slope).__name__
    message = f"the field must return what it is given: {tuple(part.shape)} {part.dtype}; it returned {got}."
    if not isinstance(slope, Tensor) or slope.dtype not in (torch.float16, torch.bfloat16):
        return message
    cast = ".float()" if part.dtype is torch.float32 else ".to(y.dtype)"
    return (
        f"{message}\n  If that is autocast's work, cast its result: solver(lambda t, y: net(t, y){cast}, y0, ts); or "
        f"switch it off\n  in the field: with torch.autocast({part.device.type!r}, enabled=False)."
    )


def combine(y: State, h: Time, weights: Weights, slopes: Sequence[State]) -> State:
    """y + h Σ w_j k_j, with one pass a slope; as one expression for a compiler where h is a tensor."""
    return tuple(_combine(part, h, weights, [slopes[j][i] for j, _ in weights]) for i, part in enumerate(y))


def _combine(y: Tensor, h: Time, weights: Weights, k: list[Tensor]) -> Tensor:
    if not weights:
        return y
    if isinstance(h, Tensor):
        return y + weigh(h, weights, k)
    total = torch.add(y, k[0], alpha=h * weights[0][1])
    for (_, w), slope in zip(weights[1:], k[1:]):
        total.add_(slope, alpha=h * w)
    return total


def weigh(h: Time, weights: Weights, k: Sequence[Tensor]) -> Tensor:
    """h Σ w_j k_j."""
    if isinstance(h, Tensor):
        terms = [slope * (h * w).to(slope.real.dtype) for (_, w), slope in zip(weights, k)]
        return functools.reduce(torch.add, terms)
    total = k[0] * (h * weights[0][1])
    for (_, w), slope in zip(weights[1:], k[1:]):
        total.add_(slope, alpha=h * w)
    return total


def rms(state: State) -> float:
    """Root mean square over all numbers of a state; 0 for an empty one. Synchronises with the device once."""
    return rms_each([state])[0]


def rms_each(states: Sequence[State]) -> list[float]:
    """`rms` of each of several states, in one synchronisation."""
    return sizes(states, [2.0] * len(states))


def sizes(states: Sequence[State], orders: Sequence[float]) -> list[float]:
    """For each of several states its root mean square (order 2) or its largest number (inf), in one synchronisation."""
    norms = norms_of(states, orders)
    if not norms:
        return [0.0] * len(states)
    known = iter([read(norms[0])] if len(norms) == 1 else read(torch.stack([norm.double() for norm in norms])))
    found = []
    for state, order in zip(states, orders):
        mine = [next(known) for part in state if part.numel()]
        if order == math.inf:
            # max() would pass over a NaN.
            found.append(next((size for size in mine if size != size), max(mine, default=0.0)))
        else:
            count = sum(part.numel() for part in state)
            found.append(math.sqrt(sum(size * size for size in mine) / max(1, count)))
    return found


def norms_of(states: Sequence[State], orders: Sequence[float]) -> list[Tensor]:
    """The norms of all components that are not empty."""
    return [
        torch.linalg.vector_norm(part, order) for state, order in zip(states, orders) for part in state if part.numel()
    ]


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Real inner product, the pairing of a cotangent with a tangent; complex numbers count as pairs of reals."""
    if x.is_complex():
        x, y = torch.view_as_real(x.resolve_conj()), torch.view_as_real(y.resolve_conj())
    return torch.sum(x * y)
