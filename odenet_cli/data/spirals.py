"""Two-dimensional spirals, alternately clockwise and counter-clockwise (Chen et al. 2018, section 5.1).

Counter-clockwise, around (1, 0), the radius b θ grows; clockwise, around (-1, 0), it is 50 b / (6π + 1 - θ). The paper
gives no constants: these are those of its public example, divided by five, on its grid of 500 angles θ over 6π. A
trajectory starts at one of the indices 100 to 299; `observed` of its next 100 points are observed, and 100 more are to
be predicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.checks import check_range
from odenet_cli.data.common.series import FURTHER, IN_TRAINING_RANGE, WINDOW, Series
from odenet_cli.data.common.synthetic import Synthetic
from odenet_cli.errors import RequestError

B = 0.06
GRID, END = 500, 6 * math.pi  # angles θ
STARTS = (100, 300)
TIMES = 100  # of the window, and as many after it


@dataclass(frozen=True, kw_only=True)
class Source(Synthetic):
    """Options of `data=spirals`."""

    unit: ClassVar = "trajectories"
    shape: ClassVar = (2,)
    task: ClassVar = "series"

    observed: int = 30
    noise: float = 0.1
    count: int = 1000
    validation: int = 200
    test: int = 200

    def __post_init__(self) -> None:
        check_range("observed", self.observed, 2, TIMES, " of the points")
        if not 0 <= self.noise < math.inf:
            raise RequestError(f"data.noise={self.noise} is out of range: it must be 0 or more.")
        super().__post_init__()

    @property
    def bytes_per_sample(self) -> float:
        return 8 * (2 * TIMES * 5 + 3 * self.observed)  # times, noisy and clean points, and those observed, in float64

    def draw(self, count: int, generator: torch.Generator) -> Series:
        starts = torch.randint(*STARTS, (count,), generator=generator)
        clean = trajectories(starts, 2 * TIMES)
        noisy = clean + self.noise * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        order = torch.rand(count, TIMES, generator=generator).argsort(1)
        kept = order[:, : self.observed].sort(1).values

        target_times = (END / (GRID - 1) * torch.arange(2 * TIMES, dtype=torch.float64)).expand(count, -1)
        values = noisy.gather(1, kept[..., None].expand(-1, -1, 2))
        observed_mask = torch.ones(count, self.observed, dtype=torch.bool)
        step = torch.arange(2 * TIMES)
        beyond = starts[:, None] + step >= STARTS[1] - 1 + TIMES  # beyond the reach of all windows
        scope = torch.where(step < TIMES, WINDOW, torch.where(beyond, FURTHER, IN_TRAINING_RANGE)).to(torch.uint8)
        return Series(target_times.gather(1, kept), values, observed_mask, target_times, noisy, clean, scope)


def trajectories(starts: Tensor, length: int) -> Tensor:
    """Return `length` points from each index in `starts` (N,), alternately clockwise: (N, length, 2)."""
    index = starts[:, None] + torch.arange(length)
    angle = torch.linspace(0, END, GRID, dtype=torch.float64)[index]
    clockwise = (torch.arange(len(starts)) % 2 == 1)[:, None]
    turned = torch.where(clockwise, END + 1 - angle, angle)
    radius = torch.where(clockwise, 50 * B / turned, B * turned)
    centre = torch.where(clockwise, -1.0, 1.0)
    return torch.stack((radius * turned.cos() + centre, radius * turned.sin()), 2)
