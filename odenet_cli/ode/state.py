"""States as tuples of tensors, each in its own shape, and the field as a function of them."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from odenet_cli.ode.field.torch_settings import TorchSettings
from odenet_cli.ode.tableau import Weights
from odenet_cli.ode.transforms import to_numbers

State = tuple[Tensor, ...]
Field = Callable[..., Any]


Time = float | Tensor


class VectorField(Protocol):
    """The field as solvers call it. A slope that is not `used` enters no solution and no error estimate."""

    def __call__(self, t: Time, y: State, used: bool = True) -> State: ...


@dataclass(frozen=True)
class CountedField:
    """A `VectorField` that counts, made of parts that compiled steps can use on their own.

    function  the slope, as tensors of tensors: nothing is counted in it
    count     is told of so many evaluations
    mark      sees what that many evaluations have made under autograd, and hands it on
    """

    function: VectorField
    count: Callable[[int], None]
    count_vjps: Callable[[State, int], State] | None = None

    def __call__(self, t: Time, y: State, used: bool = True) -> State:
        slope = self.function(t, y, used)
        self.count(1)
        return slope if self.count_vjps is None else self.count_vjps(slope, 1)


class Arguments:
    """What a field is called with besides time and state: tensors, however nested, and the rest.

    tensors  those of the caller
    rest     leaves of the nest that are no tensors
    """

    def __init__(self, args: Sequence[Any]) -> None:
        if not isinstance(args, (tuple, list)):
            raise TypeError(f"args must be a tuple of what follows (t, y): args=(u,); got {type(args).__name__}.")
        leaves, self._nest = tree_flatten(tuple(args))
        self.tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        self.rest = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
        self._holes = [isinstance(leaf, Tensor) for leaf in leaves]

    def filled(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """The arguments, with `tensors` where the caller's are."""
        tensor, rest = iter(tensors), iter(self.rest)
        args: tuple[Any, ...] = tree_unflatten([next(tensor if hole else rest) for hole in self._holes], self._nest)
        return args


class RightHandSide:
    """The user's field, called with a tensor time and its own kind of state, and held to its shapes.

    y0    a tensor of any shape, or a tuple of them; floating point or complex
    args  what the field is called with besides
    """

    def __init__(self, field: Field, y0: Tensor | Sequence[Tensor], args: Sequence[Any] = ()) -> None:
        self.field = field
        self.args, self.arguments = tuple(args), Arguments(args)
        self.single = isinstance(y0, Tensor)
        self.y0: State = tuple(y0) if isinstance(y0, Sequence) else (y0,)
        for part in self.y0:
            if not isinstance(part, Tensor) or not (part.is_floating_point() or part.is_complex()):
                kind = part.dtype if isinstance(part, Tensor) else type(part).__name__
                raise TypeError(f"y0 must be a floating-point or complex tensor, or a tuple of them; got {kind}.")
        if not self.y0 or len({part.device for part in self.y0}) > 1:
            raise ValueError("y0 must hold at least one tensor, and all of them on one device.")
        self.y0 = tuple(map(_own, self.y0))
        self.device = self.y0[0].device
        self.torch_settings = TorchSettings.current(self.device)
        self.time_dtype = max((part.real.dtype for part in self.y0), key=lambda dtype: torch.finfo(dtype).bits)
        self._differentiates = False
        self._returned: list[tuple[weakref.ref[Tensor], int]] = []

    def __call__(self, t: Time, y: State, used: bool = True) -> State:
        if not isinstance(t, Tensor):
            t = torch.scalar_tensor(t, dtype=self.time_dtype, device=self.device)
        elif t.dtype != self.time_dtype:
            t = t.to(self.time_dtype)
        if torch.compiler.is_compiling():
            # What the field overwrites is a copy then, and so is what it returns; a compiler leaves out idle copies.
            return tuple(k.clone() for k in self._slope(self.field, t, tuple(part.clone() for part in y)))
        versions = [part._version for part in y]
        try:
            slope = self._slope(self._differentiating if self._differentiates else self.field, t, y)
        except RuntimeError as error:
            if "a leaf Variable that requires grad" in str(error):
                raise ValueError(_WRITES) from error
            if self._differentiates or "does not require grad" not in str(error):
                raise
            self._differentiates = True
            slope = self._slope(self._differentiating, t, y)
        self._check_writes(y, versions, slope)
        return slope

    def _slope(self, field: Field, t: Tensor, y: State) -> State:
        state = y[0] if self.single else y
        if self.torch_settings.autocast:
            with self.torch_settings.for_field():
                value = field(t, state, *self.args)
        else:
            value = field(t, state, *self.args)
        slope: State = (value,) if self.single else tuple(value)
        if len(slope) != len(y):
            raise ValueError(f"the field returned {len(slope)} tensors for a state of {len(y)}.")
        for k, part in zip(slope, y):
            if not (isinstance(k, Tensor) and k.dtype is part.dtype and k.shape == part.shape):
                raise ValueError(_unfit(k, part))
        return slope

    def _differentiating(self, t: Tensor, y: Any, *args: Any) -> Any:
        """Call a field that takes derivatives by its state itself (of a Hamiltonian, say), which it can only by one
        that requires a gradient, and where autograd records; where the caller wants no gradient, none comes out."""
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            parts = [part if wanted and part.requires_grad else part.detach().requires_grad_() for part in _parts(y)]
            value = self.field(t, parts[0] if self.single else tuple(parts), *args)
        return value if wanted else tree_map_only(Tensor, torch.detach, value)

    def _check_writes(self, y: State, versions: list[int], slope: State) -> None:
        """Raise ValueError if the field has changed the state, or what it returned last time."""
        for part, version in zip(y, versions):
            if part._version != version:
                raise ValueError(_WRITES)
        for old, version in self._returned:
            if (tensor := old()) is not None and tensor._version != version:
                raise ValueError(_REUSES)
        self._returned = [(weakref.ref(k), k._version) for k in slope if not k.is_inference()]

    def call_with(self, tensors: Sequence[Tensor], connected: bool = False) -> State:
        """Let the field be called with these tensors of the arguments: as leaves of graphs that begin there, or
        `connected` to what they were made from."""
        leaves = tuple(
            x.view_as(x) if connected and x.requires_grad else x.detach().requires_grad_(x.requires_grad)
            for x in tensors
        )
        self.args = self.arguments.filled(leaves)
        return leaves

    def release(self) -> None:
        """Let go of all tensors."""
        self.y0, self.args, self.arguments.tensors = (), (), ()

    def restore(self, parts: Sequence[Tensor]) -> Any:
        """The state in the user's form: a tensor, or a tuple."""
        return parts[0] if self.single else tuple(parts)


_WRITES = (
    "the field writes into the state that it is given, as torch.relu_(y), y += x or nn.ReLU(inplace=True) do, and the "
    "solver still needs it. Use torch.relu(y), y = y + x or inplace=False, or begin with y = y.clone()."
)
_REUSES = (
    "the field returns a tensor that it writes into again at its next evaluation, as torch.neg(y, out=buffer) does, "
    "and the solver still needs it. Return a new tensor, or buffer.clone()."
)


def _own(part: Tensor) -> Tensor:
    """Return `part` so that what the field does to it is not noticed by the caller's tensor; of inference mode, which
    counts no versions and is kept by no graph, a copy."""
    if part.requires_grad:
        return part
    return part.clone() if part.is_inference() else part.view_as(part)


def _parts(y: Any) -> State:
    return (y,) if isinstance(y, Tensor) else y


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
    return norms(states, [2.0] * len(states))


def norms(states: Sequence[State], orders: Sequence[float]) -> list[float]:
    """For each of several states its root mean square (order 2) or its largest number (inf), in one synchronisation."""
    norms = vector_norms(states, orders)
    if not norms:
        return [0.0] * len(states)
    known = iter(
        [to_numbers(norms[0])] if len(norms) == 1 else to_numbers(torch.stack([norm.double() for norm in norms]))
    )
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


def vector_norms(states: Sequence[State], orders: Sequence[float]) -> list[Tensor]:
    """The norms of all components that are not empty."""
    return [
        torch.linalg.vector_norm(part, order) for state, order in zip(states, orders) for part in state if part.numel()
    ]


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Real inner product, the pairing of a cotangent with a tangent; complex numbers count as pairs of reals."""
    if x.is_complex():
        x, y = torch.view_as_real(x.resolve_conj()), torch.view_as_real(y.resolve_conj())
    return torch.sum(x * y)
