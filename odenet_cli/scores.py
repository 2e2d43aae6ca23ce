"""Which test scores each task is judged by, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Score(NamedTuple):
    """Hold one of the final metrics of a run, and how it is written: with so many places, of form `g` digits."""

    title: str
    name: str
    places: int
    factor: float = 1
    form: str = "f"

    def text(self, value: float) -> str:
        """Return the value without its unit, as a cell of a table."""
        return f"{self.factor * value:.{self.places}{self.form}}"

    def sentence(self, value: float) -> str:
        """Return name, value and unit: error 3.61 %, NLL 1.234 nat."""
        name, _, unit = self.title.replace(" %", ", %").partition(", ")
        return f"{name} {self.text(value)} {unit}".strip()


ERROR = Score("error %", "error", 2, 100)
# A task is known by the first of these metrics that it has: a latent variable has a `kl` too, beside an `nll`.
TASK_SCORES = {
    "error": (ERROR,),
    "rmse": (Score("RMSE", "rmse", 4, form="g"), Score("R²", "r2", 3)),
    "rate_error": (Score("rate error", "rate_error", 3), Score("gap, nats an event", "gap", 4)),
    "rmse_further_clean": (Score("RMSE, clean", "rmse_further_clean", 3),),
    "rmse_further_noisy": (Score("RMSE, noisy", "rmse_further_noisy", 3),),
    "r2": (Score("R²", "r2", 4), Score("R², held out", "r2_held_out", 4)),
    "nll": (
        Score("NLL, nat", "nll", 3),
        Score("in the data's units, nat", "nll_data", 3),
        Score("gap, nat", "gap", 3),
    ),
    "kl": (Score("KL, nat", "kl", 4),),
}
SCORE_NAMES = tuple(dict.fromkeys(score.name for scores in TASK_SCORES.values() for score in scores))


def scores_of(final: Mapping[str, Any]) -> list[Score]:
    """Return the main test scores of a run with these final metrics."""
    scores = next((scores for name, scores in TASK_SCORES.items() if name in final), ())
    return [score for score in scores if score.name in final]


def scores_among(finals: Iterable[Mapping[str, Any]]) -> list[Score]:
    """Return the main test scores of any of the runs."""
    return list(dict.fromkeys(score for final in finals for score in scores_of(final)))
