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

from odenet_cli.data.common.batches import Drawn
from odenet_cli.data.common.events import Events
from odenet_cli.data.common.images import epoch_seed
from odenet_cli.errors import RequestError

END, TICKS, BINS, GRID = 5.0, 500, 25, 201
SWING, PERIODS = (0.3, 0.9), (0.4, 0.7)  # a, and P as a share of the time


@dataclass(frozen=True, kw_only=True)
class Source(Drawn):
    """Options of `data=poisson`.

    expected  events in a sequence, on average
    count     sequences to train on; `validation` and `test` are held out beside them, with rates of their own
    seed      of rates and events; the run's `seed` leaves them as they are
    """

    name: ClassVar = "poisson"
    unit: ClassVar = "sequences"
    shape: ClassVar = (1,)
    classes: ClassVar = 0
    task: ClassVar = "events"

    expected: float = 250.0
    count: int = 2000
    validation: int = 100
    test: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.expected <= 10_000:
            raise RequestError(f"data.expected={self.expected} is out of range; it may be 1 to 10,000 events.")
        super().__post_init__()

    @property
    def each(self) -> float:
        return 8 * (2 * self.expected + 2 * GRID + 2 * BINS)  # times and rates of events, the grid, bins, in float64

    def rows(self) -> Events:
        """All sequences; drawn on the CPU, so that every device sees the same."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, 0))
        rates = Rates.drawn(sum(self.sizes.values()), self.expected, generator)
        times, there = thinned(rates, generator)
        grid = torch.linspace(0, END, GRID, dtype=torch.float64).expand(len(times), -1)
        mean = self.expected / BINS
        bin_of = (times / END * BINS).long().clamp(max=BINS - 1)
        counts = torch.zeros(len(times), BINS, dtype=torch.float64).scatter_add(1, bin_of, there.double())
        bins = (END / BINS * (torch.arange(BINS, dtype=torch.float64) + 0.5)).expand(len(times), -1)
        scaled = ((counts - mean) / math.sqrt(mean))[..., None]
        return Events(bins, scaled, times, there, rates(times).log(), grid, rates(grid))


@dataclass(frozen=True)
class Rates:
    """λ(t) = c (1 + a sin(ω t + φ)), one a row: (B, 1) each; called with times (B, M)."""

    c: Tensor
    a: Tensor
    omega: Tensor
    phi: Tensor

    @classmethod
    def drawn(cls, count: int, expected: float, generator: torch.Generator) -> Rates:
        share = torch.rand(3, count, 1, generator=generator, dtype=torch.float64)
        a = SWING[0] + (SWING[1] - SWING[0]) * share[0]
        omega = 2 * math.pi / (END * (PERIODS[0] + (PERIODS[1] - PERIODS[0]) * share[1]))
        phi = 2 * math.pi * share[2]
        whole = END + a / omega * (phi.cos() - (omega * END + phi).cos())
        return cls(expected / whole, a, omega, phi)

    def __call__(self, t: Tensor) -> Tensor:
        return self.c * (1 + self.a * (self.omega * t + self.phi).sin())


def thinned(rates: Rates, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Events of each process: those of a constant rate above λ, of which each is kept with the share that λ has there.

    Returns rising times (B, M), 0 behind the last, and which of them are events.
    """
    highest = rates.c * (1 + rates.a)
    numbers = torch.poisson(highest * END, generator=generator)
    room = int(numbers.max())
    tick = torch.randint(TICKS, (len(numbers), room), generator=generator)
    times = (tick + 0.5) * (END / TICKS)
    chance = torch.rand(times.shape, generator=generator, dtype=torch.float64)
    kept = (torch.arange(room) < numbers) & (chance * highest < rates(times.double()))
    times = times.double().where(kept, math.inf).sort(1).values[:, : int(kept.sum(1).max())]
    there = times.isfinite()
    return times.where(there, 0), there
