"""Mean, standard deviation and Student's interval over seeds."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """What the seeds say of one number.

    n          seeds
    sd         sample standard deviation (n - 1); None for one seed
    low, high  95 % interval of the mean; None for one seed
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def over_seeds(values: Iterable[tuple[Any, float | None]]) -> Spread | None:
    """The spread of `(seed, value)` pairs. Runs of one seed are not independent: their mean counts once."""
    seeds = defaultdict(list)
    for seed, value in values:
        if value is not None:
            seeds[seed].append(value)
    return spread([statistics.fmean(same) for same in seeds.values()]) if seeds else None


def spread(values: list[float]) -> Spread:
    """The spread of independent values."""
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Spread(n, mean)
    sd = statistics.stdev(values)
    half = student_t(n - 1) * sd / math.sqrt(n)
    return Spread(n, mean, sd, mean - half, mean + half)


def student_t(df: int, level: float = 0.95) -> float:
    """The t that |T| stays below with probability `level`, T of Student's distribution with `df` degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < level else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _within(theta: float, df: int) -> float:
    """P(|T| < sqrt(df) tan(theta)), Abramowitz & Stegun 26.7.3 and 26.7.4."""
    odd, cos, sin = df % 2, math.cos(theta), math.sin(theta)
    term, total = cos if odd else 1.0, 0.0
    for j in range(odd, df - 1, 2):
        total += term
        term *= (j + 1) / (j + 2) * cos**2
    return 2 / math.pi * (theta + sin * total) if odd else sin * total
