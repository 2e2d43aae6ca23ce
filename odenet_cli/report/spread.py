"""Mean, standard deviation and Student's interval over seeds."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

SIGNED = frozenset(("loss", "nll", "kl", "gap"))  # of all that is measured these may be below 0
SHARES = frozenset(("error", "valid_error", "outside"))  # these are at most 1


class Spread(NamedTuple):
    """What the seeds say of one number.

    n          seeds
    sd         sample standard deviation (n - 1); None for one seed
    low, high  95 % interval of the mean, as far as there are such means; None for one seed, and where all are equal
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def over_seeds(values: Iterable[tuple[Any, float | None]], name: str) -> Spread | None:
    """Return the spread of `(seed, value)` pairs of the number `name`, which tells the range of its mean.

    Runs of one seed are not independent: their mean counts once.
    """
    seeds = defaultdict(list)
    for seed, value in values:
        if value is not None:
            seeds[seed].append(value)
    bounds = (-math.inf if name in SIGNED else 0.0, 1.0 if name in SHARES else math.inf)
    return spread([statistics.fmean(same) for same in seeds.values()], *bounds) if seeds else None


def spread(values: list[float], least: float = -math.inf, most: float = math.inf) -> Spread:
    """Return the spread of independent values whose mean is from `least` to `most`.

    The interval is cut at these: that takes away no mean there can be, so it holds the mean as often as before.
    """
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Spread(n, mean)
    sd = statistics.stdev(values)
    if not sd:
        return Spread(n, mean, sd)
    from scipy.special import stdtrit  # as long as a table in the terminal takes, and most need none

    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return Spread(n, mean, sd, max(least, mean - half), min(most, mean + half))
