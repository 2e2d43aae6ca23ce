"""Arithmetic of scalars: floats on the host, or 0-d tensors inside a compiled kernel.

The error norm, the first step and the controller are written once, in terms of these functions (`control.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.transforms import to_numbers

Scalar = Any  # float, or a 0-d float64 tensor


def widest(device: torch.device) -> torch.dtype:
    """Return the widest real dtype of a device: float64, but on Apple's GPUs float32."""
    return torch.float32 if device.type == "mps" else torch.float64


class Host:
    """Compute with Python floats. Reading a norm waits for the device: it is done once per error estimate."""

    # min passes over a NaN only where it stands second, and what stands second here is a bound.
    sqrt, exp, log, isfinite, copysign = math.sqrt, math.exp, math.log, math.isfinite, math.copysign
    minimum = min

    @staticmethod
    def read(values: Sequence[Tensor]) -> list[Scalar]:
        """Return 0-d tensors as floats, in one synchronisation."""
        # Each read of its own would wait for the device; stacked, they wait together.
        if len(values) == 1:
            return [to_numbers(values[0])]
        return list(to_numbers(torch.stack(list(values))))

    @staticmethod
    def maximum(a: float, b: float) -> float:
        """Return the larger number, or NaN where either is NaN (max() passes over it)."""
        # NaN marks a field that is not finite, and has to survive every comparison up to the error ratio.
        return a + b if a != a or b != b else max(a, b)

    @staticmethod
    def where(condition: bool, a: float, b: float) -> float:
        return a if condition else b

    @staticmethod
    def zero(like: Tensor | None) -> float:
        return 0.0


class Device:
    """Compute with 0-d float64 tensors, which a compiler can trace: nothing is read, nothing branches."""

    sqrt, exp, log, isfinite = torch.sqrt, torch.exp, torch.log, torch.isfinite
    where, copysign = torch.where, torch.copysign

    @staticmethod
    def read(values: Sequence[Tensor]) -> list[Scalar]:
        # The controller computes in float64 here too, so that both ways choose the same steps.
        return [x.double() for x in values]

    @staticmethod
    def minimum(a: Tensor, b: Scalar) -> Tensor:
        return torch.minimum(a, b) if isinstance(b, Tensor) else a.clamp(max=b)

    @staticmethod
    def maximum(a: Tensor, b: Scalar) -> Tensor:
        return torch.maximum(a, b) if isinstance(b, Tensor) else a.clamp(min=b)

    @staticmethod
    def zero(like: Tensor | None) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=None if like is None else like.device)
