"""The test scores of each task, their format, and whether the errors of two networks differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Score(NamedTuple):
    """Hold one of the final metrics of a run, and how it is written: with so many places, of form `g` digits.

    low, high  between which every value of it lies
    """

    title: str
    name: str
    places: int
    factor: float = 1
    form: str = "f"
    low: float = 0.0
    high: float = math.inf

    def text(self, value: float) -> str:
        """Return the value without its unit, as a cell of a table."""
        return f"{self.factor * value:.{self.places}{self.form}}"

    def sentence(self, value: float) -> str:
        """Return name, value and unit: error 3.61 %, NLL 1.234 nat."""
        name, _, unit = self.title.replace(" %", ", %").partition(", ")
        return f"{name} {self.text(value)} {unit}".strip()


SIGNED = -math.inf  # the `low` of what may be below 0
ERROR = Score("error %", "error", 2, 100, high=1)
# A task is known by the first of these metrics that it has: a latent variable has a `kl` too, beside an `nll`.
TASK_SCORES = {
    "error": (ERROR,),
    "rmse": (Score("RMSE", "rmse", 4, form="g"), Score("R²", "r2", 3, low=SIGNED, high=1)),
    "rate_error": (Score("rate error", "rate_error", 3), Score("gap, nats an event", "gap", 4, low=SIGNED)),
    "rmse_further_clean": (Score("RMSE, clean", "rmse_further_clean", 3),),
    "rmse_further_noisy": (Score("RMSE, noisy", "rmse_further_noisy", 3),),
    "r2": (
        Score("R²", "r2", 4, low=SIGNED, high=1),
        Score("R², held out", "r2_held_out", 4, low=SIGNED, high=1),
    ),
    "nll": (
        Score("NLL, nat", "nll", 3, low=SIGNED),
        Score("in the data's units, nat", "nll_data", 3, low=SIGNED),
        Score("gap, nat", "gap", 3, low=SIGNED),
    ),
    "kl": (Score("KL, nat", "kl", 4, low=SIGNED),),  # as estimated from samples
}
RANGES = {score.name: (score.low, score.high) for scores in TASK_SCORES.values() for score in scores}
SCORE_NAMES = tuple(RANGES)
RANGES |= {"loss": (SIGNED, math.inf), "valid_error": (0.0, 1.0), "outside": (0.0, 1.0)}


def range_of(name: str) -> tuple[float, float]:
    """Return the least and the largest value that a measure of a run can have."""
    return RANGES.get(name, (0.0, math.inf))


def value_names(record: Mapping[str, Any]) -> list[str]:
    """Return the names of the values that a regression predicts."""
    count = record["outputs"]
    return record.get("target") or (["y"] if count == 1 else [f"y{k + 1}" for k in range(count)])


def mcnemar_p(first: int, second: int) -> float:
    """Return the exact two-sided p-value of McNemar (1947), where so many samples only the first, and only the second
    of two networks has wrong: by chance either has half of these."""
    from scipy.special import bdtr  # the distribution of scipy.stats.binom, without its second of import

    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5)))


def scores_of(final: Mapping[str, Any]) -> list[Score]:
    """Return the main test scores of a run with these final metrics."""
    scores = next((scores for name, scores in TASK_SCORES.items() if name in final), ())
    return [score for score in scores if score.name in final]


def scores_among(finals: Iterable[Mapping[str, Any]]) -> list[Score]:
    """Return the main test scores of any of the runs."""
    return list(dict.fromkeys(score for final in finals for score in scores_of(final)))
