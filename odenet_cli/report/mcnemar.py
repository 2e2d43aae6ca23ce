"""Which networks can be told apart by their answers to the same test samples, seed by seed.

McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12
(1947), in its exact form: of the samples that just one of two networks has wrong, either has half by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy
from scipy.special import bdtr

from odenet_cli.errors import RequestError
from odenet_cli.report.runs import Run, first_line

LEVEL = 0.05


class Discordant(NamedTuple):
    """How many samples only the first, and only the second of two networks has wrong."""

    first: int
    second: int

    @property
    def p(self) -> float:
        """The two-sided p-value of both being as often wrong."""
        return min(1.0, 2 * float(bdtr(min(self), sum(self), 0.5)))


class Pair(NamedTuple):
    """Two rows of a table on the same samples.

    seeds     seed -> what just one of the two networks of this seed has wrong
    adjusted  p-value of the pair (`p_of`), with Holm's correction for all pairs of the table
    """

    first: str
    second: str
    seeds: dict[int, Discordant]
    adjusted: float

    @property
    def told(self) -> tuple[str, str] | None:
        """(the row with fewer errors, the other), where they are told apart."""
        if self.adjusted > LEVEL:
            return None
        one = next(iter(self.seeds.values()))
        return (self.first, self.second) if one.first < one.second else (self.second, self.first)


def answers(run: Run) -> tuple[Any, Any] | None:
    """Return what a finished classifier answered to the test samples, and the labels, (N,) each; None without file."""
    path = run.folder / "predictions.npz"
    if not run.done or not path.exists():
        return None
    try:
        with numpy.load(path) as kept:
            predicted, label = kept["predicted"], kept["label"]
        if predicted.shape != label.shape or predicted.ndim != 1:
            raise ValueError(f"{predicted.shape} answers to {label.shape} labels")
    except Exception as error:  # whatever a damaged file makes a parser raise
        raise RequestError(f"{path} is damaged: {first_line(error)}.") from error
    return predicted, label


def pairs(rows: Mapping[str, Sequence[Run]]) -> list[Pair]:
    """Return every pair of rows that answered the same samples in a seed; none where no answers were kept."""
    wrong: dict[str, dict[int, tuple[Any, Any]]] = {}
    for row, runs in rows.items():
        known = {run.seed: both for run in runs if (both := answers(run)) is not None}
        wrong[row] = {seed: (predicted != label, label) for seed, (predicted, label) in known.items()}
    found: dict[tuple[str, str], dict[int, Discordant]] = {}
    for first, second in combinations(wrong, 2):
        for seed in sorted(wrong[first].keys() & wrong[second].keys()):
            (mine, label), (theirs, other) = wrong[first][seed], wrong[second][seed]
            if numpy.array_equal(label, other):
                discordant = Discordant(int((mine & ~theirs).sum()), int((theirs & ~mine).sum()))
                found.setdefault((first, second), {})[seed] = discordant
    adjusted = holm([p_of(list(seeds.values())) for seeds in found.values()])
    return [Pair(*names, seeds, p) for (names, seeds), p in zip(found.items(), adjusted)]


def p_of(seeds: Sequence[Discordant]) -> float:
    """Return the p-value of "in some seed both are as often wrong": the largest of the seeds', by the
    intersection-union principle (Berger, Technometrics 24, 1982); 1 where the seeds disagree who is better."""
    better = {one.first < one.second for one in seeds}
    return max(one.p for one in seeds) if len(better) == 1 else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being many (Holm, Scand. J. Stat. 6, 1979)."""
    adjusted, largest = [1.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted
