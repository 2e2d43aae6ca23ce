"""Scores that are accumulated over batches, with a result independent of the batches.

A score has `a + b`, for the samples of both, and `item()`, the number; None if it is undefined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from odenet_cli.ode.scalars import widest


class Score(Protocol):
    def __add__(self, other: Any) -> Score: ...

    def item(self) -> float | None: ...


@dataclass(frozen=True)
class Mean:
    """A mean: the `total` of numbers over their `count`."""

    total: Tensor
    count: int

    def __add__(self, other: Mean) -> Mean:
        return type(self)(self.total + other.total, self.count + other.count)

    def item(self) -> float:
        return float((self.total / self.count).item())


class RootMean(Mean):
    """The root of a mean of squares."""

    @classmethod
    def of(cls, x: Tensor) -> RootMean:
        """Return the root mean square of x (*S)."""
        return cls(x.to(widest(x.device)).square().sum(), x.numel())

    def item(self) -> float:
        return math.sqrt(super().item())


@dataclass(frozen=True)
class PerSample:
    """Keep a value for every sample, in the order of the split; there is no single number."""

    parts: tuple[Tensor, ...]

    def __add__(self, other: PerSample) -> PerSample:
        return PerSample(self.parts + other.parts)

    def item(self) -> None:
        return None


@dataclass(frozen=True)
class Deviation:
    """Standard deviation of rows from their mean, pooled over columns.

    Merged as by Chan, Golub & LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37 (1983).

    count    (*D)  number of known rows
    mean     (*D)
    scatter  ()  sum of squares about it
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, x: Tensor, known: Tensor | None = None) -> Deviation:
        """Return the deviation of rows (N, *D), using the values in `known` (N, *D); None: all."""
        x = x.to(widest(x.device))
        known = torch.ones_like(x, dtype=torch.bool) if known is None else known
        count = known.sum(0).to(x)
        mean = x.where(known, 0).sum(0) / count.clamp_min(1)
        return cls(count, mean, (x - mean).where(known, 0).square().sum())

    def __add__(self, other: Deviation) -> Deviation:
        count = self.count + other.count
        shift = other.mean - self.mean
        share = other.count / count.clamp_min(1)
        between = (shift.square() * self.count * share).sum()
        return Deviation(count, self.mean + shift * share, self.scatter + other.scatter + between)

    def item(self) -> float:
        return math.sqrt(self.scatter.item() / self.count.sum().item())


@dataclass(frozen=True)
class Relative:
    """An error relative to the standard deviation of the targets; None if that is 0 up to rounding."""

    error: Mean
    targets: Deviation

    def __add__(self, other: Relative) -> Relative:
        return Relative(self.error + other.error, self.targets + other.targets)

    def item(self) -> float | None:
        spread = self.targets.item()
        return None if spread <= 1e-12 * self.targets.mean.abs().max().item() else self.error.item() / spread
