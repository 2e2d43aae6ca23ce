"""What a user gives: numbers and times in any type, turned into plain ones, and their ranges."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.errors import NotFinite
from odenet_cli.ode.transforms import in_forward_mode, to_numbers


def unwrap_scalars(settings: Any) -> None:
    """Replace the 0-d tensors and NumPy scalars among the fields of a frozen dataclass by the numbers they hold."""
    # Past the frozen dataclass's guard, before anybody has seen the object.
    for field in fields(settings):
        object.__setattr__(settings, field.name, plain(getattr(settings, field.name)))


def plain(value: Any) -> Any:
    """Return the number in a 0-d tensor or array or a NumPy scalar; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def as_jumps(jumps: Any) -> tuple[float, ...]:
    """Return declared jumps as floats; raise ValueError if they are no finite times, or want a gradient."""
    if getattr(jumps, "ndim", None) == 0 or not isinstance(jumps, Iterable):
        jumps = (jumps,)
    given = tuple(jumps)
    if any(isinstance(t, Tensor) and t.requires_grad for t in given):
        raise ValueError("solver.jumps cannot have a gradient: the time of a jump is a constant. Pass jumps.detach().")
    values = [plain(t) for t in given]
    if not all(isinstance(t, (int, float)) and not isinstance(t, bool) and math.isfinite(t) for t in values):
        raise ValueError(f"solver.jumps={jumps} must be finite times.")
    return tuple(_shortest_decimal(t, value) for t, value in zip(given, values))


def _shortest_decimal(given: Any, value: float) -> float:
    """Return `value` as the shortest decimal that is `given` in its dtype: float32's 1.1 is 1.1, as fields write it."""
    if not hasattr(given, "dtype"):
        return float(value)
    dtype = torch.as_tensor(given).dtype
    # Seventeen digits name every float64, so that one of them is found.
    decimals = (float(f"{value:.{digits}g}") for digits in range(1, 18))
    return next(x for x in decimals if torch.tensor(x, dtype=dtype).item() == value)


def as_times(ts: Any) -> tuple[Tensor, float]:
    """Return times as a tensor of their shape, and the resolution of their dtype; plain numbers are float64."""
    # A list may mix numbers and tensors: it is as coarse as the coarsest of them.
    if isinstance(ts, (list, tuple)) and any(hasattr(t, "dtype") for t in ts):
        parts = [as_times(t) for t in ts]
        return torch.stack([part.to(torch.float64) for part, _ in parts]), max(eps for _, eps in parts)
    # Plain numbers would be float32 to torch: 0.1 would then be 0.10000000149.
    times = torch.as_tensor(ts, dtype=None if hasattr(ts, "dtype") else torch.float64)
    return times, torch.finfo(times.dtype if times.is_floating_point() else torch.float64).eps


class OutputTimes(NamedTuple):
    """Hold the output times of a solve.

    values      as floats
    tensor      the same where their gradients are wanted, else None
    resolution  relative, of the dtype that they came in
    """

    values: list[float]
    tensor: Tensor | None
    resolution: float

    @classmethod
    def read(cls, ts: Any) -> OutputTimes:
        """Return `ts` read from its device; raise TypeError, ValueError or NotFinite if they are no output times."""
        if not isinstance(ts, Iterable):
            raise TypeError(f"ts must be a tensor or a sequence of at least two times; got {ts!r}.")
        times, resolution = as_times(ts if isinstance(ts, Tensor) else list(ts))
        if not isinstance(ts, Tensor):
            times = times.to(torch.float64)
        if times.dim() != 1 or len(times) < 2 or not times.is_floating_point():
            raise ValueError(
                "ts must be at least two floating-point times in one dimension; "
                f"got {tuple(times.shape)} {times.dtype}."
            )
        # The one time that the host waits for them: a loop computes with floats.
        values = to_numbers(times)
        if not all(map(math.isfinite, values)):
            raise NotFinite(f"ts must be finite; got {values}.")
        # Equal neighbours are allowed, and say nothing of the direction.
        if len({math.copysign(1.0, b - a) for a, b in pairwise(values) if a != b}) > 1:
            raise ValueError(f"ts must be monotonic, increasing or decreasing; got {values}.")
        # A tangent of forward mode does not show in `requires_grad`.
        with_gradient = in_forward_mode() or (times.requires_grad and torch.is_grad_enabled())
        return cls(values, times if with_gradient else None, resolution)

    def merge(self) -> tuple[list[float], Tensor | None, list[int]]:
        """Return the distinct times, the same as a tensor, and for each output time the index of its distinct one."""
        # Times run one way, so that equal ones are neighbours.
        new = [n == 0 or t != self.values[n - 1] for n, t in enumerate(self.values)]
        first = [n for n, is_new in enumerate(new) if is_new]
        tensor = self.tensor if self.tensor is None or len(first) == len(self.values) else self.tensor[first]
        return [self.values[n] for n in first], tensor, [count - 1 for count in accumulate(new)]


def check_tensors(name: str, values: Iterable[Any]) -> tuple[Tensor, ...]:
    """Return `values` as a tuple; raise TypeError if one of them is no tensor."""
    tensors = tuple(values)
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError(f"{name} must be tensors: {name}=net.parameters(), or {name}=(w, b).")
    return tensors


def check_positive(key: str, value: Any, *, zero: bool = False, infinite: bool = False) -> None:
    """Raise ValueError unless `value` is a positive number; `zero` and `infinite` let those pass as well."""
    # NaN is refused too: no comparison holds for it.
    fits = isinstance(value, (int, float)) and (value > 0 or (zero and value == 0)) and (infinite or value < math.inf)
    if not fits:
        number = "number" if infinite else "finite number"
        raise ValueError(f"{key}={value} must be {'a non-negative' if zero else 'a positive'} {number}.")


def check_count(key: str, value: Any) -> None:
    """Raise ValueError unless `value` is a whole number of at least 1."""
    # To Python a bool is an int, and steps=True a slip.
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key}={value} must be a whole number of at least 1.")
