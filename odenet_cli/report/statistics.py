"""Statistics of the reports: spread over seeds, straight lines, and McNemar's test between networks.

McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12
(1947), in its exact form.
numpy and scipy are slow to import, so only the functions that need them do: a table in the terminal needs none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeVar

from odenet_cli.errors import RequestError, first_line
from odenet_cli.report.runs import Run, finite
from odenet_cli.scores import mcnemar_p, range_of

LEVEL = 0.05  # of significance

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def grouped(pairs: Iterable[tuple[Key, Value]]) -> dict[Key, list[Value]]:
    groups: dict[Key, list[Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


class Spread(NamedTuple):
    """Hold the statistics of one number over seeds.

    n          seeds
    sd         sample standard deviation (n - 1); None for one seed
    low, high  95 % interval of the mean; None for one seed, and where all are equal
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def over_seeds(values: Iterable[tuple[Any, float | None]], name: str) -> Spread | None:
    """Return the spread of `(seed, value)` pairs of the measure `name`; None where no value is known.

    Runs of one seed are not independent: their mean counts once.
    """
    seeds = grouped((seed, value) for seed, value in values if value is not None)
    return spread([statistics.fmean(same) for same in seeds.values()], *range_of(name)) if seeds else None


def spread(values: list[float], least: float = -math.inf, most: float = math.inf) -> Spread:
    """Return the spread of independent values whose mean lies in [least, most]; the interval is Student's, cut there.

    The cut removes no possible mean, so the interval holds the mean as often as before.
    """
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Spread(n, mean)
    sd = statistics.stdev(values)
    if not sd:
        return Spread(n, mean, sd)
    from scipy.special import stdtrit  # the quantile of scipy.stats.t, without its second of import: tables are quick

    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    return Spread(n, mean, sd, max(least, mean - half), min(most, mean + half))


class Line(NamedTuple):
    """Hold y = intercept + slope x; `r2` is the share of the variance of y that it explains."""

    slope: float
    intercept: float
    r2: float

    def at(self, x: float) -> float:
        return self.intercept + self.slope * x


def fit_line(points: Iterable[tuple[Any, Any]]) -> Line | None:
    """Return the least-squares line through the points that are numbers; None below three, or at one abscissa."""
    known = [(x, y) for x, y in points if finite(x) is not None and finite(y) is not None]
    if len(known) < 3 or len({x for x, _ in known}) == 1:
        return None
    from scipy.stats import linregress

    fit = linregress(*zip(*known))
    # scipy gives r = 0 for a constant y, of which a level line explains everything.
    return Line(float(fit.slope), float(fit.intercept), float(fit.rvalue) ** 2 if len({y for _, y in known}) > 1 else 1)


def fit_exponent(points: Iterable[tuple[float, float]]) -> float | None:
    """Return the exponent p of y ~ x^p: the slope of the line through the logarithms."""
    line = fit_line((math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0)
    return line.slope if line else None


class Discordant(NamedTuple):
    """Hold how many samples only the first, and only the second of two networks has wrong."""

    first: int
    second: int

    @property
    def p(self) -> float:
        """Return the two-sided p-value of both networks being wrong equally often."""
        return mcnemar_p(*self)


class Pair(NamedTuple):
    """Hold two rows of a table, compared on the same samples.

    seeds     seed -> samples that only one of the two networks of this seed has wrong
    adjusted  p-value of the pair (`combined_p`), with Holm's correction for all pairs of the table
    """

    first: str
    second: str
    seeds: dict[int, Discordant]
    adjusted: float

    @property
    def order(self) -> tuple[str, str] | None:
        """Return (row with fewer errors, other row) where they differ significantly, else None."""
        if self.adjusted > LEVEL:
            return None
        counts = next(iter(self.seeds.values()))
        return (self.first, self.second) if counts.first < counts.second else (self.second, self.first)


def predictions(run: Run) -> tuple[Any, Any] | None:
    """Load a finished classifier's predictions of the test samples, and the labels, (N,) each; None without file."""
    import numpy

    path = run.folder / "predictions.npz"
    if not run.done or not path.exists():
        return None
    try:
        with numpy.load(path) as arrays:
            predicted, label = arrays["predicted"], arrays["label"]
        if predicted.shape != label.shape or predicted.ndim != 1:
            raise ValueError(f"{predicted.shape} predictions of {label.shape} labels")
    except Exception as error:  # a damaged archive makes its reader raise almost anything
        raise RequestError(f"{path} is damaged: {first_line(error)}.") from error
    return predicted, label


def mcnemar(rows: Mapping[str, Sequence[Run]]) -> list[Pair]:
    """Compare every two rows that predicted the same samples in a seed; empty where no predictions were kept."""
    wrong: dict[str, dict[int, tuple[Any, Any]]] = {}
    for row, runs in rows.items():
        known = {run.seed: both for run in runs if (both := predictions(run)) is not None}
        wrong[row] = {seed: (predicted != label, label) for seed, (predicted, label) in known.items()}
    pairs: dict[tuple[str, str], dict[int, Discordant]] = {}
    for first, second in combinations(wrong, 2):
        for seed in sorted(wrong[first].keys() & wrong[second].keys()):
            (a, label), (b, label_b) = wrong[first][seed], wrong[second][seed]
            if label.shape == label_b.shape and (label == label_b).all():
                discordant = Discordant(int((a & ~b).sum()), int((b & ~a).sum()))
                pairs.setdefault((first, second), {})[seed] = discordant
    adjusted = holm([combined_p(list(seeds.values())) for seeds in pairs.values()])
    return [Pair(*rows, seeds, p) for (rows, seeds), p in zip(pairs.items(), adjusted)]


def combined_p(seeds: Sequence[Discordant]) -> float:
    """Return the p-value of "in some seed both are wrong equally often": the largest of the seeds', by the
    intersection-union principle (Berger, Technometrics 24, 1982); 1 where the seeds disagree about the better one."""
    directions = {counts.first < counts.second for counts in seeds}
    return max(counts.p for counts in seeds) if len(directions) == 1 else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons (Holm, Scand. J. Stat. 6, 1979)."""
    adjusted, largest = [1.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted
