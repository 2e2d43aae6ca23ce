"""Sequences of events from inhomogeneous Poisson processes of known rates (for figure 7 of Chen et al. 2018).

Each sequence has a rate of its own, λ(t) = c (1 + a sin(2π t / P + φ)), with a, φ and P drawn at random and c such that
∫λ is `expected`. The paper names no data. Events are drawn by thinning (Lewis & Shedler 1979) and recorded by a clock
of `TICKS` ticks, each in the middle of its tick, so that many sequences have their times in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.checks import check_range
from odenet_cli.data.common.events import Events
from odenet_cli.data.common.synthetic import Synthetic

END, TICKS, BINS, GRID = 5.0, 500, 25, 201
AMPLITUDES, PERIODS = (0.3, 0.9), (0.4, 0.7)  # a, and P as a share of the time


@dataclass(frozen=True, kw_only=True)
class Source(Synthetic):
    """Options of `data=poisson`."""

    unit: ClassVar = "sequences"
    shape: ClassVar = (1,)
    task: ClassVar = "events"

    expected: float = 250.0
    count: int = 2000
    validation: int = 100
    test: int = 100

    def __post_init__(self) -> None:
        check_range("expected", self.expected, 1, 10_000, " events")
        super().__post_init__()

    @property
    def bytes_per_sample(self) -> float:
        return 8 * (2 * self.expected + 2 * GRID + 2 * BINS)  # times and rates of events, the grid, bins, in float64

    def draw(self, count: int, generator: torch.Generator) -> Events:
        rates = Rates.draw(count, self.expected, generator)
        times, event_mask = thin(rates, generator)
        grid = torch.linspace(0, END, GRID, dtype=torch.float64).expand(len(times), -1)
        mean = self.expected / BINS
        bin_of = (times / END * BINS).long().clamp(max=BINS - 1)
        counts = torch.zeros(len(times), BINS, dtype=torch.float64).scatter_add(1, bin_of, event_mask.double())
        bins = (END / BINS * (torch.arange(BINS, dtype=torch.float64) + 0.5)).expand(len(times), -1)
        scaled = ((counts - mean) / math.sqrt(mean))[..., None]
        return Events(bins, scaled, times, event_mask, rates(times).log(), grid, rates(grid))


@dataclass(frozen=True)
class Rates:
    """Hold λ(t) = c (1 + a sin(ω t + φ)), one process a row, each of (B, 1); called with times (B, M)."""

    c: Tensor
    a: Tensor
    omega: Tensor
    phi: Tensor

    @classmethod
    def draw(cls, count: int, expected: float, generator: torch.Generator) -> Rates:
        """Draw the rates of `count` processes, with ∫λ = `expected` each."""
        u = torch.rand(3, count, 1, generator=generator, dtype=torch.float64)
        a = AMPLITUDES[0] + (AMPLITUDES[1] - AMPLITUDES[0]) * u[0]
        omega = 2 * math.pi / (END * (PERIODS[0] + (PERIODS[1] - PERIODS[0]) * u[1]))
        phi = 2 * math.pi * u[2]
        integral = END + a / omega * (phi.cos() - (omega * END + phi).cos())
        return cls(expected / integral, a, omega, phi)

    def __call__(self, t: Tensor) -> Tensor:
        return self.c * (1 + self.a * (self.omega * t + self.phi).sin())


def thin(rates: Rates, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw events of a constant rate above λ and keep each with probability λ / that rate (Lewis & Shedler 1979).

    Returns rising times (B, M), 0 behind the last, and which of them are events (B, M).
    """
    highest = rates.c * (1 + rates.a)
    numbers = torch.poisson(highest * END, generator=generator)
    width = int(numbers.max())
    tick = torch.randint(TICKS, (len(numbers), width), generator=generator)
    times = (tick + 0.5) * (END / TICKS)
    chance = torch.rand(times.shape, generator=generator, dtype=torch.float64)
    kept = (torch.arange(width) < numbers) & (chance * highest < rates(times.double()))
    times = times.double().where(kept, math.inf).sort(1).values[:, : int(kept.sum(1).max())]
    event_mask = times.isfinite()
    return times.where(event_mask, 0), event_mask
