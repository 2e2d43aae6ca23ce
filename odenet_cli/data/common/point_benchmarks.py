"""The five benchmark tables for flows, and the results of FFJORD (Grathwohl et al. 2019, table 2), in nat.

Dimensions and numbers of points are those of Papamakarios, Pavlakou & Murray, "Masked autoregressive flow for density
estimation" (2017), whose preprocessing is always used. It standardises all but BSDS300, whose results are in the units
of its patches. The README of the TAN authors (github.com/lupalab/tan) has the same five, as log-likelihoods.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Benchmark(NamedTuple):
    """Hold a table: its dimensions and points, and FFJORD's negative log-likelihood of held-out points."""

    dimensions: int
    points: int
    nll: float
    metric: str = "nll"


BENCHMARKS = {
    "POWER": Benchmark(6, 2_049_280, -0.46),
    "GAS": Benchmark(8, 1_052_065, -8.59),
    "HEPMASS": Benchmark(21, 525_123, 14.92),
    "MINIBOONE": Benchmark(43, 36_488, 10.43),
    "BSDS300": Benchmark(63, 1_300_000, -157.40, "nll_data"),
}


def find(path: Path, points: int, dimensions: int) -> str | None:
    """Return the text beside the score of one of these tables, recognised by its name or its shape; else None."""
    place = f"{path.parent.name}/{path.stem}".upper()
    for name, known in BENCHMARKS.items():
        if known.dimensions == dimensions and (points == known.points or name in place):
            units = "standardised" if known.metric == "nll" else "in the data's units"
            return f"{name}: FFJORD's test NLL is {known.nll:.2f} nat, {units} (Grathwohl et al. 2019, table 2)"
    return None
